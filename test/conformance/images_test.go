package main

import "testing"

// Debian's busybox prefers its own commands to those on the path, so as the shell it would hide netcat's options.
func TestToolsHaveDebiansOwnWhereBusyboxHasLess(t *testing.T) {
	k := &kit{root: t.TempDir(), applets: []string{"nc", "sh", "vi"}}
	links := map[string]string{}
	for _, f := range k.tools().Files { // the last of one name stays
		links[f.Dest] = f.Link
	}
	for dest, want := range map[string]string{"/usr/bin/sh": "bash", "/usr/bin/nc": "nc.openbsd", "/usr/bin/vi": "/bin/busybox"} {
		if links[dest] != want {
			t.Errorf("%s leads to %q, want %q", dest, links[dest], want)
		}
	}
}
