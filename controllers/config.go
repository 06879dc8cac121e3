package controllers

import (
	"crypto"
	"fmt"
	"net/netip"
	"time"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/controllers/certificates"
	"github.com/skiff-sh/skiff/controllers/nodelifecycle"
	"github.com/skiff-sh/skiff/controllers/served"
	"github.com/skiff-sh/skiff/controllers/serviceaccounttoken"
)

// Config is what the controllers need to know of the cluster.
type Config struct {
	// Only selects controllers by upstream's names ("job-controller"). Nil: those that are on by default.
	Only func(name string) bool
	// ClusterCIDR is the range that nodes' pod ranges are cut from. Default 10.244.0.0/16.
	ClusterCIDR netip.Prefix
	// NodeCIDRBits is the length of a node's prefix. Default 24.
	NodeCIDRBits int
	// RootCA is published in every namespace, in PEM. Without one nothing is published.
	RootCA []byte
	// Signing is what approved certificate requests are signed with. Without authorities none are.
	Signing certificates.SigningConfig
	// ServiceAccountKey signs the tokens in Secrets. Without one they are not filled.
	ServiceAccountKey crypto.Signer
	// LegacyTokenPeriod is how long a token that an older version made must lie idle before it is retired. Default: a year.
	LegacyTokenPeriod time.Duration
	// Kinds is the table that the server serves, custom resources included, which somebody else keeps. Default: one of
	// their own, the built-in kinds and those that the cluster's CustomResourceDefinitions add.
	Kinds *api.Table
	// NodeGracePeriod is how long a node may be silent before it counts as not ready. Default 50 s. It stands for
	// Nodes.Grace.
	NodeGracePeriod time.Duration
	// Nodes is how nodes in trouble are dealt with.
	Nodes nodelifecycle.Config

	served *served.Kinds // all kinds, those of aggregated servers too; set by All
}

func (c Config) withDefaults() Config {
	if !c.ClusterCIDR.IsValid() {
		c.ClusterCIDR = netip.MustParsePrefix("10.244.0.0/16")
	}
	if c.NodeCIDRBits == 0 {
		c.NodeCIDRBits = 24
	}
	if c.Kinds == nil {
		c.Kinds = api.NewTable(builtin.Kinds()...)
	}
	if c.LegacyTokenPeriod == 0 {
		c.LegacyTokenPeriod = serviceaccounttoken.LegacyPeriod
	}
	if c.NodeGracePeriod != 0 {
		c.Nodes.Grace = c.NodeGracePeriod
	}
	return c
}

// Validate reports what is wrong with a configuration; the zero value is right.
func (c Config) Validate() error {
	c = c.withDefaults()
	if c.NodeCIDRBits < c.ClusterCIDR.Bits() || c.NodeCIDRBits > c.ClusterCIDR.Addr().BitLen() {
		return fmt.Errorf("nodes' pod ranges of /%d do not fit into the cluster's %s", c.NodeCIDRBits, c.ClusterCIDR)
	}
	if c.LegacyTokenPeriod < 0 {
		return fmt.Errorf("a period of %v for tokens to lie idle is negative", c.LegacyTokenPeriod)
	}
	if c.ServiceAccountKey != nil {
		if _, err := serviceaccounttoken.NewSigner(c.ServiceAccountKey); err != nil {
			return err
		}
	}
	if c.Signing.Authorities != nil {
		for _, name := range certificates.Signers {
			if a, ok := c.Signing.Authorities(name); ok {
				if err := a.Validate(); err != nil {
					return fmt.Errorf("the signer %s: %w", name, err)
				}
			}
		}
	}
	return c.Nodes.Validate()
}
