package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/store"
)

// Config is what the verbs need. All but CustomTypes, MayCreate and Now are required.
type Config struct {
	Store     store.Store
	Kinds     *api.Table
	Admission admission.Chain
	Extensions
	// CustomTypes is what apply needs of a custom resource's row; nil makes it up from the objects and the table.
	CustomTypes func(k *api.Kind) (managedfields.TypeConverter, runtime.ObjectConvertor)
	// MayCreate is asked when an update or apply is about to create its object; nil allows it.
	MayCreate func(ctx context.Context, k *api.Kind, namespace, name string) error
	Now       func() time.Time // nil: time.Now
	Log       *slog.Logger
}

// REST serves the verbs.
type REST struct {
	Config
	managers sync.Map // managerKey to *managedfields.FieldManager
	shapes   sync.Map // managerKey without gvk to *shapes
}

// New makes the verbs and adds the core group's own actions (binding, eviction) to the extensions.
func New(c Config) *REST {
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &REST{Config: c}
	r.Actions = map[string]Action{"pods/binding": r.bindPod, "bindings": r.bindPod, "pods/eviction": r.evict}
	for name, a := range c.Actions {
		r.Actions[name] = a
	}
	return r
}

// resourceName is the key of Extensions: "pods", "deployments.apps".
func resourceName(k *api.Kind) string { return k.GroupResource().String() }

type warnKey struct{}

// WithWarnings returns a context in which warnings go to f.
func WithWarnings(ctx context.Context, f func(string)) context.Context {
	return context.WithValue(ctx, warnKey{}, f)
}

// Warn adds a Warning header to the request's answer.
func Warn(ctx context.Context, text string) {
	if f, ok := ctx.Value(warnKey{}).(func(string)); ok {
		f(text)
	}
}

func revOf(obj metav1.Object) int64 {
	n, _ := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
	return n
}

// parseRev reads a resourceVersion; "" is 0.
func parseRev(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, field.Invalid(field.NewPath("resourceVersion"), s, err.Error()) // 500 without a reason, as upstream
	}
	return int64(n), nil
}

// snapshot waits until the cache is fit for a read at the resourceVersion ("" is the newest, "0" is any) and takes a
// view of it.
func (r *REST) snapshot(ctx context.Context, k *api.Kind, rv string) (store.Snapshot, error) {
	rev, err := parseRev(rv)
	if err != nil {
		return nil, err
	}
	if rv == "" {
		if rev, err = r.Store.Revision(ctx); err != nil {
			return nil, r.internal(err)
		}
	}
	if err := r.waitFor(ctx, rev, rv != ""); err != nil {
		return nil, err
	}
	return r.Store.Snapshot(k.Prefix("")), nil
}

// waitFor waits until the cache has reached rev: three seconds at most where the client chose the revision.
func (r *REST) waitFor(ctx context.Context, rev int64, chosen bool) error {
	wait := ctx
	if chosen {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
	}
	err := r.Store.WaitFor(wait, rev)
	if err == nil {
		return nil
	}
	if ctx.Err() == nil && chosen && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, store.ErrFuture)) {
		current, _ := r.Store.Revision(ctx)
		return tooLarge(rev, current)
	}
	return r.internal(err)
}

func tooLarge(want, current int64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", want, current), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}

var (
	errTooLarge = errors.New("etcdserver: request is too large")
	errNoSpace  = errors.New("etcdserver: mvcc: database space exceeded")
)

// internal wraps an error of the store that no client caused.
func (r *REST) internal(err error) error {
	var status apierrors.APIStatus
	switch {
	case errors.As(err, &status):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0)
	case errors.Is(err, context.Canceled):
		return apierrors.NewTimeoutError("the request was canceled", 0)
	case errors.Is(err, store.ErrUnknown):
		return apierrors.NewTimeoutError(store.ErrUnknown.Error(), 0)
	case errors.Is(err, store.ErrCompacted):
		return apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	case errors.Is(err, store.ErrTooLarge): // both are 500 with etcd's own words and no reason, as upstream
		return errTooLarge
	case errors.Is(err, store.ErrNoSpace):
		return errNoSpace
	}
	return apierrors.NewInternalError(err)
}

// Get reads one object.
func (r *REST) Get(ctx context.Context, k *api.Kind, namespace, name string, o metav1.GetOptions) (*store.Entry, error) {
	if k.StoragePath == "" {
		return r.getUnstored(ctx, k, name)
	}
	snap, err := r.snapshot(ctx, k, o.ResourceVersion)
	if err != nil {
		return nil, err
	}
	key := k.Key(namespace, name)
	if err := r.Store.Unreadable(key); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	e, ok := snap.Get(key)
	if !ok {
		return nil, apierrors.NewNotFound(k.GroupResource(), name)
	}
	return e, ready(ctx, k, e)
}

// current finds an object to change. What it returns may be a moment old: the write's comparison finds out.
func (r *REST) current(ctx context.Context, k *api.Kind, namespace, name string) (*store.Entry, error) {
	key := k.Key(namespace, name)
	if e, ok := r.Store.Snapshot(k.Prefix("")).Get(key); ok && r.Store.Unreadable(key) == nil {
		return e, ready(ctx, k, e)
	}
	return r.Get(ctx, k, namespace, name, metav1.GetOptions{})
}

// As gives an entry's object in the version of a row.
func As(e *store.Entry, k *api.Kind) (api.Object, error) {
	if k.Hub == nil {
		return e.Object, nil
	}
	obj, err := codec.Convert(e.Object, k.Hub, k)
	if err != nil && !k.CRD { // a webhook's failure is told in its own words
		err = apierrors.NewInternalError(err)
	}
	return obj, err
}

// conflict is the 409 of an optimistic write.
func conflict(k *api.Kind, name string) error {
	return apierrors.NewConflict(k.GroupResource(), name, errors.New(modified))
}

const modified = "the object has been modified; please apply your changes to the latest version and try again"

// checkPreconditions compares what a delete demanded of an object's identity. Upstream names the kind here, not the
// resource.
func checkPreconditions(k *api.Kind, e *store.Entry, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	obj, what := e.Object, schema.GroupResource{Group: k.Group, Resource: k.Kind}
	if p.UID != nil && *p.UID != obj.GetUID() {
		return apierrors.NewConflict(what, obj.GetName(), fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). "+
			"The object might have been deleted and then recreated", *p.UID, obj.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != obj.GetResourceVersion() {
		return apierrors.NewConflict(what, obj.GetName(), fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). "+
			"The object might have been modified", *p.ResourceVersion, obj.GetResourceVersion()))
	}
	return nil
}

// methodNotAllowed is the 405 for a verb that the resource does not serve.
func methodNotAllowed(k *api.Kind, verb string) error {
	err := apierrors.NewMethodNotSupported(k.GroupResource(), verb)
	err.ErrStatus.Code = http.StatusMethodNotAllowed
	return err
}
