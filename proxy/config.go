package proxy

import (
	"errors"
	"log/slog"
	"net/netip"

	"github.com/skiff-sh/skiff/client"
)

// Config is what a Proxy needs. Fields without a default are required.
type Config struct {
	Client   client.Interface // for events and nothing else; may be nil
	Caches   *client.Caches
	NodeName string
	NodeIPs  []netip.Addr
	// ClusterCIDR holds all pods of the cluster.
	ClusterCIDR netip.Prefix
	Table       string // the nftables table's name; default "skiff-proxy"
	Log         *slog.Logger
}

func (c *Config) validate() error {
	if c.Caches == nil || c.NodeName == "" || len(c.NodeIPs) == 0 || !c.ClusterCIDR.IsValid() {
		return errors.New("proxy: Config needs Caches, NodeName, NodeIPs and ClusterCIDR")
	}
	c.defaults()
	return nil
}

func (c *Config) defaults() {
	if c.Table == "" {
		c.Table = "skiff-proxy"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}
