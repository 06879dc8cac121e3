// Package ctl is the command line: Skiff's own commands, and kubectl.
//
// Invariant: a command finds its instance by name (--name, or SKIFF_NAME) and knows it only through daemon.Config and the
// API; it holds no state of its own. Only cmd/skiff imports ctl.
package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/skiff-sh/skiff/daemon"
	"github.com/skiff-sh/skiff/internal/version"
)

// Main runs one command and returns the process's exit code.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "skiff:", err)
	return 1
}

// exitCode ends the process with a code and without a message: one was printed.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// instance is the flags by which every command finds the instance that it is about.
type instance struct{ name, dataDir string }

func (i *instance) load() (*daemon.Config, error) { return daemon.Load(i.name, i.dataDir) }

func rootCommand() *cobra.Command {
	name := os.Getenv("SKIFF_NAME")
	if name == "" {
		name = "skiff"
	}
	in := &instance{}
	root := &cobra.Command{
		Use:   "skiff",
		Short: "Kubernetes in one binary: a whole cluster, or any part of one",
		Long: `Skiff is Kubernetes (API ` + version.Kubernetes + `) in one binary: a whole cluster on this machine, the servers or agents of a
larger one, or any single component.`,
		Example: `  skiff up                                # start a cluster on this machine
  skiff kubectl get pods -A               # look at it
  skiff kubeconfig > ~/.kube/config       # give it to kubectl, Helm, k9s
  skiff status                            # what runs, and what it costs
  skiff down                              # stop it; containers go on
  skiff down --purge                      # remove every trace`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&in.name, "name", name, "the instance, when there are several on this machine (or SKIFF_NAME)")
	root.PersistentFlags().StringVar(&in.dataDir, "data-dir", "", "the instance's data folder (default /var/lib/NAME)")
	root.AddCommand(upCommand(in), downCommand(in), statusCommand(in), logsCommand(in), serverCommand(in), agentCommand(in), inviteCommand(in),
		explainCommand(in), kubeconfigCommand(in), kubectlCommand(in), imageCommand(in), versionCommand())
	for _, c := range append(root.Commands(), root) {
		if c.HasSubCommands() {
			c.RunE = helpOnly
		}
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; \"%s --help\" lists the flags", err, cmd.CommandPath())
	})
	root.TraverseChildren = true // so that flags may stand before "kubectl", which takes all that follow it
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

// helpOnly is what a command does that only holds others.
func helpOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("there is no command %q; did you mean \"%s %s\"?", args[0], cmd.CommandPath(), near[0])
	}
	return fmt.Errorf("there is no command %q; \"%s --help\" lists them", args[0], cmd.CommandPath())
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this binary and of the API that it serves", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "skiff %s\nKubernetes API %s\n", version.Build, version.Kubernetes)
		},
	}
}

func inviteCommand(in *instance) *cobra.Command {
	return &cobra.Command{
		Use: "invite", Short: "Print what another server joins this cluster with; keep it secret", Args: cobra.NoArgs,
		Example: `  skiff invite > join.json          # on a server that runs
  skiff server --join join.json     # on the machine of another`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := in.load()
			if err != nil {
				return err
			}
			i, err := cfg.Invite()
			if err != nil {
				return err
			}
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(i)
		},
	}
}

func kubeconfigCommand(in *instance) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use: "kubeconfig", Short: "Print an administrator's kubeconfig, with its certificate embedded", Args: cobra.NoArgs,
		Example: `  skiff kubeconfig > ~/.kube/config
  skiff kubeconfig --node worker-1 > worker-1.kubeconfig    # for "skiff agent" on another machine`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := in.load()
			if err != nil {
				return err
			}
			b, err := cfg.Kubeconfig()
			if node != "" {
				b, err = cfg.NodeKubeconfig(node)
			}
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "print the kubeconfig that a node of this name joins with")
	return cmd
}
