// Package rest is the verbs: get, list, watch, create, update, patch, apply, delete and their subresources, for every
// row of the table by the same code, on top of the store.
//
// Invariant: no handler knows a kind by name; what is special about a kind is in its row, in an admission plugin, in a
// Claim, or in an Extension. Only server imports rest.
package rest

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/skiff-sh/skiff/api"
)

// Action serves a POST that stores no object of its own: an action subresource ("pods/eviction",
// "serviceaccounts/token") or a kind without storage ("authorization.k8s.io/subjectaccessreviews"). The request's
// Info is in ctx, obj is the decoded and defaulted body; parent is the stored object that the subresource hangs on
// (nil for a kind without storage).
type Action func(ctx context.Context, parent api.Object, obj runtime.Object, dryRun bool) (runtime.Object, error)

// Claim reserves what an object needs outside itself while it is written (a service's addresses and node ports). It may
// fill fields of obj; old is nil on create, obj is nil on delete. done is called once with the outcome; on false
// everything reserved is given back.
type Claim = func(ctx context.Context, obj, old api.Object, dryRun bool) (done func(ok bool), err error)

// Extensions is what other packages add to the verbs.
type Extensions struct {
	// Actions by "resource.group/subresource" or "resource.group" ("pods/eviction" in the core group).
	Actions map[string]Action
	// Claims by "resource.group".
	Claims map[string]Claim
}
