package rest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

// List is the outcome of a list: the entries in key order, at one revision.
type List struct {
	Kind    *api.Kind
	Entries []*store.Entry
	Meta    metav1.ListMeta
}

func validateList(o metav1.ListOptions, watch bool) error {
	in := internalversion.ListOptions{ResourceVersion: o.ResourceVersion, ResourceVersionMatch: o.ResourceVersionMatch,
		Limit: o.Limit, Continue: o.Continue, Watch: watch, SendInitialEvents: o.SendInitialEvents,
		AllowWatchBookmarks: o.AllowWatchBookmarks, TimeoutSeconds: o.TimeoutSeconds}
	if errs := internalvalidation.ValidateListOptions(&in, true); len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "ListOptions"}, "", errs)
	}
	return nil
}

func (r *REST) list(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) (*List, error) {
	if err := validateList(o, false); err != nil {
		return nil, err
	}
	sel, err := newSelector(k, o)
	if err != nil {
		return nil, err
	}
	if k.StoragePath == "" {
		return r.listUnstored(ctx, k, sel)
	}
	prefix := k.Prefix(namespace)
	if err := r.Store.Unreadable(prefix); err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if o.Continue != "" {
		return r.listOn(ctx, k, prefix, sel, o)
	}
	rev, err := parseRev(o.ResourceVersion)
	if err != nil {
		return nil, apierrors.NewBadRequest("invalid resource version: " + err.Error())
	}
	// Without a match, a limited list at a revision is read exactly there, as clients of old expect.
	exact := o.ResourceVersionMatch == metav1.ResourceVersionMatchExact ||
		o.ResourceVersionMatch == "" && o.Limit > 0 && rev > 0
	snap, err := r.snapshot(ctx, k, o.ResourceVersion)
	if err != nil {
		return nil, err
	}
	if exact && snap.Revision() != rev {
		l, err := r.listAt(ctx, k, prefix, "", sel, rev, o.Limit)
		return l, r.wrap(err)
	}
	return listSnapshot(k, snap, namespace, prefix, "", sel, o.Limit), nil
}

func (r *REST) wrap(err error) error {
	if err == nil {
		return nil
	}
	return r.internal(err)
}

// listOn continues a list where its token says.
func (r *REST) listOn(ctx context.Context, k *api.Kind, prefix string, sel selector, o metav1.ListOptions) (*List, error) {
	from, rev, err := decodeToken(o.Continue, prefix)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: continue key is not valid: %v", err))
	}
	if o.ResourceVersion != "" && o.ResourceVersion != "0" {
		return nil, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	}
	if rev < 0 {
		snap, err := r.snapshot(ctx, k, "")
		if err != nil {
			return nil, err
		}
		return listSnapshot(k, snap, "", prefix, from, sel, o.Limit), nil
	}
	if err := r.waitFor(ctx, rev, true); err != nil {
		return nil, err
	}
	if snap := r.Store.Snapshot(k.Prefix("")); snap.Revision() == rev {
		return listSnapshot(k, snap, "", prefix, from, sel, o.Limit), nil
	}
	l, err := r.listAt(ctx, k, prefix, from, sel, rev, o.Limit)
	if errors.Is(err, store.ErrCompacted) {
		expired := apierrors.NewResourceExpired("The provided continue parameter is too old " +
			"to display a consistent list result. You can start a new list without " +
			"the continue parameter, or use the continue token in this response to " +
			"retrieve the remainder of the results. Continuing with the provided " +
			"token results in an inconsistent list - objects that were created, " +
			"modified, or deleted between the time the first chunk was returned " +
			"and now may show up in the list.")
		expired.ErrStatus.ListMeta.Continue = encodeToken(strings.TrimSuffix(from, "\x00"), prefix, -1)
		return nil, expired
	}
	return l, r.wrap(err)
}

func listSnapshot(k *api.Kind, snap store.Snapshot, namespace, prefix, from string, sel selector, limit int64) *List {
	l := &List{Kind: k, Meta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(snap.Revision(), 10)}}
	if sel.name != "" && from == "" && (namespace != "" || !k.Namespaced) {
		if e, ok := snap.Get(k.Key(namespace, sel.name)); ok && sel.matches(e) {
			l.Entries = []*store.Entry{e}
		}
		return l
	}
	if sel.empty() && from == "" && limit == 0 {
		l.Entries = make([]*store.Entry, 0, snap.Len(prefix))
	}
	all := sel.empty()
	for e := range snap.Scan(prefix, from) {
		if !all && !sel.matches(e) {
			continue
		}
		if limit > 0 && int64(len(l.Entries)) == limit {
			l.Meta.Continue = encodeToken(l.Entries[limit-1].Key, prefix, snap.Revision())
			if all {
				rest := int64(1)
				if from == "" {
					rest = int64(snap.Len(prefix)) - limit
				} else {
					rest = 0
					for range snap.Scan(prefix, e.Key) {
						rest++
					}
				}
				l.Meta.RemainingItemCount = &rest
			}
			break
		}
		l.Entries = append(l.Entries, e)
	}
	return l
}

// listAt lists at an older revision, page by page until limit entries match.
func (r *REST) listAt(ctx context.Context, k *api.Kind, prefix, from string, sel selector, rev, limit int64) (*List, error) {
	l := &List{Kind: k, Meta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(rev, 10)}}
	for {
		page := int(limit)
		if limit > 0 && !sel.empty() {
			page = max(page, 500)
		}
		entries, remaining, err := r.Store.At(ctx, prefix, from, rev, page)
		if err != nil {
			return nil, err
		}
		for i, e := range entries {
			if !sel.matches(e) {
				continue
			}
			l.Entries = append(l.Entries, e)
			if limit > 0 && int64(len(l.Entries)) == limit {
				left := remaining + int64(len(entries)-1-i)
				if left > 0 {
					l.Meta.Continue = encodeToken(e.Key, prefix, rev)
					if sel.empty() {
						l.Meta.RemainingItemCount = &left
					}
				}
				return l, nil
			}
		}
		if remaining == 0 || len(entries) == 0 {
			return l, nil
		}
		from = entries[len(entries)-1].Key + "\x00"
	}
}
