package aggregation

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/skiff-sh/skiff/server/internal/read"
)

const (
	checkInterval = 30 * time.Second // between checks of a server that answers, and the longest after one that failed
	checkTimeout  = 5 * time.Second
	checkAttempts = 5 // of which one must succeed: a Service may have endpoints that are just dying
)

// keep looks after one extension server until ctx ends: whether it can be reached, and what it serves. It looks again
// whenever its Service or endpoints change or a request could not be passed on, and from time to time, since networks fail
// without telling.
func (s *Server) keep(ctx context.Context, r *Remote) {
	defer r.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ref := r.spec.Service
	go s.notify(ctx, read.Kind[*corev1.Service]().Key(ref.Namespace, ref.Name), r.changed)
	go s.notify(ctx, read.Kind[*discoveryv1.EndpointSlice]().Prefix(ref.Namespace), r.changed)
	delay := time.Duration(0)
	for {
		c := s.check(ctx, r)
		if ctx.Err() != nil {
			return
		}
		ok := c.Status == apiregistrationv1.ConditionTrue
		if ok {
			ok = s.fetch(ctx, r)
		}
		r.looked.Store(true)
		if err := s.setAvailable(ctx, r.name, c); err != nil {
			if ctx.Err() != nil {
				return
			}
			s.Log.Warn("writing an APIService's condition", "name", r.name, "error", err)
			ok = false
		}
		if delay = checkInterval; !ok && c.Reason != "ServiceNotFound" {
			delay = r.backoff()
		} else if ok {
			r.failures = 0
		}
		if wait(ctx, r.changed, delay) != nil {
			return
		}
	}
}

// backoff is the time until the next try after a failure: it doubles from a fifth of a second to checkInterval.
func (r *Remote) backoff() time.Duration {
	d := min(200*time.Millisecond<<min(r.failures, 10), checkInterval)
	r.failures++
	return d
}

// check finds out whether the server can be reached.
func (s *Server) check(ctx context.Context, r *Remote) apiregistrationv1.APIServiceCondition {
	c := apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionFalse}
	if c.Reason, c.Message = s.place(r.spec.Service).fault(r.spec.Service); c.Reason != "" {
		return c
	}
	if err := s.reach(ctx, r); err != nil {
		c.Reason, c.Message = "FailedDiscoveryCheck", err.Error()
		return c
	}
	c.Status, c.Reason, c.Message = apiregistrationv1.ConditionTrue, "Passed", "all checks passed"
	return c
}

// reach asks for the document that every extension server has: once, and after a failure several times at once.
func (s *Server) reach(ctx context.Context, r *Remote) error {
	ctx, cancel := context.WithTimeout(ctx, 2*checkTimeout)
	defer cancel()
	try := func() error {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		a, err := s.ask(ctx, r, r.root(), nil)
		if err == nil && (a.code < http.StatusOK || a.code >= http.StatusMultipleChoices) {
			err = fmt.Errorf("failing or missing response from %s: bad status from %[1]s: %d", a.url, a.code)
		}
		return err
	}
	err := try()
	if err == nil || ctx.Err() != nil {
		return err
	}
	results := make(chan error, checkAttempts-1)
	for range checkAttempts - 1 {
		go func() { results <- try() }()
	}
	for range checkAttempts - 1 {
		if err = <-results; err == nil {
			break
		}
	}
	return err
}
