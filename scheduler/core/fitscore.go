package core

import "math"

// MaxScore is what the best node gets from one rule, before its weight.
const MaxScore = 100

// scoreOf rates the shares of a node's resources that would be used; both slices go by the strategy's resources, with 0
// where the node has nothing, or an extended resource that the pod does not ask for.
func (s *Strategy) scoreOf(p *Pod, n *node) int64 {
	var sum, weights int64
	for _, r := range s.Resources {
		has, want := n.has.of(r.Name), p.counted.of(r.Name)
		extended := isExtended(r.Name)
		if has == 0 || extended && p.asked.of(r.Name) == 0 {
			continue
		}
		used := n.counted.of(r.Name) + want
		var rate int64
		switch s.Type {
		case MostAllocated:
			rate = min(used, has) * MaxScore / has
		case RequestedToCapacityRatio:
			rate = s.onLine(used, has)
			if rate <= 0 {
				continue
			}
		default:
			if used <= has {
				rate = (has - used) * MaxScore / has
			}
		}
		sum += rate * r.Weight
		weights += r.Weight
	}
	if weights == 0 {
		return 0
	}
	if s.Type == RequestedToCapacityRatio {
		return int64(math.Round(float64(sum) / float64(weights)))
	}
	return sum / weights
}

// onLine is the broken line's value where used stands to has.
func (s *Strategy) onLine(used, has int64) int64 {
	at := int64(100)
	if used <= has {
		at = used * 100 / has
	}
	for i, point := range s.Shape {
		if at > point.Utilization {
			continue
		}
		if i == 0 {
			return point.Score
		}
		before := s.Shape[i-1]
		return before.Score + (point.Score-before.Score)*(at-before.Utilization)/(point.Utilization-before.Utilization)
	}
	return s.Shape[len(s.Shape)-1].Score
}

// balanceScore is around 75, and the higher the more the pod evens out the shares in which a node's resources are used.
// Pods that ask for none of them get 0 everywhere.
func balanceScore(resources []WeightedResource, p *Pod, n *node) int64 {
	asks := false
	for _, r := range resources {
		asks = asks || p.asked.of(r.Name) > 0
	}
	if !asks {
		return 0
	}
	with, without := spreadOf(resources, p, n, 1), spreadOf(resources, p, n, 0)
	return MaxScore/2 + (MaxScore/2+with-without)/2
}

// spreadOf is 100 when all resources are used in the same share, and less by the standard deviation of the shares.
func spreadOf(resources []WeightedResource, p *Pod, n *node, pods int64) int64 {
	var space [4]float64
	shares := space[:0]
	sum := 0.0
	for _, r := range resources {
		want, has := p.asked.of(r.Name), n.has.of(r.Name)
		if has == 0 || want == 0 && isExtended(r.Name) {
			continue
		}
		share := min(float64(n.used.of(r.Name)+pods*want)/float64(has), 1)
		shares = append(shares, share)
		sum += share
	}
	deviation := 0.0
	switch len(shares) {
	case 0, 1:
	case 2:
		deviation = math.Abs(shares[0]-shares[1]) / 2
	default:
		mean, squares := sum/float64(len(shares)), 0.0
		for _, s := range shares {
			squares += (s - mean) * (s - mean)
		}
		deviation = math.Sqrt(squares / float64(len(shares)))
	}
	return int64((1 - deviation) * MaxScore)
}
