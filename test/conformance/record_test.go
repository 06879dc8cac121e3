package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	podSpec     = "[sig-node] Pods should run [Conformance]"
	secretSpec  = "[sig-node] Secrets should mount [Conformance]"
	serviceSpec = "[sig-network] Services should serve [Conformance]"
	otherSpec   = "[sig-node] Pods may glow"
)

var day = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// opened is a book over a new docs folder, and what it prints.
func opened(t *testing.T, docs, focus string, now time.Time) (*book, *strings.Builder) {
	t.Helper()
	b, err := openBook(config{docs: docs, focus: focus})
	if err != nil {
		t.Fatal(err)
	}
	screen := &strings.Builder{}
	b.screen, b.now = screen, func() time.Time { return now }
	return b, screen
}

type result struct {
	name, state string
	attempts    int
	failure     string
}

// report writes what ginkgo would: a suite with its set-up node and these specs.
func report(t *testing.T, results ...result) string {
	t.Helper()
	specs := []map[string]any{{"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"}}
	for _, r := range results {
		i := strings.LastIndex(r.name, " should")
		if i < 0 {
			i = strings.LastIndex(r.name, " may")
		}
		specs = append(specs, map[string]any{
			"ContainerHierarchyTexts": []string{r.name[:i]}, "LeafNodeText": r.name[i+1:], "LeafNodeType": "It",
			"State": r.state, "NumAttempts": r.attempts, "RunTime": 1_540_000_000, "Failure": map[string]string{"Message": r.failure},
		})
	}
	raw, err := json.Marshal([]any{map[string]any{"SpecReports": specs}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func page(t *testing.T, docs string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(docs, "CONFORMANCE.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func wants(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in:\n%s", w, text)
		}
	}
}

func TestFocusedRunChangesItsOwnLinesOnly(t *testing.T) {
	docs := t.TempDir()
	b, _ := opened(t, docs, "", day)
	err := b.finish(report(t,
		result{podSpec, "passed", 1, ""},
		result{secretSpec, "failed", 1, "\n  expected *this*\nnot that"},
		result{serviceSpec, "skipped", 1, "needs two nodes"},
		result{otherSpec, "passed", 1, ""}))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, page(t, docs), "**1 of 3**",
		"| sig-network | 1 | 0 | 0 | 1 | 0 |", "| sig-node | 2 | 1 | 1 | 0 | 0 |", "| **all** | 3 | 1 | 1 | 1 | 0 |",
		"on 2026-11-20", "    make conformance\n",
		`- \[sig-node\] Secrets should mount \[Conformance\]`, `expected \*this\*`, "needs two nodes")

	b, _ = opened(t, docs, "Secrets", day.AddDate(0, 0, 3))
	err = b.finish(report(t,
		result{podSpec, "skipped", 0, ""}, // left out by the focus
		result{secretSpec, "passed", 1, ""},
		result{serviceSpec, "skipped", 0, ""},
		result{"[sig-apps] Job should end [Conformance]", "skipped", 0, ""}))
	if err != nil {
		t.Fatal(err)
	}
	got := page(t, docs)
	wants(t, got, "**2 of 4**", "| sig-node | 2 | 2 | 0 | 0 | 0 |", "| sig-apps | 1 | 0 | 0 | 0 | 1 |",
		"between 2026-11-20 and 2026-11-23", "make conformance FOCUS='Secrets'")
	if strings.Contains(got, "## Failed") {
		t.Error("a spec that passes now is still listed as failed")
	}
}

func TestWhatTheSuitePrintsIsRecordedAtOnce(t *testing.T) {
	docs := t.TempDir()
	b, screen := opened(t, docs, "", day)
	log := &strings.Builder{}
	out := &transcript{log: log, finished: b.finished}
	const labels = " [sig-node, Conformance]"
	printed := strings.Join([]string{
		"------------------------------", "[SynchronizedBeforeSuite] PASSED [0.026 seconds]", "[SynchronizedBeforeSuite] ",
		strings.Repeat("S", 900),
		"• [2.050 seconds]", podSpec + labels, "/src/pods.go:96",
		"• [FAILED] [62.026 seconds]", "[sig-network] Services [It] should serve [Conformance] [sig-network, Conformance]",
		"  • [FAILED] [1.000 seconds]", // what a spec prints is no header
		"S [SKIPPED] [0.5 seconds]", secretSpec + labels,
		"• [INTERRUPTED] [3.000 seconds]", "[sig-node] Pods [It] should stay [Conformance]" + labels,
		"• [1.000 seconds]", otherSpec + " [sig-node]", ""}, "\n")
	for rest := printed; rest != ""; { // the pieces that a pipe gives end anywhere
		n := min(7, len(rest))
		if _, err := out.Write([]byte(rest[:n])); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if want := strings.Replace(printed, strings.Repeat("S", 900)+"\n", "", 1); log.String() != want {
		t.Errorf("the log:\n%s\nwant:\n%s", log, want)
	}
	if lines := strings.Count(screen.String(), "\n"); lines != 4 {
		t.Errorf("%d lines on the screen, want one for each spec:\n%s", lines, screen)
	}
	// The run is killed here: no finish.
	r, err := readRecord(filepath.Join(docs, "conformance.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.specs) != 3 || r.specs[podSpec].Outcome != passed || r.specs[podSpec].Seconds != 2.05 ||
		r.specs[serviceSpec].Outcome != failed || r.specs[secretSpec].Outcome != skipped {
		t.Errorf("recorded: %+v", r.specs)
	}
}

func TestMissingReportKeepsTheRecord(t *testing.T) {
	docs := t.TempDir()
	b, _ := opened(t, docs, "", day)
	b.set(spec{Name: podSpec, Outcome: passed})
	if err := b.finish(filepath.Join(docs, "none.json")); err == nil {
		t.Error("no error for a missing report")
	}
	wants(t, page(t, docs), "**1 of 1**")
}

func TestRunThatCouldNotBeginLeavesTheRecordAlone(t *testing.T) {
	docs := t.TempDir()
	b, _ := opened(t, docs, "", day)
	if err := b.finish(report(t, result{podSpec, "passed", 1, ""})); err != nil {
		t.Fatal(err)
	}
	before := page(t, docs)
	b, _ = opened(t, docs, "other", day.AddDate(0, 0, 9))
	if err := b.finish(report(t)); err != nil {
		t.Fatal(err)
	}
	if after := page(t, docs); after != before {
		t.Errorf("the page changed to:\n%s", after)
	}
}

func TestRecordReadsBackAndHasALineForEachSpec(t *testing.T) {
	file := filepath.Join(t.TempDir(), "conformance.json")
	r := &record{Release: release, Command: "make conformance", Date: "2026-11-20", specs: map[string]spec{}}
	r.set(spec{Name: podSpec, Outcome: failed, Seconds: 1.5, Why: `said "<no>"`}, day)
	r.know([]string{podSpec, serviceSpec, otherSpec})
	if err := r.write(file); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(raw) || strings.Count(string(raw), "\n") != 4 {
		t.Errorf("the record's form:\n%s", raw)
	}
	back, err := readRecord(file)
	if err != nil {
		t.Fatal(err)
	}
	if back.Command != r.Command || back.specs[podSpec] != r.specs[podSpec] || len(back.specs) != 2 {
		t.Errorf("read back %+v", back)
	}
}

func TestOutcomesOfAnotherReleaseAreNotCarriedOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "conformance.json")
	r := &record{Release: "v1.35.0", specs: map[string]spec{podSpec: {Name: podSpec, Outcome: passed}}}
	if err := r.write(file); err != nil {
		t.Fatal(err)
	}
	back, err := readRecord(file)
	if err != nil || len(back.specs) != 0 || back.Release != release {
		t.Errorf("read back %+v, %v", back, err)
	}
}

func TestSummaryIsTheSuitesLastWords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "suite.log")
	log := "noise\nSummarizing 1 Failure:\n  [FAIL] x\n\nRan 2 of 9 Specs in 1.0 seconds\nFAIL! -- 1 Passed | 1 Failed\n"
	if err := os.WriteFile(file, []byte(log), 0o644); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := printSummary(&b, file); err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimPrefix(log, "noise\n"); b.String() != want {
		t.Errorf("summary %q, want %q", b.String(), want)
	}
}

func TestFirstLine(t *testing.T) {
	for message, want := range map[string]string{"": "", "\n \n a b \nc": "a b", strings.Repeat("é", 300): strings.Repeat("é", 240) + "…"} {
		if got := firstLine(message); got != want {
			t.Errorf("firstLine(%q) = %q", message, got)
		}
	}
}
