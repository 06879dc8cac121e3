// Command rates measures how fast a cluster's scheduler and controllers are, through its API alone, so that it can be
// pointed at any control plane:
//
//	go run ./test/rates -kubeconfig FILE -pids PID,... deployment rollout garbage slices
//
// Nodes are Node objects, and a kubelet of its own makes pods that are bound Running and Ready, and removes those that are
// deleted. Processor time is user and system time of the processes given, this one's not among them.
//
// It stands alone: nothing imports it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-sh/skiff/client"
)

type bench struct {
	client.Interface
	caches   *client.Caches
	kubelet  *kubelet
	pids     []string
	out      io.Writer
	replicas int
	garbage  int
	samples  int
}

var steps = map[string]func(context.Context, *bench) error{
	"deployment": deployment, "rollout": rollout, "garbage": garbage, "slices": slices,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "rates:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	kubeconfig := flag.String("kubeconfig", "", "the cluster")
	pids := flag.String("pids", "", "the control plane's processes, comma-separated")
	nodes := flag.Int("nodes", 1000, "nodes to make")
	b := &bench{out: os.Stdout}
	flag.IntVar(&b.replicas, "replicas", 2000, "replicas of the deployment; a rollout has half of them")
	flag.IntVar(&b.garbage, "dependants", 10000, "objects that one owner has")
	flag.IntVar(&b.samples, "samples", 200, "changes of readiness that endpoint slices are to follow")
	flag.Parse()
	if *pids != "" {
		b.pids = strings.Split(*pids, ",")
	}
	c, err := connect(*kubeconfig)
	if err != nil {
		return err
	}
	b.Interface, b.caches = c, client.NewCaches(c, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 2)
	go func() { done <- b.caches.Run(ctx) }()
	b.kubelet = newKubelet(c, b.caches)
	defer func() {
		cancel()
		<-done
		<-done
	}()
	go func() { b.kubelet.run(ctx); done <- nil }()
	if err := b.fresh(ctx); err != nil {
		return err
	}
	if err := b.kubelet.makeNodes(ctx, *nodes); err != nil {
		return err
	}
	for _, name := range flag.Args() {
		step, ok := steps[name]
		if !ok {
			return fmt.Errorf("no step is called %q", name)
		}
		if err := step(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func connect(kubeconfig string) (client.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	tls, err := rest.TLSConfigFor(cfg)
	if err != nil {
		return nil, err
	}
	return client.NewHTTP(client.HTTPConfig{Server: cfg.Host, TLS: tls, BearerToken: cfg.BearerToken, UserAgent: "rates"})
}

// namespace is where everything happens.
const namespace = "rates"

// fresh makes the namespace, after the end of one that an earlier run has left.
func (b *bench) fresh(ctx context.Context) error {
	if err := client.Delete[*corev1.Namespace](ctx, b, "", namespace, ""); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	for {
		_, err := client.Create(ctx, b, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
		if !apierrors.IsAlreadyExists(err) {
			return errors.Join(err, b.until(ctx, func() bool {
				_, err := client.Get[*corev1.ServiceAccount](ctx, b, namespace, "default")
				return err == nil
			}))
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// until asks every few milliseconds.
func (b *bench) until(ctx context.Context, ok func() bool) error {
	for !ok() {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
