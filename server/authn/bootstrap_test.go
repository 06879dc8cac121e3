package authn

import (
	"context"
	"maps"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

func TestBootstrapTokens(t *testing.T) {
	const token = "abcdef.0123456789abcdef"
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	good := map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}
	for _, c := range []struct {
		name, token string
		change      map[string]string
		typ         corev1.SecretType
		groups      []string // nil: refused
	}{
		{"good", token, nil, bootstrapType, []string{"system:bootstrappers", "system:authenticated"}},
		{"groups", token, map[string]string{"auth-extra-groups": "system:bootstrappers:a,system:bootstrappers:b"}, bootstrapType,
			[]string{"system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:b", "system:authenticated"}},
		{"a group that is no bootstrapper's", token, map[string]string{"auth-extra-groups": "system:masters"}, bootstrapType, nil},
		{"not yet expired", token, map[string]string{"expiration": "2026-01-01T00:00:01Z"}, bootstrapType, []string{"system:bootstrappers", "system:authenticated"}},
		{"expired", token, map[string]string{"expiration": "2026-01-01T00:00:00Z"}, bootstrapType, nil},
		{"no time", token, map[string]string{"expiration": "tomorrow"}, bootstrapType, nil},
		{"for signing only", token, map[string]string{"usage-bootstrap-authentication": "false"}, bootstrapType, nil},
		{"another secret", "abcdef.0123456789abcdee", nil, bootstrapType, nil},
		{"another ID within", token, map[string]string{"token-id": "abcdeg"}, bootstrapType, nil},
		{"another type", token, nil, corev1.SecretTypeOpaque, nil},
		{"no such secret", "bbbbbb.0123456789abcdef", nil, bootstrapType, nil},
		{"no bootstrap token", "abcdef", nil, bootstrapType, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-abcdef"}, Type: c.typ, Data: map[string][]byte{}}
			text := maps.Clone(good)
			maps.Copy(text, c.change)
			for k, v := range text {
				s.Data[k] = []byte(v)
			}
			a := New(Config{Now: func() time.Time { return now }, BootstrapSecret: func(_ context.Context, namespace, name string) (*corev1.Secret, bool, error) {
				return s, namespace == s.Namespace && name == s.Name, nil
			}})
			req := httptest.NewRequest("GET", "/", nil)
			req.Header.Set("Authorization", "Bearer "+c.token)
			r, ok, err := a.AuthenticateRequest(req)
			if c.groups == nil {
				if ok || err == nil {
					t.Fatalf("got in as %v", r)
				}
				return
			}
			if err != nil || r.User.GetName() != "system:bootstrap:abcdef" || !slices.Equal(r.User.GetGroups(), c.groups) {
				t.Fatalf("%v %v", r, err)
			}
		})
	}
}

// A webhook is asked last, of tokens that nobody else knows.
func TestTokenWebhook(t *testing.T) {
	asked := 0
	a := New(Config{Static: map[string]user.Info{"sesame": &user.DefaultInfo{Name: "ali"}},
		Webhook: authenticator.TokenFunc(func(_ context.Context, token string) (*authenticator.Response, bool, error) {
			asked++
			return &authenticator.Response{User: &user.DefaultInfo{Name: "w"}}, token == "far", nil
		})})
	for token, want := range map[string]string{"sesame": "ali", "far": "w", "wrong": ""} {
		req := httptest.NewRequest("GET", "/", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		r, ok, _ := a.AuthenticateRequest(req)
		if ok != (want != "") || ok && r.User.GetName() != want {
			t.Errorf("%s: %v %v", token, r, ok)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}
