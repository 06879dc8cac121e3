package bootstraptoken

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/controllers/plan"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func token(id, expires, signs string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretPrefix + id}, Data: map[string][]byte{"token-id": []byte(id), "token-secret": []byte("0123456789abcdef"),
		"expiration": []byte(expires), "usage-bootstrap-signing": []byte(signs)}}
}

func TestSignaturesFollowTheTokens(t *testing.T) {
	cm := &corev1.ConfigMap{Data: map[string]string{configKey: "the cluster", signatureKey + "gone00": "old"}}
	soon := now.Add(time.Hour).Format(time.RFC3339)
	actions, again := Sign(cm, []*corev1.Secret{token("abc123", soon, "true"), token("past00", now.Add(-time.Hour).Format(time.RFC3339), "true"),
		token("quiet0", "", "false"), token("odd", "", "true")}, now)
	if len(actions) != 1 || again != time.Hour {
		t.Fatalf("%v again in %v", actions, again)
	}
	got := actions[0].(plan.Update).Obj.(*corev1.ConfigMap).Data
	signature := got[signatureKey+"abc123"]
	if len(got) != 2 || signature == "" {
		t.Fatalf("data %v, want the cluster and one signature", got)
	}
	head, tail, ok := strings.Cut(signature, "..")
	if b, err := base64.RawURLEncoding.DecodeString(head); !ok || err != nil || string(b) != `{"alg":"HS256","kid":"abc123"}` {
		t.Errorf("%q begins with %q: %v", signature, b, err)
	}
	// Made with openssl dgst -sha256 -hmac 0123456789abcdef.
	if want := "F2tCWjEJPEZ0mCiU5vUitME-fl7Cjw0s_7JhmwkftTQ"; tail != want {
		t.Errorf("signed %s, want %s", tail, want)
	}
	cm.Data = got
	if actions, _ := Sign(cm, []*corev1.Secret{token("abc123", soon, "true")}, now); len(actions) > 0 {
		t.Errorf("what is right is written again: %v", actions)
	}
}
