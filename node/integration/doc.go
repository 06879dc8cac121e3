// Package integration runs the node agent against a real containerd and an API that is faked (clienttest). It holds
// tests only: they need root and runc, and leave the machine as it was found.
package integration
