package server

import (
	"net/url"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestFillOptions(t *testing.T) {
	exec := &corev1.PodExecOptions{}
	fillOptions(exec, url.Values{"stdin": {"true"}, "tty": {"0"}, "container": {"c"}, "command": {"ls", "-l"}, "other": {"x"}})
	if !exec.Stdin || exec.TTY || exec.Container != "c" || !slices.Equal(exec.Command, []string{"ls", "-l"}) {
		t.Errorf("exec: %+v", exec)
	}
	forward := &corev1.PodPortForwardOptions{}
	fillOptions(forward, url.Values{"ports": {"80,81", "bad"}})
	if !slices.Equal(forward.Ports, []int32{80, 81}) {
		t.Errorf("port forward: %+v", forward)
	}
}
