package lean

import (
	"runtime"
	"slices"
	"testing"
	"time"
)

const smaps = `00400000-02f83000 r-xp 00000000 fe:00 99                        /bin/skiff
Rss:               38412 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
02f83000-07190000 r--p 02b83000 fe:00 99                        /bin/skiff
Private_Dirty:         8 kB
Anonymous:             8 kB
VmFlags: rd mr mw me
07190000-073c4000 rw-p 06d90000 fe:00 99                        /bin/skiff
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd wr mr mw me
7f0000000000-7f0000001000 r--p 00000000 fe:00 98                /lib/other
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
7f4e5fc00000-7f509fc00000 r--s 00000000 fe:00 97                /data/etcd/db
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd mr me ms
7ffc2d5e9000-7ffc2d60a000 rw-p 00000000 00:00 0                 [stack]
VmFlags: rd wr mr mw me
`

func TestOnlyCleanPagesOfTheProgramGo(t *testing.T) {
	want := []mapping{{0x400000, 0x2f83000}, {0x7f4e5fc00000, 0x7f509fc00000}}
	if got := clean([]byte(smaps), "/bin/skiff"); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	if got := clean([]byte("nonsense\nmore nonsense here\n"), "/bin/skiff"); got != nil {
		t.Errorf("got %x from nonsense", got)
	}
}

// TestTrim trims the test's own program, which must go on.
func TestTrim(t *testing.T) {
	Trim()
	if resident() == 0 {
		t.Error("nothing is resident")
	}
}

func TestPercentFor(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 1000}, {1 << 20, 1000}, {16 << 20, 400}, {32 << 20, 200}, {64 << 20, 100}, {1 << 30, 100}} {
		if got := percentFor(c.live); got != c.want {
			t.Errorf("%d live bytes: %d, want %d", c.live, got, c.want)
		}
	}
}

// TestPacerHearsOfCollections checks that the pace follows what is alive.
func TestPacerHearsOfCollections(t *testing.T) {
	p := &pacer{percent: 1}
	defer p.stop()
	p.arm()
	for deadline := time.Now().Add(10 * time.Second); ; {
		runtime.GC()
		p.mu.Lock()
		set := p.percent != 1
		p.mu.Unlock()
		if set {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the pacer hears of nothing")
		}
		runtime.Gosched()
	}
}
