//go:build stories

package script

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/daemon"
)

// background runs the binary until the test ends.
func background(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(skiffBinary, args...)
	cmd.Env = append(os.Environ(), "SKIFF_NAME=")
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	return cmd
}

// eventually asks until all is well, and fails with the last complaint when patience ends.
func eventually(t *testing.T, what string, ok func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := ok(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// further is a control plane of the story's own, beside the instance that all stories share.
func further(t *testing.T, name, port string, args ...string) (*exec.Cmd, client.Interface) {
	t.Helper()
	t.Cleanup(func() { _, _ = skiff("--name", name, "down", "--purge") })
	cmd := background(t, append([]string{"--name", name, "server", "--node-name", name, "--api-port", port}, args...)...)
	var c client.Interface
	eventually(t, name+" serves", func(ctx context.Context) error {
		cfg, err := daemon.Load(name, "")
		if err != nil {
			return err
		}
		if c, err = cfg.AdminClient(); err != nil {
			return err
		}
		_, err = client.Get[*corev1.Namespace](ctx, c, "", "kube-system")
		return err
	})
	return cmd, c
}

// servers is the story of two servers of one cluster on one etcd of its own process. Under load the one that leads is
// killed: what was acknowledged is there, no two Services share an address or a node port, the other one leads on, and
// the first one comes back.
func servers(t *testing.T) {
	const first, second = instanceName + "a", instanceName + "b"
	dir, err := os.MkdirTemp("", "etcd") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := "unix://" + filepath.Join(dir, "s")
	background(t, "etcd", "--data-dir", filepath.Join(dir, "data"), "--listen-client-urls", socket, "--advertise-client-urls", socket,
		"--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "fatal")
	leader, a := further(t, first, "17444", "--etcd-servers", socket, "--service-cidr", "10.215.0.0/24")
	invitation, err := skiff("--name", first, "invite")
	if err != nil {
		t.Fatal(err, invitation)
	}
	file := filepath.Join(dir, "join.json")
	if err := os.WriteFile(file, []byte(invitation), 0o600); err != nil {
		t.Fatal(err)
	}
	holder := func(ctx context.Context, c client.Interface, want string) error {
		lease, err := client.Get[*coordinationv1.Lease](ctx, c, "kube-system", "kube-controller-manager")
		if err == nil && (lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != want) {
			err = errors.New("somebody else leads")
		}
		return err
	}
	eventually(t, "the first server leads", func(ctx context.Context) error { return holder(ctx, a, first+"_"+first) })
	_, b := further(t, second, "17445", "--join", file)

	made := serviceLoad(t, leader, a, b)
	all, err := client.List[*corev1.Service](t.Context(), b, "default", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ports, addresses := map[int32]string{}, map[string]string{}
	for _, s := range all {
		if other := addresses[s.Spec.ClusterIP]; other != "" {
			t.Errorf("%s and %s have the address %s", s.Name, other, s.Spec.ClusterIP)
		}
		addresses[s.Spec.ClusterIP] = s.Name
		if port := s.Spec.Ports[0].NodePort; port != 0 {
			if other := ports[port]; other != "" {
				t.Errorf("%s and %s have the node port %d", s.Name, other, port)
			}
			ports[port] = s.Name
		}
		delete(made, s.Name)
	}
	if len(made) > 0 {
		t.Errorf("acknowledged and lost: %v", made)
	}
	t.Logf("%d services", len(all))

	labels, replicas := map[string]string{"app": "x"}, int32(2)
	if _, err := client.Create(t.Context(), b, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"},
		Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second server leads", func(ctx context.Context) error { return holder(ctx, b, second+"_"+second) })
	_, a = further(t, first, "17444")
	eventually(t, "its controllers work", func(ctx context.Context) error {
		pods, err := client.List[*corev1.Pod](ctx, a, "default", metav1.ListOptions{LabelSelector: "app=x"})
		if err == nil && len(pods) != 2 {
			err = fmt.Errorf("there are %d pods", len(pods))
		}
		return err
	})
}

// serviceLoad creates Services with node ports through both servers, kills the leader half way, and returns the names of
// those that were acknowledged.
func serviceLoad(t *testing.T, leader *exec.Cmd, a, b client.Interface) map[string]bool {
	t.Helper()
	const writers, each = 6, 30
	made := map[string]bool{}
	var mu sync.Mutex
	var load sync.WaitGroup
	for w := range writers {
		to := a
		if w%2 == 1 {
			to = b
		}
		load.Go(func() {
			for i := range each {
				s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("s-%d-%d", w, i)},
					Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}}}}
				if _, err := client.Create(t.Context(), to, s); err != nil {
					if to == b {
						t.Errorf("through the server that lives: %v", err)
					}
					to = b // as a client that knows both
					continue
				}
				mu.Lock()
				made[s.Name] = true
				if len(made) == writers*each/3 {
					_ = leader.Process.Kill()
				}
				mu.Unlock()
			}
		})
	}
	load.Wait()
	if len(made) < writers*each/2 {
		t.Fatalf("%d services were made", len(made))
	}
	return made
}
