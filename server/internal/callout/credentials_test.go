package callout

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-sh/skiff/server/internal/memstore"
)

func TestCredentials(t *testing.T) {
	ts := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
	}))
	defer ts.Close()
	u, err := url.Parse(ts.URL)
	if err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ts.Certificate().Raw})
	for name, c := range map[string]struct{ users, want string }{
		"by its address":    {"- {name: '" + u.Host + "', user: {token: known}}\n- {name: '*', user: {token: anybody}}", "Bearer known"},
		"by a wildcard":     {"- {name: '*', user: {token: anybody}}", "Bearer anybody"},
		"somebody else":     {"- {name: other.example, user: {token: other}}", ""},
		"with its password": {"- {name: '" + u.Host + "', user: {username: a, password: b}}", "Basic YTpi"},
	} {
		file := filepath.Join(t.TempDir(), "kubeconfig")
		if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: Config\nusers:\n"+c.users+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		who, err := ReadCredentials(file)
		if err != nil {
			t.Fatal(err)
		}
		client, err := New(memstore.New(), Config{URL: &ts.URL, CA: ca, Timeout: 10 * time.Second, Credentials: who})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := client.Post(t.Context(), nil); err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		client.Close()
	}
	if _, err := ReadCredentials("/nowhere"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}
