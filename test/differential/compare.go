package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// CompareOptions choose what a comparison shows.
type CompareOptions struct {
	Cases   *regexp.Regexp
	Groups  int // the biggest groups of differences
	Summary bool
	Across  bool // one group for equal differences of all kinds
}

// group is one difference that many cases show.
type group struct {
	text     string
	count    int
	examples []string
}

// Compare reports where the answers of a server differ from the judge's.
func Compare(w io.Writer, judgeFile, otherFile string, o CompareOptions) error {
	judge, other := map[string]Answer{}, map[string]Answer{}
	if err := readAnswers(judgeFile, judge); err != nil {
		return err
	}
	if err := readAnswers(otherFile, other); err != nil {
		return err
	}
	type count struct{ same, differing int }
	counts := map[string]*count{}
	groups := map[string]*group{}
	ids := map[string]bool{}
	for id := range judge {
		ids[id] = true
	}
	for id := range other {
		ids[id] = true
	}
	total := count{}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		if !o.Cases.MatchString(id) {
			continue
		}
		kind, _, _ := strings.Cut(id, " ")
		c := counts[kind]
		if c == nil {
			c = &count{}
			counts[kind] = c
		}
		diffs := []string{}
		a, inA := judge[id]
		b, inB := other[id]
		switch {
		case inA && inB:
			diffs = differences(a, b)
		case len(other) == 0 || !hasKind(other, kind):
			continue
		case inA:
			diffs = append(diffs, "case is missing in the second")
		default:
			diffs = append(diffs, "case is missing in the first")
		}
		if len(diffs) == 0 {
			c.same++
			total.same++
			continue
		}
		c.differing++
		total.differing++
		op := opOf(id)
		for _, d := range diffs {
			key := kind + " " + op + ": " + d
			if o.Across {
				key = op + ": " + d
			}
			g := groups[key]
			if g == nil {
				g = &group{text: key}
				groups[key] = g
			}
			g.count++
			if len(g.examples) < 2 {
				g.examples = append(g.examples, id)
			}
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		if c := counts[kind]; c.same+c.differing > 0 {
			fmt.Fprintf(w, "%-70s %6d same %6d differing\n", kind, c.same, c.differing)
		}
	}
	fmt.Fprintf(w, "%-70s %6d same %6d differing\n", "all", total.same, total.differing)
	if o.Summary {
		return nil
	}
	sorted := slices.SortedFunc(maps.Values(groups), func(a, b *group) int {
		if a.count != b.count {
			return b.count - a.count
		}
		return strings.Compare(a.text, b.text)
	})
	fmt.Fprintf(w, "\n%d groups of differences\n", len(sorted))
	for i, g := range sorted {
		if i == o.Groups {
			break
		}
		fmt.Fprintf(w, "%5d %s\n      e.g. %s\n", g.count, g.text, strings.Join(g.examples, " | "))
	}
	return nil
}

func hasKind(m map[string]Answer, kind string) bool {
	for id := range m {
		if strings.HasPrefix(id, kind+" ") {
			return true
		}
	}
	return false
}

// opOf is what a case does: "create", "update", "status".
func opOf(id string) string {
	parts := strings.SplitN(id, " ", 4)
	if len(parts) < 3 {
		return id
	}
	return parts[2]
}

// differences names what differs between two answers, with indices masked so that equal ones group.
func differences(a, b Answer) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, mask(fmt.Sprintf(format, args...))) }
	if !slices.Equal(a.Warnings, b.Warnings) {
		onlyA, onlyB := minus(a.Warnings, b.Warnings), minus(b.Warnings, a.Warnings)
		for _, x := range onlyA {
			say("lacks warning %s", x)
		}
		for _, x := range onlyB {
			say("extra warning %s", x)
		}
		if len(onlyA)+len(onlyB) == 0 {
			say("other order of warnings")
		}
	}
	if a.Code != b.Code {
		say("code %d, want %d: %s", b.Code, a.Code, short(a.Body, b.Body))
		return append(out, causeDifferences(a.Body, b.Body)...)
	}
	if a.Code >= 400 && len(causes(a.Body)) > 0 {
		ca, cb := causes(a.Body), causes(b.Body)
		if len(minus(ca, cb))+len(minus(cb, ca)) > 0 {
			return append(out, causeDifferences(a.Body, b.Body)...)
		}
		if !slices.Equal(ca, cb) {
			say("other order of causes %v", ca)
			return out
		}
		ma, mb := withoutCauses(a.Body), withoutCauses(b.Body)
		diffValues("", ma, mb, say)
		return out
	}
	diffValues("", a.Body, b.Body, say)
	if a.Type != b.Type {
		say("type %q, want %q", b.Type, a.Type)
	}
	return out
}

func causeDifferences(a, b any) []string {
	var out []string
	ca, cb := causes(a), causes(b)
	for _, c := range minus(ca, cb) {
		out = append(out, mask("lacks cause "+c))
	}
	for _, c := range minus(cb, ca) {
		out = append(out, mask("extra cause "+c))
	}
	return out
}

// short is the message of whichever body is a Status.
func short(bodies ...any) string {
	for _, b := range bodies {
		if m, ok := b.(map[string]any); ok && m["kind"] == "Status" && len(causes(b)) == 0 {
			s := fmt.Sprint(m["message"])
			return s[:min(len(s), 200)]
		}
	}
	return ""
}

func causes(body any) []string {
	m, _ := body.(map[string]any)
	d, _ := m["details"].(map[string]any)
	list, _ := d["causes"].([]any)
	var out []string
	for _, c := range list {
		if c, ok := c.(map[string]any); ok {
			text := fmt.Sprintf("%v %v: %v", c["field"], c["reason"], normalText(fmt.Sprint(c["message"])))
			if !slices.Contains(out, text) { // upstream finds many errors of metadata several times over
				out = append(out, text)
			}
		}
	}
	return out
}

// withoutCauses is a Status but for its causes, which have been compared.
func withoutCauses(body any) any {
	m, ok := body.(map[string]any)
	if !ok {
		return body
	}
	out := maps.Clone(m)
	out["message"] = normalText(fmt.Sprint(m["message"]))
	if d, ok := m["details"].(map[string]any); ok {
		d = maps.Clone(d)
		delete(d, "causes")
		out["details"] = d
	}
	return out
}

// minus lists what a has more often than b.
func minus(a, b []string) []string {
	left := map[string]int{}
	for _, x := range b {
		left[x]++
	}
	var out []string
	for _, x := range a {
		if left[x] == 0 {
			out = append(out, x)
			continue
		}
		left[x]--
	}
	return out
}

var (
	indexRE = regexp.MustCompile(`\[\d+\]`)
	longRE  = regexp.MustCompile(`a{60,}|n{60,}`)
)

func mask(s string) string {
	s = longRE.ReplaceAllString(indexRE.ReplaceAllString(s, "[N]"), "aaa…")
	if len(s) > 420 {
		s = s[:420] + "…"
	}
	return s
}

// diffValues walks two JSON values.
func diffValues(path string, a, b any, say func(string, ...any)) {
	if reflect.DeepEqual(a, b) {
		return
	}
	if ma, ok := a.(map[string]any); ok {
		if mb, ok := b.(map[string]any); ok {
			keys := slices.Sorted(maps.Keys(ma))
			for k := range mb {
				if _, ok := ma[k]; !ok {
					keys = append(keys, k)
				}
			}
			for _, k := range keys {
				va, inA := ma[k]
				vb, inB := mb[k]
				switch {
				case !inA:
					say("extra %s.%s: %s", path, k, text(vb))
				case !inB:
					say("lacks %s.%s: %s", path, k, text(va))
				default:
					diffValues(path+"."+k, va, vb, say)
				}
			}
			return
		}
	}
	la, okA := a.([]any)
	lb, okB := b.([]any)
	if okA && okB && (path == ".out" || path == ".err") { // of kubectl
		lacks, extra := lineDifferences(la, lb)
		for _, l := range lacks {
			say("lacks line %s", l)
		}
		for _, l := range extra {
			say("extra line %s", l)
		}
		if len(lacks)+len(extra) == 0 {
			say("other order of lines")
		}
		return
	}
	if okA && okB && len(la) == len(lb) {
		for i := range la {
			diffValues(fmt.Sprintf("%s[%d]", path, i), la[i], lb[i], say)
		}
		return
	}
	say("%s is %s, want %s", path, text(b), text(a))
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(b) > 160 {
		return string(b[:160]) + "…"
	}
	return string(b)
}
