package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// certificates knows users by their client certificates. A chain is verified once and then believed until one of its
// certificates ends: verification costs more than most requests.
type certificates struct {
	roots *x509.CertPool
	now   func() time.Time
	mu    sync.Mutex
	seen  map[[sha256.Size]byte]knownCert
}

type knownCert struct {
	user  *user.DefaultInfo
	until time.Time
}

// maxCerts bounds the memory of what was verified; a full memory is emptied.
const maxCerts = 1024

// uidOID is the attribute of a certificate's subject that holds the user's UID.
var uidOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}

func (c *certificates) request(req *http.Request) (*authenticator.Response, bool, error) {
	if req.TLS == nil || len(req.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	leaf := req.TLS.PeerCertificates[0]
	key := sha256.Sum256(leaf.Raw)
	now := c.now()
	c.mu.Lock()
	k, ok := c.seen[key]
	c.mu.Unlock()
	if !ok || now.After(k.until) {
		until, err := verify(req.TLS.PeerCertificates, c.roots, now)
		if err != nil {
			return nil, false, err
		}
		k = knownCert{userOf(leaf, key), until}
		c.mu.Lock()
		if c.seen == nil || len(c.seen) >= maxCerts {
			c.seen = map[[sha256.Size]byte]knownCert{}
		}
		c.seen[key] = k
		c.mu.Unlock()
	}
	if k.user == nil {
		return nil, false, nil
	}
	return &authenticator.Response{User: k.user}, true, nil
}

// verify checks a client's chain and says until when it holds.
func verify(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) (time.Time, error) {
	leaf := chain[0]
	o := x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if len(chain) > 1 {
		o.Intermediates = x509.NewCertPool()
		for _, c := range chain[1:] {
			o.Intermediates.AddCert(c)
		}
	}
	chains, err := leaf.Verify(o)
	if err != nil {
		return time.Time{}, fmt.Errorf("verifying certificate SN=%d, SKID=%X, AKID=%X failed: %w", leaf.SerialNumber, leaf.SubjectKeyId, leaf.AuthorityKeyId, err)
	}
	until := leaf.NotAfter
	for _, c := range chains[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return until, nil
}

// userOf reads the user out of a verified certificate; nil where it names nobody.
func userOf(leaf *x509.Certificate, sum [sha256.Size]byte) *user.DefaultInfo {
	if leaf.Subject.CommonName == "" {
		return nil
	}
	u := &user.DefaultInfo{Name: leaf.Subject.CommonName, Groups: leaf.Subject.Organization,
		Extra: map[string][]string{user.CredentialIDKey: {"X509SHA256=" + hex.EncodeToString(sum[:])}}}
	for _, n := range leaf.Subject.Names {
		if s, ok := n.Value.(string); ok && n.Type.Equal(uidOID) {
			u.UID = s
		}
	}
	return u
}

// FrontProxy is a proxy that has authenticated the user and says in headers who it is. It proves itself with a client
// certificate.
type FrontProxy struct {
	CAs          *x509.CertPool
	AllowedNames []string // of the proxy's certificate; empty: every name
	// Names of the headers, of which for the user and the UID the first that is there counts, and for groups and extras
	// all. None: X-Remote-User, X-Remote-Uid, X-Remote-Group and X-Remote-Extra-.
	UserHeaders, UIDHeaders, GroupHeaders, ExtraPrefixes []string
}

func (f *FrontProxy) request(now func() time.Time) authenticator.RequestFunc {
	or := func(headers []string, d string) []string {
		if len(headers) == 0 {
			return []string{d}
		}
		return headers
	}
	names, uids := or(f.UserHeaders, "X-Remote-User"), or(f.UIDHeaders, "X-Remote-Uid")
	groups, extras := or(f.GroupHeaders, "X-Remote-Group"), or(f.ExtraPrefixes, "X-Remote-Extra-")
	return func(req *http.Request) (*authenticator.Response, bool, error) {
		name := firstOf(req.Header, names)
		if name == "" || req.TLS == nil || len(req.TLS.PeerCertificates) == 0 {
			return nil, false, nil
		}
		if _, err := verify(req.TLS.PeerCertificates, f.CAs, now()); err != nil {
			return nil, false, nil // a user's own certificate: the headers are not believed, the certificate may be
		}
		if cn := req.TLS.PeerCertificates[0].Subject.CommonName; len(f.AllowedNames) > 0 && !slices.Contains(f.AllowedNames, cn) {
			return nil, false, fmt.Errorf("x509: subject with cn=%s is not in the allowed list", cn)
		}
		u := &user.DefaultInfo{Name: name, UID: firstOf(req.Header, uids), Extra: takeExtras(req.Header, extras)}
		for _, h := range groups {
			u.Groups = append(u.Groups, req.Header.Values(h)...)
		}
		for _, h := range slices.Concat(names, uids, groups) {
			req.Header.Del(h)
		}
		return &authenticator.Response{User: u}, true, nil
	}
}

// firstOf is the first of some headers that says something.
func firstOf(h http.Header, names []string) string {
	for _, name := range names {
		if v := strings.TrimSpace(h.Get(name)); v != "" {
			return v
		}
	}
	return ""
}

// takeExtras removes the headers with one of the prefixes and returns what they say, by the rest of their names.
func takeExtras(h http.Header, prefixes []string) map[string][]string {
	var out map[string][]string
	for name, values := range h {
		for _, prefix := range prefixes {
			if len(name) <= len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
				continue
			}
			key := strings.ToLower(name[len(prefix):])
			if plain, err := url.PathUnescape(key); err == nil {
				key = plain
			}
			if out == nil {
				out = map[string][]string{}
			}
			out[key] = append(out[key], values...)
			delete(h, name)
			break
		}
	}
	return out
}
