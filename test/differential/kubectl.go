package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"
)

// This file asks through kubectl: what people see of a server. There is a sequence for each kind of the corpus, and
// scripts of testdata/kubectl, whose lines are kubectl's arguments and whose files stand beside them.

// KubectlConfig of one round.
type KubectlConfig struct {
	Config
	Kubectl string // the binary
}

const perCommand = 30 * time.Second

type terminal struct {
	*asker
	kubectl string
	dir     string // with the kubeconfig, and of the script's files
}

// Kubectl runs all matching sequences against one server and writes down what kubectl said.
func Kubectl(ctx context.Context, c KubectlConfig) error {
	a, err := newAsker(ctx, c.Config)
	if err != nil {
		return err
	}
	if err := a.prepare(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "differential")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t := &terminal{asker: a, kubectl: c.Kubectl, dir: dir}
	if err := t.writeKubeconfig(); err != nil {
		return err
	}
	all := map[string]Answer{}
	if err := readAnswers(c.Out, all); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	run := func(name string, f func(name string) error) error {
		if !c.Kinds.MatchString(name) {
			return nil
		}
		start := time.Now()
		a.answers = map[string]Answer{}
		if err := f(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		maps.DeleteFunc(all, func(id string, _ Answer) bool { return strings.HasPrefix(id, name+" ") })
		maps.Copy(all, a.answers)
		fmt.Fprintf(os.Stderr, "%-60s %5d cases %6.1f s\n", name, len(a.answers), time.Since(start).Seconds())
		return nil
	}
	scripts, err := filepath.Glob(filepath.Join(c.Corpus, "kubectl", "*.txtar"))
	if err != nil {
		return err
	}
	for _, f := range scripts {
		if err := run("kubectl."+strings.TrimSuffix(filepath.Base(f), ".txtar"), func(name string) error { return t.script(name, f) }); err != nil {
			return err
		}
	}
	subjects, err := readCorpus(c.Corpus, regexp.MustCompile("."))
	if err != nil {
		return err
	}
	for _, s := range subjects {
		if err := run("kubectl."+s.name, func(name string) error { return t.subject(name, s) }); err != nil {
			return err
		}
	}
	return writeAnswers(c.Out, all)
}

func (t *terminal) writeKubeconfig() error {
	b, err := yaml.Marshal(map[string]any{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": t.server, "insecure-skip-tls-verify": true}}},
		"users":    []any{map[string]any{"name": "c", "user": map[string]any{"token": t.token}}},
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c", "user": "c", "namespace": namespace}}}})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(t.dir, "kubeconfig"), b, 0o600)
}

// do runs kubectl and keeps what it said under id. A server that does not answer in time has failed the case.
func (t *terminal) do(id string, args ...string) error {
	ctx, cancel := context.WithTimeout(t.ctx, perCommand)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.kubectl, append(args, "--cache-dir="+filepath.Join(t.dir, "cache"))...)
	cmd.Dir = t.dir
	cmd.Env = []string{"KUBECONFIG=" + filepath.Join(t.dir, "kubeconfig"), "HOME=" + t.dir, "PATH=" + os.Getenv("PATH")}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	t.answers[id] = Answer{Code: cmd.ProcessState.ExitCode(), Body: map[string]any{"out": t.lines(out.String()), "err": t.lines(errs.String())}}
	return nil
}

var onScreen = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\b(\d+(ms|[smhd]))+\b`), "AGE"},
	{regexp.MustCompile(`<invalid>`), "AGE"},
	{regexp.MustCompile(`[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}`), "TIME"},
	{regexp.MustCompile(`[resource]*[vV]ersion: "\d+"`), "resourceVersion: VERSION"},
	{regexp.MustCompile(`"resourceVersion":"\d+"`), "VERSION"},
	{regexp.MustCompile(`nodePort: \d+|healthCheckNodePort: \d+`), "nodePort: PORT"},
	{regexp.MustCompile(`:3[0-2]\d{3}/`), ":NODEPORT/"},
	{regexp.MustCompile(`3[0-2]\d{3}/(TCP|UDP)`), "NODEPORT"},
	{regexp.MustCompile(` {2,}|\t+`), "  "},
	{regexp.MustCompile(`-{3,}`), "---"},
	{regexp.MustCompile(` +$`), ""},
	{regexp.MustCompile(`/tmp/differential\d+`), "DIR"},
	{regexp.MustCompile(`/tmp/(LIVE|MERGED)-\d+`), "/tmp/$1"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [+-]\d{4}`), "TIME"},
	{regexp.MustCompile(`Resource Version: +\d+`), "Resource Version: VERSION"},
	{regexp.MustCompile(`debugger-[a-z0-9]{5}`), "debugger-SUFFIX"},
	{regexp.MustCompile(`("?(gitVersion|gitCommit|gitTreeState|buildDate|goVersion|platform|compiler)"?|Server Version): .*`), "$1: OF THE BUILD"},
}

func (t *terminal) lines(s string) []any {
	out := []any{}
	for l := range strings.Lines(normalText(strings.ReplaceAll(s, t.server, "SERVER"))) {
		l = normalText(strings.TrimRight(l, "\n"))
		for _, v := range onScreen {
			l = v.re.ReplaceAllString(l, v.with)
		}
		out = append(out, l)
	}
	return out
}

// script runs the lines of a file.
func (t *terminal) script(name, file string) error {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		return err
	}
	for _, f := range ar.Files {
		if err := os.WriteFile(filepath.Join(t.dir, f.Name), f.Data, 0o644); err != nil {
			return err
		}
	}
	n := 0
	for l := range strings.Lines(string(ar.Comment)) {
		if l = strings.TrimSpace(l); l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		args, err := words(l)
		if err != nil {
			return err
		}
		n++
		if err := t.do(fmt.Sprintf("%s %02d %s", name, n, l), args...); err != nil {
			return err
		}
	}
	return nil
}

// words splits a line at its spaces, but for those between single quotes.
func words(line string) ([]string, error) {
	var out []string
	parts := strings.Split(line, "'")
	if len(parts)%2 == 0 {
		return nil, fmt.Errorf("a quote is not closed: %s", line)
	}
	glued := false
	for i, p := range parts {
		if i%2 == 1 {
			if glued {
				out[len(out)-1] += p
			} else {
				out = append(out, p)
			}
			glued = true
			continue
		}
		fields := strings.Fields(p)
		if len(fields) > 0 && glued && !strings.HasPrefix(p, " ") {
			out[len(out)-1] += fields[0]
			fields = fields[1:]
		}
		out = append(out, fields...)
		glued = p != "" && !strings.HasSuffix(p, " ") && len(out) > 0
	}
	return out, nil
}

// subject takes the objects of one kind through kubectl's verbs.
func (t *terminal) subject(name string, s *subject) error {
	if err := t.setUp(s.setup); err != nil {
		return err
	}
	resource := s.plural + "." + s.version + "." + s.group
	if s.group == "" {
		resource = s.plural
	}
	if err := t.do(name+" explain", "explain", "--recursive", "--api-version="+strings.TrimPrefix(s.group+"/"+s.version, "/"), s.plural); err != nil {
		return err
	}
	for i, o := range s.objects {
		n := nameOf(o)
		if n != "" {
			if err := t.clean(base(s.group, s.version, s.plural, namespaceOf(o)) + "/" + n); err != nil {
				return err
			}
		}
		file := fmt.Sprintf("%s.%d.json", s.name, i)
		if err := writeJSON(filepath.Join(t.dir, file), without(o, "status")); err != nil {
			return err
		}
		verbs := [][]string{{"create", "-f", file, "--validate=strict"}}
		if n != "" {
			at := []string{resource, n}
			on := func(verb string, more ...string) []string { return append(append([]string{verb}, at...), more...) }
			verbs = append(verbs, []string{"get", resource, n}, []string{"get", resource, n, "-o", "wide"},
				[]string{"get", resource, n, "-o", "yaml", "--show-managed-fields"}, []string{"diff", "-f", file}, []string{"apply", "-f", file},
				[]string{"apply", "-f", file, "--server-side"}, on("label", "differential=yes"), on("annotate", "differential=yes"),
				on("patch", "--type=merge", "-p", `{"metadata":{"labels":{"differential":null}}}`), []string{"describe", resource, n},
				[]string{"replace", "-f", file}, []string{"get", resource, n, "-o", "yaml", "--show-managed-fields"}, on("delete", "--wait=false"))
		}
		for j, args := range verbs {
			if err := t.do(fmt.Sprintf("%s %d %02d %s", name, i, j, strings.Join(args, " ")), args...); err != nil {
				return err
			}
		}
		if n != "" {
			if err := t.clean(base(s.group, s.version, s.plural, namespaceOf(o)) + "/" + n); err != nil {
				return err
			}
		}
	}
	return nil
}

// lineDifferences says which lines one text has and the other has not.
func lineDifferences(a, b []any) (onlyA, onlyB []string) {
	texts := func(l []any) []string {
		out := make([]string, len(l))
		for i := range l {
			out[i] = fmt.Sprint(l[i])
		}
		return out
	}
	x, y := texts(a), texts(b)
	return slices.Clip(minus(x, y)), slices.Clip(minus(y, x))
}
