package authn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
)

type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return &authority{key, sign(t, tmpl, tmpl, key, key)}
}

func sign(t *testing.T, c, parent *x509.Certificate, pub, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &pub.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (a *authority) issue(t *testing.T, cn string, groups []string, usage x509.ExtKeyUsage, life time.Duration) *tls.ConnectionState {
	c := sign(t, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: cn, Organization: groups},
		NotAfter: time.Now().Add(life), ExtKeyUsage: []x509.ExtKeyUsage{usage}}, a.cert, a.key, a.key)
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func TestAuthenticate(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	cfg := Config{ClientCAs: ca.pool(), Static: map[string]user.Info{"sesame": &user.DefaultInfo{Name: "ali", Groups: []string{"cave"}}},
		FrontProxy: &FrontProxy{CAs: other.pool(), AllowedNames: []string{"front"}}}
	a := New(cfg)
	client := x509.ExtKeyUsageClientAuth
	for _, c := range []struct {
		name    string
		tls     *tls.ConnectionState
		headers map[string]string
		user    string // "" is an error
		groups  []string
	}{
		{"nothing", nil, nil, "system:anonymous", []string{"system:unauthenticated"}},
		{"a certificate", ca.issue(t, "ann", []string{"g1", "g2"}, client, time.Hour), nil, "ann", []string{"g1", "g2", "system:authenticated"}},
		{"one of a server", ca.issue(t, "ann", nil, x509.ExtKeyUsageServerAuth, time.Hour), nil, "", nil},
		{"one that has ended", ca.issue(t, "ann", nil, client, -time.Hour), nil, "", nil},
		{"another authority's", other.issue(t, "ann", nil, client, time.Hour), nil, "", nil},
		{"one without a name", ca.issue(t, "", nil, client, time.Hour), nil, "system:anonymous", []string{"system:unauthenticated"}},
		{"a token", nil, map[string]string{"Authorization": "Bearer sesame"}, "ali", []string{"cave", "system:authenticated"}},
		{"lower case", nil, map[string]string{"Authorization": "bearer sesame"}, "ali", []string{"cave", "system:authenticated"}},
		{"a wrong token", nil, map[string]string{"Authorization": "Bearer wheat"}, "", nil},
		{"basic authentication", nil, map[string]string{"Authorization": "Basic c2VzYW1l"}, "system:anonymous", []string{"system:unauthenticated"}},
		{"a good token beside a bad certificate", other.issue(t, "x", nil, client, time.Hour), map[string]string{"Authorization": "Bearer sesame"}, "ali", []string{"cave", "system:authenticated"}},
		{"the front proxy", other.issue(t, "front", nil, client, time.Hour), map[string]string{"X-Remote-User": "eve", "X-Remote-Group": "g"}, "eve", []string{"g", "system:authenticated"}},
		{"not the front proxy", other.issue(t, "back", nil, client, time.Hour), map[string]string{"X-Remote-User": "eve"}, "", nil},
		{"a user who pretends to be it", ca.issue(t, "front", nil, client, time.Hour), map[string]string{"X-Remote-User": "eve"}, "front", []string{"system:authenticated"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // the second time from memory
				req := httptest.NewRequest("GET", "/", nil)
				req.TLS = c.tls
				for k, v := range c.headers {
					req.Header.Set(k, v)
				}
				r, ok, err := a.AuthenticateRequest(req)
				if c.user == "" {
					if ok || err == nil {
						t.Fatalf("got in as %v", r)
					}
					continue
				}
				if err != nil || r.User.GetName() != c.user || !slices.Equal(r.User.GetGroups(), c.groups) {
					t.Fatalf("%v %v", r, err)
				}
				if c.user == "ali" && req.Header.Get("Authorization") != "" {
					t.Error("the token is still on the request")
				}
			}
		})
	}
}

func TestBelievedCertificateEnds(t *testing.T) {
	ca := newAuthority(t)
	now := time.Now()
	a := New(Config{ClientCAs: ca.pool(), Now: func() time.Time { return now }})
	req := httptest.NewRequest("GET", "/", nil)
	req.TLS = ca.issue(t, "ann", nil, x509.ExtKeyUsageClientAuth, 30*time.Minute)
	if _, ok, err := a.AuthenticateRequest(req); !ok || err != nil {
		t.Fatal(ok, err)
	}
	now = now.Add(31 * time.Minute)
	if _, ok, err := a.AuthenticateRequest(req); ok || err == nil {
		t.Fatal("an ended certificate is still believed")
	}
}

func TestNoAnonymous(t *testing.T) {
	if _, ok, _ := New(Config{NoAnonymous: true}).AuthenticateRequest(httptest.NewRequest("GET", "/", nil)); ok {
		t.Error("a request without credentials got in")
	}
}

// An authenticating proxy may be told to use other headers, several for one thing.
func TestFrontProxyHeaders(t *testing.T) {
	ca := newAuthority(t)
	a := New(Config{FrontProxy: &FrontProxy{CAs: ca.pool(), UserHeaders: []string{"X-User", "X-Remote-User"}, UIDHeaders: []string{"X-Uid"},
		GroupHeaders: []string{"X-Group", "X-Team"}, ExtraPrefixes: []string{"X-More-", "X-Extra-"}}})
	req := httptest.NewRequest("GET", "/", nil)
	req.TLS = ca.issue(t, "any name", nil, x509.ExtKeyUsageClientAuth, time.Hour)
	for _, h := range [][2]string{{"X-Remote-User", "eve"}, {"X-Uid", "7"}, {"X-Team", "t"}, {"X-Group", "g"}, {"X-Group", "h"},
		{"X-More-Scopes", "a"}, {"X-Extra-Example.org%2fkey", "b"}, {"X-Other", "kept"}} {
		req.Header.Add(h[0], h[1])
	}
	r, ok, err := a.AuthenticateRequest(req)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	u := r.User
	if u.GetName() != "eve" || u.GetUID() != "7" || !slices.Equal(u.GetGroups(), []string{"g", "h", "t", "system:authenticated"}) {
		t.Errorf("%s %s %v", u.GetName(), u.GetUID(), u.GetGroups())
	}
	if e := u.GetExtra(); len(e) != 2 || !slices.Equal(e["scopes"], []string{"a"}) || !slices.Equal(e["example.org/key"], []string{"b"}) {
		t.Errorf("extra: %v", e)
	}
	if len(req.Header) != 1 || req.Header.Get("X-Other") != "kept" {
		t.Errorf("left on the request: %v", req.Header)
	}
}
