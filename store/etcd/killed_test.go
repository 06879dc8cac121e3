package etcd

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skiff-sh/skiff/store/storetest"
)

// victim is the environment variable that makes the test binary a process that writes until it is killed.
const victim = "ETCD_TEST_VICTIM"

// TestKilled kills a process in the middle of its writes, again and again. Every write that it was told of is there after.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(victim); dir != "" {
		beVictim(t, dir)
		return
	}
	rounds := 3
	if n, err := strconv.Atoi(os.Getenv(victim + "_ROUNDS")); err == nil {
		rounds = n
	}
	dir := filepath.Join(t.TempDir(), "etcd")
	acknowledged := map[string]string{}
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$", "-test.v")
		cmd.Env = append(os.Environ(), victim+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := 50 + rand.IntN(1000) // writes
		for lines := bufio.NewScanner(out); lines.Scan(); {
			key, v, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "wrote "), "=")
			if !ok || !strings.HasPrefix(lines.Text(), "wrote ") {
				continue
			}
			acknowledged[key] = v
			if after--; after == 0 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		if after > 0 {
			t.Fatalf("round %d: the process ended by itself", round)
		}
	}
	s := openIn(t, dir)
	defer s.Close()
	if err := s.Register(t.Context(), storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	for key, v := range acknowledged {
		e, ok := s.Snapshot("").Get(key)
		if !ok {
			t.Fatalf("%s is lost", key)
		}
		// The last write may have happened without its word having come through.
		have, _ := strconv.Atoi(storetest.Said(e))
		if told, _ := strconv.Atoi(v); have < told || have > told+1 {
			t.Errorf("%s is %d, told was %d", key, have, told)
		}
	}
}

// beVictim counts up in several keys, from what is there.
func beVictim(t *testing.T, dir string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := Open(ctx, Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprintf("k%d", i)
			key := storetest.Prefix + "ns/" + name
			e, _ := s.Snapshot("").Get(key)
			for n := 1; ; n++ {
				var err error
				if e == nil {
					e, err = s.Create(ctx, key, storetest.Object("ns", name, "1"), 0)
				} else {
					was, _ := strconv.Atoi(storetest.Said(e))
					n = was + 1
					e, err = s.Update(ctx, key, e.Rev, storetest.Object("ns", name, strconv.Itoa(n)), 0)
				}
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Printf("wrote %s=%d\n", key, n)
			}
		})
	}
	wg.Wait()
}
