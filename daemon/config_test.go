package daemon

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func complete(t *testing.T, c Config) (*Config, error) {
	t.Helper()
	if !c.NodeIP.IsValid() {
		c.NodeIP = netip.MustParseAddr("192.0.2.1")
	}
	err := c.Complete()
	return &c, err
}

func TestCompleteDerivesTheInstance(t *testing.T) {
	c, err := complete(t, Config{Name: "second"})
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		c.DataDir: "/var/lib/second", c.RunDir: "/run/second", c.Bridge(): "second0", c.LogDir: "/var/lib/second/pod-logs",
		c.APIServiceIP().String(): "10.96.0.1", c.DNSServiceIP().String(): "10.96.0.10", c.URL(): "https://127.0.0.1:6443",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestCompleteRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"must be 2 to 11 characters": {Name: "Bad_Name"},
		"below the top level":        {DataDir: "/var"},
		"overlap":                    {PodCIDR: netip.MustParsePrefix("10.96.0.0/12")},
		"of /24 or wider":            {PodCIDR: netip.MustParsePrefix("10.1.2.0/25")},
		"of /27 or wider":            {ServiceCIDR: netip.MustParsePrefix("10.1.2.0/28")},
		"no range of ports":          {NodePorts: [2]int{3, 2}},
		"API server's port 99999":    {APIPort: 99999},
		"etcd's peer port 70000":     {EtcdPorts: [2]int{2379, 70000}},
	} {
		if _, err := complete(t, c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: got %v, want an error that says %q", c, err, name)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "instance")
	if _, err := Load("x1", dir); !errors.Is(err, ErrNoInstance) {
		t.Errorf("an instance that was never started: %v", err)
	}
	c, err := complete(t, Config{Name: "x1", DataDir: dir, APIPort: 7000, EtcdServers: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	back, err := Load("x1", dir)
	if err != nil {
		t.Fatal(err)
	}
	if back.APIPort != 7000 || back.PodCIDR != c.PodCIDR || len(back.EtcdServers) != 1 {
		t.Errorf("got %+v", back)
	}
}

func TestClaimIsExclusiveAndSeen(t *testing.T) {
	c := &Config{Name: "x2", RunDir: t.TempDir()}
	if _, ok := c.Running(); ok {
		t.Error("nobody has claimed it")
	}
	release, err := c.claim()
	if err != nil {
		t.Fatal(err)
	}
	if pid, ok := c.Running(); !ok || pid != os.Getpid() {
		t.Errorf("Running is %d, %v", pid, ok)
	}
	if _, err := c.claim(); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("a second claim: %v", err)
	}
	release()
	if _, ok := c.Running(); ok {
		t.Error("it was released")
	}
}
