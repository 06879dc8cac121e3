// Package core holds the rows of the core group in the table of kinds.
//
// Invariant: everything here is a pure function of the objects it is given. Only the group folders of api and
// api/builtin import it.
package core

import "github.com/skiff-sh/skiff/api"

// Kinds lists the group's rows in upstream's order of discovery. Rows are shared and never change.
func Kinds() []*api.Kind {
	return []*api.Kind{
		binding,
		componentStatus,
		configMap,
		endpoints,
		Event,
		limitRange,
		namespace,
		node,
		persistentVolumeClaim,
		persistentVolume,
		pod,
		podTemplate,
		replicationController,
		resourceQuota,
		secret,
		serviceAccount,
		service,
	}
}
