// Package webhook asks the admission webhooks that MutatingWebhookConfiguration and ValidatingWebhookConfiguration
// objects name.
//
// Invariant: configurations are compiled once per revision; where there are none, a request costs a look at the
// cache. Webhooks are never asked about webhook configurations and admission policies. Only
// server/admission/plugins imports webhook.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	regv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/admission/match"
	"github.com/skiff-sh/skiff/server/internal/callout"
	"github.com/skiff-sh/skiff/store"
)

// Config is what the plugins need; Store and Kinds are required. Match conditions may ask the Authorizer.
type Config struct {
	Store      store.Store
	Kinds      *api.Table
	Authorizer authorizer.Authorizer
	Metrics    prometheus.Registerer // nil: nobody counts
	Log        *slog.Logger
	// Credentials are shown to webhooks. Nil: none.
	Credentials *callout.Credentials
}

func (c Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// hook is one compiled webhook of a configuration.
type hook struct {
	id           string // unique among all hooks
	name         string
	rules        []regv1.RuleWithOperations
	policy       *regv1.MatchPolicyType
	selectors    match.Selectors
	conditions   func() matchconditions.Matcher // nil: none
	ignore       bool                           // failurePolicy Ignore
	dryRun       bool                           // may be asked about dry runs
	reinvoke     bool
	version      string // of the review, "v1" or "v1beta1"
	client       *callout.Client
	invalid      error // what is wrong with the configuration
	rejectsPatch bool  // a validating webhook
}

// settings is what both kinds of webhooks have.
type settings struct {
	config            string
	index             int
	name              string
	client            regv1.WebhookClientConfig
	rules             []regv1.RuleWithOperations
	failure           *regv1.FailurePolicyType
	policy            *regv1.MatchPolicyType
	namespace, object *metav1.LabelSelector
	effects           *regv1.SideEffectClass
	timeout           *int32
	versions          []string
	conditions        []regv1.MatchCondition
	reinvoke          bool
	validating        bool
}

func (c Config) compile(s settings) *hook {
	h := &hook{id: fmt.Sprintf("%s/%s/%d", s.config, s.name, s.index), name: s.name, rules: s.rules, policy: s.policy,
		ignore: s.failure != nil && *s.failure == regv1.Ignore, reinvoke: s.reinvoke, rejectsPatch: s.validating,
		dryRun: s.effects != nil && (*s.effects == regv1.SideEffectClassNone || *s.effects == regv1.SideEffectClassNoneOnDryRun)}
	if len(s.conditions) > 0 {
		h.conditions = match.Conditions(s.conditions, s.failure, "webhook", s.name)
	}
	for _, v := range s.versions {
		if v == "v1" || v == "v1beta1" {
			h.version = v
			break
		}
	}
	var errs [2]error
	h.selectors, errs[0] = match.NewSelectors(s.namespace, s.object)
	h.client, errs[1] = c.client(s.client, s.timeout)
	h.invalid = errors.Join(errs[:]...)
	if h.version == "" {
		h.invalid = errors.Join(h.invalid, errors.New("webhook does not accept known AdmissionReview versions (v1, v1beta1)"))
	}
	return h
}

const defaultTimeout = 10 * time.Second

func (c Config) client(w regv1.WebhookClientConfig, seconds *int32) (*callout.Client, error) {
	timeout := defaultTimeout
	if seconds != nil {
		timeout = time.Duration(*seconds) * time.Second
	}
	return callout.New(c.Store, callout.Config{URL: w.URL, Service: (*callout.Service)(w.Service), CA: w.CABundle, Timeout: timeout,
		Agent: "kube-apiserver-admission", Credentials: c.Credentials})
}

// about finds the version in which a hook is to see the request; nil if it is not to see it.
func (c Config) about(ctx context.Context, h *hook, t *match.Target) (*match.View, error) {
	row := t.Rules(h.policy, h.rules)
	if row == nil {
		return nil, nil
	}
	ok, err := t.Selected(h.selectors)
	if err != nil || !ok {
		return nil, err
	}
	v, err := t.View(row)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if h.conditions != nil {
		r := h.conditions().Match(ctx, t.Attributes(v), nil, c.Authorizer)
		if r.Error != nil {
			return nil, apierrors.NewForbidden(t.Requested().GroupResource(), t.Name, r.Error)
		}
		if !r.Matches {
			return nil, nil
		}
	}
	return v, nil
}

// Validating is the plugin ValidatingAdmissionWebhook.
type Validating struct {
	cfg   Config
	count *metrics
	hooks *match.Source[*regv1.ValidatingWebhookConfiguration, []*hook]
}

// NewValidating makes the plugin.
func NewValidating(cfg Config) *Validating {
	return &Validating{cfg, newMetrics(cfg.Metrics), match.NewSource(cfg.Store, func(o *regv1.ValidatingWebhookConfiguration) []*hook {
		var out []*hook
		for i := range o.Webhooks {
			w := &o.Webhooks[i]
			out = append(out, cfg.compile(settings{config: o.Name, index: i, name: w.Name, client: w.ClientConfig, rules: w.Rules,
				failure: w.FailurePolicy, policy: w.MatchPolicy, namespace: w.NamespaceSelector, object: w.ObjectSelector,
				effects: w.SideEffects, timeout: w.TimeoutSeconds, versions: w.AdmissionReviewVersions,
				conditions: w.MatchConditions, validating: true}))
		}
		return out
	})}
}

// Name implements admission.Plugin.
func (*Validating) Name() string { return "ValidatingAdmissionWebhook" }

// Handles implements admission.Plugin.
func (*Validating) Handles(_ admission.Operation, k *api.Kind, _ string) bool {
	return !match.Exempt(k)
}

// Validate asks all webhooks at once, and gives the first refusal in the order of the configurations.
func (p *Validating) Validate(ctx context.Context, r *admission.Request) error {
	configs := p.hooks.All()
	if len(configs) == 0 {
		return nil
	}
	type call struct {
		h       *hook
		review  *review
		err     error
		warning []string
	}
	var calls []*call
	t := match.NewTarget(p.cfg.Store, p.cfg.Kinds, r)
	for _, hooks := range configs {
		for _, h := range hooks {
			v, err := p.cfg.about(ctx, h, t)
			if err != nil {
				return err
			}
			if v == nil {
				continue
			}
			rv, err := newReview(h, t, v)
			if err != nil {
				return err
			}
			calls = append(calls, &call{h: h, review: rv})
		}
	}
	var wg sync.WaitGroup
	for _, c := range calls {
		wg.Go(func() {
			begin := time.Now()
			a, err := c.h.ask(ctx, c.review)
			if a != nil {
				c.warning = a.Warnings
				c.h.annotate(ctx, a)
			}
			c.err = p.cfg.judge(ctx, c.h, err)
			p.count.observe(c.h, r.Operation, time.Since(begin), err, c.err == nil && err != nil)
		})
	}
	wg.Wait()
	for _, c := range calls {
		for _, w := range c.warning {
			r.Warn(w)
		}
	}
	for _, c := range calls {
		if c.err != nil {
			return c.err
		}
	}
	return nil
}

// judge turns a call's error into the request's, or forgets it where the webhook may fail.
func (c Config) judge(ctx context.Context, h *hook, err error) error {
	var failed *callError
	if !errors.As(err, &failed) {
		return err
	}
	if h.ignore && ctx.Err() == nil {
		c.log().Warn("admission webhook failed and is ignored", "webhook", h.name, "error", failed.reason)
		return nil
	}
	return apierrors.NewInternalError(failed)
}

// Mutating is the plugin MutatingAdmissionWebhook.
type Mutating struct {
	cfg   Config
	count *metrics
	hooks *match.Source[*regv1.MutatingWebhookConfiguration, []*hook]
}

// NewMutating makes the plugin.
func NewMutating(cfg Config) *Mutating {
	return &Mutating{cfg, newMetrics(cfg.Metrics), match.NewSource(cfg.Store, func(o *regv1.MutatingWebhookConfiguration) []*hook {
		var out []*hook
		for i := range o.Webhooks {
			w := &o.Webhooks[i]
			out = append(out, cfg.compile(settings{config: o.Name, index: i, name: w.Name, client: w.ClientConfig, rules: w.Rules,
				failure: w.FailurePolicy, policy: w.MatchPolicy, namespace: w.NamespaceSelector, object: w.ObjectSelector,
				effects: w.SideEffects, timeout: w.TimeoutSeconds, versions: w.AdmissionReviewVersions,
				conditions: w.MatchConditions,
				reinvoke:   w.ReinvocationPolicy != nil && *w.ReinvocationPolicy == regv1.IfNeededReinvocationPolicy}))
		}
		return out
	})}
}

// Name implements admission.Plugin.
func (*Mutating) Name() string { return "MutatingAdmissionWebhook" }

// Handles implements admission.Plugin.
func (*Mutating) Handles(_ admission.Operation, k *api.Kind, _ string) bool { return !match.Exempt(k) }

// Admit asks the webhooks one after the other. In the second round it asks only those that want to see what was
// changed after they had been asked.
func (p *Mutating) Admit(ctx context.Context, r *admission.Request) error {
	configs := p.hooks.All()
	if len(configs) == 0 {
		return nil
	}
	t := match.NewTarget(p.cfg.Store, p.cfg.Kinds, r)
	rounds := admission.BeginRound(r, p.Name())
	defer rounds.End(r)
	for _, hooks := range configs {
		for _, h := range hooks {
			if !rounds.Wants(r, h.id) {
				continue
			}
			asked, changed, err := p.call(ctx, h, t)
			if err != nil {
				return err
			}
			if changed {
				rounds.Changed(r)
			}
			if asked && h.reinvoke {
				rounds.Asked(h.id)
			}
		}
	}
	return nil
}

func (p *Mutating) call(ctx context.Context, h *hook, t *match.Target) (asked, changed bool, err error) {
	v, err := p.cfg.about(ctx, h, t)
	if v == nil || err != nil {
		return false, false, err
	}
	rv, err := newReview(h, t, v)
	if err != nil {
		return true, false, err
	}
	begin := time.Now()
	a, err := h.ask(ctx, rv)
	if a != nil {
		for _, w := range a.Warnings {
			t.Warn(w)
		}
		h.annotate(ctx, a)
	}
	verdict := p.cfg.judge(ctx, h, err)
	p.count.observe(h, t.Operation, time.Since(begin), err, verdict == nil && err != nil)
	if err != nil {
		return true, false, verdict
	}
	changed, err = h.patch(t, v, rv, a.Patch)
	return true, changed, err
}
