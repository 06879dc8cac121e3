package clienttest

import (
	"context"
	"sort"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
)

// selector makes the predicate of a list's or watch's options.
func selector(k *api.Kind, namespace string, o metav1.ListOptions) (func(api.Object) bool, error) {
	ls, err := labels.Parse(o.LabelSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	fs, err := fields.ParseSelector(o.FieldSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return func(obj api.Object) bool {
		return (namespace == "" || obj.GetNamespace() == namespace) && ls.Matches(labels.Set(obj.GetLabels())) &&
			(fs.Empty() || fs.Matches(client.FieldSet(k, obj)))
	}, nil
}

// watcher walks the history by itself; nothing is dropped however slow its reader is.
type watcher struct {
	api       *API
	kind      *api.Kind
	match     func(api.Object) bool
	bookmarks bool
	results   chan watch.Event
	stopped   chan struct{}
	stop      sync.Once
}

func (w *watcher) Stop()                          { w.stop.Do(func() { close(w.stopped) }) }
func (w *watcher) ResultChan() <-chan watch.Event { return w.results }

// Watch starts at the revision given; "" and "0" first tell what is there. With bookmarks allowed, one follows
// whenever the watch has told all that it has to.
func (a *API) Watch(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) (watch.Interface, error) {
	if err := a.called(Call{Verb: "watch", Kind: k, Namespace: namespace}); err != nil {
		return nil, err
	}
	match, err := selector(k, namespace, o)
	if err != nil {
		return nil, err
	}
	w := &watcher{api: a, kind: k, match: match, bookmarks: o.AllowWatchBookmarks, results: make(chan watch.Event), stopped: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	var first []watch.Event
	rev := a.rev
	if rv := o.ResourceVersion; rv == "" || rv == "0" {
		objs, err := a.matching(k, match)
		if err != nil {
			return nil, err
		}
		for _, obj := range objs {
			first = append(first, watch.Event{Type: watch.Added, Object: obj})
		}
	} else if err := checkRevision(a.oldest, rv); err != nil {
		return nil, err
	} else {
		rev, _ = strconv.ParseUint(rv, 10, 64)
	}
	go w.run(ctx, first, rev, await(&a.broken))
	return w, nil
}

func (w *watcher) run(ctx context.Context, events []watch.Event, rev uint64, broken <-chan struct{}) {
	defer close(w.results)
	for {
		for _, e := range events {
			select {
			case w.results <- e:
			case <-w.stopped:
				return
			case <-broken:
				return
			case <-ctx.Done():
				return
			}
		}
		w.api.mu.Lock()
		last, changed := w.api.rev, await(&w.api.changed)
		var err error
		if rev < w.api.oldest {
			err = apierrors.NewResourceExpired("too old resource version")
		}
		events = nil
		history := w.api.history
		for _, e := range history[sort.Search(len(history), func(i int) bool { return history[i].rev > rev }):] {
			if e.resource == resource(w.kind) {
				events = append(events, w.shown(e)...)
			}
		}
		w.api.mu.Unlock()
		switch {
		case err != nil:
			status := err.(*apierrors.StatusError).Status()
			select {
			case w.results <- watch.Event{Type: watch.Error, Object: &status}:
			case <-w.stopped:
			case <-ctx.Done():
			}
			return
		case last > rev:
			rev = last
			if w.bookmarks {
				mark := w.kind.New()
				mark.SetResourceVersion(strconv.FormatUint(rev, 10))
				events = append(events, watch.Event{Type: watch.Bookmark, Object: mark})
			}
			continue
		}
		select {
		case <-changed:
		case <-w.stopped:
			return
		case <-broken:
			return
		case <-ctx.Done():
			return
		}
	}
}

// shown is what a change looks like through the watcher's selector.
func (w *watcher) shown(e event) []watch.Event {
	now, err := out(w.kind, e.new)
	if err != nil {
		return nil
	}
	was, is := false, !e.deleted && w.match(now)
	if e.old != nil {
		if old, err := out(w.kind, e.old); err == nil {
			was = w.match(old)
		}
	}
	switch {
	case was && is:
		return []watch.Event{{Type: watch.Modified, Object: now}}
	case is:
		return []watch.Event{{Type: watch.Added, Object: now}}
	case was:
		return []watch.Event{{Type: watch.Deleted, Object: now}}
	}
	return nil
}
