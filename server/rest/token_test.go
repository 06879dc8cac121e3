package rest

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	s := encodeToken("/registry/pods/default/web", "/registry/pods/", 42)
	if got, _ := base64.RawURLEncoding.DecodeString(s); string(got) != `{"v":"meta.k8s.io/v1","rv":42,"start":"default/web\u0000"}` {
		t.Errorf("token %s", got)
	}
	from, rev, err := decodeToken(s, "/registry/pods/")
	if err != nil || rev != 42 || from != "/registry/pods/default/web\x00" {
		t.Errorf("%q %d %v", from, rev, err)
	}
	for _, bad := range []string{`{}`, `{"v":"meta.k8s.io/v1","rv":0,"start":"a"}`, `{"v":"meta.k8s.io/v1","rv":1}`,
		`{"v":"meta.k8s.io/v1","rv":1,"start":"../secrets/a"}`, `{"v":"v9","rv":1,"start":"a"}`, `[`} {
		if _, _, err := decodeToken(base64.RawURLEncoding.EncodeToString([]byte(bad)), "/registry/pods/"); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add([]byte(`{"v":"meta.k8s.io/v1","rv":1,"start":"../a"}`))
	f.Add([]byte(`{"v":"meta.k8s.io/v1","rv":-1,"start":"a/b\u0000"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		from, rev, err := decodeToken(base64.RawURLEncoding.EncodeToString(data), "/registry/pods/")
		if err != nil {
			return
		}
		if rev == 0 || rev < -1 || !strings.HasPrefix(from, "/registry/pods/") || strings.Contains(from, "/../") || strings.HasSuffix(from, "/..") {
			t.Errorf("%s: %q at %d", data, from, rev)
		}
	})
}
