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
	"regexp"
)

// Config is one instance of Skiff on one machine. The zero value of a field means its default; Complete fills the
// defaults in. It is kept as config.json in the data folder, so that every later command finds the instance by its name.
type Config struct {
	// Name tells instances on one machine apart: it names their folders, bridge, nftables tables and cgroup.
	// At most 11 characters of a-z, 0-9 and '-' (a network link's name has 15). Default "skiff".
	Name string `json:"name"`
	// DataDir holds all that must last: keys, etcd, images, volumes, logs. Default /var/lib/NAME.
	DataDir string `json:"dataDir"`
	// RunDir holds sockets and process ids; it may vanish with a reboot. Default /run/NAME.
	RunDir string `json:"runDir"`
	// LogDir holds the containers' logs as upstream lays them out. Default /var/log/pods, under DataDir for any name
	// but the default one.
	LogDir string `json:"logDir"`

	NodeName string     `json:"nodeName"` // default: the host's name
	NodeIP   netip.Addr `json:"nodeIP"`   // default: the address of the interface with the default route
	APIPort  int        `json:"apiPort"`  // default 6443
	NodePort int        `json:"nodePort"` // the node agent's own port; default 10250

	PodCIDR       netip.Prefix `json:"podCIDR"`     // default 10.244.0.0/16; every node gets a /24 of it
	ServiceCIDR   netip.Prefix `json:"serviceCIDR"` // default 10.96.0.0/16; .1 is the API server, .10 the DNS
	NodePorts     [2]int       `json:"nodePorts"`   // first and last node port of services; default 30000, 32767
	ClusterDomain string       `json:"clusterDomain"`

	// EtcdServers are the endpoints of an external etcd. None: etcd runs inside the server.
	EtcdServers []string `json:"etcdServers,omitempty"`
	// EtcdPorts are where the embedded etcd serves clients and its peers, so that other servers can join. None: it is
	// alone, and listens nowhere. EtcdJoin is members to join through at the first start.
	EtcdPorts [2]int   `json:"etcdPorts"`
	EtcdJoin  []string `json:"etcdJoin,omitempty"`
	// Nodes is how many nodes this machine stands for: see Neighbours. Default 1.
	Nodes int `json:"nodes,omitempty"`
	// MaxPods is how many pods the node takes. Default 110.
	MaxPods int `json:"maxPods"`
}

var validName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,9}[a-z0-9]$`)

// Complete fills in the defaults and checks the rest. The error says which field is wrong and what to do.
func (c *Config) Complete() error {
	setDefault(&c.Name, "skiff")
	if !validName.MatchString(c.Name) {
		return fmt.Errorf("the name %q must be 2 to 11 characters of a-z, 0-9 and '-', starting with a letter", c.Name)
	}
	setDefault(&c.DataDir, "/var/lib/"+c.Name)
	setDefault(&c.RunDir, "/run/"+c.Name)
	if c.Name == "skiff" {
		setDefault(&c.LogDir, "/var/log/pods")
	}
	setDefault(&c.LogDir, filepath.Join(c.DataDir, "pod-logs"))
	for _, dir := range []string{c.DataDir, c.RunDir, c.LogDir} {
		if !filepath.IsAbs(dir) || filepath.Dir(dir) == "/" {
			return fmt.Errorf("the folder %q must be an absolute path below the top level, because \"down --purge\" removes it", dir)
		}
	}
	if c.NodeName == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("this machine has no host name (%w); set --node-name", err)
		}
		c.NodeName = host
	}
	if c.Nodes < 0 || c.Nodes > maxNodes {
		return fmt.Errorf("%d nodes on one machine: 1 to %d are possible", c.Nodes, maxNodes)
	}
	if c.Nodes > 1 {
		if len(c.Name) > 9 {
			return fmt.Errorf("the name %q must have at most 9 characters, because the further nodes' names start with it", c.Name)
		}
		c.NodeIP = c.nodeAddr(1)
	}
	if !c.NodeIP.IsValid() {
		ip, err := HostIP()
		if err != nil {
			return err
		}
		c.NodeIP = ip
	}
	setDefault(&c.APIPort, 6443)
	setDefault(&c.NodePort, 10250)
	setDefault(&c.PodCIDR, netip.MustParsePrefix("10.244.0.0/16"))
	setDefault(&c.ServiceCIDR, netip.MustParsePrefix("10.96.0.0/16"))
	setDefault(&c.NodePorts, [2]int{30000, 32767})
	setDefault(&c.ClusterDomain, "cluster.local")
	setDefault(&c.MaxPods, 110)
	for _, p := range []struct {
		what string
		port int
	}{{"API server's", c.APIPort}, {"node agent's", c.NodePort}, {"etcd's client", c.EtcdPorts[0]}, {"etcd's peer", c.EtcdPorts[1]}} {
		if p.port < 0 || p.port > 65535 {
			return fmt.Errorf("the %s port %d must be between 1 and 65535", p.what, p.port)
		}
	}
	switch {
	case c.PodCIDR.Bits() > 24 || !c.PodCIDR.Addr().Is4():
		return fmt.Errorf("the pod range %s must be an IPv4 range of /24 or wider: every node gets a /24 of it", c.PodCIDR)
	case c.ServiceCIDR.Bits() > 27 || !c.ServiceCIDR.Addr().Is4():
		return fmt.Errorf("the service range %s must be an IPv4 range of /27 or wider", c.ServiceCIDR)
	case c.PodCIDR.Overlaps(c.ServiceCIDR):
		return fmt.Errorf("the pod range %s and the service range %s overlap; choose ranges apart", c.PodCIDR, c.ServiceCIDR)
	case c.NodePorts[0] < 1 || c.NodePorts[1] > 65535 || c.NodePorts[0] > c.NodePorts[1]:
		return fmt.Errorf("the node ports %d-%d are no range of ports", c.NodePorts[0], c.NodePorts[1])
	}
	c.PodCIDR, c.ServiceCIDR = c.PodCIDR.Masked(), c.ServiceCIDR.Masked()
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// HostIP is the address that this machine would send from to reach the rest of the world. Nothing is sent.
func HostIP() (netip.Addr, error) {
	conn, err := net.Dial("udp4", "198.51.100.1:9") // an address of TEST-NET-2 (RFC 5737)
	if err == nil {
		defer conn.Close()
		return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
	}
	addrs, err2 := net.InterfaceAddrs()
	if err2 == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
				ip, _ := netip.AddrFromSlice(n.IP.To4())
				return ip, nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("this machine has no IPv4 address but loopback (%w); bring a network up or set --node-ip", err)
}

// Instance paths and addresses, derived so that nobody spells them twice.

func (c *Config) path(elem ...string) string {
	return filepath.Join(append([]string{c.DataDir}, elem...)...)
}
func (c *Config) run(elem ...string) string {
	return filepath.Join(append([]string{c.RunDir}, elem...)...)
}

// LogFile is where a server that runs in the background writes.
func (c *Config) LogFile() string { return c.path("skiff.log") }

// PIDFile holds the process id of the instance that runs; it is locked while it lives.
func (c *Config) PIDFile() string { return c.run("skiff.pid") }

// PKIDir holds the cluster's certificates and keys.
func (c *Config) PKIDir() string { return c.path("pki") }

// ContainerdSocket is the container runtime's endpoint.
func (c *Config) ContainerdSocket() string { return c.run("containerd", "containerd.sock") }

// RegistryHostsDir is containerd's folder of registry mirrors (hosts.toml files).
func (c *Config) RegistryHostsDir() string { return c.path("registry-hosts") }

// Bridge is the name of the pods' bridge.
func (c *Config) Bridge() string { return c.Name + "0" }

// APIServiceIP is the cluster address of the API server: the first of the service range.
func (c *Config) APIServiceIP() netip.Addr { return c.ServiceCIDR.Addr().Next() }

// DNSServiceIP is the cluster address of the DNS: the tenth of the service range.
func (c *Config) DNSServiceIP() netip.Addr {
	ip := c.ServiceCIDR.Addr()
	for range 10 {
		ip = ip.Next()
	}
	return ip
}

// URL is where clients on this machine reach the API server.
func (c *Config) URL() string { return fmt.Sprintf("https://127.0.0.1:%d", c.APIPort) }

// Save keeps the configuration in the data folder.
func (c *Config) Save() error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.DataDir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(c.path("config.json"), append(b, '\n'), 0o644)
}

// ErrNoInstance says that no instance of the name has been started on this machine.
var ErrNoInstance = errors.New("no such instance")

// Load reads the configuration of the instance that was started under a name, or in a data folder when one is given.
func Load(name, dataDir string) (*Config, error) {
	setDefault(&name, "skiff")
	setDefault(&dataDir, "/var/lib/"+name)
	b, err := os.ReadFile(filepath.Join(dataDir, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s has no config.json; start one with \"skiff up\"", ErrNoInstance, dataDir)
	}
	if err != nil {
		return nil, err
	}
	c := &Config{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%s/config.json: %w", dataDir, err)
	}
	return c, c.Complete()
}
