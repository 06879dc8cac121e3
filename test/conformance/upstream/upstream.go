// Package upstream pins the Kubernetes release whose end-to-end suite judges Skiff, and the programs that go into
// the suite's images. Nothing imports this package: it exists so that go.mod and go.sum cover what
// test/conformance builds from it. Kubernetes' own modules stay out of Skiff's module that way.
package upstream
