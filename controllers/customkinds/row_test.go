package customkinds

import (
	"context"
	"testing"
	"testing/synctest"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/client/clienttest"
	"github.com/skiff-sh/skiff/reconcile"
)

func definition(established apiextensionsv1.ConditionStatus) *apiextensionsv1.CustomResourceDefinition {
	return &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "toys.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1alpha1", Served: true}, {Name: "v1", Served: true, Storage: true}}},
		Status: apiextensionsv1.CustomResourceDefinitionStatus{AcceptedNames: apiextensionsv1.CustomResourceDefinitionNames{Plural: "toys", Singular: "toy", Kind: "Toy", ListKind: "ToyList"},
			Conditions: []apiextensionsv1.CustomResourceDefinitionCondition{{Type: apiextensionsv1.Established, Status: established}}}}
}

func TestTableFollowsTheDefinitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a := clienttest.New(nil, definition(apiextensionsv1.ConditionFalse))
		caches, table := client.NewCaches(a, nil), api.NewTable(builtin.Kinds()...)
		builtins := len(table.Kinds())
		c := New(reconcile.NewDeps("x", a, caches, nil, nil), table)
		done := make(chan error, 2)
		go func() { done <- caches.Run(ctx) }()
		go func() { done <- reconcile.Run(ctx, reconcile.Options{}, c) }()
		synctest.Wait()
		if n := len(table.Kinds()); n != builtins {
			t.Errorf("%d rows more before it is established", n-builtins)
		}
		a.Put(definition(apiextensionsv1.ConditionTrue))
		synctest.Wait()
		k, ok := table.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "toys"})
		if !ok || !k.CRD || !k.Namespaced || k.New().GetObjectKind().GroupVersionKind().Kind != "Toy" {
			t.Fatalf("row %+v", k)
		}
		if err := client.Delete[*apiextensionsv1.CustomResourceDefinition](ctx, a, "", "toys.example.com", ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(table.Kinds()); n != builtins {
			t.Errorf("%d rows are left over", n-builtins)
		}
		cancel()
		<-done
		<-done
	})
}
