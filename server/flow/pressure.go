package flow

import "time"

// pressure is how hard a level's clients push: the more requests are dropped, the later the next are told to come again.
type pressure struct {
	after int // seconds
	since time.Duration
	drops int // since then
}

// longest is the most that a client is told to wait, in seconds.
const longest = 32

// drop counts a dropped request and says after how many seconds it may come again: twice as many as before while three or
// more are dropped in each of them, and fewer again when it gets quiet.
func (p *pressure) drop(now time.Duration) int {
	p.after = max(p.after, 1)
	if passed := int((now - p.since) / time.Second); passed >= p.after {
		switch {
		case p.drops >= 3*passed:
			p.after = min(2*p.after, longest)
		case p.drops < passed:
			p.after = max(1, p.after-passed)
		}
		p.since, p.drops = now, 0
	}
	p.drops++
	return p.after
}
