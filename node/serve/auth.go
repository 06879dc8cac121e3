package serve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/skiff-sh/skiff/client"
)

// guard asks the API who a caller is and what it may do. Answers are kept for a short while.
type guard struct {
	c    client.Interface
	node string

	mu    sync.Mutex
	users map[string]userAnswer
	may   map[string]mayAnswer
}

type userAnswer struct {
	info  authenticationv1.UserInfo
	ok    bool
	until time.Time
}

type mayAnswer struct {
	allowed bool
	until   time.Time
}

const (
	keepGood = 2 * time.Minute
	keepBad  = 10 * time.Second
	maxKept  = 1000
)

// user is who made the request: the owner of a verified client certificate or of a token.
func (g *guard) user(r *http.Request) (authenticationv1.UserInfo, bool, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		s := r.TLS.VerifiedChains[0][0].Subject
		return authenticationv1.UserInfo{Username: s.CommonName, Groups: append(s.Organization, "system:authenticated")}, true, nil
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return authenticationv1.UserInfo{}, false, nil
	}
	sum := sha256.Sum256([]byte(token))
	key := hex.EncodeToString(sum[:])
	now := time.Now()
	g.mu.Lock()
	a, hit := g.users[key]
	g.mu.Unlock()
	if hit && now.Before(a.until) {
		return a.info, a.ok, nil
	}
	out, err := g.c.Action(r.Context(), client.KindOf[*authenticationv1.TokenReview](), "", "", "",
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
	if err != nil {
		return authenticationv1.UserInfo{}, false, err
	}
	tr, ok := out.(*authenticationv1.TokenReview)
	if !ok {
		return authenticationv1.UserInfo{}, false, fmt.Errorf("token review answered with %T", out)
	}
	a = userAnswer{tr.Status.User, tr.Status.Authenticated, now.Add(keepFor(tr.Status.Authenticated))}
	g.mu.Lock()
	if g.users == nil || len(g.users) > maxKept {
		g.users = map[string]userAnswer{}
	}
	g.users[key] = a
	g.mu.Unlock()
	return a.info, a.ok, nil
}

func keepFor(good bool) time.Duration {
	if good {
		return keepGood
	}
	return keepBad
}

// subresources of nodes that a path asks for, any of which is enough.
func subresources(path string) []string {
	for _, p := range []struct{ prefix, name string }{{"/stats", "stats"}, {"/metrics", "metrics"}, {"/logs", "log"}, {"/spec", "spec"}, {"/checkpoint", "checkpoint"}} {
		if path == p.prefix || strings.HasPrefix(path, p.prefix+"/") {
			return []string{p.name}
		}
	}
	switch {
	case path == "/pods" || path == "/runningpods/":
		return []string{"pods", "proxy"}
	case path == "/healthz" || strings.HasPrefix(path, "/healthz/"):
		return []string{"healthz", "proxy"}
	case path == "/configz":
		return []string{"configz", "proxy"}
	}
	return []string{"proxy"}
}

var verbs = map[string]string{http.MethodPost: "create", http.MethodGet: "get", http.MethodHead: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}

func (g *guard) allowed(ctx context.Context, u authenticationv1.UserInfo, method, path string) (bool, string, error) {
	for _, sub := range subresources(path) {
		ok, err := g.review(ctx, u, verbs[method], sub)
		if err != nil || ok {
			return ok, "", err
		}
	}
	return false, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", u.Username, verbs[method], subresources(path)), nil
}

func (g *guard) review(ctx context.Context, u authenticationv1.UserInfo, verb, sub string) (bool, error) {
	key := strings.Join(append([]string{u.Username, u.UID, verb, sub}, u.Groups...), "\x00")
	now := time.Now()
	g.mu.Lock()
	a, hit := g.may[key]
	g.mu.Unlock()
	if hit && now.Before(a.until) {
		return a.allowed, nil
	}
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range u.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	out, err := g.c.Action(ctx, client.KindOf[*authorizationv1.SubjectAccessReview](), "", "", "", &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: u.Username, UID: u.UID, Groups: u.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: sub, Name: g.node}}})
	if err != nil {
		return false, err
	}
	sar, ok := out.(*authorizationv1.SubjectAccessReview)
	if !ok {
		return false, fmt.Errorf("access review answered with %T", out)
	}
	a = mayAnswer{sar.Status.Allowed, now.Add(keepFor(sar.Status.Allowed))}
	g.mu.Lock()
	if g.may == nil || len(g.may) > maxKept {
		g.may = map[string]mayAnswer{}
	}
	g.may[key] = a
	g.mu.Unlock()
	return a.allowed, nil
}
