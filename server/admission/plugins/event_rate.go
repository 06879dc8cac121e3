package plugins

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/lru"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
)

// eventRateLimit refuses events that come faster than its configuration lets them. It is off by default.
type eventRateLimit struct {
	limits []*eventLimit
	now    func() time.Time
}

// eventLimit has a token bucket for each of what it tells apart.
type eventLimit struct {
	Type      string `json:"type"`
	QPS       int32  `json:"qps"`
	Burst     int32  `json:"burst"`
	CacheSize int32  `json:"cacheSize"` // how many it keeps in mind; 0 is 4096
	buckets   *lru.Cache
}

// eventKeys are what limits tell apart, by type.
var eventKeys = map[string]func(r *admission.Request) string{
	"Server":    func(*admission.Request) string { return "" },
	"Namespace": func(r *admission.Request) string { return r.Namespace },
	"User":      userName,
	"SourceAndObject": func(r *admission.Request) string {
		e, ok := r.Object.(*corev1.Event)
		if !ok {
			return ""
		}
		o := e.InvolvedObject
		return strings.Join([]string{e.Source.Component, e.Source.Host, o.Kind, o.Namespace, o.Name, string(o.UID), o.APIVersion}, "")
	},
}

func userName(r *admission.Request) string {
	if r.User == nil {
		return ""
	}
	return r.User.GetName()
}

func newEventRateLimit(d Deps, b []byte) (admission.Plugin, error) {
	var c struct {
		metav1.TypeMeta `json:",inline"`
		Limits          []*eventLimit `json:"limits"`
	}
	if b == nil {
		return nil, errors.New("it needs a configuration")
	}
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		return nil, err
	}
	if want := (metav1.TypeMeta{APIVersion: "eventratelimit.admission.k8s.io/v1alpha1", Kind: "Configuration"}); c.TypeMeta != want {
		return nil, fmt.Errorf("%s %s is no %s of %s", c.APIVersion, c.Kind, want.Kind, want.APIVersion)
	}
	var errs field.ErrorList
	at := field.NewPath("limits")
	if len(c.Limits) == 0 {
		errs = append(errs, field.Invalid(at, c.Limits, "must not be empty"))
	}
	for i, l := range c.Limits {
		if eventKeys[l.Type] == nil {
			errs = append(errs, field.NotSupported(at.Index(i).Child("type"), l.Type, []string{"Namespace", "Server", "SourceAndObject", "User"}))
		}
		if l.Burst <= 0 {
			errs = append(errs, field.Invalid(at.Index(i).Child("burst"), l.Burst, "must be positive"))
		}
		if l.QPS <= 0 {
			errs = append(errs, field.Invalid(at.Index(i).Child("qps"), l.QPS, "must be positive"))
		}
		if l.CacheSize < 0 {
			errs = append(errs, field.Invalid(at.Index(i).Child("cacheSize"), l.CacheSize, "must not be negative"))
		} else if l.CacheSize == 0 {
			l.CacheSize = 4096
		}
	}
	if err := errs.ToAggregate(); err != nil {
		return nil, err
	}
	for _, l := range c.Limits {
		l.buckets = lru.New(int(l.CacheSize))
	}
	return &eventRateLimit{c.Limits, d.Now}, nil
}

func (*eventRateLimit) Name() string { return "EventRateLimit" }
func (*eventRateLimit) Handles(op admission.Operation, k *api.Kind, _ string) bool {
	return in(op, admission.Create, admission.Update) && is(k, "", "events")
}

func (p *eventRateLimit) Validate(_ context.Context, r *admission.Request) error {
	if r.DryRun {
		return nil
	}
	var errs []error
	for _, l := range p.limits { // each of them counts the event
		key := eventKeys[l.Type](r)
		if !l.bucket(key).AllowN(p.now(), 1) {
			errs = append(errs, fmt.Errorf("limit reached on type %v for key %v", l.Type, key))
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		return apierrors.NewTooManyRequestsError(err.Error())
	}
	return nil
}

// bucket is the key's. Two requests that are the first at once may get one each: the one that stays counts from then on.
func (l *eventLimit) bucket(key string) *rate.Limiter {
	if b, ok := l.buckets.Get(key); ok {
		return b.(*rate.Limiter)
	}
	b := rate.NewLimiter(rate.Limit(l.QPS), int(l.Burst))
	l.buckets.Add(key, b)
	return b
}
