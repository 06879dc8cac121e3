// Package aggregation lets other API servers serve a part of the API: an APIService names a group-version and the Service
// behind which its server stands. It registers the group-versions that are served here, finds out which of the others can
// be reached, passes requests on to them in the name of the user, and gathers their discovery and OpenAPI documents.
//
// Invariants: authorization has passed before a request is handed to Serve, and the identity headers that a client sent
// never reach an extension server. What one extension server does or leaves undone costs the others nothing: each has a
// goroutine and connections of its own, and what is read of it is bounded. The routes are a function of the APIServices in
// the store, so all servers of a cluster agree on them.
//
// Only server imports aggregation.
package aggregation
