// Package admission judges and completes objects on their way in, between authorization and the store.
//
// Invariant: plugins are pure with respect to the cluster: they read snapshots and change only Request.Object (in
// Admit). Errors are *errors.StatusError as upstream words them. The chain runs all mutators, then validation, then all
// validators; it runs again when an update is retried after a conflict, so a plugin must give the same answer twice.
//
// Only server and its folders import admission.
package admission

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/api"
)

// Operation is what a write does.
type Operation string

const (
	Create  Operation = "CREATE"
	Update  Operation = "UPDATE"
	Delete  Operation = "DELETE"
	Connect Operation = "CONNECT"
)

// Request is one write on its way in.
type Request struct {
	Operation       Operation
	Kind            *api.Kind
	Subresource     string
	Namespace, Name string
	// Object is the new state (nil for Delete), a private copy that mutators may change. For an action or connect
	// subresource it is the body. Old is the stored state (nil for Create), shared and read-only.
	Object, Old runtime.Object
	Options     runtime.Object // *metav1.CreateOptions, UpdateOptions, PatchOptions or DeleteOptions
	User        user.Info
	DryRun      bool
	// Warn adds a Warning header to the answer.
	Warn func(text string)

	// Requested is the row that the client spoke to, where that is another version of Kind; nil: Kind.
	Requested *api.Kind
	// Round counts how often the mutators have been asked before: 0, or 1 after one of them set Again because it
	// changed what others had seen already. Memo is what a plugin keeps from one round to the next, by its name.
	Round int
	Again bool
	Memo  map[string]any
}

// Plugin is one admission plugin, with upstream's name ("LimitRanger"). It is a Mutator, a Validator, or both.
type Plugin interface {
	Name() string
	// Handles keeps the chain cheap: a plugin is asked only about what it cares for.
	Handles(op Operation, k *api.Kind, subresource string) bool
}

// Mutator may change Request.Object.
type Mutator interface {
	Plugin
	Admit(ctx context.Context, r *Request) error
}

// Validator may only refuse.
type Validator interface {
	Plugin
	Validate(ctx context.Context, r *Request) error
}

// Chain is the plugins in upstream's order. The zero Chain lets everything pass.
type Chain struct {
	plugins []Plugin
	meter   *meter // nil: nothing is measured
}

// NewChain makes a chain that is measured in a registry; nil: it is not.
func NewChain(r prometheus.Registerer, plugins ...Plugin) Chain {
	c := Chain{plugins: plugins}
	if r != nil {
		c.meter = newMeter(r, plugins)
	}
	return c
}

// Plugins are the chain's, in its order.
func (c Chain) Plugins() []Plugin { return c.plugins }

// Admit asks all mutators, once more if one of them wants that.
func (c Chain) Admit(ctx context.Context, r *Request) error {
	r.Round, r.Again = 0, false
	if err := c.admit(ctx, r); err != nil || !r.Again {
		return err
	}
	r.Round++
	return c.admit(ctx, r)
}

func (c Chain) admit(ctx context.Context, r *Request) (err error) {
	end := c.step(admitStep, r.Operation)
	defer func() { end.whole(err) }()
	for i, p := range c.plugins {
		if m, ok := p.(Mutator); ok && p.Handles(r.Operation, r.Kind, r.Subresource) {
			err := m.Admit(ctx, r)
			if end.plugin(i, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// Validate asks all validators.
func (c Chain) Validate(ctx context.Context, r *Request) (err error) {
	end := c.step(validateStep, r.Operation)
	defer func() { end.whole(err) }()
	for i, p := range c.plugins {
		if v, ok := p.(Validator); ok && p.Handles(r.Operation, r.Kind, r.Subresource) {
			err := v.Validate(ctx, r)
			if end.plugin(i, err); err != nil {
				return err
			}
		}
	}
	return nil
}
