package bootstrap_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/bootstrap"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/internal/read"
)

// TestCluster brings a whole API server up with everything that a cluster is born with, and goes the way of one pod
// through its own authentication, authorization, admission and allocation.
func TestCluster(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := httptest.NewTLSServer(http.NotFoundHandler())
	defer cert.Close()
	st := memstore.New()
	srv, err := server.New(server.Config{Store: st, Kinds: api.NewTable(builtin.Kinds()...), Log: slog.New(slog.DiscardHandler),
		ServiceAccountKey: key, Issuer: "https://kubernetes.default.svc", ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		Listen: "127.0.0.1:0", TLS: cert.TLS, StaticTokens: map[string]user.Info{"ann": &user.DefaultInfo{Name: "ann"}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	root := srv.Local(&user.DefaultInfo{Name: "system:apiserver", Groups: []string{"system:masters"}})
	for range 2 {
		before, _ := st.Revision(ctx)
		if err := bootstrap.Ensure(ctx, root); err != nil {
			t.Fatal(err)
		}
		if err := bootstrap.ServiceCIDR(ctx, root, netip.MustParsePrefix("10.96.0.0/16")); err != nil {
			t.Fatal(err)
		}
		if err := bootstrap.KubernetesService(ctx, root, netip.MustParseAddr("10.96.0.1"), []netip.Addr{netip.MustParseAddr("192.0.2.1")}, 6443); err != nil {
			t.Fatal(err)
		}
		if err := bootstrap.Authentication(ctx, root, []byte("PEM"), nil); err != nil {
			t.Fatal(err)
		}
		if after, _ := st.Revision(ctx); before > 1 && after != before {
			t.Errorf("the second start wrote %d times", after-before)
		}
	}
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if err := srv.Ready(ctx); err != nil {
		t.Fatal(err)
	}

	st.Put(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default", UID: "u"}})
	put := func(o api.Object) api.Object {
		t.Helper()
		k, _ := builtin.Table().Of(o)
		out, err := root.Create(ctx, k, o, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	put(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "robot"},
		RoleRef:  rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "default"}}})
	put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	pod := put(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}).(*corev1.Pod)
	if pod.Spec.ServiceAccountName != "default" || len(pod.Spec.Volumes) != 1 || len(pod.Spec.Tolerations) != 2 || pod.Spec.Priority == nil {
		t.Errorf("admission: %+v", pod.Spec)
	}
	svc := put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{Type: "NodePort", Ports: []corev1.ServicePort{{Port: 80}}}}).(*corev1.Service)
	if !strings.HasPrefix(svc.Spec.ClusterIP, "10.96.") || svc.Spec.Ports[0].NodePort < 30000 {
		t.Errorf("allocation: %+v", svc.Spec)
	}

	// The node asks for the pod's token.
	n1 := srv.Local(&user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes", "system:authenticated"}})
	token := eventually(t, func() (string, error) {
		out, err := n1.Action(ctx, read.Kind[*corev1.ServiceAccount](), "default", "default", "token", &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: pod.UID}}})
		if err != nil {
			return "", err
		}
		return out.(*authenticationv1.TokenRequest).Status.Token, nil
	})
	if _, _, err := n1.List(ctx, read.Kind[*corev1.Pod](), "", metav1.ListOptions{FieldSelector: "spec.nodeName=n1"}); err != nil {
		t.Errorf("a node's own pods: %v", err)
	}
	if _, _, err := n1.List(ctx, read.Kind[*corev1.Pod](), "", metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("all pods: %v", err)
	}
	if _, err := n1.Patch(ctx, read.Kind[*corev1.Pod](), "default", "p", "status", types.MergePatchType, []byte(`{"status":{"phase":"Running"}}`), metav1.PatchOptions{}); err != nil {
		t.Errorf("the pod's status: %v", err)
	}

	// The pod uses it.
	web := httptest.NewServer(srv.Handler())
	defer web.Close()
	get := func(path, token string) int {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, web.URL+path, nil)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	eventually(t, func() (string, error) {
		if code := get("/api/v1/namespaces/default/pods", token); code != 200 {
			return "", fmt.Errorf("the binding counts for nothing: %d", code)
		}
		return "", nil
	})
	for _, c := range []struct {
		path, token string
		want        int
	}{
		{"/api/v1/namespaces/default/pods", token, 200},
		{"/api/v1/namespaces/default/secrets", token, 403},
		{"/api/v1/namespaces/kube-system/pods", token, 403},
		{"/api/v1/namespaces/default/pods", "wrong", 401},
		{"/api/v1/namespaces/default/pods", "", 403},
		{"/version", "", 200},
		{"/apis", "ann", 200},
		{"/apis", "", 403},
		{"/healthz", "", 200},
		{"/openid/v1/jwks", token, 200},
	} {
		if got := get(c.path, c.token); got != c.want {
			t.Errorf("GET %s with %.8q: %d, want %d", c.path, c.token, got, c.want)
		}
	}
	_, err = srv.Local(&user.DefaultInfo{Name: "ann", Groups: []string{"system:authenticated"}}).Get(ctx, read.Kind[*corev1.Pod](), "default", "p", metav1.GetOptions{})
	if err == nil || err.Error() != `pods "p" is forbidden: User "ann" cannot get resource "pods" in API group "" in the namespace "default"` {
		t.Errorf("%v", err)
	}
}

// eventually tries until f succeeds: the authorizer hears of new objects a moment after they are stored.
func eventually(t *testing.T, f func() (string, error)) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		s, err := f()
		if err == nil {
			return s
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
