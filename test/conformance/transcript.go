package main

import (
	"bytes"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// transcript is the suite's output on its way to the log: it tells each spec that ends. Ginkgo has no other way to learn of
// them during a run of several processes.
type transcript struct {
	log      io.Writer
	finished func(spec)

	partial []byte // of a line
	ended   *spec  // whose header was the last line; its name is in the next
}

// header is the line that ginkgo prints above an ended spec's name: a mark, the state unless it passed, and the time.
var header = regexp.MustCompile(`^[•S] (?:\[([^\]]*)\] )?\[(\d+\.\d+) seconds\]$`)

// outcomes are the states that ginkgo prints. A spec that needed several attempts passed.
var outcomes = map[string]outcome{"FAILED": failed, "TIMEDOUT": failed, "PANICKED!": failed, "SKIPPED": skipped, "INTERRUPTED": notRun, "ABORTED": notRun, "PENDING": notRun}

// Write keeps whole lines; it fails as the log does.
func (t *transcript) Write(p []byte) (int, error) {
	t.partial = append(t.partial, p...)
	for {
		end := bytes.IndexByte(t.partial, '\n')
		if end < 0 {
			return len(p), nil
		}
		line := string(t.partial[:end])
		t.partial = t.partial[end+1:]
		t.line(line)
		if strings.Trim(line, "SP") == "" && line != "" {
			continue // a letter for each of the thousands that the filters left out
		}
		if _, err := io.WriteString(t.log, line+"\n"); err != nil {
			return len(p), err
		}
	}
}

func (t *transcript) line(line string) {
	if t.ended != nil {
		if t.ended.Name = specName(line); strings.HasPrefix(t.ended.Name, "[sig-") { // and not a set-up node
			t.finished(*t.ended)
		}
		t.ended = nil
		return
	}
	m := header.FindStringSubmatch(line)
	if m == nil {
		return
	}
	o, ok := outcomes[m[1]]
	if !ok {
		o = passed
	}
	if o != notRun {
		seconds, _ := strconv.ParseFloat(m[2], 64) // the pattern has checked it
		t.ended = &spec{Outcome: o, Seconds: seconds}
	}
}

// specName is a spec's name out of the line that shows it: with the node that failed marked, and the labels at the end,
// which every conformance spec has.
func specName(line string) string {
	if labels := strings.LastIndex(line, " ["); labels > 0 {
		line = line[:labels]
	}
	return strings.Replace(line, " [It] ", " ", 1)
}
