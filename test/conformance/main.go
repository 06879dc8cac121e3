// Conformance runs the unmodified end-to-end suite of Kubernetes v1.36.3 against a running cluster:
//
//	go run . -focus 'Pods should'
//
// It needs no public registry and no container engine. It builds the suite, and every image that the suite pulls,
// from the Go module proxy and Debian's packages; serves the images from a registry of its own that the cluster's
// container runtime takes for the public ones; runs the chosen specs; and adds their outcomes to the record that
// docs/CONFORMANCE.md is rendered from.
//
// Invariant: nothing here knows Skiff but for its kubeconfig command and the folder of its registry mirrors; with
// -kubeconfig and -hosts-dir it judges any cluster on the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// config is what the flags set.
type config struct {
	focus, skip string
	labels      string
	procs       int
	timeout     time.Duration
	kubeconfig  string
	skiff       string
	hostsDirs   []string
	registry    string
	out         string
	docs        string
	prepareOnly bool
	serveOnly   bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, c)
	}
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func parse(args []string) (config, error) {
	var c config
	f := flag.NewFlagSet("conformance", flag.ContinueOnError)
	f.StringVar(&c.focus, "focus", "", "regular expression of the specs to run; all with the label when empty")
	f.StringVar(&c.skip, "skip", "", "regular expression of the specs not to run")
	f.StringVar(&c.labels, "label-filter", "Conformance", "label expression that specs must match; empty for every spec")
	f.IntVar(&c.procs, "procs", 1, "specs to run at a time; serial ones run alone afterwards")
	f.DurationVar(&c.timeout, "timeout", 6*time.Hour, "when to end the whole run; what finished is recorded")
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "an administrator's kubeconfig; asked from skiff when empty")
	f.StringVar(&c.skiff, "skiff", "../../bin/skiff", "the skiff program to ask")
	hosts := f.String("hosts-dir", "/var/lib/skiff/registry-hosts,/var/lib/skiff-[0-9]*/registry-hosts",
		"the container runtimes' folders of registry mirrors (hosts.toml), one for each node: comma-separated, with wildcards")
	f.StringVar(&c.registry, "registry", net.JoinHostPort(ownAddress(), "5057"), "address to serve the images on; all nodes must reach it")
	f.StringVar(&c.out, "out", "out", "folder for what is built, and the run's logs")
	f.StringVar(&c.docs, "docs", "../../docs", "folder of CONFORMANCE.md and conformance.json")
	f.BoolVar(&c.prepareOnly, "prepare", false, "build the suite and its images, and stop")
	f.BoolVar(&c.serveOnly, "serve", false, "build and serve the images until interrupted, and run nothing")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if c.procs < 1 {
		return c, errors.New("-procs must be at least 1")
	}
	for pattern := range strings.SplitSeq(*hosts, ",") {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return c, fmt.Errorf("-hosts-dir %q: %w", pattern, err)
		}
		c.hostsDirs = append(c.hostsDirs, dirs...)
	}
	for _, dir := range []*string{&c.out, &c.docs, &c.skiff} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return c, err
		}
		*dir = abs
	}
	return c, nil
}

func run(ctx context.Context, c config) (err error) {
	if err := os.MkdirAll(filepath.Join(c.out, "bin"), 0o755); err != nil {
		return err
	}
	if err := buildPrograms(ctx, c.out); err != nil {
		return err
	}
	images, err := buildImages(ctx, c.out)
	if err != nil || c.prepareOnly {
		return err
	}
	stopRegistry, err := serveImages(ctx, c, images)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopRegistry()) }()
	if c.serveOnly {
		say("serving until interrupted")
		<-ctx.Done()
		return nil
	}
	if c.kubeconfig == "" {
		if c.kubeconfig, err = askKubeconfig(ctx, c); err != nil {
			return err
		}
	}
	return runSuite(ctx, c)
}

func askKubeconfig(ctx context.Context, c config) (string, error) {
	raw, err := exec.CommandContext(ctx, c.skiff, "kubeconfig").Output()
	if err != nil {
		return "", fmt.Errorf("%s kubeconfig: %w; is a cluster running? Or give -kubeconfig", c.skiff, err)
	}
	file := filepath.Join(c.out, "kubeconfig")
	return file, os.WriteFile(file, raw, 0o600)
}

// ownAddress is an address of this machine that nodes in network namespaces of their own reach too.
func ownAddress() string {
	addrs, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
				return ip.IP.String()
			}
		}
	}
	return "127.0.0.1"
}

// say tells the person who waits what is happening.
func say(format string, args ...any) { fmt.Printf("==> "+format+"\n", args...) }
