// Package scheduler finds a node for every pod, against Skiff's or an upstream API server.
//
// Data flow: cache events -> core.Cluster and the queue -> core decides -> binding and status writes beside the loop.
// One goroutine owns the cluster and the queue. What a decision takes is assumed at once, so that the next decision sees
// it; a binding that fails gives it back.
//
// Invariants: every pod that names one of the profiles and has no node is in the queue, or on its way to a node. A pod that
// fits nowhere is tried again only when something changed that may help it (hints.go), and after five minutes.
//
// Only daemon may import scheduler; the core below it is also for ctl. It meets the other components in the API alone.
package scheduler
