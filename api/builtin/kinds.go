package builtin

import "github.com/skiff-sh/skiff/api"

// Kinds lists all rows, group by group in upstream's order of discovery.
func Kinds() []*api.Kind { return nil }
