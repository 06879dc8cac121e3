package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers"
	"github.com/skiff-sh/skiff/daemon/pki"
	"github.com/skiff-sh/skiff/internal/etcdtest"
	"github.com/skiff-sh/skiff/reconcile"
	"github.com/skiff-sh/skiff/server"
)

// one is one server of several, with the controllers behind a leader gate.
type one struct {
	client client.Interface // an administrator's, over HTTP
	kill   func()           // ends the server and returns when it has ended
}

// cluster makes servers of one cluster.
type cluster struct {
	etcd  string
	ca    *pki.Authority
	dir   string
	admin tls.Certificate
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{etcd: etcdtest.Serve(t), dir: t.TempDir()}
	var err error
	if c.ca, err = pki.Open(c.dir, "ca"); err != nil {
		t.Fatal(err)
	}
	if c.admin, err = c.ca.Keep(c.dir, "admin", adminLeaf); err != nil {
		t.Fatal(err)
	}
	return c
}

// start runs a server that tells the others that it is at ip, and waits until it is ready.
func (c *cluster) start(t *testing.T, ip string) *one {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serving, err := c.ca.Keep(t.TempDir(), "apiserver", pki.Leaf{User: "kube-apiserver", Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.ServiceAccountKey(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	a := &APIServer{Etcd: EtcdConfig{Servers: []string{c.etcd}}, Advertise: netip.AddrPortFrom(netip.MustParseAddr(ip), 6443),
		ClientCA: c.ca.PEM, HostName: "host-" + ip, Log: log,
		Server: server.Config{Kinds: api.NewTable(builtin.Kinds()...), TLS: &tls.Config{Certificates: []tls.Certificate{serving}}, Listener: ln,
			ClientCAs: c.ca.Pool(), CAPEM: c.ca.PEM, ServiceAccountKey: key, Issuer: "https://kubernetes.default.svc",
			ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, NodePortRange: [2]int{30000, 30127}}}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		err := a.Run(ctx, func(ctx context.Context, g *errgroup.Group, srv *server.Server) error {
			as := func(u user.Info) client.Interface { return client.InProcess(srv.Local(u)) }
			m := &ControllerManager{As: func(name string) client.Interface { return as(controllerAccount(name)) }, Reader: as(controllerManager),
				Config: controllers.Config{Kinds: srv.Kinds(), RootCA: c.ca.PEM}, Log: log,
				Leader: &reconcile.Leader{Client: as(controllerManager), Namespace: metav1.NamespaceSystem, Name: "kube-controller-manager",
					Identity: ip, Duration: 3 * time.Second, RenewDeadline: 2 * time.Second, Retry: 200 * time.Millisecond, Log: log}}
			g.Go(func() error { return m.Run(ctx) })
			close(ready)
			return nil
		})
		if err != nil {
			t.Errorf("the server %s: %v", ip, err)
		}
	}()
	select {
	case <-ready:
	case <-ended:
		t.Fatal("the server ended while starting")
	}
	http, err := client.NewHTTP(client.HTTPConfig{Server: "https://" + ln.Addr().String(), TLS: &tls.Config{RootCAs: c.ca.Pool(), Certificates: []tls.Certificate{c.admin}}})
	if err != nil {
		t.Fatal(err)
	}
	o := &one{client: http, kill: func() { cancel(); <-ended }}
	t.Cleanup(o.kill)
	return o
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
}

// eventually asks until it is told that all is well, and fails with the last complaint when the test's time is over.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// What one server has acknowledged the other shows at once.
func TestServersReadTheSame(t *testing.T) {
	c := newCluster(t)
	a, b := c.start(t, "192.0.2.1"), c.start(t, "192.0.2.2")
	for i := range 50 {
		name := fmt.Sprintf("c-%d", i)
		if _, err := client.Create(t.Context(), a.client, configMap(name)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Get[*corev1.ConfigMap](t.Context(), b.client, "default", name); err != nil {
			t.Fatalf("right after it was created through the other server: %v", err)
		}
		a, b = b, a
	}
}

func endpointsOf(t *testing.T, o *one) []string {
	slice, err := client.Get[*discoveryv1.EndpointSlice](t.Context(), o.client, "default", "kubernetes")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range slice.Endpoints {
		out = append(out, e.Addresses...)
	}
	slices.Sort(out)
	return out
}

// Under load one of two servers is killed, the leader: clients go on through the other, nothing acknowledged is lost, the
// controllers go on there, and the Service kubernetes leads only to it.
func TestOneOfTwoServersIsKilled(t *testing.T) {
	c := newCluster(t)
	a := c.start(t, "192.0.2.1")
	b := c.start(t, "192.0.2.2")
	eventually(t, "both servers are endpoints", func() error {
		if got := endpointsOf(t, b); !slices.Equal(got, []string{"192.0.2.1", "192.0.2.2"}) {
			return fmt.Errorf("the Service kubernetes leads to %v", got)
		}
		return nil
	})

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	var dead atomic.Bool
	var after atomic.Int64 // writes since the server died
	var load sync.WaitGroup
	for w := range 4 {
		load.Go(func() {
			to := []*one{a, b}
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("load-%d-%d", w, i)
				target := to[(w+i)%2]
				if dead.Load() {
					target = b
				}
				_, err := client.Create(ctx, target.client, configMap(name))
				if err != nil {
					continue // a client would try the other server; whether this was written is not known
				}
				mu.Lock()
				acknowledged[name] = true
				mu.Unlock()
				if dead.Load() {
					after.Add(1)
				}
			}
		})
	}
	eventually(t, "the load begins", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(acknowledged) < 50 {
			return errors.New("not yet")
		}
		return nil
	})
	a.kill()
	dead.Store(true)
	eventually(t, "the load goes on", func() error {
		if after.Load() < 50 {
			return errors.New("not yet")
		}
		return nil
	})
	stop()
	load.Wait()
	for name := range acknowledged {
		if _, err := client.Get[*corev1.ConfigMap](t.Context(), b.client, "default", name); err != nil {
			t.Errorf("%s was acknowledged: %v", name, err)
		}
	}

	replicas := int32(2)
	labels := map[string]string{"app": "x"}
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"}, Spec: appsv1.ReplicaSetSpec{Replicas: &replicas,
		Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}}}}
	if _, err := client.Create(t.Context(), b.client, set); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other server's controllers take over", func() error {
		pods, _, err := b.client.List(t.Context(), client.KindOf[*corev1.Pod](), "default", metav1.ListOptions{LabelSelector: "app=x"})
		if err == nil && len(pods) != 2 {
			err = fmt.Errorf("there are %d pods", len(pods))
		}
		return err
	})
	eventually(t, "the dead server is no endpoint", func() error {
		if got := endpointsOf(t, b); !slices.Equal(got, []string{"192.0.2.2"}) {
			return fmt.Errorf("the Service kubernetes leads to %v", got)
		}
		return nil
	})
}

// Services made through two servers at once never get the same node port or address, down to the last port.
func TestServersShareNodePorts(t *testing.T) {
	c := newCluster(t)
	both := []*one{c.start(t, "192.0.2.1"), c.start(t, "192.0.2.2")}
	var mu sync.Mutex
	ports, addresses := map[int32]string{}, map[string]string{}
	var g errgroup.Group
	for w := range 8 {
		g.Go(func() error {
			for i := range 16 {
				name := fmt.Sprintf("s-%d-%d", w, i)
				svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
					Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}}}}
				made, err := client.Create(t.Context(), both[w%2].client, svc)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				mu.Lock()
				port, ip := made.Spec.Ports[0].NodePort, made.Spec.ClusterIP
				if other := ports[port]; other != "" {
					t.Errorf("%s and %s have the node port %d", name, other, port)
				}
				if other := addresses[ip]; other != "" {
					t.Errorf("%s and %s have the address %s", name, other, ip)
				}
				ports[port], addresses[ip] = name, name
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	extra := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "extra"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := client.Create(t.Context(), both[0].client, extra); !apierrors.IsInvalid(err) && !apierrors.IsInternalError(err) {
		t.Errorf("all 128 ports are taken: %v", err)
	}
}
