// Package script tells cluster stories: txtar scripts (testdata/*.txtar) that drive the real binary with real etcd,
// containerd and containers, as a user would.
//
// Invariant: the stories run on an instance of their own (its name, ports and address ranges differ from the default
// ones), so a developer's cluster is left alone, and they leave the machine as they found it. They need root and
// the build tag "stories"; "make stories" runs them.
package script
