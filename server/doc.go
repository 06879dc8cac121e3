// Package server is the API server: the request's way from the socket to the store and back, in order: recovery, who
// asks for what (request), authentication, audit, impersonation, flow control (flow), authorization, and the verbs
// (rest), which run admission and validation and write to the store.
//
// Invariants: every request, over HTTP or in the process (Local), passes the same authorization, admission and
// validation. No handler knows a kind by name. Nothing here is a process-wide variable: two servers can share a
// process.
//
// Only daemon imports server.
package server
