package scheduler

import (
	"container/heap"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	schedhelpers "k8s.io/component-helpers/scheduling/corev1"
)

// Back-off after a pod could not be placed, by attempts: as upstream.
const (
	firstBackoff = time.Second
	lastBackoff  = 10 * time.Second
	// retryUnschedulable is when a pod is tried again although nothing happened that should help it.
	retryUnschedulable = 5 * time.Minute
)

// queue holds the pods that want a node. It is pure: time is passed in. A pod is in one of three places: ready to be
// tried, waiting out its back-off, or parked until something changes.
type queue struct {
	items map[types.UID]*item
	ready readyHeap
	away  map[types.UID]*item // the items that are not in ready
	due   time.Time           // no item of away is due before; zero: unknown
	seq   int64
}

type item struct {
	pod      *corev1.Pod
	priority int32
	seq      int64 // order of arrival, which decides between equal priorities
	attempts int
	retry    time.Time // the end of the back-off; zero: none
	parked   bool      // waits for a change, but no longer than until parkedAt + retryUnschedulable
	parkedAt time.Time
	place    int // in ready; -1: not there
}

func newQueue() *queue { return &queue{items: map[types.UID]*item{}, away: map[types.UID]*item{}} }

// put adds a pod, or takes its newer state; a pod that changed is worth another try, after its back-off.
func (q *queue) put(p *corev1.Pod) {
	it, ok := q.items[p.UID]
	if !ok {
		q.seq++
		it = &item{seq: q.seq, place: -1}
		q.items[p.UID] = it
	}
	it.pod, it.priority = p, schedhelpers.PodPriority(p)
	it.parked = false
	switch {
	case it.place >= 0:
		heap.Fix(&q.ready, it.place)
	case it.retry.IsZero():
		q.toReady(it)
	default:
		q.due = time.Time{}
	}
}

// refresh takes a pod's newer state when that is no reason to try again.
func (q *queue) refresh(p *corev1.Pod) {
	if it, ok := q.items[p.UID]; ok {
		it.pod = p
	}
}

func (q *queue) toReady(it *item) {
	delete(q.away, it.pod.UID)
	it.retry, it.parked = time.Time{}, false
	heap.Push(&q.ready, it)
}

func (q *queue) drop(uid types.UID) {
	it, ok := q.items[uid]
	if !ok {
		return
	}
	delete(q.items, uid)
	delete(q.away, uid)
	if it.place >= 0 {
		heap.Remove(&q.ready, it.place)
	}
}

// next takes the pod that is to be tried now, or says when to ask again (zero: when something changes). The caller
// must end the try with failed or drop before it asks for another.
func (q *queue) next(now time.Time) (it *item, wake time.Time) {
	if len(q.away) > 0 && !q.due.After(now) {
		q.due = q.wakeUp(now)
	}
	if len(q.ready) == 0 {
		if len(q.away) > 0 {
			wake = q.due
		}
		return nil, wake
	}
	it = heap.Pop(&q.ready).(*item)
	q.away[it.pod.UID] = it
	it.attempts++
	return it, time.Time{}
}

// wakeUp moves what is due to ready, and returns when the next one is.
func (q *queue) wakeUp(now time.Time) (next time.Time) {
	for _, it := range q.away {
		due := it.retry
		if it.parked {
			due = it.parkedAt.Add(retryUnschedulable)
		}
		if !due.After(now) {
			q.toReady(it)
		} else if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return next
}

// failed puts a pod that found no node away: until something changes, and no sooner than its back-off. Transient says
// that the failure was not the cluster's state (a failed write): then the back-off alone counts.
func (q *queue) failed(uid types.UID, now time.Time, transient bool) {
	it, ok := q.items[uid]
	if !ok {
		return // gone meanwhile
	}
	if it.place >= 0 {
		heap.Remove(&q.ready, it.place)
	}
	q.away[uid] = it
	backoff := firstBackoff << max(0, min(it.attempts-1, 4))
	it.retry = now.Add(min(backoff, lastBackoff))
	it.parked, it.parkedAt = !transient, now
	q.due = time.Time{}
}

// change lets the parked pods that helps accepts (nil: all) be tried again, each after its back-off.
func (q *queue) change(now time.Time, helps func(*corev1.Pod) bool) {
	for _, it := range q.away {
		if !it.parked || helps != nil && !helps(it.pod) {
			continue
		}
		it.parked = false
		q.due = time.Time{}
		if !it.retry.After(now) {
			q.toReady(it)
		}
	}
}

// readyHeap orders by priority, then by arrival.
type readyHeap []*item

func (h readyHeap) Len() int { return len(h) }
func (h readyHeap) Less(i, j int) bool {
	if h[i].priority != h[j].priority {
		return h[i].priority > h[j].priority
	}
	return h[i].seq < h[j].seq
}
func (h readyHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *readyHeap) Push(x any) {
	it := x.(*item)
	it.place = len(*h)
	*h = append(*h, it)
}
func (h *readyHeap) Pop() any {
	last := len(*h) - 1
	it := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	it.place = -1
	return it
}
