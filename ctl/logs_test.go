package ctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	var all strings.Builder
	for i := range 20000 { // longer than one block that tail reads
		fmt.Fprintf(&all, "line %d\n", i)
	}
	if err := os.WriteFile(file, []byte(all.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 2, 9000, 20000, 30000} {
		got := strings.Split(strings.TrimSpace(tail(file, n)), "\n")
		if want := min(n, 20000); len(got) > want || n < 5000 && len(got) != want {
			t.Errorf("tail of %d lines has %d", n, len(got))
		}
		if n < 5000 && got[len(got)-1] != "line 19999" {
			t.Errorf("tail of %d ends with %q", n, got[len(got)-1])
		}
	}
}
