package core

import "slices"

// moreIsBetter gives the highest raw score MaxScore.
func moreIsBetter(raw []int64) {
	if top := slices.Max(raw); top > 0 {
		for i := range raw {
			raw[i] = raw[i] * MaxScore / top
		}
	}
}

// fewerIsBetter gives 0 the score MaxScore, and the highest raw score 0.
func fewerIsBetter(raw []int64) {
	top := slices.Max(raw)
	for i := range raw {
		if top == 0 {
			raw[i] = MaxScore
		} else {
			raw[i] = MaxScore - raw[i]*MaxScore/top
		}
	}
}

// spanToHundred gives the lowest raw score 0 and the highest MaxScore.
func spanToHundred(raw []int64) {
	low, top := slices.Min(raw), slices.Max(raw)
	for i := range raw {
		if top == low {
			raw[i] = 0
		} else {
			raw[i] = int64(MaxScore * (float64(raw[i]-low) / float64(top-low)))
		}
	}
}
