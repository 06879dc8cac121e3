// Package builtin is the table of all GA built-in kinds of Kubernetes v1.36: 22 group-versions, 68 resources.
//
// Invariant: the table is built once and never changes; a server that adds custom resources does so in a table of
// its own. Any package may import builtin.
package builtin

import (
	"sync"

	"github.com/skiff-sh/skiff/api"
)

// Table returns the built-in rows. It is shared and must not be added to: make a table of your own from Kinds.
var Table = sync.OnceValue(func() *api.Table { return api.NewTable(Kinds()...) })
