package client

// Caches is a set of caches over one client, one for each kind that anybody in the component asked for.
type Caches struct{}
