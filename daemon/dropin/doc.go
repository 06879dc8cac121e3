// Package dropin lets the binary stand in for upstream's programs: called kube-apiserver, kube-controller-manager,
// kube-scheduler, kubelet, kube-proxy or etcd it takes their flags and configuration files and is that component alone.
//
// Invariant: every flag of upstream's release is known (upstream/*.txt lists them); one that has no meaning here is named
// in a warning, and any other is an error, so that nobody relies on a setting that nobody reads. Only cmd/skiff imports
// dropin.
package dropin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

// program is one of upstream's: it takes its flags and runs until ctx ends.
type program struct {
	name string
	// short says what it is, for --help.
	short string
	run   func(ctx context.Context, p *process) error
}

// process is one call of a program.
type process struct {
	program
	args []string
	out  io.Writer
	log  *slog.Logger
	// level is the log's, which -v lowers.
	level *slog.LevelVar
}

func programs() []program {
	return []program{
		{"kube-apiserver", "Serves the Kubernetes API, kept in etcd.", runAPIServer},
		{"kube-controller-manager", "Runs the controllers of a cluster.", runControllerManager},
		{"kube-scheduler", "Assigns pods to nodes.", runScheduler},
		{"kubelet", "Runs the pods of one node.", runKubelet},
		{"kube-proxy", "Leads the traffic to Services to their pods, on one node.", runProxy},
	}
}

// Is reports whether name is one of the programs that Main can be.
func Is(name string) bool {
	if name == "etcd" {
		return true
	}
	for _, p := range programs() {
		if p.name == name {
			return true
		}
	}
	return false
}

// Main is the program of that name, and returns its exit code.
func Main(name string, args []string) int {
	if name == "etcd" {
		return etcd(args)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, p := range programs() {
		if p.name != name {
			continue
		}
		level := &slog.LevelVar{}
		one := &process{program: p, args: args, out: os.Stdout, level: level,
			log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))}
		switch err := p.run(ctx, one); {
		case err == nil || errors.Is(err, errDone) || errors.Is(err, context.Canceled):
			return 0
		default:
			fmt.Fprintln(os.Stderr, "Error:", err)
			return 1
		}
	}
	return 2
}

// etcd is the embedded etcd's own command line. A member that stays alone need not wait for others before it elects
// itself, so its times are shorter than etcd's unless somebody has set them.
func etcd(args []string) int {
	front := []string{"etcd"}
	if alone(args, os.Environ()) {
		front = append(front, "--heartbeat-interval=20", "--election-timeout=100")
	}
	etcdmain.Main(append(front, args...)) // ends the process when it fails
	return 0
}

// alone reports whether etcd is asked to be a cluster of one, with nothing said about its times.
func alone(args, env []string) bool {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return false // gateway, grpc-proxy
	}
	for _, a := range append(slices.Clone(args), env...) {
		name := strings.ReplaceAll(strings.TrimLeft(strings.ToLower(a), "-"), "_", "-")
		name = strings.TrimPrefix(name, "etcd-")
		for _, other := range []string{"initial-cluster", "discovery", "config-file", "heartbeat-interval", "election-timeout", "force-new-cluster"} {
			if strings.HasPrefix(name, other) {
				return false
			}
		}
	}
	return true
}
