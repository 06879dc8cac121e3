package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config of one round of questions. Either Server and Token or Kubeconfig name the server.
type Config struct {
	Server, Token, Kubeconfig string
	Corpus                    string // folder of objects
	Out                       string // file of answers
	Kinds                     *regexp.Regexp
}

// namespace holds all namespaced objects of a round.
const namespace = "differential"

// asker puts the questions and keeps the answers by case.
type asker struct {
	ctx     context.Context
	client  *http.Client
	server  string
	token   string
	answers map[string]Answer
}

// Ask puts the questions of all matching files to one server and writes down the answers.
func Ask(ctx context.Context, c Config) error {
	a, err := newAsker(ctx, c)
	if err != nil {
		return err
	}
	subjects, err := readCorpus(c.Corpus, c.Kinds)
	if err != nil {
		return err
	}
	all := map[string]Answer{}
	if err := readAnswers(c.Out, all); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := a.prepare(); err != nil {
		return err
	}
	for _, s := range subjects {
		start := time.Now()
		a.answers = map[string]Answer{}
		if err := a.subject(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		maps.DeleteFunc(all, func(id string, _ Answer) bool { return strings.HasPrefix(id, s.name+" ") })
		maps.Copy(all, a.answers)
		fmt.Fprintf(os.Stderr, "%-60s %5d cases %6.1f s\n", s.name, len(a.answers), time.Since(start).Seconds())
	}
	if c.Kinds.MatchString("requests") {
		a.answers = map[string]Answer{}
		if err := a.requests(); err != nil {
			return fmt.Errorf("requests: %w", err)
		}
		maps.DeleteFunc(all, func(id string, _ Answer) bool { return strings.HasPrefix(id, "requests ") })
		maps.Copy(all, a.answers)
	}
	return writeAnswers(c.Out, all)
}

func newAsker(ctx context.Context, c Config) (*asker, error) {
	a := &asker{ctx: ctx, server: c.Server, token: c.Token}
	if c.Kubeconfig == "" {
		a.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // a server started for this, with a certificate of its own
		return a, nil
	}
	rc, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, err
	}
	a.server, rc.QPS = rc.Host, -1
	a.client, err = rest.HTTPClientFor(rc)
	return a, err
}

func readAnswers(file string, into map[string]Answer) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, &into)
}

func writeAnswers(file string, answers map[string]Answer) error { return writeJSON(file, answers) }

func writeJSON(file string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

// question is one request. Headers are "Name: value".
type question struct {
	method, path string
	body         any // bytes and strings as they are, all else as JSON
	headers      []string
}

// send asks without keeping the answer.
func (a *asker) send(q question) (Answer, []byte, error) {
	var body io.Reader
	switch b := q.body.(type) {
	case nil:
	case string:
		body = strings.NewReader(b)
	case []byte:
		body = bytes.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			return Answer{}, nil, err
		}
		body = bytes.NewReader(j)
	}
	r, err := http.NewRequestWithContext(a.ctx, q.method, a.server+q.path, body)
	if err != nil {
		return Answer{}, nil, err
	}
	r.Header.Set("User-Agent", "differential")
	r.Header.Set("Accept", "application/json")
	if q.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if a.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.token)
	}
	for _, h := range q.headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Set(k, v)
	}
	resp, err := a.client.Do(r)
	if err != nil {
		return Answer{}, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return Answer{}, nil, err
	}
	return makeAnswer(resp.StatusCode, resp.Header.Get("Content-Type"), resp.Header.Values("Warning"), b), b, nil
}

// ask keeps the answer under id.
func (a *asker) ask(id string, q question) error {
	ans, _, err := a.send(q)
	if err != nil {
		if a.ctx.Err() != nil {
			return err
		}
		ans = Answer{Code: -1, Body: "no answer"}
	}
	a.answers[id] = ans
	return nil
}

// object fetches an object as the server has it; nil if there is none.
func (a *asker) object(path string) (map[string]any, error) {
	_, b, err := a.send(question{method: http.MethodGet, path: path})
	if err != nil {
		return nil, err
	}
	var o map[string]any
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, err
	}
	if o["kind"] == "Status" {
		return nil, nil
	}
	return o, nil
}

// settled is object for the kinds that the server's own loops write to: it waits until they are done.
func (a *asker) settled(s *subject, path string) (map[string]any, error) {
	o, err := a.object(path)
	if !strings.HasPrefix(s.name, "api") && s.group != "flowcontrol.apiserver.k8s.io" {
		return o, err
	}
	for range 20 {
		time.Sleep(250 * time.Millisecond)
		was := o
		if o, err = a.object(path); err != nil || o == nil || was == nil || metadata(o)["resourceVersion"] == metadata(was)["resourceVersion"] {
			break
		}
	}
	return o, err
}

// prepare makes what all subjects need.
func (a *asker) prepare() error {
	for _, q := range []question{
		{method: http.MethodPost, path: "/api/v1/namespaces", body: map[string]any{"metadata": map[string]any{"name": namespace}}},
		{method: http.MethodPost, path: "/api/v1/namespaces/" + namespace + "/serviceaccounts", body: map[string]any{"metadata": map[string]any{"name": "default"}}},
	} {
		if ans, _, err := a.send(q); err != nil {
			return err
		} else if ans.Code >= 300 && ans.Code != http.StatusConflict {
			return fmt.Errorf("%s %s: %v", q.method, q.path, ans.Body)
		}
	}
	return nil
}

// pluralOf names the resource of a kind that a corpus file only needs to be there.
func pluralOf(kind string) string {
	p := strings.ToLower(kind)
	switch {
	case strings.HasSuffix(p, "s"):
		return p + "es"
	case strings.HasSuffix(p, "y"):
		return p[:len(p)-1] + "ies"
	}
	return p + "s"
}

func (a *asker) clean(path string) error {
	if _, _, err := a.send(question{method: http.MethodDelete, path: path + "?gracePeriodSeconds=0"}); err != nil {
		return err
	}
	o, err := a.object(path)
	if err != nil || o == nil {
		return err
	}
	m := metadata(o)
	delete(m, "finalizers")
	if o["kind"] == "Namespace" { // nobody else empties it
		o["spec"] = map[string]any{}
		path += "/finalize"
	}
	_, _, err = a.send(question{method: http.MethodPut, path: path, body: o})
	return err
}

func (a *asker) setUp(objects []map[string]any) error {
	for _, o := range objects {
		g, v := groupVersion(o)
		kind, _ := o["kind"].(string)
		in := base(g, v, pluralOf(kind), namespaceOf(o))
		if err := a.clean(in + "/" + nameOf(o)); err != nil {
			return err
		}
		if ans, _, err := a.send(question{method: http.MethodPost, path: in, body: o}); err != nil {
			return err
		} else if ans.Code >= 300 {
			return fmt.Errorf("setup %s %s: %v", kind, nameOf(o), ans.Body)
		}
	}
	return nil
}

// subject asks all about one kind.
func (a *asker) subject(s *subject) error {
	if err := a.setUp(s.setup); err != nil {
		return err
	}
	for _, o := range s.objects {
		if n := nameOf(o); n != "" {
			if err := a.clean(base(s.group, s.version, s.plural, namespaceOf(o)) + "/" + n); err != nil {
				return err
			}
		}
	}
	for i, o := range s.objects {
		if err := a.creations(s, i, o); err != nil {
			return err
		}
	}
	stored := false
	for i, o := range s.objects {
		if nameOf(o) == "" {
			continue // a review, which nothing keeps
		}
		stored = true
		if err := a.life(s, i, o); err != nil {
			return err
		}
	}
	if stored {
		return a.reads(s)
	}
	return nil
}

const dryRun = "?dryRun=All"

func caseID(s *subject, i int, op string, rest ...string) string {
	return strings.Join(append([]string{s.name, fmt.Sprint(i), op}, rest...), " ")
}

// creations spoils a new object in every way.
func (a *asker) creations(s *subject, i int, o map[string]any) error {
	in := base(s.group, s.version, s.plural, namespaceOf(o)) + dryRun
	if nameOf(o) == "" {
		in = strings.TrimSuffix(in, dryRun)
	}
	if err := a.ask(caseID(s, i, "create"), question{method: http.MethodPost, path: in, body: o}); err != nil {
		return err
	}
	for _, c := range spoilt(o, "status") {
		if err := a.ask(caseID(s, i, "create", c.id()), question{method: http.MethodPost, path: in, body: c.apply(o)}); err != nil {
			return err
		}
	}
	return nil
}

// spoilt lists the changes of an object's fields; of metadata only what kinds differ in.
func spoilt(o map[string]any, but ...string) []change {
	var out []change
	body := without(o, append(but, "apiVersion", "kind", "metadata")...)
	for _, k := range slices.Sorted(maps.Keys(body)) {
		out = append(out, changes([]any{k}, body[k])...)
	}
	if name := nameOf(o); name != "" {
		for _, n := range []string{"", "Bad_Name!", "with.dot", "with:colon", "1digit", strings.Repeat("n", 64), strings.Repeat("n", 254)} {
			out = append(out, change{path: []any{"metadata", "name"}, name: fmt.Sprintf("%.12q", n), value: n})
		}
	}
	for _, k := range []string{"labels", "annotations"} {
		if v, ok := metadata(o)[k]; ok {
			out = append(out, changes([]any{"metadata", k}, v)...)
		}
	}
	return out
}

// life makes an object, and then changes it in every way.
func (a *asker) life(s *subject, i int, o map[string]any) error {
	in := base(s.group, s.version, s.plural, namespaceOf(o))
	at := in + "/" + nameOf(o)
	if err := a.ask(caseID(s, i, "made"), question{method: http.MethodPost, path: in, body: o}); err != nil {
		return err
	}
	if status, ok := o["status"]; ok {
		now, err := a.settled(s, at)
		if err != nil {
			return err
		}
		if now != nil {
			now["status"] = status
			if err := a.ask(caseID(s, i, "status"), question{method: http.MethodPut, path: at + "/status", body: now}); err != nil {
				return err
			}
		}
	}
	now, err := a.settled(s, at)
	if err != nil {
		return err
	}
	if now == nil {
		return nil // both servers refused, or the comparison of "made" shows it
	}
	delete(metadata(now), "managedFields")
	if err := a.ask(caseID(s, i, "update"), question{method: http.MethodPut, path: at + dryRun, body: now}); err != nil {
		return err
	}
	for _, c := range spoilt(now, "status") {
		if c.path[0] == "metadata" && c.path[1] == "name" {
			continue
		}
		if err := a.ask(caseID(s, i, "update", c.id()), question{method: http.MethodPut, path: at + dryRun, body: c.apply(now)}); err != nil {
			return err
		}
	}
	if i == 0 && len(s.objects) > 1 {
		if err := a.additions(s, now, s.objects[1], at); err != nil {
			return err
		}
	}
	if _, ok := o["status"].(map[string]any); !ok {
		return nil
	}
	for _, c := range changes([]any{"status"}, now["status"]) {
		if err := a.ask(caseID(s, i, "status", c.id()), question{method: http.MethodPut, path: at + "/status" + dryRun, body: c.apply(now)}); err != nil {
			return err
		}
	}
	return nil
}

// additions gives the least object each field of the full one, which finds what may not be set later.
func (a *asker) additions(s *subject, least, full map[string]any, at string) error {
	body := without(full, "apiVersion", "kind", "metadata", "status")
	for _, k := range slices.Sorted(maps.Keys(body)) {
		adds := []change{{path: []any{k}, name: "added", value: body[k]}}
		if m, ok := body[k].(map[string]any); ok && least[k] != nil {
			for _, f := range slices.Sorted(maps.Keys(m)) {
				adds = append(adds, change{path: []any{k, f}, name: "added", value: m[f]})
			}
		}
		for _, c := range adds {
			if err := a.ask(caseID(s, 0, "update", c.id()), question{method: http.MethodPut, path: at + dryRun, body: c.apply(least)}); err != nil {
				return err
			}
		}
	}
	return nil
}
