//go:build stories

package script

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/client-go/tools/clientcmd"
)

// patience is how long a story waits for what must come about by itself. It bounds a hang; it is no measure of speed.
const patience = 90 * time.Second

// commands are what stories have beyond testscript's own:
//
//	skiff ARGS...            the binary, for the stories' instance
//	up ARGS...               skiff up, with the flags that keep the instance apart from others
//	kubectl ARGS...          its kubectl, in the story's namespace
//	until REGEXP CMD ARGS... repeat skiff, kubectl or fetch until its output matches
//	fetch URL                an HTTP GET; its body is the output
//	api METHOD PATH [FILE] [HEADER...]  a raw request as administrator; prints the status code and the body
//	killpod POD              SIGKILL to the first process of the pod's first container, from outside
//	nodeip VAR               sets VAR to the node's address
//	follow N TEXT CMD...     runs until N lines of its output hold TEXT, then stops it
//	forward POD PORTS URL    kubectl port-forward, and a GET of the URL through it
//	big MB FILE              writes a config map of that many megabytes, as JSON
//	burst N FILE             creates N config maps, kills skiff half way, and writes the names that were acknowledged
//	acknowledged FILE        checks that all of them are there
//	traces                   prints what of the instance is left on the machine
//	pids FILE                writes the pids of all the pods' processes of this story's namespace
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"skiff": func(ts *testscript.TestScript, neg bool, args []string) {
		judge(ts, neg, func(ctx context.Context) (string, error) { return runTool(ctx, ts, "skiff", args) })
	},
	"up": func(ts *testscript.TestScript, neg bool, args []string) {
		judge(ts, neg, func(ctx context.Context) (string, error) {
			return runTool(ctx, ts, "skiff", append(slices.Clone(upFlags), args...))
		})
	},
	"kubectl": func(ts *testscript.TestScript, neg bool, args []string) {
		judge(ts, neg, func(ctx context.Context) (string, error) { return runTool(ctx, ts, "kubectl", args) })
	},
	"fetch": func(ts *testscript.TestScript, neg bool, args []string) {
		judge(ts, neg, func(ctx context.Context) (string, error) { return runTool(ctx, ts, "fetch", args) })
	},
	"until": func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 2 {
			ts.Fatalf("usage: until REGEXP CMD ARGS...")
		}
		re, err := regexp.Compile("(?m)" + args[0])
		ts.Check(err)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for {
			out, err := runTool(ctx, ts, args[1], args[2:])
			if re.MatchString(out) {
				fmt.Fprint(ts.Stdout(), out)
				return
			}
			select {
			case <-ctx.Done():
				ts.Fatalf("never matched %q; the last output was (%v):\n%s", args[0], err, out)
			case <-time.After(100 * time.Millisecond):
			}
		}
	},
	"api": func(ts *testscript.TestScript, neg bool, args []string) {
		judge(ts, neg, func(ctx context.Context) (string, error) { return rawRequest(ctx, ts, args) })
	},
	"killpod": func(ts *testscript.TestScript, neg bool, args []string) {
		uid, err := runTool(context.Background(), ts, "kubectl", []string{"get", "pod", args[0], "-o", "jsonpath={.metadata.uid}"})
		ts.Check(err)
		pids := podProcesses(strings.TrimSpace(uid))
		if len(pids) == 0 {
			ts.Fatalf("pod %s (%s) has no process", args[0], uid)
		}
		// The sandbox's pause process came first.
		ts.Check(syscall.Kill(pids[len(pids)-1], syscall.SIGKILL))
	},
	"pids": func(ts *testscript.TestScript, neg bool, args []string) {
		out, err := runTool(context.Background(), ts, "kubectl", []string{"get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"})
		ts.Check(err)
		var lines []string
		for uid := range strings.FieldsSeq(out) {
			for _, pid := range podProcesses(uid) {
				lines = append(lines, fmt.Sprint(uid, " ", pid))
			}
		}
		sort.Strings(lines)
		if len(lines) == 0 {
			ts.Fatalf("no process found of the pods %q", out)
		}
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(lines, "\n")+"\n"), 0o644))
	},
}

func init() {
	commands["nodeip"] = func(ts *testscript.TestScript, _ bool, args []string) {
		out, err := skiff("kubectl", "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
		ts.Check(err)
		ts.Setenv(args[0], strings.TrimSpace(out))
	}
	commands["follow"] = func(ts *testscript.TestScript, _ bool, args []string) {
		want, err := strconv.Atoi(args[0])
		ts.Check(err)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := toolCommand(ctx, ts, args[2], args[3:])
		pipe, err := cmd.StdoutPipe()
		ts.Check(err)
		ts.Check(cmd.Start())
		seen := 0
		for lines := bufio.NewScanner(pipe); seen < want && lines.Scan(); {
			if strings.Contains(lines.Text(), args[1]) {
				seen++
			}
		}
		cancel()
		_ = cmd.Wait() // it was stopped
		if seen < want {
			ts.Fatalf("%d lines of %d held %q", seen, want, args[1])
		}
	}
	commands["forward"] = func(ts *testscript.TestScript, _ bool, args []string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := toolCommand(ctx, ts, "kubectl", []string{"port-forward", "pod/" + args[0], args[1]})
		ts.Check(cmd.Start())
		defer func() { cancel(); _ = cmd.Wait() }()
		for {
			body, err := fetch(ctx, args[2])
			if err == nil {
				fmt.Fprint(ts.Stdout(), body)
				return
			}
			select {
			case <-ctx.Done():
				ts.Fatalf("nothing came through: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

func judge(ts *testscript.TestScript, neg bool, f func(context.Context) (string, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	out, err := f(ctx)
	fmt.Fprint(ts.Stdout(), out)
	if err == nil && neg {
		ts.Fatalf("unexpected success")
	}
	if err != nil && !neg {
		ts.Fatalf("%v\n%s", err, out)
	}
}

func runTool(ctx context.Context, ts *testscript.TestScript, tool string, args []string) (string, error) {
	if tool == "fetch" {
		return fetch(ctx, args[0])
	}
	out, err := toolCommand(ctx, ts, tool, args).CombinedOutput()
	return string(out), err
}

func toolCommand(ctx context.Context, ts *testscript.TestScript, tool string, args []string) *exec.Cmd {
	if tool == "kubectl" {
		args = append([]string{"kubectl", "--namespace", ts.Getenv("NS")}, args...)
	}
	cmd := exec.CommandContext(ctx, skiffBinary, args...)
	cmd.Dir = ts.MkAbs(".")
	return cmd
}

func fetch(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	// A connection each, so that every fetch is balanced anew.
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 400 {
		err = fmt.Errorf("%s", resp.Status)
	}
	return string(b), err
}

// rawRequest sends what no well-behaved client would. A header "Authorization: ..." replaces the administrator's
// certificate; "Content-Length: N" with a shorter body cuts the body short.
func rawRequest(ctx context.Context, ts *testscript.TestScript, args []string) (string, error) {
	if len(args) < 2 {
		ts.Fatalf("usage: api METHOD PATH [FILE] [HEADER...]")
	}
	kubeconfig, err := skiff("kubeconfig")
	if err != nil {
		return kubeconfig, err
	}
	rest, err := clientcmd.RESTConfigFromKubeConfig([]byte(kubeconfig))
	if err != nil {
		return "", err
	}
	t := &tls.Config{InsecureSkipVerify: true} // the server is this test's own
	var body io.Reader
	headers := args[2:]
	if len(headers) > 0 && !strings.Contains(headers[0], ":") {
		b, err := os.ReadFile(ts.MkAbs(headers[0]))
		if err != nil {
			return "", err
		}
		body, headers = bytes.NewReader(b), headers[1:]
	}
	req, err := http.NewRequestWithContext(ctx, args[0], rest.Host+strings.ReplaceAll(args[1], "$NS", ts.Getenv("NS")), body)
	if err != nil {
		return "", err
	}
	withCert, cut := true, false
	for _, h := range headers {
		if h == "Cut:" {
			cut = true
			continue
		}
		name, value, _ := strings.Cut(h, ": ")
		switch name {
		case "Authorization":
			withCert = false
			fallthrough
		default:
			req.Header.Set(name, value)
		}
	}
	if withCert {
		cert, err := tls.X509KeyPair(rest.CertData, rest.KeyData)
		if err != nil {
			return "", err
		}
		t.Certificates = []tls.Certificate{cert}
	}
	if cut {
		return cutRequest(ctx, req, t)
	}
	transport := &http.Transport{TLSClientConfig: t}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d\n%s\n", resp.StatusCode, b), err
}

// cutRequest sends a request without the last byte of its body, which a client of net/http cannot.
func cutRequest(ctx context.Context, req *http.Request, t *tls.Config) (string, error) {
	var b bytes.Buffer
	if err := req.Write(&b); err != nil {
		return "", err
	}
	c, err := (&tls.Dialer{Config: t}).DialContext(ctx, "tcp", req.URL.Host)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write(b.Bytes()[:b.Len()-1]); err != nil {
		return "", err
	}
	if err := c.(*tls.Conn).CloseWrite(); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d\n%s\n", resp.StatusCode, body), err
}

// podProcesses finds the processes of a pod by its cgroup, oldest first.
func podProcesses(uid string) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	var pids []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || uid == "" || !bytes.Contains(b, []byte(uid)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			pids = append(pids, pid)
		}
	}
	sort.Ints(pids)
	return pids
}
