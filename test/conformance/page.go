package main

import (
	"fmt"
	"slices"
	"strings"
)

// tally counts outcomes.
type tally struct{ passed, failed, skipped, notRun int }

func (t *tally) add(o outcome) {
	switch o {
	case passed:
		t.passed++
	case failed:
		t.failed++
	case skipped:
		t.skipped++
	default:
		t.notRun++
	}
}

func (t tally) total() int { return t.passed + t.failed + t.skipped + t.notRun }

// page renders the record as docs/CONFORMANCE.md.
func (r *record) page() string {
	var all tally
	bySIG := map[string]*tally{}
	for _, s := range r.specs {
		if bySIG[s.sig()] == nil {
			bySIG[s.sig()] = &tally{}
		}
		bySIG[s.sig()].add(s.Outcome)
		all.add(s.Outcome)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Conformance\n\n")
	fmt.Fprintf(&b, "What the unmodified end-to-end suite of Kubernetes %s says of Skiff: **%d of %d** conformance specs pass.\n\n", r.Release, all.passed, all.total())
	b.WriteString("| | specs | passed | failed | skipped | not run |\n|---|--:|--:|--:|--:|--:|\n")
	for _, sig := range sortedKeys(bySIG) {
		row(&b, sig, *bySIG[sig])
	}
	row(&b, "**all**", all)
	if r.Command != "" {
		fmt.Fprintf(&b, "\nEach spec counts with its latest run, %s. The latest command, on %s:\n\n    %s\n", r.span(), r.Date, r.Command)
	}
	b.WriteString("\nThis page is rendered from [conformance.json](conformance.json), which has a line for each spec;\n" +
		"`make conformance FOCUS=...` runs specs and brings both up to date. [How it works](../test/conformance/README.md).\n")
	r.section(&b, "Failed", failed)
	r.section(&b, "Skipped by themselves", skipped)
	return b.String()
}

func row(b *strings.Builder, name string, t tally) {
	fmt.Fprintf(b, "| %s | %d | %d | %d | %d | %d |\n", name, t.total(), t.passed, t.failed, t.skipped, t.notRun)
}

// span is the days between which the recorded runs were.
func (r *record) span() string {
	var dates []string
	for _, s := range r.specs {
		if s.Date != "" {
			dates = append(dates, s.Date)
		}
	}
	if len(dates) == 0 {
		return "on no day" // the record holds specs of another suite alone
	}
	first, last := slices.Min(dates), slices.Max(dates)
	if first == last {
		return "on " + first
	}
	return "between " + first + " and " + last
}

func (r *record) section(b *strings.Builder, title string, o outcome) {
	first := true
	for _, s := range r.sorted() {
		if s.Outcome != o {
			continue
		}
		if first {
			fmt.Fprintf(b, "\n## %s\n\n", title)
			first = false
		}
		fmt.Fprintf(b, "- %s", escape(s.Name))
		if s.Why != "" {
			fmt.Fprintf(b, "  \n  %s", escape(s.Why))
		}
		b.WriteByte('\n')
	}
}

// escape keeps Markdown from reading a spec's text as its own marks.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", "&lt;", "|", `\|`, "\n", " ").Replace(s)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
