// Package proxy makes services work on one node: it turns services and their endpoint slices into nftables rules.
//
// Data flow: cache events name the services that changed -> compile (pure: service, slices, node -> rules) -> ruleSet
// (pure: which change is due to the whole) -> nft (that change, over netlink, in one transaction).
//
// The rules of a packet do not grow with the number of services: one lookup by address, protocol and port leads to the
// chain of a service, and one lookup there, by a random number, to a backend; with affinity each backend is asked first
// whether it knows the client. A change costs what it changes: the elements of the backends that come and go, not those of
// the others.
//
// Invariant: a state is a value, and the kernel's table is a function of it; however a state was reached, the table is the
// same but for the order in which a chain numbers its backends. Only daemon may import proxy.
package proxy
