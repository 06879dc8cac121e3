// Package image packs container images from local files, with no container engine and no registry.
//
// Invariant: the same Spec over the same files gives the same bytes. Every time is the Unix epoch, every file
// belongs to root, and entries are in path order; only names, contents, permissions and symlinks are carried over.
//
// Any package may import it; it imports nothing of Skiff.
package image
