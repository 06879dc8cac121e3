package node

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/skiff-sh/skiff/client"
)

// reporter writes one pod's status to the API, the newest only, one write at a time. Its fields belong to the
// worker's loop.
type reporter struct {
	writing bool
	retry   time.Duration
	sent    *corev1.PodStatus // what was last written,
	got     *corev1.PodStatus // and what the API made of it
}

// want sees that the API gets the status, and reports whether it has it.
func (r *reporter) want(ctx context.Context, w *worker, pod *corev1.Pod, st corev1.PodStatus) bool {
	if equalStatus(&pod.Status, &st) {
		return true
	}
	// The server may keep something differently than it was sent; that is no reason to send it again.
	if r.sent != nil && equalStatus(r.sent, &st) && equalStatus(r.got, &pod.Status) {
		return true
	}
	if r.writing {
		return false
	}
	r.writing = true
	w.acting.Add(1)
	wait := r.retry
	go func() {
		defer w.acting.Done()
		if wait > 0 && !w.a.sleep(ctx, wait) {
			return
		}
		after, err := w.a.writeStatus(ctx, pod, &st)
		w.tell(func() {
			r.writing = false
			switch {
			case err == nil:
				r.retry, r.sent, r.got = 0, st.DeepCopy(), after.Status.DeepCopy()
				w.desire(after, false)
			case apierrors.IsNotFound(err):
				r.retry = time.Second // the cache will say so too
			default:
				r.retry = min(max(2*r.retry, 100*time.Millisecond), 10*time.Second)
				w.a.cfg.Log.Warn("cannot write a pod's status", "pod", pod.Namespace+"/"+pod.Name, "error", err)
			}
		})
	}()
	return false
}

// writeStatus patches what differs. The UID in the patch keeps it off a pod of the same name that came later.
func (a *Agent) writeStatus(ctx context.Context, pod *corev1.Pod, st *corev1.PodStatus) (*corev1.Pod, error) {
	type shell struct {
		Metadata struct {
			UID types.UID `json:"uid,omitempty"`
		} `json:"metadata"`
		Status corev1.PodStatus `json:"status"`
	}
	var from, to shell
	from.Status, to.Status = pod.Status, *st
	to.Metadata.UID = pod.UID
	a0, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	b0, err := json.Marshal(to)
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(a0, b0, corev1.Pod{})
	if err != nil {
		return nil, err
	}
	return client.Patch[*corev1.Pod](ctx, a.cfg.Client, pod.Namespace, pod.Name, "status", types.StrategicMergePatchType, patch)
}
