package podautoscaler

import (
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/utils/ptr"
)

// downscaleStabilization is how long the highest recommendation is heeded where the user names no other time.
const downscaleStabilization = 5 * time.Minute

// recommendation is what the metrics asked for at one time.
type recommendation struct {
	replicas int32
	at       time.Time
}

// change is one scaling of the past: how many replicas were added, or removed where it is negative.
type change struct {
	by int32
	at time.Time
}

// memory is what an autoscaler remembers between two visits.
type memory struct {
	recommendations []recommendation
	changes         []change
}

// recommend adds a recommendation and drops those that no window reaches.
func (m *memory) recommend(replicas int32, now time.Time, longest time.Duration) {
	kept := m.recommendations[:0]
	for _, r := range m.recommendations {
		if now.Sub(r.at) < longest {
			kept = append(kept, r)
		}
	}
	m.recommendations = append(kept, recommendation{replicas, now})
}

func (m *memory) scaled(by int32, now time.Time, longest time.Duration) {
	kept := m.changes[:0]
	for _, c := range m.changes {
		if now.Sub(c.at) < longest {
			kept = append(kept, c)
		}
	}
	m.changes = append(kept, change{by, now})
}

// changed counts the replicas that were added and removed within a period.
func (m *memory) changed(period time.Duration, now time.Time) (added, removed int32) {
	for _, c := range m.changes {
		if now.Sub(c.at) >= period {
			continue
		}
		if c.by > 0 {
			added += c.by
		} else {
			removed -= c.by
		}
	}
	return added, removed
}

// outcome is a number of replicas and what limited it.
type outcome struct {
	replicas        int32
	reason, message string
}

var reasons = map[string]string{
	"DesiredWithinRange": "the desired count is within the acceptable range",
	"TooFewReplicas":     "the desired replica count is less than the minimum replica count",
	"TooManyReplicas":    "the desired replica count is more than the maximum replica count",
	"ScaleUpLimit":       "the desired replica count is increasing faster than the maximum scale rate",
	"ScaleDownLimit":     "the desired replica count is decreasing faster than the maximum scale rate",
}

func limited(replicas int32, reason string) outcome {
	return outcome{replicas, reason, reasons[reason]}
}

// bounds are the autoscaler's limits.
type bounds struct{ least, most int32 }

// plainly applies the limits of an autoscaler without a behaviour: at most twice the replicas at once, or four.
func (b bounds) plainly(current, desired int32) outcome {
	fast := max(2*int64(current), 4)
	switch {
	case desired < b.least:
		return limited(b.least, "TooFewReplicas")
	case int64(desired) > fast && fast < int64(b.most):
		return limited(int32(fast), "ScaleUpLimit")
	case desired > b.most:
		return limited(b.most, "TooManyReplicas")
	}
	return limited(desired, "DesiredWithinRange")
}

// byRules applies the limits and the behaviour's rates.
func (b bounds) byRules(current, desired int32, up, down *autoscalingv2.HPAScalingRules, m *memory, now time.Time) outcome {
	switch {
	case desired > current:
		most, reason := b.most, "TooManyReplicas"
		if limit := max(upLimit(current, up, m, now), current); limit < most {
			most, reason = limit, "ScaleUpLimit"
		}
		if desired > most {
			return limited(most, reason)
		}
	case desired < current:
		least, reason := b.least, "TooFewReplicas"
		if limit := min(downLimit(current, down, m, now), current); limit > least {
			least, reason = limit, "ScaleDownLimit"
		}
		if desired < least {
			return limited(least, reason)
		}
	}
	return limited(desired, "DesiredWithinRange")
}

func selects(r *autoscalingv2.HPAScalingRules, s autoscalingv2.ScalingPolicySelect) bool {
	return ptr.Deref(r.SelectPolicy, autoscalingv2.MaxChangePolicySelect) == s
}

// upLimit is the most replicas that the policies allow now.
func upLimit(current int32, r *autoscalingv2.HPAScalingRules, m *memory, now time.Time) int32 {
	if selects(r, autoscalingv2.DisabledPolicySelect) {
		return current
	}
	least := selects(r, autoscalingv2.MinChangePolicySelect)
	limit := int64(math.MinInt32)
	if least {
		limit = math.MaxInt32
	}
	for _, p := range r.Policies {
		added, removed := m.changed(time.Duration(p.PeriodSeconds)*time.Second, now)
		start := int64(current) - int64(added) + int64(removed)
		to := start + int64(p.Value)
		if p.Type == autoscalingv2.PercentScalingPolicy {
			to = int64(math.Ceil(float64(start) * (1 + float64(p.Value)/100)))
		}
		if least {
			limit = min(limit, to)
		} else {
			limit = max(limit, to)
		}
	}
	return int32(min(max(limit, math.MinInt32), math.MaxInt32))
}

// downLimit is the least replicas that the policies allow now.
func downLimit(current int32, r *autoscalingv2.HPAScalingRules, m *memory, now time.Time) int32 {
	if selects(r, autoscalingv2.DisabledPolicySelect) {
		return current
	}
	least := selects(r, autoscalingv2.MinChangePolicySelect)
	limit := int64(math.MaxInt32)
	if least {
		limit = math.MinInt32
	}
	for _, p := range r.Policies {
		added, removed := m.changed(time.Duration(p.PeriodSeconds)*time.Second, now)
		start := int64(current) - int64(added) + int64(removed)
		to := start - int64(p.Value)
		if p.Type == autoscalingv2.PercentScalingPolicy {
			to = int64(float64(start) * (1 - float64(p.Value)/100))
		}
		if least {
			limit = max(limit, to)
		} else {
			limit = min(limit, to)
		}
	}
	return int32(limit)
}

// longest is how far back anything is remembered.
func longest(b *autoscalingv2.HorizontalPodAutoscalerBehavior) (recommendations, changes time.Duration) {
	if b == nil {
		return downscaleStabilization, 0
	}
	for _, r := range []*autoscalingv2.HPAScalingRules{b.ScaleUp, b.ScaleDown} {
		if r == nil {
			continue
		}
		for _, p := range r.Policies {
			changes = max(changes, time.Duration(p.PeriodSeconds)*time.Second)
		}
	}
	return max(window(b.ScaleUp, 0), window(b.ScaleDown, downscaleStabilization)), changes
}

func window(r *autoscalingv2.HPAScalingRules, otherwise time.Duration) time.Duration {
	if r == nil || r.StabilizationWindowSeconds == nil {
		return otherwise
	}
	return time.Duration(*r.StabilizationWindowSeconds) * time.Second
}

// stabilize keeps replicas between the lowest recommendation of the one window and the highest of the other.
func (m *memory) stabilize(current, desired int32, upWindow, downWindow time.Duration, now time.Time) int32 {
	up, down := desired, desired
	for _, r := range m.recommendations {
		if now.Sub(r.at) < upWindow {
			up = min(up, r.replicas)
		}
		if now.Sub(r.at) < downWindow {
			down = max(down, r.replicas)
		}
	}
	return min(max(current, up), down)
}

// highest is the highest recommendation of the default window.
func (m *memory) highest(desired int32, now time.Time) int32 {
	for _, r := range m.recommendations {
		if now.Sub(r.at) < downscaleStabilization {
			desired = max(desired, r.replicas)
		}
	}
	return desired
}
