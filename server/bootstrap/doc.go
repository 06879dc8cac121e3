// Package bootstrap is what a new cluster is born with: upstream's namespaces, roles, bindings, priority classes,
// the service range, and the Service of the API server itself.
//
// Invariant: everything is created when missing and never taken away. What users changed stays, but for default roles
// and bindings that still say autoupdate: they get back what they lost. A second start only reads.
//
// Only server and daemon import bootstrap.
package bootstrap
