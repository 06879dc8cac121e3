// Package seal finds out who changes shared objects. Built with the tag "sealed", it keeps a checksum of every object
// that is added and panics when one no longer matches; otherwise it costs nothing.
//
// Invariant: without the tag nothing is kept and no method does anything. store/etcd and client import it.
package seal
