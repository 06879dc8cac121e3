package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/daemon"
)

// startNeighbours starts the further nodes of the machine, all at once, and waits until they are ready.
func startNeighbours(ctx context.Context, cfg *daemon.Config, p progress) error {
	died := map[string]<-chan error{}
	for _, n := range cfg.Neighbours() {
		if err := n.Complete(); err != nil {
			return err
		}
		if err := n.Save(); err != nil {
			return err
		}
		kubeconfig, err := cfg.NodeKubeconfig(n.NodeName)
		if err != nil {
			return err
		}
		if err := os.WriteFile(n.KubeconfigFile(), kubeconfig, 0o600); err != nil {
			return err
		}
		if _, ok := n.Running(); ok {
			continue
		}
		if err := n.InNamespace(func() (err error) {
			died[n.Name], err = launch(n, "agent", "--kubeconfig", n.KubeconfigFile())
			return err
		}); err != nil {
			return fmt.Errorf("the node %s: %w", n.NodeName, err)
		}
	}
	if len(cfg.Neighbours()) == 0 {
		return nil
	}
	c, err := cfg.AdminClient()
	if err != nil {
		return err
	}
	for _, n := range cfg.Neighbours() {
		if err := awaitNode(ctx, c, n, died[n.Name], p.start); err != nil {
			return fmt.Errorf("%w\nthe log is in %s; its last lines:\n%s", err, n.LogFile(), tail(n.LogFile(), 12))
		}
		p.step("the node " + n.NodeName + " is ready")
	}
	return nil
}

func awaitNode(ctx context.Context, c client.Interface, n *daemon.Config, died <-chan error, start time.Time) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for last := "it has not registered"; ; {
		select {
		case err := <-died:
			return fmt.Errorf("the node %s ended while starting (%v)", n.NodeName, err)
		case <-ctx.Done():
			return fmt.Errorf("the node %s is not ready in time: %s", n.NodeName, last)
		case <-tick.C:
		}
		node, err := client.Get[*corev1.Node](ctx, c, "", n.NodeName)
		if err != nil {
			continue
		}
		if last = unready(node, start); last == "" {
			return nil
		}
	}
}

// stopNeighbours stops the further nodes, and removes them for a purge: each in its own network namespace, where its links
// and rules are.
func stopNeighbours(ctx context.Context, cfg *daemon.Config, purge bool) error {
	var errs []error
	for _, n := range cfg.Neighbours() {
		if err := n.Complete(); err != nil {
			return err
		}
		if pid, ok := n.Running(); ok {
			errs = append(errs, stop(ctx, n, pid))
		}
		errs = append(errs, n.InNamespace(func() error {
			if purge {
				return daemon.Purge(ctx, n)
			}
			return daemon.StopRuntime(ctx, n)
		}))
	}
	err := errors.Join(errs...)
	if err != nil || !purge || cfg.Nodes < 2 {
		return err
	}
	return cfg.Disconnect()
}
