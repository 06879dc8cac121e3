package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/skiff-sh/skiff/daemon/pki"
	"github.com/skiff-sh/skiff/store/etcd"
)

// Invitation is all that a further server of a cluster needs to know: what the servers have in common, and the keys that
// they share. Whoever has it owns the cluster.
type Invitation struct {
	PodCIDR       netip.Prefix      `json:"podCIDR"`
	ServiceCIDR   netip.Prefix      `json:"serviceCIDR"`
	NodePorts     [2]int            `json:"nodePorts"`
	ClusterDomain string            `json:"clusterDomain"`
	EtcdServers   []string          `json:"etcdServers,omitempty"` // the external etcd
	Members       []string          `json:"members,omitempty"`     // client addresses of embedded members
	Keys          map[string][]byte `json:"keys"`                  // files of the PKI folder
}

// sharedKeys are the files that all servers of a cluster have in common.
var sharedKeys = []string{authorityName + ".crt", authorityName + ".key", "front-proxy-ca.crt", "front-proxy-ca.key",
	etcdAuthority + ".crt", etcdAuthority + ".key", "service-account.key"}

const etcdAuthority = "etcd-ca"

// Invite makes the invitation that other servers join with. The instance must have been started once.
func (c *Config) Invite() (*Invitation, error) {
	if len(c.EtcdServers) == 0 && c.EtcdPorts == [2]int{} {
		return nil, errors.New("this server's etcd is alone: start it with --etcd-ports 2379,2380 to let others join, or give all servers the same --etcd-servers")
	}
	i := &Invitation{PodCIDR: c.PodCIDR, ServiceCIDR: c.ServiceCIDR, NodePorts: c.NodePorts, ClusterDomain: c.ClusterDomain,
		EtcdServers: c.EtcdServers, Keys: map[string][]byte{}}
	if len(c.EtcdServers) == 0 {
		i.Members = []string{c.etcdURL(c.EtcdPorts[0])}
	}
	for _, name := range sharedKeys {
		b, err := os.ReadFile(filepath.Join(c.PKIDir(), name))
		if errors.Is(err, fs.ErrNotExist) && len(c.EtcdServers) > 0 {
			continue // with an external etcd there is no authority for members
		}
		if err != nil {
			return nil, fmt.Errorf("the cluster has no keys yet (%w); start the server first", err)
		}
		i.Keys[name] = b
	}
	return i, nil
}

// Join makes this instance a further server of the inviting cluster. An instance that has keys already must have the
// cluster's own.
func (c *Config) Join(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("no invitation (\"skiff invite\" on a server that runs prints one): %w", err)
	}
	i := &Invitation{}
	if err := json.Unmarshal(b, i); err != nil {
		return fmt.Errorf("%s is no invitation (made by \"skiff invite\"): %w", file, err)
	}
	c.PodCIDR, c.ServiceCIDR, c.NodePorts, c.ClusterDomain = i.PodCIDR, i.ServiceCIDR, i.NodePorts, i.ClusterDomain
	c.EtcdServers, c.EtcdJoin = i.EtcdServers, i.Members
	if len(i.EtcdServers) == 0 && c.EtcdPorts == [2]int{} {
		c.EtcdPorts = [2]int{2379, 2380}
	}
	for _, name := range sharedKeys {
		want, ok := i.Keys[name]
		if !ok {
			continue
		}
		at := filepath.Join(c.PKIDir(), name)
		switch have, err := os.ReadFile(at); {
		case err == nil && string(have) == string(want):
		case err == nil:
			return fmt.Errorf("this instance belongs to another cluster (%s differs); remove it with \"skiff down --purge\" first", at)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		default:
			if err := pki.Write(at, want); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Config) etcdURL(port int) string {
	return "https://" + net.JoinHostPort(c.NodeIP.String(), strconv.Itoa(port))
}

// member is how the embedded etcd meets the other servers' members; nil when it is alone.
func (c *Config) member() (*etcd.Peers, error) {
	if len(c.EtcdServers) > 0 || c.EtcdPorts == [2]int{} {
		return nil, nil
	}
	ca, err := pki.Open(c.PKIDir(), etcdAuthority)
	if err != nil {
		return nil, err
	}
	if _, err := ca.Keep(c.PKIDir(), "etcd-peer", pki.Leaf{User: c.identity(), Peer: true, DNS: []string{"localhost"},
		IPs: []net.IP{c.NodeIP.AsSlice(), net.IPv4(127, 0, 0, 1)}}); err != nil {
		return nil, err
	}
	file := func(name string) string { return filepath.Join(c.PKIDir(), name) }
	return &etcd.Peers{Name: c.identity(), ClientURL: c.etcdURL(c.EtcdPorts[0]), URL: c.etcdURL(c.EtcdPorts[1]), Join: c.EtcdJoin,
		CertFile: file("etcd-peer.crt"), KeyFile: file("etcd-peer.key"), CAFile: file(etcdAuthority + ".crt")}, nil
}
