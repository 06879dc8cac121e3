package flow

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"slices"
	"text/tabwriter"
)

// table answers with aligned columns.
func table(w http.ResponseWriter, write func(io.Writer)) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	t := tabwriter.NewWriter(w, 8, 0, 1, ' ', 0)
	write(t)
	_ = t.Flush() // the client is gone
}

// sorted are the levels by name.
func (g *Gate) sorted() []*guarded {
	return slices.SortedFunc(slices.Values(g.plan.Load().levels), func(a, b *guarded) int { return cmp.Compare(a.name, b.name) })
}

// DumpLevels shows what the levels are doing.
func (g *Gate) DumpLevels(w http.ResponseWriter, _ *http.Request) {
	dispatched, rejected := map[string]int64{}, map[string]int64{}
	late := map[string]int64{}
	g.changing.Lock()
	for key, s := range g.stats {
		dispatched[key[0]] += s.dispatched.Load()
		rejected[key[0]] += s.noSeat.Load() + s.queueFull.Load() + s.tooLate.Load()
		late[key[0]] += s.tooLate.Load()
	}
	g.changing.Unlock()
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "PriorityLevelName,\tActiveQueues,\tIsIdle,\tIsQuiescing,\tWaitingRequests,\tExecutingRequests,\tDispatchedRequests,\tRejectedRequests,\tTimedoutRequests,\tCancelledRequests")
		for _, l := range g.sorted() {
			l.mu.Lock()
			active := 0
			for _, q := range l.level.queues {
				if !q.idle() {
					active++
				}
			}
			waiting, executing := l.waiting, l.executing
			l.mu.Unlock()
			fmt.Fprintf(t, "%s,\t%d,\t%v,\tfalse,\t%d,\t%d,\t%d,\t%d,\t%d,\t0\n", l.name, active, waiting+executing == 0, waiting, executing,
				dispatched[l.name], rejected[l.name], late[l.name])
		}
	})
}

// DumpQueues shows the queues of all levels. Seats in use are of requests that had waited: the others are in no queue.
func (g *Gate) DumpQueues(w http.ResponseWriter, _ *http.Request) {
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "PriorityLevelName,\tIndex,\tPendingRequests,\tExecutingRequests,\tNextDispatchR,\tSeatsWaiting")
		for _, l := range g.sorted() {
			l.mu.Lock()
			for i, q := range l.level.queues {
				fmt.Fprintf(t, "%s,\t%d,\t%d,\t%d,\t%.8fss,\t%d\n", l.name, i, len(q.waiters), q.executing, q.start, q.seats)
			}
			l.mu.Unlock()
		}
	})
}
