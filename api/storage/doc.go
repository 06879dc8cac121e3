// Package storage holds the rows of storage.k8s.io in the table of kinds.
//
// Invariant: everything here is a pure function of the objects it is given. Only the group folders of api and
// api/builtin import it.
package storage

import "github.com/skiff-sh/skiff/api"

// Kinds lists the group's rows in upstream's order of discovery. Rows are shared and never change.
func Kinds() []*api.Kind {
	return []*api.Kind{
		csiDriver,
		csiNode,
		csiStorageCapacity,
		storageClass,
		volumeAttachment,
		volumeAttributesClass,
	}
}
