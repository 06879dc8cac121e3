// Package customkinds keeps a table of kinds in step with the custom resources of a cluster whose API server runs
// elsewhere, for controllers that work on all kinds: the garbage collector, namespaces and quotas.
//
// Invariant: the table holds its other rows and one row for each established CustomResourceDefinition, of the version
// that is stored. Nobody else adds custom rows to the table. Only controllers/ may import customkinds.
package customkinds

import (
	"context"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/reconcile"
)

// New is what follows the definitions. Its keys are their names.
func New(d reconcile.Deps, table *api.Table) reconcile.Controller {
	definitions := client.CacheOf[*apiextensionsv1.CustomResourceDefinition](d.Caches)
	return reconcile.Controller{
		Name: "custom-kinds", Workers: 1,
		Inputs: []reconcile.Input{reconcile.Own[*apiextensionsv1.CustomResourceDefinition](d.Caches)},
		Reconcile: func(_ context.Context, key reconcile.Key) (reconcile.Result, error) {
			var rows []*api.Kind
			if crd, ok := definitions.Get("", key.Name); ok {
				if k := Row(crd); k != nil {
					rows = append(rows, k)
				}
			}
			mine := func(k *api.Kind) bool { return k.CRD && k.Plural+"."+k.Group == key.Name }
			for _, k := range table.Kinds() {
				if mine(k) && len(rows) == 1 && k.Version == rows[0].Version && k.Kind == rows[0].Kind && k.Namespaced == rows[0].Namespaced {
					return reconcile.Result{}, nil // watchers of the row go on
				}
			}
			return reconcile.Result{}, table.Replace(mine, rows...)
		},
	}
}

// Row is the row of an established definition's stored version; nil if there is none to speak of.
func Row(crd *apiextensionsv1.CustomResourceDefinition) *api.Kind {
	established := false
	for _, c := range crd.Status.Conditions {
		established = established || c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	}
	for _, v := range crd.Spec.Versions {
		if !established || !v.Storage || !v.Served {
			continue
		}
		k := &api.Kind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Status.AcceptedNames.Kind, Plural: crd.Status.AcceptedNames.Plural,
			Singular: crd.Status.AcceptedNames.Singular, Namespaced: crd.Spec.Scope == apiextensionsv1.NamespaceScoped,
			StoragePath: crd.Spec.Group + "/" + crd.Status.AcceptedNames.Plural, CRD: true}
		k.New = func() api.Object {
			u := &unstructured.Unstructured{}
			u.SetGroupVersionKind(k.GroupVersionKind())
			return u
		}
		k.NewList = func() runtime.Object {
			l := &unstructured.UnstructuredList{}
			l.SetGroupVersionKind(k.GroupVersion().WithKind(crd.Status.AcceptedNames.ListKind))
			return l
		}
		return k
	}
	return nil
}
