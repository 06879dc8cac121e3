// Package node is the node agent: it runs the pods that are bound to one node, and says how they and the node are.
//
// Invariant: what a pod needs next is decided by one pure function, lifecycle.Step, from the desired pod and what the
// container runtime reports; this package only gathers its inputs and carries out its actions. Nothing that is needed
// to go on after a restart lives in memory alone: it is in the API, in the runtime's labels and annotations, or under
// Config.RootDir. An idle agent does nothing but renew its lease: everything else is an event or a due timer.
//
// daemon imports node; node imports reconcile, client and api, and talks to the runtime over CRI alone.
package node
