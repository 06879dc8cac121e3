package pki

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestKeepRenewsOnlyWhatNoLongerFits(t *testing.T) {
	dir := t.TempDir()
	a, err := Open(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	leaf := Leaf{User: "kube-apiserver", Server: true, DNS: []string{"kubernetes"}, IPs: []net.IP{net.IPv4(10, 96, 0, 1)}}
	first, err := a.Keep(dir, "apiserver", leaf)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	same, err := again.Keep(dir, "apiserver", leaf)
	if err != nil {
		t.Fatal(err)
	}
	if !first.Leaf.Equal(same.Leaf) {
		t.Error("a certificate that still fits was issued anew")
	}
	if _, err := same.Leaf.Verify(x509.VerifyOptions{Roots: again.Pool(), DNSName: "kubernetes"}); err != nil {
		t.Error(err)
	}
	leaf.IPs = append(leaf.IPs, net.IPv4(192, 0, 2, 9))
	moved, err := again.Keep(dir, "apiserver", leaf)
	if err != nil {
		t.Fatal(err)
	}
	if err := moved.Leaf.VerifyHostname("192.0.2.9"); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key: %v, %v", info, err)
	}
}

func TestServiceAccountKeyIsKept(t *testing.T) {
	dir := t.TempDir()
	a, err := ServiceAccountKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ServiceAccountKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	ab, _ := x509.MarshalPKIXPublicKey(a.Public())
	bb, _ := x509.MarshalPKIXPublicKey(b.Public())
	if string(ab) != string(bb) {
		t.Error("the key changed between two starts")
	}
}
