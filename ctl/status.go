package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/daemon"
)

func statusCommand(in *instance) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what runs and what it costs; exit code 3 if it does not run", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := in.load()
			if err != nil && !errors.Is(err, daemon.ErrNoInstance) {
				return err
			}
			if err != nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s does not run; start it with \"skiff up\"\n", in.name)
				return exitCode(3)
			}
			return status(cmd.Context(), cmd.OutOrStdout(), cfg)
		},
	}
}

func status(ctx context.Context, out io.Writer, cfg *daemon.Config) error {
	pid, ok := cfg.Running()
	if !ok {
		fmt.Fprintf(out, "%s does not run; start it with \"skiff%s up\"\n", cfg.Name, forName(cfg))
		return exitCode(3)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "instance\t%s, data in %s\n", cfg.Name, cfg.DataDir)
	fmt.Fprintf(w, "control plane and agent\tpid %d, %s\n", pid, usage(pid))
	if pid, ok := cfg.RuntimePID(); ok {
		fmt.Fprintf(w, "containerd\tpid %d, %s\n", pid, usage(pid))
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := cfg.AdminClient()
	if err != nil {
		return err
	}
	nodes, err := client.List[*corev1.Node](ctx, c, "", metav1.ListOptions{})
	if err != nil {
		fmt.Fprintf(w, "API server\tdoes not answer at %s: %v\n", cfg.URL(), err)
		return exitCode(1)
	}
	fmt.Fprintf(w, "API server\tready at https://%s:%d\n", cfg.NodeIP, cfg.APIPort)
	for _, n := range nodes {
		why := unready(n, time.Time{})
		if why == "" {
			why = "ready" + pressure(n)
		}
		fmt.Fprintf(w, "node %s\t%s\n", n.Name, why)
	}
	pods, err := client.List[*corev1.Pod](ctx, c, "", metav1.ListOptions{})
	if err != nil {
		return err
	}
	phases := map[corev1.PodPhase]int{}
	for _, p := range pods {
		phases[p.Status.Phase]++
	}
	fmt.Fprintf(w, "pods\t%d", len(pods))
	for _, phase := range []corev1.PodPhase{corev1.PodRunning, corev1.PodPending, corev1.PodSucceeded, corev1.PodFailed, corev1.PodUnknown} {
		if n := phases[phase]; n > 0 {
			fmt.Fprintf(w, ", %d %s", n, strings.ToLower(string(phase)))
		}
	}
	fmt.Fprintln(w)
	return nil
}

// usage is a process's resident memory and processor time so far.
func usage(pid int) string {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	var rss string
	if b, err := os.ReadFile(filepath.Join(proc, "status")); err == nil {
		for line := range strings.Lines(string(b)) {
			if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				n, _ := strconv.Atoi(strings.Fields(kb)[0])
				rss = fmt.Sprintf("%d MB resident", n/1024)
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return rss
	}
	// The fields after the command's name, which may itself hold spaces: user and system time are the 12th and 13th
	// (proc(5)), in ticks of 10 ms.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return fmt.Sprintf("%s, %.1f s of processor time", rss, float64(user+system)/100)
}
