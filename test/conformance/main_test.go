package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestSuiteArguments(t *testing.T) {
	c, err := parse([]string{"-focus", "Pods should", "-procs", "3", "-timeout", "90m", "-out", "/o", "-kubeconfig", "/k"})
	if err != nil {
		t.Fatal(err)
	}
	args := suiteArgs(c, "/o/results")
	suite := slices.Index(args, "/o/bin/e2e.test")
	if suite < 0 || args[suite+1] != "--" {
		t.Fatalf("arguments %q", args)
	}
	for _, want := range []string{"--focus=Pods should", "--label-filter=Conformance", "--procs=3", "--timeout=1h30m0s"} {
		if !slices.Contains(args[:suite], want) {
			t.Errorf("ginkgo does not get %s: %q", want, args)
		}
	}
	if !slices.Contains(args[suite:], "--kubeconfig=/k") || slices.Contains(args, "--skip=") {
		t.Errorf("arguments %q", args)
	}
	if c.timeout != 90*time.Minute || !filepath.IsAbs(c.docs) {
		t.Errorf("config %+v", c)
	}
	for _, bad := range [][]string{{"-procs", "0"}, {"extra"}, {"-nosuch"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("parse(%q) did not fail", bad)
		}
	}
}

func TestFreshBuildsOnlyWhenInputsChange(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	built := 0
	build := func() error { built++; return os.WriteFile(target, []byte("x"), 0o644) }
	for _, step := range []struct {
		inputs string
		do     func() error
		want   int
	}{
		{"a", build, 1},
		{"a", build, 1},
		{"b", build, 2},
		{"c", func() error { return errors.New("broken") }, 2},
		{"b", build, 3}, // what a failed build left can't be trusted
	} {
		_ = fresh(target, step.inputs, step.do)
		if built != step.want {
			t.Fatalf("inputs %q: built %d times, want %d", step.inputs, built, step.want)
		}
	}
	if err := os.Remove(target); err != nil {
		t.Fatal(err)
	}
	if err := fresh(target, "b", build); err != nil || built != 4 {
		t.Errorf("a missing target was not built: %d, %v", built, err)
	}
}

func TestRepository(t *testing.T) {
	for name, want := range map[string]string{
		"registry.k8s.io/pause:3.10.2":                   "pause",
		"registry.k8s.io/e2e-test-images/agnhost:2.63":   "e2e-test-images/agnhost",
		"docker.io/library/busybox":                      "library/busybox",
		"registry.k8s.io/e2e-test-images/volume/nfs:1.6": "e2e-test-images/volume/nfs",
	} {
		if got := repository(name); got != want {
			t.Errorf("repository(%q) = %q, want %q", name, got, want)
		}
	}
}
