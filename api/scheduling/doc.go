// Package scheduling holds the rows of scheduling.k8s.io in the table of kinds.
//
// Invariant: everything here is a pure function of the objects it is given. Only the group folders of api and
// api/builtin import it, and scheduler for PodGroup, which is in no table.
package scheduling

import "github.com/skiff-sh/skiff/api"

// Kinds lists the group's rows in upstream's order of discovery. Rows are shared and never change.
func Kinds() []*api.Kind {
	return []*api.Kind{
		priorityClass,
	}
}
