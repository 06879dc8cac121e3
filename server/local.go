package server

import (
	"context"
	"errors"
	"net/http"
	"sync"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/audit"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/server/rest"
)

// Local is the in-process client of one user: the same authorization, admission and validation as over HTTP, but no
// encoding. Objects that it returns are shared and read-only; objects that it is given are not changed.
type Local struct {
	s    *Server
	user user.Info
}

// begin authorizes a call and returns the context that it runs in. The row becomes the one that serves the resource now:
// that of a custom resource changes with its definition.
func (l *Local) begin(ctx context.Context, verb string, row **api.Kind, namespace, name, sub string, o ...metav1.ListOptions) (context.Context, error) {
	k, ok := l.s.custom.Current(*row)
	if !ok {
		return nil, apierrors.NewGenericServerResponse(http.StatusNotFound, verb, (*row).GroupResource(), name, "", 0, true)
	}
	*row = k
	i := &request.Info{User: l.user, Verb: verb, Kind: k, Group: k.Group, Version: k.Version, Resource: k.Plural,
		Namespace: namespace, Name: name, Subresource: sub, UserAgent: agent(l.user.GetName()), SourceIP: "127.0.0.1"}
	i.Path = path(i)
	if len(o) > 0 {
		i.FieldSelector, i.LabelSelector = o[0].FieldSelector, o[0].LabelSelector
	}
	if !k.Namespaced {
		i.Namespace = ""
		if k.Plural == "namespaces" {
			i.Namespace = name
		}
	}
	if a := l.s.cfg.Audit; a != nil {
		ctx = a.Inside(ctx, i, string(uuid.NewUUID()))
	}
	if err := l.s.ruled(ctx, audit.From(ctx), i); err != nil {
		l.told(ctx, &err, nil)
		return nil, err
	}
	return request.With(ctx, i), nil
}

// told tells the auditor, if it asked, how a call ended. sent is the object that it came with.
func (l *Local) told(ctx context.Context, err *error, sent any) {
	r := audit.From(ctx)
	if r == nil {
		return
	}
	r.Sent(sent)
	if *err != nil {
		st := statusOf(*err)
		r.Done(int(st.Code), st, false)
		return
	}
	r.Done(http.StatusOK, nil, false)
}

// agent is the field manager of a component: the last part of its user's name.
func agent(userName string) string {
	if userName == user.APIServerUser {
		return "kube-apiserver"
	}
	for i := len(userName) - 1; i >= 0; i-- {
		if userName[i] == ':' {
			return userName[i+1:]
		}
	}
	return userName
}

func path(i *request.Info) string {
	p := "/apis/" + i.Group + "/" + i.Version
	if i.Group == "" {
		p = "/api/" + i.Version
	}
	if i.Namespace != "" && i.Kind.Namespaced {
		p += "/namespaces/" + i.Namespace
	}
	p += "/" + i.Resource
	if i.Name != "" {
		p += "/" + i.Name
	}
	if i.Subresource != "" {
		p += "/" + i.Subresource
	}
	return p
}

// own is a private copy of an argument in a row's version, with its defaults.
func own(k *api.Kind, obj api.Object) api.Object {
	obj = obj.DeepCopyObject().(api.Object)
	obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind())
	codec.Defaulted(k, obj)
	return obj
}

func (l *Local) Get(ctx context.Context, k *api.Kind, namespace, name string, o metav1.GetOptions) (api.Object, error) {
	ctx, err := l.begin(ctx, "get", &k, namespace, name, "")
	if err != nil {
		return nil, err
	}
	defer l.told(ctx, &err, nil)
	e, err := l.s.rest.Get(ctx, k, namespace, name, o)
	if err != nil {
		return nil, err
	}
	return rest.As(e, k)
}

func (l *Local) List(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) ([]api.Object, metav1.ListMeta, error) {
	ctx, err := l.begin(ctx, "list", &k, namespace, "", "", o)
	if err != nil {
		return nil, metav1.ListMeta{}, err
	}
	defer l.told(ctx, &err, nil)
	list, err := l.s.rest.List(ctx, k, namespace, o)
	if err != nil {
		return nil, metav1.ListMeta{}, err
	}
	out := make([]api.Object, len(list.Entries))
	for i, e := range list.Entries {
		if out[i], err = rest.As(e, k); err != nil {
			return nil, metav1.ListMeta{}, err
		}
	}
	return out, list.Meta, nil
}

// Watch's events hold shared objects. The watch ends with ctx or Stop.
func (l *Local) Watch(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) (watch.Interface, error) {
	ctx, err := l.begin(ctx, "watch", &k, namespace, "", "", o)
	if err != nil {
		return nil, err
	}
	defer l.told(ctx, &err, nil)
	ctx, cancel := context.WithCancel(ctx)
	w, err := l.s.rest.Watch(ctx, k, namespace, o)
	if err != nil {
		cancel()
		return nil, err
	}
	lw := &localWatch{ch: make(chan watch.Event, 64), cancel: cancel}
	go func() {
		defer close(lw.ch)
		defer cancel()
		defer w.Close()
		lw.run(ctx, w)
	}()
	return lw, nil
}

// localWatch hands a watcher's events to a channel.
type localWatch struct {
	ch     chan watch.Event
	cancel context.CancelFunc
	once   sync.Once
}

func (w *localWatch) ResultChan() <-chan watch.Event { return w.ch }
func (w *localWatch) Stop()                          { w.once.Do(w.cancel) }

func (w *localWatch) run(ctx context.Context, from *rest.Watcher) {
	for {
		events, err := from.Next(ctx)
		if err != nil {
			return
		}
		for i := range events {
			ev := watch.Event{Type: events[i].Type}
			if ev.Type == watch.Error {
				ev.Object = events[i].Status
			} else {
				obj, err := from.Object(&events[i])
				if err != nil {
					ev = watch.Event{Type: watch.Error, Object: statusOf(err)}
				} else {
					ev.Object = obj
				}
			}
			select {
			case w.ch <- ev:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (l *Local) Create(ctx context.Context, k *api.Kind, obj api.Object, o metav1.CreateOptions) (api.Object, error) {
	ctx, err := l.begin(ctx, "create", &k, obj.GetNamespace(), "", "")
	if err != nil {
		return nil, err
	}
	defer l.told(ctx, &err, obj)
	if k.StoragePath == "" {
		out, err := l.s.rest.Action(ctx, k, obj.GetNamespace(), "", "", own(k, obj), o)
		if err != nil {
			return nil, err
		}
		if res, ok := out.(api.Object); ok {
			return res, nil
		}
		return obj, nil
	}
	e, err := l.s.rest.Create(ctx, k, obj.GetNamespace(), own(k, obj), o)
	if err != nil {
		return nil, err
	}
	return rest.As(e, k)
}

func (l *Local) Update(ctx context.Context, k *api.Kind, obj api.Object, sub string, o metav1.UpdateOptions) (api.Object, error) {
	ctx, err := l.begin(ctx, "update", &k, obj.GetNamespace(), obj.GetName(), sub)
	if err != nil {
		return nil, err
	}
	defer l.told(ctx, &err, obj)
	if sc, ok := obj.(*autoscalingv1.Scale); ok {
		s, ok := k.Subresource(sub)
		if !ok || s.Type != api.ScaleSub {
			return nil, notAllowed(k.GroupResource(), "update")
		}
		return l.s.rest.UpdateScale(ctx, k, s, obj.GetNamespace(), obj.GetName(), sc.DeepCopy(), o)
	}
	e, _, err := l.s.rest.Update(ctx, k, obj.GetNamespace(), obj.GetName(), sub, own(k, obj), o)
	if err != nil {
		return nil, err
	}
	return rest.As(e, k)
}

func (l *Local) Patch(ctx context.Context, k *api.Kind, namespace, name, sub string, t types.PatchType, data []byte, o metav1.PatchOptions) (api.Object, error) {
	ctx, err := l.begin(ctx, "patch", &k, namespace, name, sub)
	if err != nil {
		return nil, err
	}
	defer l.told(ctx, &err, data)
	if s, ok := k.Subresource(sub); ok && s.Type == api.ScaleSub {
		return l.s.rest.PatchScale(ctx, k, s, namespace, name, t, data, o)
	}
	e, _, err := l.s.rest.Patch(ctx, k, namespace, name, sub, t, data, o)
	if err != nil {
		return nil, err
	}
	return rest.As(e, k)
}

func (l *Local) Delete(ctx context.Context, k *api.Kind, namespace, name string, o metav1.DeleteOptions) error {
	ctx, err := l.begin(ctx, "delete", &k, namespace, name, "")
	if err != nil {
		return err
	}
	defer l.told(ctx, &err, o)
	_, _, err = l.s.rest.Delete(ctx, k, namespace, name, o)
	return err
}

func (l *Local) DeleteCollection(ctx context.Context, k *api.Kind, namespace string, o metav1.DeleteOptions, lo metav1.ListOptions) error {
	ctx, err := l.begin(ctx, "deletecollection", &k, namespace, "", "", lo)
	if err != nil {
		return err
	}
	defer l.told(ctx, &err, o)
	_, err = l.s.rest.DeleteCollection(ctx, k, namespace, o, lo)
	return err
}

func (l *Local) Action(ctx context.Context, k *api.Kind, namespace, name, sub string, body runtime.Object) (runtime.Object, error) {
	ctx, err := l.begin(ctx, "create", &k, namespace, name, sub)
	if err != nil {
		return nil, err
	}
	defer l.told(ctx, &err, body)
	if body == nil {
		return nil, apierrors.NewBadRequest(errors.New("a body is required").Error())
	}
	body = body.DeepCopyObject()
	if obj, ok := body.(api.Object); ok {
		if bk, ok := l.s.kinds.Of(obj); ok {
			codec.Defaulted(bk, obj)
		}
	}
	return l.s.rest.Action(ctx, k, namespace, name, sub, body, metav1.CreateOptions{})
}
