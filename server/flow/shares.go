package flow

import "math"

// bounds are the seats that a level is given: what its shares come to, and between what its limit may move.
type bounds struct{ nominal, least, most int }

// divide gives every level its part of all seats. The parts are rounded up, so they may sum to a little more.
func divide(total int, specs []levelSpec) []bounds {
	sum := 0
	for _, s := range specs {
		sum += s.shares
	}
	out := make([]bounds, len(specs))
	for i, s := range specs {
		n := 0
		if sum > 0 {
			n = int(math.Ceil(float64(total) * float64(s.shares) / float64(sum)))
		}
		borrows := total
		if s.borrowing >= 0 {
			borrows = percent(n, s.borrowing)
		}
		out[i] = bounds{nominal: n, least: n - percent(n, s.lendable), most: n + borrows}
	}
	return out
}

func percent(n, p int) int { return int(math.Round(float64(n) * float64(p) / 100)) }

// initial is a level's limit before its demand is known.
func (b bounds) initial() int { return b.nominal - (b.nominal-b.least)/2 }

// widest is the most seats that one request of a level may take.
func (b bounds) widest(hand int) int {
	return max(1, min(int(math.Ceil(float64(b.nominal)*0.15)), b.nominal/max(hand, 1)))
}

// claim is what one level may ask of all seats.
type claim struct {
	exempt bool
	bounds
	observed
}

// floor is what a level keeps in any case: what it used lately, up to what is its own, and never less than what it does not
// lend.
func (c claim) floor() int {
	if c.exempt {
		return max(c.least, c.high)
	}
	return max(c.least, min(c.nominal, c.high))
}

func (c claim) target() float64 { return max(float64(c.floor()), c.smooth, 0.001) }

// share sets the limits of all levels to their demand, as far as the seats go, and the fraction of its target that each
// could have. An exempt level takes what it used; nobody limits it.
func share(claims []claim) (limits []int, fraction float64) {
	limits = make([]int, len(claims))
	total, floors, leasts := 0, 0, 0
	for i, c := range claims {
		limits[i] = c.floor()
		total += c.nominal
		if c.exempt {
			continue
		}
		floors += c.floor()
		leasts += c.least
	}
	left := total
	for i, c := range claims {
		if c.exempt {
			left -= limits[i]
		}
	}
	switch {
	case left <= leasts:
		for i, c := range claims {
			if !c.exempt {
				limits[i] = c.least
			}
		}
	case left <= floors:
		part := float64(left-leasts) / float64(floors-leasts)
		for i, c := range claims {
			if !c.exempt {
				limits[i] = c.least + int(math.Round(float64(c.floor()-c.least)*part))
			}
		}
	default:
		fraction = fairFraction(float64(left), claims)
		for i, c := range claims {
			if !c.exempt {
				limits[i] = int(math.Round(c.at(fraction)))
			}
		}
	}
	return limits, fraction
}

// at is what a level gets when everybody gets a fraction of the target.
func (c claim) at(fraction float64) float64 {
	return max(float64(c.floor()), min(float64(c.most), fraction*c.target()))
}

// fairFraction finds the fraction at which the seats are used up, by halving.
func fairFraction(seats float64, claims []claim) float64 {
	sum := func(f float64) (n float64) {
		for _, c := range claims {
			if !c.exempt {
				n += c.at(f)
			}
		}
		return n
	}
	low, high := 0.0, 1.0
	for sum(high) < seats && high < 1e9 {
		high *= 2
	}
	for range 60 {
		if mid := (low + high) / 2; sum(mid) < seats {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}
