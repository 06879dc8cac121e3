package reconcile

import (
	"context"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
)

// waitForOwn bounds the wait for a key's own writes. Longer than any cache is behind that still works.
const waitForOwn = 10 * time.Second

// NewDeps makes the Deps of one component. c carries the component's identity and is wrapped so that the engine
// notes every write; name becomes the source of its events. A nil clk is the real clock, a nil log discards.
func NewDeps(name string, c client.Interface, cs *client.Caches, clk clock.WithTicker, log *slog.Logger) Deps {
	if clk == nil {
		clk = clock.RealClock{}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return Deps{Client: noting{c, cs}, Caches: cs, Events: NewRecorder(c, name, "", clk), Clock: clk, Log: log}
}

// writes are the successful writes during one Reconcile, each with the wait for its effect on the caches.
type writes struct {
	mu    sync.Mutex
	waits []func(context.Context) error
}

type writesKey struct{}

func withWrites(ctx context.Context) (context.Context, *writes) {
	w := &writes{}
	return context.WithValue(ctx, writesKey{}, w), w
}

// note adds a wait to the Reconcile that ctx belongs to; elsewhere it does nothing.
func note(ctx context.Context, wait func(context.Context) error) {
	if w, ok := ctx.Value(writesKey{}).(*writes); ok {
		w.mu.Lock()
		w.waits = append(w.waits, wait)
		w.mu.Unlock()
	}
}

func (w *writes) wait(ctx context.Context) error {
	w.mu.Lock()
	waits := w.waits
	w.waits = nil
	w.mu.Unlock()
	if len(waits) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, waitForOwn)
	defer cancel()
	for _, wait := range waits {
		if err := wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// noting notes every successful write for the Reconcile that it belongs to.
type noting struct {
	client.Interface
	caches *client.Caches
}

// Unwrap shows the client to what asks for more than client.Interface (client.Raw).
func (n noting) Unwrap() client.Interface { return n.Interface }

func (n noting) wrote(ctx context.Context, k *api.Kind, o api.Object, err error, dryRun []string) (api.Object, error) {
	if err == nil && len(dryRun) == 0 {
		note(ctx, func(ctx context.Context) error { return n.caches.WaitForWrite(ctx, k, o) })
	}
	return o, err
}

func (n noting) Create(ctx context.Context, k *api.Kind, obj api.Object, o metav1.CreateOptions) (api.Object, error) {
	made, err := n.Interface.Create(ctx, k, obj, o)
	return n.wrote(ctx, k, made, err, o.DryRun)
}

func (n noting) Update(ctx context.Context, k *api.Kind, obj api.Object, subresource string, o metav1.UpdateOptions) (api.Object, error) {
	made, err := n.Interface.Update(ctx, k, obj, subresource, o)
	if subresource == "scale" {
		return made, err // a view of another kind
	}
	return n.wrote(ctx, k, made, err, o.DryRun)
}

func (n noting) Patch(ctx context.Context, k *api.Kind, namespace, name, subresource string, t types.PatchType, data []byte, o metav1.PatchOptions) (api.Object, error) {
	made, err := n.Interface.Patch(ctx, k, namespace, name, subresource, t, data, o)
	if subresource == "scale" {
		return made, err
	}
	return n.wrote(ctx, k, made, err, o.DryRun)
}

func (n noting) Delete(ctx context.Context, k *api.Kind, namespace, name string, o metav1.DeleteOptions) error {
	return n.deleted(ctx, k, namespace, name, o.DryRun, func() error { return n.Interface.Delete(ctx, k, namespace, name, o) })
}

func (n noting) Action(ctx context.Context, k *api.Kind, namespace, name, subresource string, body runtime.Object) (answer runtime.Object, err error) {
	if subresource != "eviction" {
		return n.Interface.Action(ctx, k, namespace, name, subresource, body)
	}
	err = n.deleted(ctx, k, namespace, name, nil, func() error {
		answer, err = n.Interface.Action(ctx, k, namespace, name, subresource, body)
		return err
	})
	return answer, err
}

// deleted notes what the caches know by a name before it is deleted: a successor of the same name is another object.
func (n noting) deleted(ctx context.Context, k *api.Kind, namespace, name string, dryRun []string, do func() error) error {
	uids := n.caches.UIDs(k, namespace, name)
	err := do()
	if err != nil || len(dryRun) > 0 {
		return err
	}
	for _, uid := range uids {
		note(ctx, func(ctx context.Context) error { return n.caches.WaitForDelete(ctx, k, namespace, name, uid) })
	}
	return nil
}
