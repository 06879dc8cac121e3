// Package version says what this build is. Any package may import it.
package version

// Build is the build's own version, set by the linker.
var Build = "dev"

const (
	// Kubernetes is the release whose API and behaviour this build serves.
	Kubernetes = "v1.36.3"
	Major      = "1"
	Minor      = "36"
)

// String is how the server names itself ("v1.36.3+skiff"): semantic versioning's build part, so that clients compare it
// as the Kubernetes release.
func String() string { return Kubernetes + "+skiff" }
