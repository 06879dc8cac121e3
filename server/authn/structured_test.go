package authn

import (
	"context"
	"encoding/pem"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/server/authn/jwt"
	"github.com/skiff-sh/skiff/server/authn/jwttest"
)

// follow runs what the file says until the test ends. The channel gets the outcome of each reading.
func follow(t *testing.T, c StructuredConfig) (*Structured, <-chan error) {
	t.Helper()
	outcomes := make(chan error, 10)
	c.Reloaded, c.Log = func(err error) { outcomes <- err }, slog.New(slog.DiscardHandler)
	s, err := NewStructured(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for _, i := range *s.current.Load() {
		<-i.Ready()
	}
	return s, outcomes
}

// replace writes the file as upstream advises: another beside it, then renamed.
func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func TestTokensOfProviders(t *testing.T) {
	w := jwttest.NewWorld(t)
	b, err := os.ReadFile("testdata/jwt.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []jwttest.Case
	if err := yaml.UnmarshalStrict(w.Fill(b), &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "authentication.yaml")
			replace(t, file, string(c.Configuration(w)))
			s, _ := follow(t, StructuredConfig{File: file})
			front := New(Config{Structured: s, NoAnonymous: true})
			for _, token := range c.Tokens {
				req := httptest.NewRequest(http.MethodGet, "/api", nil)
				req.Header.Set("Authorization", "Bearer "+w.Sign(t, token))
				r, ok, err := front.AuthenticateRequest(req)
				if ok != (token.User != nil) || (err != nil) == ok {
					t.Errorf("%v: %v, %v", token.Claims, ok, err)
					continue
				}
				if ok && !same(r.User, token.User) {
					t.Errorf("%v: %+v, want %+v", token.Claims, r.User, *token.User)
				}
			}
		})
	}
}

func same(u user.Info, want *jwttest.User) bool {
	return u.GetName() == want.Username && u.GetUID() == want.UID && slices.Equal(u.GetGroups(), want.Groups) &&
		maps.EqualFunc(u.GetExtra(), want.Extra, func(a, b []string) bool { return reflect.DeepEqual(a, b) })
}

func simple(w *jwttest.World, prefix string) string {
	c := jwttest.Case{JWT: []any{map[string]any{
		"issuer":        map[string]any{"url": w.Issuer, "audiences": []string{"skiff"}, "certificateAuthority": "CA"},
		"claimMappings": map[string]any{"username": map[string]any{"claim": "sub", "prefix": prefix}}}}}
	return string(c.Configuration(w))
}

func TestConfigurationIsReadAgain(t *testing.T) {
	w := jwttest.NewWorld(t)
	file := filepath.Join(t.TempDir(), "authentication.yaml")
	replace(t, file, simple(w, "1:"))
	s, outcomes := follow(t, StructuredConfig{File: file})
	token := w.Sign(t, jwttest.Token{Claims: map[string]any{"sub": "ann"}})
	expect := func(want string) {
		t.Helper()
		r, ok, err := s.AuthenticateToken(t.Context(), token)
		if got := ""; err != nil || ok != (want != "") {
			t.Errorf("%v %v, want %q", ok, err, want)
		} else if ok {
			if got = r.User.GetName(); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
	}
	expect("1:ann")
	replace(t, file, simple(w, "2:"))
	if err := <-outcomes; err != nil {
		t.Error(err)
	}
	expect("2:ann")
	for _, wrong := range []string{"no: [", "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: []\n",
		strings.Replace(simple(w, "3:"), "claimMappings", "claimMappers", 1), strings.Replace(simple(w, "3:"), "https://", "http://", 1),
		simple(w, "3:") + "anonymous: {enabled: true}\n"} {
		replace(t, file, wrong)
		if err := <-outcomes; err == nil {
			t.Errorf("taken: %s", wrong)
		}
		expect("2:ann")
	}
	replace(t, file, "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: []\n")
	if err := <-outcomes; err != nil {
		t.Error(err)
	}
	expect("")
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	w := jwttest.NewWorld(t)
	ok := simple(w, "")
	for want, c := range map[string]struct {
		text string
		cfg  StructuredConfig
	}{
		"empty config data":                             {"", StructuredConfig{}},
		"URL must not overlap":                          {ok, StructuredConfig{Taken: []string{w.Issuer}}},
		"--anonymous-auth flag cannot be set":           {ok + "anonymous: {enabled: true}\n", StructuredConfig{AnonymousSettled: true}},
		"enabled should be set to true":                 {ok + "anonymous: {enabled: false, conditions: [{path: /x}]}\n", StructuredConfig{}},
		"unsupported signing alg":                       {ok, StructuredConfig{Algorithms: []string{"none"}}},
		"there are no egress selectors here":            {strings.Replace(ok, "audiences:", "egressSelectorType: cluster\n    audiences:", 1), StructuredConfig{}},
		"strict decoding error: unknown field \"jwts\"": {ok + "jwts: []\n", StructuredConfig{}},
	} {
		c.cfg.File = filepath.Join(t.TempDir(), "authentication.yaml")
		replace(t, c.cfg.File, c.text)
		if _, err := NewStructured(c.cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// A provider that does not answer costs only its own users' logins, and only until it does.
func TestProviderComesLater(t *testing.T) {
	w := jwttest.NewWorld(t)
	up := make(chan struct{})
	late := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-up:
			w.Serve(rw, r)
		default:
			http.Error(rw, "not yet", http.StatusServiceUnavailable)
		}
	}))
	defer late.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: late.Certificate().Raw})
	file := filepath.Join(t.TempDir(), "authentication.yaml")
	c := jwttest.Case{JWT: []any{map[string]any{
		"issuer":        map[string]any{"url": w.Issuer, "discoveryURL": late.URL + "/moved-issuer", "audiences": []string{"skiff"}, "certificateAuthority": string(ca) + w.CA},
		"claimMappings": map[string]any{"username": map[string]any{"claim": "sub", "prefix": ""}}}}}
	replace(t, file, string(c.Configuration(w)))
	s, err := NewStructured(StructuredConfig{File: file, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	token := w.Sign(t, jwttest.Token{Claims: map[string]any{"sub": "ann"}})
	if _, ok, err := s.AuthenticateToken(ctx, token); ok || err == nil {
		t.Errorf("before the provider answers: %v, %v", ok, err)
	}
	close(up)
	var issuer *jwt.Issuer = (*s.current.Load())[0]
	select {
	case <-issuer.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("the provider is not asked again")
	}
	if _, ok, err := s.AuthenticateToken(ctx, token); !ok || err != nil {
		t.Errorf("afterwards: %v, %v", ok, err)
	}
}
