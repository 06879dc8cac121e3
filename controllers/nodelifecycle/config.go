package nodelifecycle

import (
	"fmt"
	"time"
)

// Config is how nodes in trouble are dealt with. The zero value stands for upstream's defaults.
type Config struct {
	// Grace is how long a node may be silent before it counts as not ready. Default 50 s.
	Grace time.Duration
	// Startup is the same for a node that has never said anything. Default 60 s.
	Startup time.Duration
	// Rate is how many nodes of a zone are given over to eviction each second while most of them are well.
	// Default 0.1. Secondary is the rate where too many are not. Default 0.01.
	Rate, Secondary float64
	// Unhealthy is the part of a zone's nodes from which on it is disrupted, if that is at least three. Default 0.55.
	Unhealthy float64
	// Large is how many nodes a zone must have for the secondary rate; in a smaller one that is disrupted nothing is
	// evicted at all. Default 50.
	Large int
}

func (c Config) withDefaults() Config {
	if c.Grace == 0 {
		c.Grace = 50 * time.Second
	}
	if c.Startup == 0 {
		c.Startup = max(time.Minute, c.Grace)
	}
	if c.Rate == 0 {
		c.Rate = 0.1
	}
	if c.Secondary == 0 {
		c.Secondary = 0.01
	}
	if c.Unhealthy == 0 {
		c.Unhealthy = 0.55
	}
	if c.Large == 0 {
		c.Large = 50
	}
	return c
}

// Validate reports what is wrong with a configuration; the zero value is right.
func (c Config) Validate() error {
	switch {
	case c.Grace < 0 || c.Startup < 0:
		return fmt.Errorf("a node grace period of %v (at the start %v) is negative", c.Grace, c.Startup)
	case c.Rate < 0 || c.Secondary < 0:
		return fmt.Errorf("rates of eviction of %v and %v nodes a second are negative", c.Rate, c.Secondary)
	case c.Unhealthy < 0 || c.Unhealthy > 1:
		return fmt.Errorf("%v is no part of a zone", c.Unhealthy)
	}
	return nil
}
