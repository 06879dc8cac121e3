package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long an interrupted suite has to tear down its namespaces and write its report.
const stopGrace = 2 * time.Minute

// runSuite runs the chosen specs and brings the record and the page up to date: after each spec from what the suite
// prints, and at the end from its report, which knows more but is missing when the suite was killed.
func runSuite(ctx context.Context, c config) error {
	book, err := openBook(c)
	if err != nil {
		return err
	}
	results := filepath.Join(c.out, "results")
	if err := os.RemoveAll(results); err != nil {
		return err
	}
	if err := os.MkdirAll(results, 0o755); err != nil {
		return err
	}
	report := filepath.Join(results, "report.json")
	logFile := filepath.Join(results, "suite.log")
	say("running the suite; its full output is in %s", logFile)
	suiteErr := execSuite(ctx, c, book, results, logFile)

	err = book.finish(report)
	if printErr := printSummary(os.Stdout, logFile); printErr != nil {
		err = errors.Join(err, printErr)
	}
	return errors.Join(suiteErr, err)
}

// suiteArgs is the command line of ginkgo: its own flags, the suite, and the suite's flags.
func suiteArgs(c config, results string) []string {
	args := []string{
		"run", "-v", "--no-color", fmt.Sprintf("--procs=%d", c.procs), "--timeout=" + c.timeout.String(),
		"--output-dir=" + results, "--json-report=report.json", "--junit-report=junit.xml", "--keep-going",
	}
	for flag, value := range map[string]string{"focus": c.focus, "skip": c.skip, "label-filter": c.labels} {
		if value != "" {
			args = append(args, "--"+flag+"="+value)
		}
	}
	return append(args,
		filepath.Join(c.out, "bin", "e2e.test"), "--",
		"--kubeconfig="+c.kubeconfig,
		"--kubectl-path="+filepath.Join(c.out, "bin", "kubectl"),
		"--provider=skeleton",
		"--disable-log-dump",
		"--dump-logs-on-failure=false",
		"--node-schedulable-timeout=2m",
		"--system-pods-startup-timeout=2m",
	)
}

func execSuite(ctx context.Context, c config, b *book, results, logFile string) error {
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	out := &transcript{log: log, finished: b.finished}
	cmd := exec.CommandContext(ctx, filepath.Join(c.out, "bin", "ginkgo"), suiteArgs(c, results)...)
	cmd.Dir = results
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own, so that a ^C at the terminal reaches the suite once, from here.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		say("interrupted; the suite has %s to clean up", stopGrace)
		return cmd.Process.Signal(syscall.SIGINT)
	}
	cmd.WaitDelay = stopGrace
	err = cmd.Run()
	if ctx.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what outlived ginkgo; usually nothing
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return errors.New("not every spec passed")
	}
	return err
}

// book keeps the record while the suite runs.
type book struct {
	recordFile, pageFile string
	command              string // of this run
	screen               io.Writer
	now                  func() time.Time

	record *record
	done   int
}

func openBook(c config) (*book, error) {
	b := &book{
		recordFile: filepath.Join(c.docs, "conformance.json"), pageFile: filepath.Join(c.docs, "CONFORMANCE.md"),
		screen: os.Stdout, now: time.Now,
	}
	var err error
	if b.record, err = readRecord(b.recordFile); err != nil {
		return nil, err
	}
	b.command = "make conformance"
	if c.focus != "" && c.focus != allSpecs {
		b.command += fmt.Sprintf(" FOCUS='%s'", c.focus)
	}
	return b, nil
}

// allSpecs is a focus that leaves none of the conformance specs out.
const allSpecs = `\[Conformance\]`

// set records an outcome. A run without one, which could not even begin, leaves the record as it was.
func (b *book) set(s spec) {
	b.record.set(s, b.now())
	b.record.Date, b.record.Command = b.now().UTC().Format(time.DateOnly), b.command
}

// finished records a spec at once, so that a run that is cut off has not been for nothing.
func (b *book) finished(s spec) {
	b.done++
	fmt.Fprintf(b.screen, "%s %4d  %-7s  %6.1f s  %s\n", b.now().Format(time.TimeOnly), b.done, s.Outcome, s.Seconds, s.Name)
	b.set(s)
	if err := b.record.write(b.recordFile); err != nil {
		fmt.Fprintln(b.screen, "conformance:", err)
	}
}

// finish takes everything from the suite's report, if there is one, and renders the page.
func (b *book) finish(report string) error {
	err := b.takeReport(report)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("the suite left no report; its log says why. What it printed before is recorded")
	}
	return errors.Join(err, b.record.write(b.recordFile), replaceFile(b.pageFile, []byte(b.record.page())))
}

// specReport is what matters here of ginkgo's report of a spec. Durations are in nanoseconds.
type specReport struct {
	ContainerHierarchyTexts []string
	LeafNodeText            string
	LeafNodeType            string
	State                   string
	NumAttempts             int
	RunTime                 time.Duration
	Failure                 struct{ Message string }
}

func (s specReport) name() string {
	return strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " ")
}

// outcome is not run for a spec that the filters left out: it has the same state as one that skipped itself.
func (s specReport) outcome() outcome {
	switch {
	case s.State == "passed":
		return passed
	case s.State == "skipped" && s.NumAttempts > 0:
		return skipped
	case s.State == "failed", s.State == "panicked", s.State == "timedout":
		return failed
	}
	return notRun // and what an interruption cut short
}

func (b *book) takeReport(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var suites []struct{ SpecReports []specReport }
	if err := json.Unmarshal(raw, &suites); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	var names []string
	for _, suite := range suites {
		for _, s := range suite.SpecReports {
			if s.LeafNodeType != "It" {
				continue
			}
			names = append(names, s.name())
			if o := s.outcome(); o != notRun {
				b.set(spec{Name: s.name(), Outcome: o, Seconds: s.RunTime.Round(100 * time.Millisecond).Seconds(), Why: firstLine(s.Failure.Message)})
			}
		}
	}
	if len(names) > 0 {
		b.record.know(names)
	}
	return nil
}

// firstLine is the first line of a failure's message that says something, cut to a readable length.
func firstLine(message string) string {
	const longest = 240
	for line := range strings.Lines(message) {
		if line = strings.TrimSpace(line); line != "" {
			if runes := []rune(line); len(runes) > longest {
				line = string(runes[:longest]) + "…"
			}
			return line
		}
	}
	return ""
}

var summaryStart = regexp.MustCompile(`^(Summarizing \d+ Failures?:|Ran \d+ of \d+ Specs in )`)

// printSummary prints the last words of the suite's output: its own summary.
func printSummary(w io.Writer, logFile string) error {
	f, err := os.Open(logFile)
	if err != nil {
		return err
	}
	defer f.Close()
	var summary []string
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadString('\n')
		if len(summary) == 0 && summaryStart.MatchString(line) || len(summary) > 0 {
			summary = append(summary, line)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if len(summary) == 0 {
		_, err := fmt.Fprintf(w, "The suite printed no summary; see %s\n", logFile)
		return err
	}
	_, err = io.WriteString(w, strings.Join(summary, ""))
	return err
}
