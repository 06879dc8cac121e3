package ctl

import (
	"bytes"
	"strings"
	"testing"
)

// What is typed wrong is answered with the next step.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		args, want string
	}{
		{"serve", `there is no command "serve"; did you mean "skiff server"?`},
		{"frobnicate", `"skiff --help" lists them`},
		{"image frobnicate", `"skiff image --help" lists them`},
		{"up --bogus", `unknown flag: --bogus; "skiff up --help" lists the flags`},
		{"agent", `"skiff kubeconfig --node NAME" on a server makes one`},
		{"server --join /nonexistent", `"skiff invite" on a server that runs prints one`},
		{"server --node-ip x", `--node-ip "x" is no address (192.0.2.1)`},
		{"server --etcd-ports 1", "takes two ports"},
		{"server --api-port 99999", "must be between 1 and 65535"},
		{"status more", `unknown command "more" for "skiff status"`},
	} {
		t.Setenv("SKIFF_NAME", "nobody")
		root := rootCommand()
		root.SetArgs(append([]string{"--data-dir", t.TempDir() + "/x"}, strings.Fields(c.args)...))
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&out)
		if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("skiff %s: %v, want %q", c.args, err, c.want)
		}
	}
}
