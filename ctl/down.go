package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/skiff-sh/skiff/daemon"
)

func downCommand(in *instance) *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use: "down", Short: "Stop the control plane and the node agent; containers go on unless --purge", Args: cobra.NoArgs,
		Example: "  skiff down              # \"skiff up\" takes over where it stopped\n  skiff down --purge      # remove every trace: containers, network, images, the cluster's state",
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove processes, mounts, namespaces, cgroups, nftables tables, links and all state")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		out := cmd.OutOrStdout()
		cfg, err := in.load()
		if errors.Is(err, daemon.ErrNoInstance) {
			// Nothing was ever saved under the name; a purge still looks for leftovers of an interrupted one.
			if cfg = (&daemon.Config{Name: in.name, DataDir: in.dataDir}); !purge {
				fmt.Fprintf(out, "%s does not run\n", in.name)
				return nil
			}
			err = cfg.Complete()
		}
		if err != nil {
			return err
		}
		if os.Geteuid() != 0 {
			return errors.New("only root can stop the cluster: run \"sudo skiff down\"")
		}
		if err := stopNeighbours(cmd.Context(), cfg, purge); err != nil {
			return err
		}
		if pid, ok := cfg.Running(); ok {
			if err := stop(cmd.Context(), cfg, pid); err != nil {
				return err
			}
			fmt.Fprintf(out, "%s has stopped\n", cfg.Name)
		} else if !purge {
			fmt.Fprintf(out, "%s does not run\n", cfg.Name)
		}
		if !purge {
			return daemon.StopRuntime(cmd.Context(), cfg)
		}
		if err := daemon.Purge(cmd.Context(), cfg); err != nil {
			return fmt.Errorf("not everything could be removed; \"skiff down --purge\" can be run again: %w", err)
		}
		fmt.Fprintf(out, "every trace of %s has been removed\n", cfg.Name)
		return nil
	}
	return cmd
}

// stop asks the process to end, and insists after 30 s.
func stop(ctx context.Context, cfg *daemon.Config, pid int) error {
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return fmt.Errorf("cannot stop pid %d: %w", pid, err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				return err
			}
		case <-tick.C:
			if _, ok := cfg.Running(); !ok {
				return nil
			}
		}
	}
}
