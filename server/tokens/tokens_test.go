package tokens

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"

	"github.com/skiff-sh/skiff/server/internal/memstore"
)

const issuerURL = "https://kubernetes.default.svc.cluster.local"

type world struct {
	*Issuer
	st  *memstore.Store
	now time.Time
	sa  *corev1.ServiceAccount
	pod *corev1.Pod
}

func meta(ns, name, uid string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name, UID: types.UID(uid)}
}

func newKey(t testing.TB) crypto.Signer {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newWorld(t testing.TB, key crypto.Signer) *world {
	w := &world{st: memstore.New(), now: time.Unix(1_800_000_000, 0),
		sa:  &corev1.ServiceAccount{ObjectMeta: meta("a", "robot", "u-sa")},
		pod: &corev1.Pod{ObjectMeta: meta("a", "p", "u-pod"), Spec: corev1.PodSpec{ServiceAccountName: "robot", NodeName: "n"}}}
	w.st.Put(w.sa)
	w.st.Put(w.pod)
	w.st.Put(&corev1.Node{ObjectMeta: meta("", "n", "u-node")})
	var err error
	w.Issuer, err = New(Config{Issuer: issuerURL, Key: key, Lookup: FromStore(w.st), Audiences: []string{issuerURL, "api"},
		Now: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) issue(t testing.TB, seconds int64, to *authenticationv1.BoundObjectReference, audiences ...string) *authenticationv1.TokenRequest {
	t.Helper()
	r, err := w.Issue(t.Context(), w.sa, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: audiences, ExpirationSeconds: &seconds, BoundObjectRef: to}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func toPod() *authenticationv1.BoundObjectReference {
	return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u-pod"}
}

func body(t testing.TB, token string) map[string]any {
	p, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := p.UnsafeClaimsWithoutVerification(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestClaims(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"RS256": rsaKey, "ES256": newKey(t)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, key)
			r := w.issue(t, 3607, toPod())
			got := body(t, r.Status.Token)
			delete(got, "jti")
			b, _ := json.Marshal(got)
			want := `{"aud":["https://kubernetes.default.svc.cluster.local","api"],"exp":1831536000,"iat":1800000000,` +
				`"iss":"https://kubernetes.default.svc.cluster.local","kubernetes.io":{"namespace":"a","node":{"name":"n","uid":"u-node"},` +
				`"pod":{"name":"p","uid":"u-pod"},"serviceaccount":{"name":"robot","uid":"u-sa"},"warnafter":1800003607},` +
				`"nbf":1800000000,"sub":"system:serviceaccount:a:robot"}`
			if string(b) != want {
				t.Errorf("got  %s\nwant %s", b, want)
			}
			if r.Status.ExpirationTimestamp.Unix() != 1800003607 {
				t.Errorf("expires %v", r.Status.ExpirationTimestamp)
			}
			resp, ok, err := w.AuthenticateToken(t.Context(), r.Status.Token)
			if !ok || err != nil {
				t.Fatal(ok, err)
			}
			u, _ := json.Marshal(resp.User)
			if s := string(u); !strings.Contains(s, `"system:serviceaccounts:a"`) || !strings.Contains(s, `"authentication.kubernetes.io/pod-uid":["u-pod"]`) ||
				!strings.Contains(s, `"authentication.kubernetes.io/node-name":["n"]`) || !strings.Contains(s, `"authentication.kubernetes.io/credential-id":["JTI=`) {
				t.Errorf("user %s", u)
			}
			if !strings.Contains(string(w.JWKS()), `"alg":"`+name+`"`) || !strings.Contains(string(w.OpenIDConfiguration()), `"jwks_uri":"`+issuerURL+`/openid/v1/jwks"`) {
				t.Errorf("%s %s", w.JWKS(), w.OpenIDConfiguration())
			}
		})
	}
}

func TestRequests(t *testing.T) {
	w := newWorld(t, newKey(t))
	w.st.Put(&corev1.Pod{ObjectMeta: meta("a", "stranger", "x"), Spec: corev1.PodSpec{ServiceAccountName: "other"}})
	for _, c := range []struct {
		seconds int64
		to      *authenticationv1.BoundObjectReference
		want    string
	}{
		{599, nil, "may not specify a duration less than 10 minutes"},
		{1<<32 + 1, nil, "may not specify a duration larger than 2^32 seconds"},
		{600, &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "none"}, `pods "none" not found`},
		{600, &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "old"}, "the UID in the bound object reference (old) does not match the UID in record"},
		{600, &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "stranger"}, `cannot bind token for serviceaccount "robot" to pod running with different serviceaccount name.`},
		{600, &authenticationv1.BoundObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"}, "cannot bind token to object of type apps/v1, Kind=Deployment"},
	} {
		_, err := w.Issue(t.Context(), w.sa, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &c.seconds, BoundObjectRef: c.to}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	if r := w.issue(t, 3600, toPod()); body(t, r.Status.Token)["exp"] != float64(1800003600) {
		t.Error("only the admission plugin's 3607 seconds are extended")
	}
	if r := w.issue(t, 3607, toPod(), "vault"); body(t, r.Status.Token)["exp"] != float64(1800003607) {
		t.Error("only tokens for the API server are extended")
	}
}

// TestBinding changes the world after a token was issued.
func TestBinding(t *testing.T) {
	key := newKey(t)
	for _, c := range []struct {
		name   string
		to     *authenticationv1.BoundObjectReference
		change func(*world)
		want   string // "" is still good
	}{
		{"nothing", toPod(), func(*world) {}, ""},
		{"time", toPod(), func(w *world) { w.now = w.now.Add(601 * time.Second) }, "service account token has expired"},
		{"before its time", toPod(), func(w *world) { w.now = w.now.Add(-time.Hour) }, "service account token is not valid yet"},
		{"pod gone", toPod(), func(w *world) { w.st.Remove(w.pod) }, "pod a/p has been deleted"},
		{"pod replaced", toPod(), func(w *world) {
			w.st.Put(&corev1.Pod{ObjectMeta: meta("a", "p", "new")})
		}, "pod UID (new) does not match claim (u-pod)"},
		{"pod on its way out", toPod(), func(w *world) {
			p := w.pod.DeepCopy()
			p.DeletionTimestamp = &metav1.Time{Time: w.now}
			w.st.Put(p)
		}, ""},
		{"pod long on its way out", toPod(), func(w *world) {
			p := w.pod.DeepCopy()
			p.DeletionTimestamp = &metav1.Time{Time: w.now.Add(-2 * time.Minute)}
			w.st.Put(p)
		}, "pod a/p has been deleted"},
		{"account gone", nil, func(w *world) { w.st.Remove(w.sa) }, "service account a/robot has been deleted"},
		{"account replaced", nil, func(w *world) {
			w.st.Put(&corev1.ServiceAccount{ObjectMeta: meta("a", "robot", "new")})
		}, "service account UID (new) does not match claim (u-sa)"},
		{"node gone, bound to the pod", toPod(), func(w *world) { w.st.Remove(&corev1.Node{ObjectMeta: meta("", "n", "")}) }, ""},
		{"node gone", &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Node", Name: "n"},
			func(w *world) { w.st.Remove(&corev1.Node{ObjectMeta: meta("", "n", "")}) }, "node n has been deleted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, key)
			token := w.issue(t, 600, c.to).Status.Token
			c.change(w)
			_, ok, err := w.AuthenticateToken(t.Context(), token)
			if ok != (c.want == "") || (err != nil && err.Error() != c.want) || (c.want != "" && err == nil) {
				t.Errorf("%v %v, want %q", ok, err, c.want)
			}
		})
	}
}

func TestVerifiedIsBelievedForTenSeconds(t *testing.T) {
	w := newWorld(t, newKey(t))
	token := w.issue(t, 600, toPod()).Status.Token
	check := func(want bool) {
		t.Helper()
		if _, ok, _ := w.AuthenticateToken(t.Context(), token); ok != want {
			t.Errorf("ok is %v", ok)
		}
	}
	check(true)
	w.st.Remove(w.pod)
	w.now = w.now.Add(9 * time.Second)
	check(true)
	w.now = w.now.Add(time.Second)
	check(false)
}

func TestAudiencesAndForeignTokens(t *testing.T) {
	w := newWorld(t, newKey(t))
	token := w.issue(t, 600, nil, "vault").Status.Token
	if _, ok, err := w.AuthenticateToken(t.Context(), token); ok || err == nil || !strings.Contains(err.Error(), `token audiences ["vault"] is invalid for the target audiences`) {
		t.Error(ok, err)
	}
	ctx := authenticator.WithAudiences(context.Background(), authenticator.Audiences{"vault", "x"})
	if r, ok, err := w.AuthenticateToken(ctx, token); !ok || err != nil || len(r.Audiences) != 1 || r.Audiences[0] != "vault" {
		t.Error(r, ok, err)
	}
	stranger := newWorld(t, newKey(t))
	if _, ok, err := w.AuthenticateToken(t.Context(), stranger.issue(t, 600, nil).Status.Token); ok || err == nil {
		t.Error("a token with another key got in", ok, err)
	}
	if _, ok, err := w.AuthenticateToken(t.Context(), "opaque"); ok || err != nil {
		t.Error("a token of another kind is none of ours", ok, err)
	}
}

func TestLegacy(t *testing.T) {
	w := newWorld(t, newKey(t))
	secret := &corev1.Secret{ObjectMeta: meta("a", "s", "u-s"), Type: corev1.SecretTypeServiceAccountToken, Data: map[string][]byte{}}
	token, err := w.Legacy(w.sa, secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := w.AuthenticateToken(t.Context(), token); ok || err == nil {
		t.Error("a token that is in no secret got in")
	}
	secret.Data["token"] = []byte(token)
	w.st.Put(secret)
	r, ok, err := w.AuthenticateToken(t.Context(), token)
	if !ok || err != nil || r.User.GetName() != "system:serviceaccount:a:robot" {
		t.Error(r, ok, err)
	}
	w.now = w.now.Add(time.Minute)
	w.st.Remove(secret)
	if _, ok, err := w.AuthenticateToken(t.Context(), token); ok || err == nil {
		t.Error("a removed token got in")
	}
}

func FuzzAuthenticateToken(f *testing.F) {
	w := newWorld(f, newKey(f))
	good := w.issue(f, 600, toPod()).Status.Token
	f.Add(good)
	f.Add(good[:len(good)-4])
	f.Add("eyJhbGciOiJub25lIn0.eyJpc3MiOiJrdWJlcm5ldGVzL3NlcnZpY2VhY2NvdW50In0.")
	f.Add("a.b.c")
	_, payload, _ := strings.Cut(good, ".")
	payload, _, _ = strings.Cut(payload, ".")
	f.Fuzz(func(t *testing.T, token string) {
		r, ok, err := w.AuthenticateToken(context.Background(), token)
		if ok && (err != nil || r.User == nil) {
			t.Fatal(r, err)
		}
		if ok && !strings.Contains(token, payload) {
			t.Fatalf("forged: %s", token)
		}
	})
}

func BenchmarkAuthenticateToken(b *testing.B) {
	w := newWorld(b, newKey(b))
	token := w.issue(b, 600, toPod()).Status.Token
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := w.AuthenticateToken(b.Context(), token); !ok {
			b.Fatal(err)
		}
	}
}
