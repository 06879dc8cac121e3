// Package tokens issues and verifies service account tokens: JWTs as upstream writes them (KEP-1205), bound to a pod, a
// node or a secret, and the older ones that secrets hold.
//
// Invariant: a token counts only while everything that it is bound to exists with the same UID; what was found is
// believed for ten seconds. Keys never leave the package.
//
// Only server and its folders, and daemon, import tokens.
package tokens
