// Package daemon builds a running instance out of the components: the one place that knows all of them, their
// configuration, the order in which they start and stop, and who each of them is.
//
// Invariant: components meet in the API alone; daemon hands each a client that carries its own identity, and nothing of
// another component. What starts later stops earlier, and the store is closed last. ctl and cmd/skiff may import daemon.
package daemon
