// Package serviceaccounttoken fills Secrets of type kubernetes.io/service-account-token with a token of the account
// that they name, removes them with their account, and retires those that nobody has used for a long time.
//
// Invariant: a token is only ever written for an account that exists with the UID that the Secret names, and a Secret
// is removed for the lack of its account only after a live read shows it. Only controllers/ may import
// serviceaccounttoken.
package serviceaccounttoken

import (
	"bytes"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// Config is what tokens are made of.
type Config struct {
	Sign   Signer
	RootCA []byte // PEM; empty: the Secrets have none
}

// secrets is the cache of token Secrets alone: others may be many and large.
func secrets(cs *client.Caches) *client.Cache[*corev1.Secret] {
	return client.CacheOf[*corev1.Secret](cs, ofTokens)
}

var ofTokens = client.Fields("type=" + string(corev1.SecretTypeServiceAccountToken))

const byAccount = "account"

func accountOf(s *corev1.Secret) string {
	return s.Namespace + "/" + s.Annotations[corev1.ServiceAccountNameKey]
}

// New is the token controller. Its keys are Secrets.
func New(d reconcile.Deps, cfg Config) reconcile.Controller {
	cs := d.Caches
	all, accounts := secrets(cs), client.CacheOf[*corev1.ServiceAccount](cs)
	all.AddIndex(byAccount, func(s *corev1.Secret) []string { return []string{accountOf(s)} })
	c := &controller{Deps: d, cfg: cfg, secrets: all, accounts: accounts}
	return reconcile.Controller{
		Name: "serviceaccount-token-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*corev1.Secret](cs, ofTokens),
			reconcile.Map(cs, func(old, new *corev1.ServiceAccount) (keys []reconcile.Key) {
				if old != nil && new != nil && old.UID == new.UID {
					return nil
				}
				a := new
				if a == nil {
					a = old
				}
				for _, s := range all.By(byAccount, a.Namespace+"/"+a.Name) {
					keys = append(keys, plan.KeyOf(s))
				}
				return keys
			}),
		},
		Writes:    []string{"secrets", "serviceaccounts"},
		Reconcile: c.reconcile,
	}
}

type controller struct {
	reconcile.Deps
	cfg      Config
	secrets  *client.Cache[*corev1.Secret]
	accounts *client.Cache[*corev1.ServiceAccount]
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	s, ok := c.secrets.Get(key.Namespace, key.Name)
	if !ok {
		return reconcile.Result{}, plan.Apply(ctx, c.Deps, Forget(key, c.accounts.List(key.Namespace))...)
	}
	name := s.Annotations[corev1.ServiceAccountNameKey]
	if name == "" || s.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	account, _ := c.accounts.Get(s.Namespace, name)
	if !names(s, account) {
		live, err := client.Get[*corev1.ServiceAccount](ctx, c.Client, s.Namespace, name)
		if err != nil && !apierrors.IsNotFound(err) {
			return reconcile.Result{}, err
		}
		if account = live; !names(s, account) {
			return reconcile.Result{}, plan.Apply(ctx, c.Deps, plan.Delete{Obj: s})
		}
	}
	actions, err := Fill(s, account, c.cfg)
	if err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, plan.Apply(ctx, c.Deps, actions...)
}

// names reports whether the Secret means this account (nil: none).
func names(s *corev1.Secret, a *corev1.ServiceAccount) bool {
	if a == nil {
		return false
	}
	uid, ok := s.Annotations[corev1.ServiceAccountUIDKey]
	return !ok || uid == "" || uid == string(a.UID)
}

// Fill completes the Secret of an account.
func Fill(s *corev1.Secret, a *corev1.ServiceAccount, cfg Config) ([]plan.Action, error) {
	rightCA := len(cfg.RootCA) == 0 || bytes.Equal(s.Data[corev1.ServiceAccountRootCAKey], cfg.RootCA)
	hasToken, hasNamespace := len(s.Data[corev1.ServiceAccountTokenKey]) > 0, len(s.Data[corev1.ServiceAccountNamespaceKey]) > 0
	if rightCA && hasToken && hasNamespace {
		return nil, nil
	}
	s = s.DeepCopy()
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	if !rightCA {
		s.Data[corev1.ServiceAccountRootCAKey] = cfg.RootCA
	}
	if !hasNamespace {
		s.Data[corev1.ServiceAccountNamespaceKey] = []byte(s.Namespace)
	}
	if !hasToken {
		token, err := cfg.Sign(s, a)
		if err != nil {
			return nil, err
		}
		s.Data[corev1.ServiceAccountTokenKey] = []byte(token)
	}
	s.Annotations[corev1.ServiceAccountNameKey], s.Annotations[corev1.ServiceAccountUIDKey] = a.Name, string(a.UID)
	return []plan.Action{plan.Update{Obj: s}}, nil
}

// Forget takes a Secret that is gone off the accounts that list it.
func Forget(secret reconcile.Key, accounts []*corev1.ServiceAccount) (actions []plan.Action) {
	for _, a := range accounts {
		listed := func(r corev1.ObjectReference) bool { return r.Name == secret.Name }
		if !slices.ContainsFunc(a.Secrets, listed) {
			continue
		}
		a = a.DeepCopy()
		a.Secrets = slices.DeleteFunc(a.Secrets, listed)
		actions = append(actions, plan.Update{Obj: a})
	}
	return actions
}
