// Package lean keeps a process small that idles most of the time: it gives back what only the start, or a burst of work,
// needed.
//
// Invariant: nothing that the program can observe changes; what is given back is read again from where it came when
// it is touched. Any package may import lean; it imports the standard library and x/sys.
package lean

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	every  = 5 * time.Second // between two looks
	growth = 16 << 20        // bytes that must have come in since the last time to make it worth it
	// busy is the share of a core from which on a process has something to do. Trimming it then would cost more than it
	// gives: what goes comes back at once, and the level that it leaves says nothing about the next quiet time.
	busy = 0.03
)

// Run trims the process after its start and after each burst of work that made it grow, once it is quiet, until ctx ends.
// Before that it calls forget, which drops what can be made again.
func Run(ctx context.Context, forget ...func()) {
	look := time.NewTicker(every)
	defer look.Stop()
	level, spent := int64(0), processorTime()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		before := spent
		spent = processorTime()
		if spent-before < time.Duration(busy*float64(every)) && resident() >= level+growth {
			for _, f := range forget {
				f()
			}
			Trim()
			level, spent = resident(), processorTime()
		}
	}
}

// processorTime is what the process has used, user and system.
func processorTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Trim collects the garbage and gives free memory back, and lets go of the pages of files that are mapped: package
// initialization and embedded files leave tens of megabytes of the program's own, which hardly anybody reads again. They stay in
// the page cache, from where the few that are needed come back without reading the disk.
func Trim() {
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return // not Linux, or no /proc: there is nothing to gain
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for _, m := range clean(maps, exe) {
		// The addresses are not Go's to know, hence the raw call.
		// Where the page cache keeps the file in huge pages, one touch would bring 2 MiB back.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_NOHUGEPAGE)
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	}
}

type mapping struct{ start, end uintptr }

// clean finds the read-only mappings, in the text of /proc/self/smaps, of which no page was ever written: only those come
// back from the file as they were. They are the program's own (a position-independent one has others: relocated pages,
// read-only only afterwards), and etcd's database, which it maps whole and reads into memory at the start.
func clean(smaps []byte, file string) []mapping {
	var out []mapping
	var m mapping
	candidate := false
	for lines := bufio.NewScanner(bytes.NewReader(smaps)); lines.Scan(); {
		line := lines.Text()
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		if !strings.HasSuffix(f[0], ":") { // a mapping begins: addresses, rights, offset, device, inode, file
			from, to, _ := strings.Cut(f[0], "-")
			start, err1 := strconv.ParseUint(from, 16, 64)
			end, err2 := strconv.ParseUint(to, 16, 64)
			private := (f[1] == "r-xp" || f[1] == "r--p") && strings.HasSuffix(line, " "+file)
			shared := f[1] == "r--s" && strings.HasPrefix(f[len(f)-1], "/") && !strings.HasPrefix(f[len(f)-1], "/dev/")
			candidate = err1 == nil && err2 == nil && (private || shared)
			m = mapping{uintptr(start), uintptr(end)}
			continue
		}
		switch f[0] {
		case "Private_Dirty:", "Shared_Dirty:", "Anonymous:":
			candidate = candidate && f[1] == "0"
		case "VmFlags:": // the last line of a mapping
			if candidate {
				out = append(out, m)
			}
			candidate = false
		}
	}
	return out
}

// resident is the process's resident memory in bytes.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
