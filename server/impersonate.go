package server

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

const (
	impUser  = "Impersonate-User"
	impGroup = "Impersonate-Group"
	impUID   = "Impersonate-Uid"
	impExtra = "Impersonate-Extra-"
)

func hasImpersonation(h http.Header) bool {
	for k := range h {
		if strings.HasPrefix(k, "Impersonate-") {
			return true
		}
	}
	return false
}

// impersonate lets the caller be somebody else, if every part of that identity may be taken.
func (s *Server) impersonate(x *exchange) error {
	h := x.r.Header
	name := h.Get(impUser)
	if name == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("requested %#v without impersonating a user name", unnamed(h)))
	}
	who := &user.DefaultInfo{Name: name, UID: h.Get(impUID), Groups: slices.Clone(h.Values(impGroup)), Extra: map[string][]string{}}
	for k, v := range h {
		if rest, ok := strings.CutPrefix(k, impExtra); ok {
			key := strings.ToLower(rest)
			if u, err := url.PathUnescape(key); err == nil {
				key = u
			}
			who.Extra[key] = append(who.Extra[key], v...)
		}
	}
	for _, a := range impersonations(who) {
		a.User, a.Verb, a.ResourceRequest = x.info.User, "impersonate", true
		if err := s.authorize(x.r.Context(), a); err != nil {
			return err
		}
	}
	if ns, sa, err := serviceaccount.SplitUsername(name); err == nil && len(h.Values(impGroup)) == 0 {
		_ = sa
		who.Groups = serviceaccount.MakeGroupNames(ns)
	}
	if name == user.Anonymous {
		if !slices.Contains(who.Groups, user.AllUnauthenticated) {
			who.Groups = append(who.Groups, user.AllUnauthenticated)
		}
	} else if !slices.Contains(who.Groups, user.AllAuthenticated) {
		who.Groups = append(who.Groups, user.AllAuthenticated)
	}
	for k := range h {
		if strings.HasPrefix(k, "Impersonate-") {
			h.Del(k)
		}
	}
	x.info.User = who
	return nil
}

// unnamed is what upstream shows of somebody without a name.
func unnamed(h http.Header) *user.DefaultInfo {
	return &user.DefaultInfo{UID: h.Get(impUID), Groups: h.Values(impGroup)}
}

// impersonations is what must be allowed for an identity to be taken.
func impersonations(who *user.DefaultInfo) []authorizer.AttributesRecord {
	var out []authorizer.AttributesRecord
	if ns, sa, err := serviceaccount.SplitUsername(who.Name); err == nil {
		out = append(out, authorizer.AttributesRecord{APIVersion: "v1", Resource: "serviceaccounts", Namespace: ns, Name: sa})
	} else {
		out = append(out, authorizer.AttributesRecord{APIVersion: "v1", Resource: "users", Name: who.Name})
	}
	for _, g := range who.Groups {
		out = append(out, authorizer.AttributesRecord{APIVersion: "v1", Resource: "groups", Name: g})
	}
	if who.UID != "" {
		out = append(out, authorizer.AttributesRecord{APIGroup: "authentication.k8s.io", APIVersion: "v1", Resource: "uids", Name: who.UID})
	}
	for k, vs := range who.Extra {
		for _, v := range vs {
			out = append(out, authorizer.AttributesRecord{APIGroup: "authentication.k8s.io", APIVersion: "v1", Resource: "userextras", Subresource: k, Name: v})
		}
	}
	return out
}
