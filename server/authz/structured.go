package authz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/load"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/cel"
	"k8s.io/apiserver/pkg/util/filesystem"
	"k8s.io/apiserver/pkg/util/webhook"
	authzwebhook "k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
)

// StructuredConfig is where an AuthorizationConfiguration is.
type StructuredConfig struct {
	// File is read at once, and again when it changes; a change that is wrong leaves everything as it was. Modes that
	// were there at first stay; only webhooks come and go.
	File string
	// Reloaded hears how each attempt to read the file again ended; nil: nobody does.
	Reloaded func(err error)
	Log      *slog.Logger
}

// structured is the file behind a Chain.
type structured struct {
	StructuredConfig
	compiler cel.Compiler
	read     []byte // the file, as it was last judged
	config   *apiserver.AuthorizationConfiguration
	first    []string // the modes at the start
}

// Structured is the chain of an AuthorizationConfiguration. Its Run follows the file.
func (a *Authorizer) Structured(c StructuredConfig) (*Chain, error) {
	f := &structured{StructuredConfig: c, compiler: cel.NewDefaultCompiler()}
	b, err := os.ReadFile(c.File)
	if err != nil {
		return nil, err
	}
	f.read = b
	if f.config, err = f.parse(b, nil); err != nil {
		return nil, err
	}
	f.first = types(f.config)
	chain := &Chain{Authorizer: a, file: f}
	return chain, chain.use(f.config)
}

// Check tells what is wrong with a configuration.
func Check(c StructuredConfig) error {
	_, err := new(Authorizer).Structured(c)
	return err
}

// parse reads and checks a configuration, in which the needed types must occur.
func (f *structured) parse(b []byte, needed []string) (*apiserver.AuthorizationConfiguration, error) {
	c, err := load.LoadFromData(b)
	if err != nil {
		return nil, fmt.Errorf("failed to load AuthorizationConfiguration from file: %w", err)
	}
	known := sets.New(modeNames...)
	if errs := validation.ValidateAuthorizationConfiguration(f.compiler, nil, c, known, sets.New("Webhook")); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	var errs []error
	there := types(c)
	for _, one := range c.Authorizers {
		if want := strings.ToLower(string(one.Type)); one.Type != apiserver.TypeWebhook && one.Name != want {
			errs = append(errs, fmt.Errorf("expected name %s for authorizer %s instead of %s", want, one.Type, one.Name))
		}
		if w := one.Webhook; w != nil && w.ConnectionInfo.KubeConfigFile == nil {
			errs = append(errs, fmt.Errorf("webhook %s: a connection of type %s is not supported here, only KubeConfigFile", one.Name, w.ConnectionInfo.Type))
		}
	}
	if missing := slices.DeleteFunc(slices.Clone(needed), func(t string) bool { return slices.Contains(there, t) }); len(missing) > 0 {
		errs = append(errs, fmt.Errorf("missing required types: %v", missing))
	}
	return c, errors.Join(errs...)
}

// types are the modes of a configuration but for webhooks, sorted.
func types(c *apiserver.AuthorizationConfiguration) []string {
	var out []string
	for _, one := range c.Authorizers {
		if one.Type != apiserver.TypeWebhook {
			out = append(out, string(one.Type))
		}
	}
	slices.Sort(out)
	return out
}

// use makes the configuration the chain's.
func (c *Chain) use(conf *apiserver.AuthorizationConfiguration) error {
	modes := make([]mode, len(conf.Authorizers))
	for i, one := range conf.Authorizers {
		modes[i].name = string(one.Type)
		if one.Type == apiserver.TypeWebhook {
			w, err := Webhook(one.Name, one.Webhook)
			if err != nil {
				return fmt.Errorf("webhook %s: %w", one.Name, err)
			}
			modes[i].webhook = w
		}
	}
	links, err := c.Authorizer.links(modes)
	if err == nil {
		c.links.Store(&links)
	}
	return err
}

// Run follows the chain's file, if it has one, until ctx ends.
func (c *Chain) Run(ctx context.Context) error {
	f := c.file
	if f == nil {
		return nil
	}
	filesystem.WatchUntil(ctx, time.Minute, f.File, func() {
		changed, err := c.reread()
		switch {
		case err != nil:
			f.Log.Error("the authorization configuration stays as it was", "file", f.File, "err", err)
		case changed:
			f.Log.Info("the authorization configuration was read again", "file", f.File)
		default:
			return
		}
		if f.Reloaded != nil {
			f.Reloaded(err)
		}
	}, func(err error) { f.Log.Warn("the authorization configuration cannot be watched", "err", err) })
	return nil
}

func (c *Chain) reread() (changed bool, err error) {
	f := c.file
	b, err := os.ReadFile(f.File)
	if err != nil || bytes.Equal(b, f.read) {
		return false, err
	}
	f.read = b
	conf, err := f.parse(b, f.first)
	if err != nil {
		return false, err
	}
	for _, t := range []string{"Node", "RBAC"} {
		if slices.Contains(types(conf), t) && !slices.Contains(f.first, t) {
			return false, fmt.Errorf("authorizer type %s is not allowed if it was not enabled at initial server startup", t)
		}
	}
	if reflect.DeepEqual(conf, f.config) {
		return false, nil
	}
	if err := c.use(conf); err != nil {
		return false, err
	}
	f.config = conf
	return true, nil
}

// Webhook asks the server of a kubeconfig.
func Webhook(name string, w *apiserver.WebhookConfiguration) (authorizer.Authorizer, error) {
	c, err := webhook.LoadKubeconfig(*w.ConnectionInfo.KubeConfigFile, nil)
	if err != nil {
		return nil, err
	}
	if w.Timeout.Duration != 0 {
		c.Timeout = w.Timeout.Duration
	}
	allowed, denied := w.AuthorizedTTL.Duration, w.UnauthorizedTTL.Duration
	if !w.CacheAuthorizedRequests {
		allowed = 0
	}
	if !w.CacheUnauthorizedRequests {
		denied = 0
	}
	onError := authorizer.DecisionNoOpinion
	if w.FailurePolicy == apiserver.FailurePolicyDeny {
		onError = authorizer.DecisionDeny
	}
	return authzwebhook.New(c, w.SubjectAccessReviewVersion, allowed, denied, webhook.DefaultRetryBackoffWithInitialDelay(500*time.Millisecond),
		onError, w.MatchConditions, name, metrics.NoopAuthorizerMetrics{}, cel.NewDefaultCompiler())
}
