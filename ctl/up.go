package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/daemon"
)

// configFlags adds the flags that make a daemon.Config. What is not given comes from the instance's last start.
func configFlags(f *pflag.FlagSet) func(in *instance) (*daemon.Config, error) {
	c := &daemon.Config{}
	var nodeIP, podCIDR, serviceCIDR, join string
	var etcdPorts []int
	f.StringVar(&c.NodeName, "node-name", "", "the node's name (default: the host's name)")
	f.StringVar(&nodeIP, "node-ip", "", "the node's address (default: that of the interface with the default route)")
	f.IntVar(&c.APIPort, "api-port", 0, "the API server's port (default 6443)")
	f.IntVar(&c.NodePort, "kubelet-port", 0, "the node agent's own port (default 10250)")
	f.StringVar(&podCIDR, "pod-cidr", "", "the range of pod addresses, /24 a node (default 10.244.0.0/16)")
	f.StringVar(&serviceCIDR, "service-cidr", "", "the range of service addresses (default 10.96.0.0/16)")
	f.StringVar(&c.ClusterDomain, "cluster-domain", "", "the DNS domain (default cluster.local)")
	f.StringSliceVar(&c.EtcdServers, "etcd-servers", nil, "an external etcd's endpoints (default: etcd inside the server)")
	f.IntSliceVar(&etcdPorts, "etcd-ports", nil, "where the etcd inside the server listens for clients and peers (2379,2380), so that other servers can join")
	f.StringVar(&join, "join", "", "an invitation (\"skiff invite\" on another server): be a further server of its cluster")
	f.IntVar(&c.MaxPods, "max-pods", 0, "how many pods the node takes (default 110)")
	return func(in *instance) (*daemon.Config, error) {
		merged, err := in.load()
		if errors.Is(err, daemon.ErrNoInstance) {
			merged, err = &daemon.Config{Name: in.name, DataDir: in.dataDir}, nil
		}
		if err != nil {
			return nil, err
		}
		for text, prefix := range map[string]*netip.Prefix{podCIDR: &c.PodCIDR, serviceCIDR: &c.ServiceCIDR} {
			if text != "" {
				if *prefix, err = netip.ParsePrefix(text); err != nil {
					return nil, fmt.Errorf("a range of addresses looks like 10.244.0.0/16: %w", err)
				}
			}
		}
		if nodeIP != "" {
			if c.NodeIP, err = netip.ParseAddr(nodeIP); err != nil {
				return nil, fmt.Errorf("--node-ip %q is no address (192.0.2.1): %w", nodeIP, err)
			}
		}
		switch len(etcdPorts) {
		case 0:
		case 2:
			c.EtcdPorts = [2]int(etcdPorts)
		default:
			return nil, errors.New("--etcd-ports takes two ports, for clients and for peers: 2379,2380")
		}
		merged.Override(c)
		if join != "" {
			if err := merged.Complete(); err != nil {
				return nil, err
			}
			if err := merged.Join(join); err != nil {
				return nil, err
			}
		}
		return merged, merged.Complete()
	}
}

func serverCommand(in *instance) *cobra.Command {
	var agent bool
	cmd := &cobra.Command{
		Use: "server", Short: "Run the control plane in the foreground", Args: cobra.NoArgs,
		Example: `  skiff server --agent                       # a whole cluster in the foreground
  skiff server                               # the control plane alone
  skiff server --etcd-ports 2379,2380        # the first of several servers; "skiff invite > join.json" there
  skiff server --join join.json              # ... and each of the others`,
	}
	config := configFlags(cmd.Flags())
	cmd.Flags().BoolVar(&agent, "agent", false, "be a node too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config(in)
		if err != nil {
			return err
		}
		if err := cfg.Save(); err != nil {
			return err
		}
		return daemon.Server(cmd.Context(), cfg, agent)
	}
	return cmd
}

func agentCommand(in *instance) *cobra.Command {
	var kubeconfig string
	cmd := &cobra.Command{
		Use: "agent", Short: "Run a node of a cluster in the foreground", Args: cobra.NoArgs,
		Example: "  skiff agent --kubeconfig worker-1.kubeconfig --node-name worker-1\n  # made on the server by: skiff kubeconfig --node worker-1",
	}
	config := configFlags(cmd.Flags())
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server, and as which node")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if kubeconfig == "" {
			return errors.New("a node needs --kubeconfig FILE; \"skiff kubeconfig --node NAME\" on a server makes one")
		}
		cfg, err := config(in)
		if err != nil {
			return err
		}
		if err := cfg.Save(); err != nil {
			return err
		}
		return daemon.Agent(cmd.Context(), cfg, kubeconfig)
	}
	return cmd
}

func upCommand(in *instance) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "up", Short: "Start a one-node cluster in the background and wait until it is ready", Args: cobra.NoArgs,
		Example: "  skiff up\n  skiff up --nodes 3\n  skiff up --name second --api-port 7443 --kubelet-port 11250 --pod-cidr 10.245.0.0/16 --service-cidr 10.97.0.0/16",
	}
	config := configFlags(cmd.Flags())
	nodes := cmd.Flags().Int("nodes", 0, "how many nodes this machine stands for, each in a network namespace of its own (default 1)")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for the node")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if os.Geteuid() != 0 {
			return errors.New("a node needs root (namespaces, mounts, nftables): run \"sudo skiff up\"")
		}
		cfg, err := config(in)
		if err != nil {
			return err
		}
		if *nodes > 0 {
			cfg.Nodes = *nodes
			if err := cfg.Complete(); err != nil {
				return err
			}
		}
		out := cmd.OutOrStdout()
		if pid, ok := cfg.Running(); ok {
			fmt.Fprintf(out, "%s runs already (pid %d); \"skiff status\" shows more\n", cfg.Name, pid)
			return nil
		}
		if err := cfg.Save(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		start := time.Now()
		if cfg.Nodes > 1 {
			if err := cfg.Connect(); err != nil {
				return err
			}
		}
		died, err := launch(cfg, "server", "--agent")
		if err != nil {
			return err
		}
		p := progress{out, start}
		if err := await(ctx, cfg, died, p); err != nil {
			return fmt.Errorf("%w\nthe log is in %s; its last lines:\n%s", err, cfg.LogFile(), tail(cfg.LogFile(), 12))
		}
		if err := startNeighbours(ctx, cfg, p); err != nil {
			return err
		}
		fmt.Fprintf(out, "\n%s is up. Next:\n  skiff%s kubectl get pods -A\n  skiff%s kubeconfig > ~/.kube/config\n  skiff%s status\n",
			cfg.Name, forName(cfg), forName(cfg), forName(cfg))
		return nil
	}
	return cmd
}

func forName(cfg *daemon.Config) string {
	if cfg.Name == "skiff" {
		return ""
	}
	return " --name " + cfg.Name
}

// launch starts the instance's process in a session of its own and returns a channel that tells if it ends.
func launch(cfg *daemon.Config, what ...string) (<-chan error, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(cfg.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(exe, append([]string{"--name", cfg.Name, "--data-dir", cfg.DataDir}, what...)...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	died := make(chan error, 1)
	go func() { died <- cmd.Wait() }() // ends with this command at the latest
	return died, nil
}

// progress prints one line for each step that is reached.
type progress struct {
	out   io.Writer
	start time.Time
}

func (p progress) step(what string) {
	fmt.Fprintf(p.out, "  %5.1fs  %s\n", time.Since(p.start).Seconds(), what)
}

// await returns when the instance's node is ready.
func await(ctx context.Context, cfg *daemon.Config, died <-chan error, p progress) error {
	apiReady, registered := false, false
	last := "the API server does not answer"
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var c client.Interface
	for {
		select {
		case err := <-died:
			return fmt.Errorf("skiff ended while starting (%v)", err)
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %s", last)
		case <-tick.C:
		}
		if _, ok := cfg.Running(); !ok {
			continue
		}
		if c == nil {
			var err error
			if c, err = cfg.AdminClient(); err != nil {
				last = err.Error()
				c = nil
				continue
			}
		}
		node, err := client.Get[*corev1.Node](ctx, c, "", cfg.NodeName)
		if err != nil && !notFound(err) {
			last = err.Error()
			continue
		}
		if !apiReady {
			apiReady = true
			p.step("the API server answers at " + cfg.URL())
		}
		if err != nil {
			last = "the node has not registered"
			continue
		}
		if !registered {
			registered = true
			p.step("the node " + cfg.NodeName + " has registered")
		}
		if last = unready(node, p.start); last == "" {
			p.step("the node is ready" + pressure(node))
			return nil
		}
	}
}

// unready says why the node is not ready, or nothing. What the node said before start is of an earlier run.
func unready(n *corev1.Node, start time.Time) string {
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		switch {
		case c.LastHeartbeatTime.Add(time.Second).Before(start): // it is told in whole seconds
			return "the node has not reported since the start"
		case c.Status != corev1.ConditionTrue:
			return "the node is not ready: " + c.Message
		}
		return ""
	}
	return "the node has not said whether it is ready"
}

// pressure says what keeps a node that is ready from taking pods, or nothing.
func pressure(n *corev1.Node) string {
	out := ""
	for _, c := range n.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case corev1.NodeDiskPressure:
			out += ", but takes no pods: the disk is nearly full (free a tenth of it)"
		case corev1.NodeMemoryPressure:
			out += ", but takes few pods: memory is nearly used up"
		case corev1.NodePIDPressure:
			out += ", but takes no pods: the machine is nearly out of process ids"
		}
	}
	return out
}

func notFound(err error) bool {
	var s interface{ Status() metav1.Status }
	return errors.As(err, &s) && s.Status().Reason == metav1.StatusReasonNotFound
}
