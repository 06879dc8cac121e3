package dropin

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/keyutil"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/daemon/pki"
)

// authorities reads a file of certificates.
func authorities(file string) (*x509.CertPool, []byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, nil, fmt.Errorf("%s holds no certificate", file)
	}
	return pool, b, nil
}

// reloaded is a certificate and key that are read again when the files have changed: they are renewed while we run.
type reloaded struct {
	certFile, keyFile string

	mu      sync.Mutex
	pair    *tls.Certificate
	stamp   time.Time
	checked time.Time
}

func reload(certFile, keyFile string) (*reloaded, error) {
	r := &reloaded{certFile: certFile, keyFile: keyFile}
	_, err := r.get()
	return r, err
}

const reloadEvery = 10 * time.Second

// get returns the files' pair, or the last good one when they cannot be read.
func (r *reloaded) get() (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pair != nil && time.Since(r.checked) < reloadEvery {
		return r.pair, nil
	}
	r.checked = time.Now()
	info, err := os.Stat(r.certFile)
	if err == nil && (r.pair == nil || !info.ModTime().Equal(r.stamp)) {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(r.certFile, r.keyFile); err == nil {
			r.pair, r.stamp = &pair, info.ModTime()
		}
	}
	if r.pair == nil {
		return nil, err
	}
	return r.pair, nil
}

// server serves with the pair; client proves itself with it.
func (r *reloaded) server() *tls.Config {
	return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return r.get() }}
}

func (r *reloaded) client(roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return r.get() }}
}

// serving is the certificate that a component serves with: the files that were given, NAME.crt and NAME.key in dir, or one
// of its own making that is kept there.
func serving(certFile, keyFile, dir, name string, l pki.Leaf) (*tls.Config, error) {
	if certFile != "" || keyFile != "" {
		if certFile == "" || keyFile == "" {
			return nil, errors.New("--tls-cert-file and --tls-private-key-file must be given together")
		}
		r, err := reload(certFile, keyFile)
		if err != nil {
			return nil, err
		}
		return r.server(), nil
	}
	// What somebody else has put there is used as it is.
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if _, err := os.Stat(filepath.Join(dir, name+"-ca.crt")); errors.Is(err, fs.ErrNotExist) {
		if r, err := reload(certFile, keyFile); err == nil {
			return r.server(), nil
		}
	}
	own, err := pki.Open(dir, name+"-ca")
	if err != nil {
		return nil, err
	}
	l.Server = true
	pair, err := own.Keep(dir, name, l)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}, nil
}

// publicKeys reads every key of several PEM files: public and private keys, and certificates.
func publicKeys(files []string) ([]crypto.PublicKey, error) {
	var out []crypto.PublicKey
	for _, file := range files {
		keys, err := keyutil.PublicKeysFromFile(file)
		if err != nil {
			return nil, fmt.Errorf("failed to parse key file %q: %w", file, err)
		}
		for _, k := range keys {
			out = append(out, k)
		}
	}
	return out, nil
}

func privateKey(file string) (crypto.Signer, error) {
	k, err := keyutil.PrivateKeyFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("failed to parse %q: %w", file, err)
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a %T cannot sign", file, k)
	}
	return s, nil
}

// staticTokens reads upstream's token file: token,user,uid,"group1,group2".
func staticTokens(file string) (map[string]user.Info, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord, r.TrimLeadingSpace = -1, true
	out := map[string]user.Info{}
	for line := 1; ; line++ {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if len(record) < 3 {
			return nil, fmt.Errorf("token file '%s' must have at least 3 columns (token, user name, user uid), found %d", file, len(record))
		}
		if record[0] == "" {
			return nil, fmt.Errorf("%s: record %d has no token", file, line)
		}
		u := &user.DefaultInfo{Name: record[1], UID: record[2]}
		if len(record) >= 4 && record[3] != "" {
			u.Groups = strings.Split(record[3], ",")
		}
		out[record[0]] = u
	}
}

// connection is how a component reaches the API server.
type connection struct {
	rest *rest.Config
	http client.HTTPConfig
}

// connect reads a kubeconfig; without one the component runs in a pod and uses its service account.
func connect(kubeconfig, master, agent string) (*connection, error) {
	cfg, err := clientcmd.BuildConfigFromFlags(master, kubeconfig)
	if err != nil {
		return nil, err
	}
	if cfg.ExecProvider != nil || cfg.AuthProvider != nil || cfg.Username != "" {
		return nil, fmt.Errorf("%s: only client certificates and tokens are understood as a component's credentials", kubeconfig)
	}
	t, err := rest.TLSConfigFor(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.CertFile != "" && cfg.KeyFile != "" {
		r, err := reload(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, err
		}
		t.Certificates, t.GetClientCertificate = nil, r.client(nil).GetClientCertificate
	}
	host := cfg.Host
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	c := &connection{cfg, client.HTTPConfig{Server: host, TLS: t, BearerToken: cfg.BearerToken, UserAgent: agent}}
	if cfg.BearerTokenFile != "" {
		c.http.BearerToken = ""
		c.http.TokenFunc = tokenFile(cfg.BearerTokenFile)
	}
	return c, nil
}

func (c *connection) client() (client.Interface, error) { return client.NewHTTP(c.http) }

// authority is who the kubeconfig says has signed the server's certificate, as PEM; nothing if it does not say.
func (c *connection) authority() ([]byte, error) {
	if len(c.rest.CAData) > 0 || c.rest.CAFile == "" {
		return c.rest.CAData, nil
	}
	_, pem, err := authorities(c.rest.CAFile)
	return pem, err
}

// with is a client to the same server that proves itself with tokens.
func (c *connection) with(token func(context.Context) (string, error), agent string) (client.Interface, error) {
	t := c.http.TLS.Clone()
	t.Certificates, t.GetClientCertificate = nil, nil
	return client.NewHTTP(client.HTTPConfig{Server: c.http.Server, TLS: t, TokenFunc: token, UserAgent: agent})
}

// tokenFile reads a token that somebody else renews, at most once a minute.
func tokenFile(file string) func(context.Context) (string, error) {
	var mu sync.Mutex
	var token string
	var read time.Time
	return func(context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if token == "" || time.Since(read) > time.Minute {
			b, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			token, read = strings.TrimSpace(string(b)), time.Now()
		}
		return token, nil
	}
}

// asker is the client that asks the API server about callers: the kubeconfig's own, or the component's.
func asker(kubeconfig string, own client.Interface) (client.Interface, error) {
	if kubeconfig == "" {
		return own, nil
	}
	conn, err := connect(kubeconfig, "", "skiff")
	if err != nil {
		return nil, err
	}
	return conn.client()
}
