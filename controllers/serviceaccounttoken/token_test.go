package serviceaccounttoken

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func secret(edit func(*corev1.Secret)) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", UID: "su", CreationTimestamp: metav1.NewTime(now.AddDate(-3, 0, 0)),
		Annotations: map[string]string{corev1.ServiceAccountNameKey: "a"}}, Type: corev1.SecretTypeServiceAccountToken}
	if edit != nil {
		edit(s)
	}
	return s
}

func TestSecretIsFilledOnce(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign, err := NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Sign: sign, RootCA: []byte("ca")}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a", UID: "au"}}
	actions, err := Fill(secret(nil), account, cfg)
	if err != nil || len(actions) != 1 {
		t.Fatalf("%v, %v", actions, err)
	}
	s := actions[0].(plan.Update).Obj.(*corev1.Secret)
	if string(s.Data["ca.crt"]) != "ca" || string(s.Data["namespace"]) != "ns" || s.Annotations[corev1.ServiceAccountUIDKey] != "au" {
		t.Errorf("filled with %v, %v", s.Data, s.Annotations)
	}
	parsed, err := jwt.ParseSigned(string(s.Data["token"]), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var c claims
	if err := parsed.Claims(key.Public(), &c); err != nil || c.Issuer != issuer || c.Subject != "system:serviceaccount:ns:a" || c.AccountUID != "au" || c.SecretName != "s" {
		t.Errorf("claims %+v: %v", c, err)
	}
	if actions, err := Fill(s, account, cfg); err != nil || len(actions) > 0 {
		t.Errorf("a full secret is written again: %v, %v", actions, err)
	}
	if names(s, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{UID: "other"}}) || names(s, nil) {
		t.Error("a secret names another account")
	}
}

func TestAccountForgetsASecretThatIsGone(t *testing.T) {
	lists := &corev1.ServiceAccount{Secrets: []corev1.ObjectReference{{Name: "s"}, {Name: "t"}}}
	actions := Forget(reconcile.Key{Namespace: "ns", Name: "s"}, []*corev1.ServiceAccount{lists, {}})
	if len(actions) != 1 || len(actions[0].(plan.Update).Obj.(*corev1.ServiceAccount).Secrets) != 1 || len(lists.Secrets) != 2 {
		t.Errorf("%v", actions)
	}
}

func TestIdleTokensAreRetiredInTwoSteps(t *testing.T) {
	tracked := now.AddDate(-2, 0, 0)
	label := func(k, v string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { s.Labels = map[string]string{k: v} }
	}
	for name, c := range map[string]struct {
		s       *corev1.Secret
		used    bool
		tracked time.Time
		want    string
	}{
		"never used":           {secret(nil), false, tracked, "mark"},
		"mounted":              {secret(nil), true, tracked, ""},
		"not tracked for long": {secret(nil), false, now.AddDate(0, -1, 0), ""},
		"young":                {secret(func(s *corev1.Secret) { s.CreationTimestamp = metav1.NewTime(now) }), false, tracked, ""},
		"used lately":          {secret(label(lastUsedLabel, now.AddDate(0, -1, 0).Format(dates))), false, tracked, ""},
		"used long ago":        {secret(label(lastUsedLabel, now.AddDate(-2, 0, 0).Format(dates))), false, tracked, "mark"},
		"invalid for a while":  {secret(label(invalidSinceLabel, now.AddDate(0, -1, 0).Format(dates))), false, tracked, ""},
		"invalid for long":     {secret(label(invalidSinceLabel, now.AddDate(-2, 0, 0).Format(dates))), false, tracked, "delete"},
	} {
		got := ""
		for _, a := range Retire(c.s, c.used, c.tracked, LegacyPeriod, now) {
			switch a.(type) {
			case plan.Patch:
				got = "mark"
			case plan.Delete:
				got = "delete"
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
