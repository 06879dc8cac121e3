package scheduler

import (
	"container/heap"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	schedhelpers "k8s.io/component-helpers/scheduling/corev1"

	"github.com/skiff-sh/skiff/scheduler/core"
)

// retryUnschedulable is when a pod is tried again although nothing happened that should help it: as upstream.
const retryUnschedulable = 5 * time.Minute

const attemptFailed = "ScheduleAttemptFailure"

// queue holds the pods that want a node. It is pure: time is passed in. A pod is in one of four places: ready to be
// tried, waiting out its back-off, parked until something changes, or being tried.
type queue struct {
	items   map[types.UID]*item
	ready   itemHeap
	backoff itemHeap
	parked  itemHeap
	by      map[string]map[types.UID]*item // parked ones by the rules that refused them
	seq     int64

	first, last time.Duration             // of the back-off, which doubles with every attempt
	incoming    func(queue, event string) // told of every pod that comes into one of the places, and why
}

type item struct {
	pod      *corev1.Pod
	asked    *core.Pod // the pod as it was last decided upon; nil before
	priority int32
	seq      int64 // order of arrival, which decides between equal priorities
	since    time.Time
	attempts int
	retry    time.Time // the end of the back-off
	broken   bool      // the last try ended with an error: the back-off counts even when there is nothing else to do
	due      time.Time // what its heap orders by, but for ready
	refused  map[string]bool
	home     *itemHeap // nil while it is being tried
	place    int
}

func newQueue(first, last time.Duration) *queue {
	q := &queue{items: map[types.UID]*item{}, by: map[string]map[types.UID]*item{}, first: first, last: last, incoming: func(string, string) {}}
	q.ready.less = func(a, b *item) bool {
		if a.priority != b.priority {
			return a.priority > b.priority
		}
		return a.seq < b.seq
	}
	due := func(a, b *item) bool { return a.due.Before(b.due) }
	q.backoff.less, q.parked.less = due, due
	return q
}

// put adds a pod, or takes its newer state; a pod that changed is worth another try, after its back-off.
func (q *queue) put(p *corev1.Pod, now time.Time) {
	it, ok := q.items[p.UID]
	event := "UnschedulablePodUpdate"
	if !ok {
		event = "UnschedulablePodAdd"
		q.seq++
		it = &item{seq: q.seq, since: now}
		q.items[p.UID] = it
	}
	it.pod, it.priority = p, schedhelpers.PodPriority(p)
	q.awake(it, now, event)
}

// refresh takes a pod's newer state when that is no reason to try again.
func (q *queue) refresh(p *corev1.Pod) {
	if it, ok := q.items[p.UID]; ok {
		it.pod = p
	}
}

// awake lets a pod be tried again, after its back-off.
func (q *queue) awake(it *item, now time.Time, event string) {
	q.take(it)
	if it.due = it.retry; it.retry.After(now) {
		q.incoming("backoff", event)
		q.store(&q.backoff, it)
	} else {
		q.incoming("active", event)
		q.store(&q.ready, it)
	}
}

func (q *queue) store(h *itemHeap, it *item) {
	it.home = h
	heap.Push(h, it)
}

// take removes a pod from where it is.
func (q *queue) take(it *item) {
	if it.home == nil {
		return
	}
	heap.Remove(it.home, it.place)
	if it.home == &q.parked {
		for name := range it.refused {
			if delete(q.by[name], it.pod.UID); len(q.by[name]) == 0 {
				delete(q.by, name)
			}
		}
	}
	it.home = nil
}

func (q *queue) drop(uid types.UID) {
	if it, ok := q.items[uid]; ok {
		q.take(it)
		delete(q.items, uid)
	}
}

// next takes the pod that is to be tried now, or says when to ask again (zero: when something changes). When none is
// ready, one that only waits out its back-off comes early, as nobody else needs the time. The caller ends the try with
// fail, park or drop.
func (q *queue) next(now time.Time) (it *item, wake time.Time) {
	for len(q.backoff.list) > 0 && !q.backoff.list[0].due.After(now) {
		q.awake(q.backoff.list[0], now, "BackoffComplete")
	}
	for len(q.parked.list) > 0 && !q.parked.list[0].due.After(now) {
		q.awake(q.parked.list[0], now, "UnschedulableTimeout")
	}
	switch {
	case len(q.ready.list) > 0:
		it = q.ready.list[0]
	default:
		for _, early := range q.backoff.list {
			if !early.broken && (it == nil || q.ready.less(early, it)) {
				it = early
			}
		}
	}
	if it != nil {
		if it.home == &q.backoff {
			q.incoming("active", "PopFromBackoffQ")
		}
		q.take(it)
		it.attempts++
		return it, time.Time{}
	}
	for _, h := range []*itemHeap{&q.backoff, &q.parked} {
		if len(h.list) > 0 && (wake.IsZero() || h.list[0].due.Before(wake)) {
			wake = h.list[0].due
		}
	}
	return nil, wake
}

// park puts a pod that fits nowhere away until something changes that one of the rules that refused it cares about.
func (q *queue) park(it *item, refused map[string]bool, now time.Time) {
	q.take(it)
	if len(refused) == 0 { // there are no nodes at all
		refused = map[string]bool{fromExtender: true}
	}
	it.refused, it.broken = refused, false
	it.retry, it.due = now.Add(q.pause(it)), now.Add(retryUnschedulable)
	for name := range refused {
		if q.by[name] == nil {
			q.by[name] = map[types.UID]*item{}
		}
		q.by[name][it.pod.UID] = it
	}
	q.incoming("unschedulable", attemptFailed)
	q.store(&q.parked, it)
}

// fail puts a pod away for its back-off after an error: nothing that happens makes it come sooner.
func (q *queue) fail(it *item, now time.Time) {
	q.take(it)
	it.broken, it.retry = true, now.Add(q.pause(it))
	it.due = it.retry
	q.incoming("backoff", attemptFailed)
	q.store(&q.backoff, it)
}

func (q *queue) pause(it *item) time.Duration {
	pause := q.first
	for range it.attempts - 1 {
		if pause *= 2; pause >= q.last {
			return q.last
		}
	}
	return min(pause, q.last)
}

// change lets the parked pods that one of the rules refused, and that helps accepts, be tried again.
func (q *queue) change(now time.Time, event string, rules []string, helps func(*item) bool) {
	for _, name := range rules {
		for _, it := range q.by[name] {
			if helps == nil || helps(it) {
				q.awake(it, now, event)
			}
		}
	}
}

// itemHeap is a heap of items that know their place.
type itemHeap struct {
	list []*item
	less func(a, b *item) bool
}

func (h *itemHeap) Len() int           { return len(h.list) }
func (h *itemHeap) Less(i, j int) bool { return h.less(h.list[i], h.list[j]) }
func (h *itemHeap) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.list[i].place, h.list[j].place = i, j
}
func (h *itemHeap) Push(x any) {
	it := x.(*item)
	it.place = len(h.list)
	h.list = append(h.list, it)
}
func (h *itemHeap) Pop() any {
	last := len(h.list) - 1
	it := h.list[last]
	h.list[last] = nil
	h.list = h.list[:last]
	return it
}
