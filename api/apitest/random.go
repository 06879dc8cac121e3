// Package apitest makes random objects for tests of everything that takes any object.
//
// Invariant: the same seed gives the same objects. Only tests import apitest.
package apitest

import (
	"math/rand"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/randfill"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/codec"
)

// Source makes random objects. It is not safe for concurrent use.
type Source struct{ f *randfill.Filler }

// New seeds a source.
func New(seed int64) *Source {
	f := fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(seed), serializer.NewCodecFactory(codec.Scheme()))
	// Schemas nest in themselves, without end.
	return &Source{f: f.MaxDepth(20).Funcs(func(s *apiextensionsv1.JSONSchemaProps, _ randfill.Continue) { s.Type = "object" })}
}

// Object makes one object of the row, with its apiVersion and kind.
func (s *Source) Object(k *api.Kind) api.Object {
	obj := k.New()
	s.f.Fill(obj)
	obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind())
	return obj
}
