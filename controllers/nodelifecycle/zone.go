package nodelifecycle

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
)

// State is how a zone is doing.
type State int

const (
	Normal  State = iota
	Partial       // too many of its nodes are not ready
	Full          // none is ready
)

// StateOf judges a zone by its nodes that say whether they are ready.
func StateOf(ready, unready int, unhealthy float64) State {
	switch {
	case ready == 0 && unready > 0:
		return Full
	case unready > 2 && float64(unready)/float64(ready+unready) >= unhealthy:
		return Partial
	}
	return Normal
}

// Pace is how many nodes of a zone are given over to eviction each second. A zone where nothing is ready goes at the
// full rate: it is the zone that has failed, and others are well (where none is, nobody asks).
func (c Config) Pace(s State, nodes int) float64 {
	switch {
	case s != Partial:
		return c.Rate
	case nodes > c.Large:
		return c.Secondary
	}
	return 0
}

// zoneOf is the zone of a node, told apart by region.
func zoneOf(n *corev1.Node) string {
	return n.Labels[corev1.LabelTopologyRegion] + "\x00" + n.Labels[corev1.LabelTopologyZone]
}

// zones paces the nodes of each zone.
type zones struct {
	cfg Config

	mu       sync.Mutex
	limiters map[string]*rate.Limiter
}

// survey counts the nodes of the cluster: whether none is ready, and the pace of one zone.
func (z *zones) survey(nodes []*corev1.Node, zone string) (allUnready bool, pace float64) {
	ready, unready, anywhere := 0, 0, false
	for _, n := range nodes {
		ok := isReady(n)
		anywhere = anywhere || ok
		switch {
		case zoneOf(n) != zone:
		case ok:
			ready++
		default:
			unready++
		}
	}
	return !anywhere, z.cfg.Pace(StateOf(ready, unready, z.cfg.Unhealthy), ready+unready)
}

// turn takes a zone's next turn to give a node over to eviction. If it is not yet, wait says how long; 0 means not before
// the zone's state changes.
func (z *zones) turn(zone string, pace float64, now time.Time) (ok bool, wait time.Duration) {
	z.mu.Lock()
	defer z.mu.Unlock()
	l := z.limiters[zone]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(pace), 1)
		z.limiters[zone] = l
	}
	if l.Limit() != rate.Limit(pace) {
		l.SetLimitAt(now, rate.Limit(pace))
	}
	if pace == 0 {
		return false, 0
	}
	if l.AllowN(now, 1) {
		return true, 0
	}
	r := l.ReserveN(now, 1)
	defer r.CancelAt(now)
	return false, r.DelayFrom(now)
}
