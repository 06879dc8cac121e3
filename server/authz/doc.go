// Package authz decides whether a user may do something: members of system:masters always may, nodes may by the node
// authorizer's rules, everybody may by RBAC.
//
// Invariant: a decision reads only memory and makes no calls. The RBAC index follows the store's watch, so a new binding
// counts within a moment of its creation; a node's references are read from the cache itself and are never behind it.
// Nobody is ever denied by authz: what no rule allows is "no opinion", as upstream's authorizers say it.
//
// Only server and its folders import authz.
package authz
