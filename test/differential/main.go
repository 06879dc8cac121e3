// Command differential sends the same requests to two API servers and shows where their answers differ: it is how
// Skiff's defaults, validation, tables and error texts are held against upstream's kube-apiserver.
//
// Invariant: it knows its subjects by HTTP alone and imports nothing of this module. Nobody imports it.
//
//	differential ask -server https://127.0.0.1:6466 -token T -out upstream.json
//	differential ask -server https://127.0.0.1:6463 -token T -out skiff.json
//	differential kubectl -server https://127.0.0.1:6466 -token T -out upstream-kubectl.json
//	differential compare upstream.json skiff.json
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "differential:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("want a command: ask, kubectl or compare")
	}
	switch args[0] {
	case "ask":
		return runAsk(ctx, args[1:])
	case "kubectl":
		return runKubectl(ctx, args[1:])
	case "compare":
		return runCompare(args[1:])
	}
	return fmt.Errorf("unknown command %q: want ask, kubectl or compare", args[0])
}

func runAsk(ctx context.Context, args []string) error {
	c, err := parseConfig(flag.NewFlagSet("ask", flag.ContinueOnError), args)
	if err != nil {
		return err
	}
	return Ask(ctx, c)
}

func runKubectl(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("kubectl", flag.ContinueOnError)
	kubectl := f.String("kubectl", "kubectl", "kubectl's binary")
	c, err := parseConfig(f, args)
	if err != nil {
		return err
	}
	if c.Token == "" {
		return fmt.Errorf("kubectl wants -server and -token")
	}
	return Kubectl(ctx, KubectlConfig{Config: c, Kubectl: *kubectl})
}

func parseConfig(f *flag.FlagSet, args []string) (Config, error) {
	var c Config
	f.StringVar(&c.Server, "server", "", "address of the API server")
	f.StringVar(&c.Token, "token", "", "bearer token of a cluster administrator")
	f.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig of a cluster administrator, instead of -server and -token")
	f.StringVar(&c.Corpus, "corpus", "test/differential/testdata", "folder of the objects to begin with")
	f.StringVar(&c.Out, "out", "answers.json", "file to write the answers to; those of other kinds in it are kept")
	kinds := f.String("kinds", ".", "regular expression of the corpus files to use")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	var err error
	c.Kinds, err = regexp.Compile(*kinds)
	return c, err
}

func runCompare(args []string) error {
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	var o CompareOptions
	kinds := f.String("kinds", ".", "regular expression of the cases to compare")
	f.IntVar(&o.Groups, "groups", 60, "how many groups of differences to show")
	f.BoolVar(&o.Across, "across", false, "group equal differences of all kinds together")
	f.BoolVar(&o.Summary, "summary", false, "show the counts of each kind only")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 2 {
		return fmt.Errorf("compare wants two files of answers, the judge's first")
	}
	var err error
	if o.Cases, err = regexp.Compile(*kinds); err != nil {
		return err
	}
	return Compare(os.Stdout, f.Arg(0), f.Arg(1), o)
}
