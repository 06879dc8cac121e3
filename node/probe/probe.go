// Package probe asks containers how they are: by a command, HTTP, TCP or gRPC, at the times that their spec gives.
//
// Invariant: a probe runs for one container (by its ID) and ends with its context; it reports changes of its result
// and nothing else. The count of successes and failures that makes a result is a pure value, Counter.
//
// Only node imports probe.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"github.com/skiff-sh/skiff/node/lifecycle"
)

// Counter turns single answers into a result.
type Counter struct {
	last Outcome
	run  int32 // how often in a row
}

// Outcome is one answer.
type Outcome int

const (
	Good Outcome = iota
	Bad
	Warning // good, with something to tell
	Broken  // the probe itself could not be made; counts for nothing
)

// Add counts an answer and says what the result is now; ok is false while neither threshold is reached.
func (c *Counter) Add(o Outcome, p *corev1.Probe) (r lifecycle.Result, ok bool) {
	if o == Broken {
		return lifecycle.NotYet, false
	}
	if o == Warning {
		o = Good
	}
	if c.run > 0 && o == c.last {
		c.run++
	} else {
		c.last, c.run = o, 1
	}
	switch {
	case o == Good && c.run >= max(p.SuccessThreshold, 1):
		return lifecycle.Success, true
	case o == Bad && c.run >= max(p.FailureThreshold, 1):
		return lifecycle.Failure, true
	}
	return lifecycle.NotYet, false
}

// Prober makes probes.
type Prober struct {
	Runtime runtimeapi.RuntimeServiceClient
	Clock   clock.WithTicker
	Version string // for the user agent
}

// Target is what one running probe is about.
type Target struct {
	lifecycle.Probe
	Pod  *corev1.Pod
	Spec *corev1.Container
}

// Run probes until ctx ends. report is told each time a threshold is reached; tell is told of every answer
// that is not plainly good.
func (p *Prober) Run(ctx context.Context, t Target, report func(lifecycle.Result), tell func(o Outcome, message string)) {
	every := time.Duration(max(t.Probe.Spec.PeriodSeconds, 1)) * time.Second
	wait := t.StartedAt.Add(time.Duration(t.Probe.Spec.InitialDelaySeconds) * time.Second).Sub(p.Clock.Now())
	if wait <= 0 && p.Clock.Since(t.StartedAt) > every {
		wait = time.Duration(rand.Int64N(int64(every))) // after a restart of the agent, not all at once
	}
	var c Counter
	for {
		timer := p.Clock.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
		began := p.Clock.Now()
		o, message := p.Once(ctx, t)
		if ctx.Err() != nil {
			return
		}
		if o != Good {
			tell(o, message)
		}
		if r, ok := c.Add(o, t.Probe.Spec); ok {
			report(r)
		}
		wait = every - p.Clock.Since(began)
	}
}

const maxBody = 10 << 10

// Once makes a single probe.
func (p *Prober) Once(ctx context.Context, t Target) (Outcome, string) {
	timeout := time.Duration(max(t.Probe.Spec.TimeoutSeconds, 1)) * time.Second
	h := t.Probe.Spec.ProbeHandler
	switch {
	case h.Exec != nil:
		return p.exec(ctx, t, h.Exec.Command, timeout)
	case h.HTTPGet != nil:
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		u, header, err := HTTPRequest(h.HTTPGet, t.Spec, t.PodIP)
		if err != nil {
			return Broken, err.Error()
		}
		return p.http(ctx, u, header)
	case h.TCPSocket != nil:
		host, port, err := hostPort(h.TCPSocket.Host, h.TCPSocket.Port, t.Spec, t.PodIP)
		if err != nil {
			return Broken, err.Error()
		}
		conn, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err != nil {
			return Bad, err.Error()
		}
		conn.Close()
		return Good, ""
	case h.GRPC != nil:
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return grpcHealth(ctx, net.JoinHostPort(t.PodIP, strconv.Itoa(int(h.GRPC.Port))), h.GRPC.Service, "kube-probe/"+p.short())
	}
	return Broken, "missing probe handler"
}

func (p *Prober) short() string {
	parts := strings.Split(strings.TrimPrefix(p.Version, "v"), ".")
	return strings.Join(parts[:min(len(parts), 2)], ".")
}

func (p *Prober) exec(ctx context.Context, t Target, command []string, timeout time.Duration) (Outcome, string) {
	// The runtime enforces the timeout; the call gets a little longer so that its answer arrives.
	call, cancel := context.WithTimeout(ctx, timeout+2*time.Second)
	defer cancel()
	r, err := p.Runtime.ExecSync(call, &runtimeapi.ExecSyncRequest{ContainerId: t.ID, Cmd: command, Timeout: int64(timeout / time.Second)})
	if err != nil {
		if status.Code(err) == codes.DeadlineExceeded || strings.Contains(err.Error(), "timed out") || strings.Contains(err.Error(), "timeout") {
			return Bad, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(command, " "), timeout)
		}
		return Broken, err.Error()
	}
	if r.ExitCode != 0 {
		out := append(r.Stdout, r.Stderr...)
		return Bad, string(out[:min(len(out), maxBody)])
	}
	return Good, ""
}

// HTTPRequest is the URL and header of an HTTP handler.
func HTTPRequest(h *corev1.HTTPGetAction, c *corev1.Container, podIP string) (*url.URL, http.Header, error) {
	host, port, err := hostPort(h.Host, h.Port, c, podIP)
	if err != nil {
		return nil, nil, err
	}
	scheme := strings.ToLower(string(h.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	u, err := url.Parse(h.Path)
	if err != nil {
		u = &url.URL{Path: h.Path}
	}
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(host, port)
	header := http.Header{}
	for _, x := range h.HTTPHeaders {
		header.Add(x.Name, x.Value)
	}
	return u, header, nil
}

func hostPort(host string, port intstr.IntOrString, c *corev1.Container, podIP string) (string, string, error) {
	if host == "" {
		host = podIP
	}
	n := port.IntValue()
	if port.Type == intstr.String {
		n = 0
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
			}
		}
		if n == 0 {
			v, err := strconv.Atoi(port.StrVal)
			if err != nil {
				return "", "", fmt.Errorf("couldn't find port: %v in container %q", port.StrVal, c.Name)
			}
			n = v
		}
	}
	if n <= 0 || n > 65535 {
		return "", "", fmt.Errorf("invalid port number: %v", n)
	}
	return host, strconv.Itoa(n), nil
}

// http answers good for 2xx and 3xx. A redirect to another host is not followed, and told.
func (p *Prober) http(ctx context.Context, u *url.URL, header http.Header) (Outcome, string) {
	resp, err := Get(ctx, u, header, "kube-probe/"+p.short())
	if err != nil {
		return Bad, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil && ctx.Err() != nil {
		return Bad, fmt.Sprintf("Get %q: %v", u, ctx.Err())
	}
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return Warning, "Probe terminated redirects, Response body: " + string(body)
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return Good, ""
	}
	return Bad, fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode)
}

// Get makes a request as probes and hooks do: no certificate check, no proxy, no connection kept, redirects only
// within the host.
func Get(ctx context.Context, u *url.URL, header http.Header, agent string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header.Clone()
	if h := header.Get("Host"); h != "" {
		req.Host = h
		req.Header.Del("Host")
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", agent)
	}
	if _, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	}
	c := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Hostname() != u.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(via) >= 10 {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
	return c.Do(req)
}

func grpcHealth(ctx context.Context, addr string, service *string, agent string) (Outcome, string) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent(agent), grpc.WithNoProxy())
	if err != nil {
		return Bad, err.Error()
	}
	defer conn.Close()
	name := ""
	if service != nil {
		name = *service
	}
	r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: name}, grpc.WaitForReady(true))
	switch {
	case status.Code(err) == codes.Unimplemented:
		return Bad, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", err)
	case status.Code(err) == codes.DeadlineExceeded:
		return Bad, fmt.Sprintf("timeout: failed to connect service %q within 1s: %s", addr, err)
	case err != nil:
		return Bad, fmt.Sprintf("error: health rpc probe failed: %s", err)
	case r.Status != healthpb.HealthCheckResponse_SERVING:
		return Bad, fmt.Sprintf("service unhealthy (responded with %q)", r.Status)
	}
	return Good, ""
}
