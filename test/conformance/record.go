package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// outcome is how a spec's latest run ended.
type outcome string

const (
	notRun  outcome = "" // known, and never run
	passed  outcome = "passed"
	failed  outcome = "failed"
	skipped outcome = "skipped" // by its own decision while running
)

// spec is one line of the record.
type spec struct {
	Name    string  `json:"spec"`
	Outcome outcome `json:"outcome,omitempty"`
	Date    string  `json:"date,omitempty"`    // of that run, as 2006-01-02
	Seconds float64 `json:"seconds,omitempty"` // that it took
	Why     string  `json:"why,omitempty"`     // first line of the failure, or the reason for skipping
}

// record is the committed memory of what passed: each spec's latest outcome, whichever run it was in. A run of a few
// specs changes their lines alone.
type record struct {
	Release string // of the suite
	Command string // of the latest run
	Date    string // of the latest run
	specs   map[string]spec
}

var sigPattern = regexp.MustCompile(`^\[(sig-[a-z-]+)\]`)

// sig is the special interest group that owns the spec, or "other".
func (s spec) sig() string {
	if m := sigPattern.FindStringSubmatch(s.Name); m != nil {
		return m[1]
	}
	return "other"
}

const conformanceTag = "[Conformance]"

// isConformance says whether the record keeps the spec.
func isConformance(name string) bool { return strings.Contains(name, conformanceTag) }

// readRecord reads the record, which is empty at first. Outcomes of another release's suite are not carried over.
func readRecord(file string) (*record, error) {
	r := &record{Release: release, specs: map[string]spec{}}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	var stored struct {
		Release, Command, Date string
		Specs                  []spec
	}
	if err := json.Unmarshal(raw, &stored); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if stored.Release != release {
		return r, nil
	}
	r.Command, r.Date = stored.Command, stored.Date
	for _, s := range stored.Specs {
		r.specs[s.Name] = s
	}
	return r, nil
}

// write replaces the file at once, with a line for each spec so that differences read well.
func (r *record) write(file string) error {
	var b bytes.Buffer
	head, err := json.Marshal(map[string]string{"release": r.Release, "command": r.Command, "date": r.Date})
	if err != nil {
		return err
	}
	b.Write(bytes.TrimSuffix(head, []byte("}")))
	b.WriteString(",\"specs\":[")
	for i, s := range r.sorted() {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(s); err != nil {
			return err
		}
		b.Truncate(b.Len() - 1) // Encode's newline
	}
	b.WriteString("\n]}\n")
	return replaceFile(file, b.Bytes())
}

func replaceFile(file string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := tmp.Write(content); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}

func (r *record) sorted() []spec {
	specs := make([]spec, 0, len(r.specs))
	for _, s := range r.specs {
		specs = append(specs, s)
	}
	slices.SortFunc(specs, func(a, b spec) int { return strings.Compare(a.Name, b.Name) })
	return specs
}

// set records an outcome of a conformance spec.
func (r *record) set(s spec, now time.Time) {
	if !isConformance(s.Name) {
		return
	}
	s.Date = now.UTC().Format(time.DateOnly)
	r.specs[s.Name] = s
}

// know makes the whole suite's specs those of the record: new ones are not run yet, and ones that are gone go.
func (r *record) know(names []string) {
	specs := make(map[string]spec, len(names))
	for _, name := range names {
		if !isConformance(name) {
			continue
		}
		s, ok := r.specs[name]
		if !ok {
			s = spec{Name: name}
		}
		specs[name] = s
	}
	r.specs = specs
}
