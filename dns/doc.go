// Package dns is the cluster's name server on one node: the zone of services and pods (Kubernetes DNS-Based Service
// Discovery, version 1.1.0), and forwarding of everything else.
//
// Data flow: cache events -> zone (immutable entries, one a service, replaced as a whole) -> answer (pure) -> the wire.
// The server listens on the address of the node's bridge, and is found by the service kube-system/kube-dns, whose
// endpoints each node's part keeps for itself.
//
// Invariant: answering takes no lock, and never asks the API. Only daemon may import dns.
package dns
