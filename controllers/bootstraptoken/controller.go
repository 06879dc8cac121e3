// Package bootstraptoken signs the ConfigMap cluster-info with bootstrap tokens, by which a node that joins knows the
// cluster, and removes tokens that have run out.
//
// Invariant: the ConfigMap carries a signature for exactly the tokens that may sign and have not run out. Only
// controllers/ may import bootstraptoken.
package bootstraptoken

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// Names that kubeadm and the API server know too.
const (
	secretPrefix = "bootstrap-token-"
	configName   = "cluster-info"
	configKey    = "kubeconfig"
	signatureKey = "jws-kubeconfig-"
)

var (
	tokenID     = regexp.MustCompile(`^[a-z0-9]{6}$`)
	tokenSecret = regexp.MustCompile(`^[a-z0-9]{16}$`)
	ofTokens    = client.Fields("type=" + string(corev1.SecretTypeBootstrapToken))
)

func tokens(cs *client.Caches) *client.Cache[*corev1.Secret] {
	return client.CacheOf[*corev1.Secret](cs, ofTokens)
}

// expiry is when a token runs out; false if it does not. One whose time cannot be read has run out.
func expiry(s *corev1.Secret) (time.Time, bool) {
	text := string(s.Data["expiration"])
	if text == "" {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, true
	}
	return t, true
}

// Cleaner is the controller that deletes tokens that have run out.
func Cleaner(d reconcile.Deps) reconcile.Controller {
	all := tokens(d.Caches)
	return reconcile.Controller{
		Name: "token-cleaner-controller", Workers: 1,
		Inputs: []reconcile.Input{reconcile.Own[*corev1.Secret](d.Caches, ofTokens)},
		Writes: []string{"secrets"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			s, ok := all.Get(key.Namespace, key.Name)
			if !ok || s.Namespace != metav1.NamespaceSystem || s.DeletionTimestamp != nil {
				return reconcile.Result{}, nil
			}
			at, ends := expiry(s)
			if !ends {
				return reconcile.Result{}, nil
			}
			if left := at.Sub(d.Clock.Now()); left > 0 {
				return reconcile.Result{After: left}, nil
			}
			return reconcile.Result{}, plan.Apply(ctx, d, plan.Delete{Obj: s})
		},
	}
}

// Signer is the controller that signs cluster-info. It has one key.
func Signer(d reconcile.Deps) reconcile.Controller {
	all, configs := tokens(d.Caches), client.CacheOf[*corev1.ConfigMap](d.Caches)
	it := []reconcile.Key{{Namespace: metav1.NamespacePublic, Name: configName}}
	return reconcile.Controller{
		Name: "bootstrap-signer-controller", Workers: 1,
		Inputs: []reconcile.Input{
			reconcile.Map(d.Caches, func(_, _ *corev1.Secret) []reconcile.Key { return it }, ofTokens),
			reconcile.Map(d.Caches, func(_, new *corev1.ConfigMap) []reconcile.Key {
				if new == nil || plan.KeyOf(new) != it[0] {
					return nil
				}
				return it
			}),
		},
		Writes: []string{"configmaps"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			cm, ok := configs.Get(key.Namespace, key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			actions, again := Sign(cm, all.List(metav1.NamespaceSystem), d.Clock.Now())
			return reconcile.Result{After: again}, plan.Apply(ctx, d, actions...)
		},
	}
}

// Sign brings the signatures up to date, and says when the next token runs out.
func Sign(cm *corev1.ConfigMap, secrets []*corev1.Secret, now time.Time) (actions []plan.Action, again time.Duration) {
	content, ok := cm.Data[configKey]
	if !ok {
		return nil, 0
	}
	want := map[string]string{}
	for k, v := range cm.Data {
		if !strings.HasPrefix(k, signatureKey) {
			want[k] = v
		}
	}
	for _, s := range secrets {
		id, secret, ok := signing(s)
		if !ok {
			continue
		}
		if at, ends := expiry(s); ends {
			left := at.Sub(now)
			if left <= 0 {
				continue
			}
			if again == 0 || left < again {
				again = left
			}
		}
		want[signatureKey+id] = detached(content, id, secret)
	}
	if maps.Equal(want, cm.Data) {
		return nil, again
	}
	cm = cm.DeepCopy()
	cm.Data = want
	return []plan.Action{plan.Update{Obj: cm}}, again
}

// signing reads a token that may sign.
func signing(s *corev1.Secret) (id, secret string, ok bool) {
	id, secret = string(s.Data["token-id"]), string(s.Data["token-secret"])
	return id, secret, s.DeletionTimestamp == nil && s.Name == secretPrefix+id && tokenID.MatchString(id) && tokenSecret.MatchString(secret) &&
		string(s.Data["usage-bootstrap-signing"]) == "true"
}

// detached is a JSON web signature (RFC 7515, appendix F): without the content, which stands beside it. Tokens' secrets
// are shorter than RFC 7518 wants keys to be, so libraries refuse them.
func detached(content, id, secret string) string {
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"` + id + `"}`)) // an id is letters and digits
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(head + "." + base64.RawURLEncoding.EncodeToString([]byte(content))))
	return head + ".." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
