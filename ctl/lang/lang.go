// Package lang keeps kubectl's translations from being read by commands that are not kubectl: half of the time that
// they would need to start.
//
// Invariant: its init runs before that of any of kubectl's packages with texts, because Go initializes packages whose
// dependencies are ready in the order of their paths, and this one needs only i18n. Only ctl imports lang.
package lang

import (
	"os"
	"slices"

	"k8s.io/kubectl/pkg/util/i18n"
)

func init() {
	if slices.Contains(os.Args, "kubectl") {
		return // it reads them itself
	}
	// The error is that they have been read already, which is only slower.
	_ = i18n.SetLoadTranslationsFunc(func() error { return nil })
}
