// Package admissionpolicy tells in the status of ValidatingAdmissionPolicies which of their expressions do not fit the
// types that they are about.
//
// Invariant: a check changes nothing but the policy's status, and a type whose schema is not known is taken to fit. Only
// controllers/ may import admissionpolicy.
package admissionpolicy

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	regv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/openapi"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

type controller struct {
	reconcile.Deps
	policies *client.Cache[*regv1.ValidatingAdmissionPolicy]
	kinds    *api.Table
}

// New is the controller of policies' status. Schemas come from the server's OpenAPI documents.
func New(d reconcile.Deps, kinds *api.Table) reconcile.Controller {
	c := &controller{Deps: d, policies: client.CacheOf[*regv1.ValidatingAdmissionPolicy](d.Caches), kinds: kinds}
	return reconcile.Controller{
		Name: "validatingadmissionpolicy-status-controller",
		Inputs: []reconcile.Input{reconcile.Map(d.Caches, func(_, new *regv1.ValidatingAdmissionPolicy) []reconcile.Key {
			if new == nil || new.Generation <= new.Status.ObservedGeneration {
				return nil
			}
			return []reconcile.Key{plan.KeyOf(new)}
		})},
		Writes:    []string{"admissionregistration.k8s.io/validatingadmissionpolicies/status"},
		Reconcile: c.reconcile,
	}
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	p, ok := c.policies.Get("", key.Name)
	if !ok || p.Generation <= p.Status.ObservedGeneration {
		return reconcile.Result{}, nil
	}
	schemas := documents{ctx: ctx, client: c.Client, known: map[schema.GroupVersion]map[string]*spec.Schema{}}
	var types []Type
	for _, kind := range c.kindsOf(p) {
		decl, err := schemas.declare(kind)
		if err != nil {
			return reconcile.Result{}, err
		}
		if decl != nil {
			types = append(types, Type{kind, decl})
		}
	}
	var params *apiservercel.DeclType
	if k := p.Spec.ParamKind; k != nil {
		var err error
		if params, err = schemas.declare(schema.FromAPIVersionAndKind(k.APIVersion, k.Kind)); err != nil {
			return reconcile.Result{}, err
		}
	}
	warnings, err := Check(p, types, params)
	if err != nil {
		return reconcile.Result{}, err
	}
	p = p.DeepCopy()
	p.Status.ObservedGeneration = p.Generation
	p.Status.TypeChecking = &regv1.TypeChecking{ExpressionWarnings: warnings}
	return reconcile.Result{}, plan.Apply(ctx, c.Deps, plan.Status(p))
}

// kindsOf are the kinds of the policy's resources, as far as they are served.
func (c *controller) kindsOf(p *regv1.ValidatingAdmissionPolicy) (out []schema.GroupVersionKind) {
	for _, r := range Resources(p) {
		for _, k := range c.kinds.Kinds() {
			if k.GroupVersionResource() == r && len(out) < maxTypes {
				out = append(out, k.GroupVersionKind())
			}
		}
	}
	return out
}

// documents reads the OpenAPI documents of group versions, each once.
type documents struct {
	ctx    context.Context
	client client.Interface
	known  map[schema.GroupVersion]map[string]*spec.Schema
}

const (
	references   = "#/components/schemas/"
	kindsOfModel = "x-kubernetes-group-version-kind"
)

// declare is the CEL type of a kind; nil if the server does not describe it.
func (d documents) declare(kind schema.GroupVersionKind) (*apiservercel.DeclType, error) {
	models, err := d.models(kind.GroupVersion())
	if err != nil {
		return nil, err
	}
	for name, m := range models {
		var described []schema.GroupVersionKind
		if m.Extensions.GetObject(kindsOfModel, &described) != nil {
			continue
		}
		for _, k := range described {
			if k != kind {
				continue
			}
			whole, err := resolver.PopulateRefs(func(ref string) (*spec.Schema, bool) {
				s, ok := models[strings.TrimPrefix(ref, references)]
				return s, ok
			}, name)
			if err != nil {
				return nil, fmt.Errorf("the schema of %v: %w", kind, err)
			}
			if decl := common.SchemaDeclType(&openapi.Schema{Schema: whole}, true); decl != nil {
				return decl.MaybeAssignTypeName("kubernetes." + kind.Kind), nil
			}
			return nil, nil
		}
	}
	return nil, nil
}

func (d documents) models(gv schema.GroupVersion) (map[string]*spec.Schema, error) {
	if m, ok := d.known[gv]; ok {
		return m, nil
	}
	path := "/openapi/v3/apis/" + gv.String()
	if gv.Group == "" {
		path = "/openapi/v3/api/" + gv.Version
	}
	b, err := client.Raw(d.ctx, d.client, "GET", path, nil, nil)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var doc struct {
		Components struct {
			Schemas map[string]*spec.Schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("GET %s: %w", path, err)
	}
	d.known[gv] = doc.Components.Schemas
	return doc.Components.Schemas, nil
}
