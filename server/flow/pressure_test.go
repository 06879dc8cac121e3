package flow

import (
	"testing"
	"time"
)

func TestPressure(t *testing.T) {
	var p pressure
	now := time.Duration(0)
	push := func(seconds, each int) (after int) {
		for range seconds * each {
			now += time.Second / time.Duration(each)
			after = p.drop(now)
		}
		return after
	}
	if got := push(1, 1); got != 1 {
		t.Errorf("at first %d s", got)
	}
	if got := push(200, 50); got != longest {
		t.Errorf("under a flood %d s, want %d", got, longest)
	}
	now += time.Hour
	if got := push(1, 1); got != 1 {
		t.Errorf("after a rest %d s", got)
	}
}
