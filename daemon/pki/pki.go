// Package pki makes and keeps a cluster's certificates and keys.
//
// Invariant: the cluster's authority and its service account key are made once, at first start, and never replaced;
// everything else is issued from them and renewed when a third of its life is left. Private keys are readable by root
// alone, and files appear whole or not at all. daemon and ctl may import pki.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	PEM  []byte // the certificate
	key  crypto.Signer
}

// Open reads the authority NAME.crt, NAME.key under dir, and makes it the first time. Only the process that serves the
// cluster may: two that make it at once would trust different ones.
func Open(dir, name string) (*Authority, error) {
	a, err := Load(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir, name, filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	}
	return a, err
}

// Load reads an authority that Open made; the error wraps fs.ErrNotExist before that.
func Load(dir, name string) (*Authority, error) {
	certFile, keyFile := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("the cluster authority in %s cannot be used: %w", dir, err)
	}
	return &Authority{Cert: pair.Leaf, PEM: certPEM, key: pair.PrivateKey.(crypto.Signer)}, nil
}

func create(dir, name, certFile, keyFile string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := template(pkix.Name{CommonName: name}, authorityLife)
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &Authority{Cert: cert, PEM: encode("CERTIFICATE", der), key: key}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	// The key first: a certificate without its key would be taken for a finished authority.
	if err := write(keyFile, keyPEM, 0o600); err != nil {
		return nil, err
	}
	return a, write(certFile, a.PEM, 0o644)
}

// Pool returns a pool that holds the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.Cert)
	return p
}

// Signer is the authority's key, for the certificate signing controller.
func (a *Authority) Signer() crypto.Signer { return a.key }

// Leaf is what a certificate is for: a server with names and addresses, a client with a user and groups, or both.
type Leaf struct {
	User   string
	Groups []string
	DNS    []string
	IPs    []net.IP
	Server bool // else a client
	Peer   bool // a server that is a client of its peers too
}

// Issue makes a new certificate and key, in PEM.
func (a *Authority) Issue(l Leaf) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := template(pkix.Name{CommonName: l.User, Organization: l.Groups}, leafLife)
	t.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if l.Server {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	if l.Peer {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	t.DNSNames, t.IPAddresses = l.DNS, l.IPs
	der, err := x509.CreateCertificate(rand.Reader, t, a.Cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = encodeKey(key)
	return encode("CERTIFICATE", der), keyPEM, err
}

// Keep returns the certificate NAME.crt, NAME.key under dir, and issues it anew when it is missing, near its end, of
// another authority, or not for what l asks.
func (a *Authority) Keep(dir, name string, l Leaf) (tls.Certificate, error) {
	certFile, keyFile := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if pair, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil && a.serves(pair.Leaf, l) {
		return pair, nil
	}
	certPEM, keyPEM, err := a.Issue(l)
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := write(keyFile, keyPEM, 0o600); err != nil {
		return tls.Certificate{}, err
	}
	if err := write(certFile, certPEM, 0o644); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

func (a *Authority) serves(c *x509.Certificate, l Leaf) bool {
	if c.CheckSignatureFrom(a.Cert) != nil || time.Until(c.NotAfter) < leafLife/3 || c.Subject.CommonName != l.User {
		return false
	}
	for _, name := range l.DNS {
		if c.VerifyHostname(name) != nil {
			return false
		}
	}
	for _, ip := range l.IPs {
		if c.VerifyHostname(ip.String()) != nil {
			return false
		}
	}
	return true
}

// ServiceAccountKey reads the key that signs service account tokens, and makes it the first time (RSA, so that every
// OpenID client can verify the tokens).
func ServiceAccountKey(dir string) (crypto.Signer, error) {
	file := filepath.Join(dir, "service-account.key")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		keyPEM, err := encodeKey(key)
		if err != nil {
			return nil, err
		}
		return key, write(file, keyPEM, 0o600)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a %T cannot sign", file, key)
	}
	return signer, nil
}

// Write keeps a file that another member of the cluster has made. Only certificates are for everybody to read.
func Write(file string, b []byte) error {
	mode := fs.FileMode(0o600)
	if filepath.Ext(file) == ".crt" {
		mode = 0o644
	}
	return write(file, b, mode)
}

func template(subject pkix.Name, life time.Duration) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // crypto/rand does not fail
	now := time.Now()
	// An hour back, for clients whose clock is behind.
	return &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life)}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return encode("PRIVATE KEY", der), err
}

func write(file string, b []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	tmp := file + ".new"
	if err := os.WriteFile(tmp, b, mode); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
