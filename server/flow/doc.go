// Package flow decides which requests are served now, which wait and which are turned away: API Priority and Fairness
// (KEP-1040). FlowSchemas sort requests into flows, each flow belongs to a priority level, and every level has seats of its
// own, some of which it lends to busier levels while it needs none. When a level's seats are taken, its flows wait in
// queues, and each queue gets its share of what is served.
//
// Invariants: the dispatcher of a level (level), the sharing of seats (shares.go) and the reading of the objects
// (plan.go) have no clock, goroutine or lock in them; Gate is the edge. A level never has more seats in use than its limit, unless
// one request alone is wider than that. A request that finds a free seat waits for nobody and allocates nothing.
//
// Fairness is start-time fair queuing (Goyal, Vin and Cheng, 1996): a queue's next request starts, in virtual time, where the
// seat-seconds of those served before it end, and the earliest start is served first. Who finds a free seat owes
// nothing for it: nobody waited.
//
// A write takes one seat. Upstream lets it hold more for a moment after its answer, by the number of its watchers; here all
// watchers of a kind share one encoding of each event, so that a write costs little more for having them.
//
// Only server imports flow.
package flow
