package streams

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
	apiproxy "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/skiff-sh/skiff/server/request"
)

// Serve carries one stream. fail answers with an error that comes before the first byte.
func (s *Streams) Serve(w http.ResponseWriter, r *http.Request, i *request.Info, fail func(error)) {
	var err error
	switch i.Resource + "/" + i.Subresource {
	case "pods/log":
		err = s.log(w, r, i, fail)
	case "pods/exec", "pods/attach":
		err = s.exec(w, r, i, fail)
	case "pods/portforward":
		err = s.portForward(w, r, i, fail)
	case "pods/proxy", "services/proxy", "nodes/proxy":
		err = s.proxy(w, r, i, fail)
	default:
		err = apierrors.NewMethodNotSupported(corev1.Resource(i.Resource), i.Verb)
	}
	if err != nil {
		fail(err)
	}
}

// PodOf is the part of a proxy's name that is a pod's or service's own name.
func PodOf(id string) string {
	parts := strings.Split(id, ":")
	if len(parts) == 3 || len(parts) == 2 && (parts[0] == "http" || parts[0] == "https") {
		return parts[1]
	}
	return parts[0]
}

// place finds a pod, the container that is meant, and its node.
func (s *Streams) place(i *request.Info, q url.Values, what string) (pod *corev1.Pod, container string, node *url.URL, err error) {
	pod, err = get[*corev1.Pod](s, corev1.SchemeGroupVersion.WithKind("Pod"), i.Namespace, i.Name)
	if err != nil {
		return nil, "", nil, err
	}
	if what != "" {
		if container, err = containerOf(pod, q.Get("container"), what); err != nil {
			return nil, "", nil, err
		}
	}
	if pod.Spec.NodeName == "" {
		if what == "log" {
			// There is nothing to read yet, which is no error for logs.
			return pod, container, nil, nil
		}
		return nil, "", nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	node, err = s.nodeURL(pod.Spec.NodeName)
	return pod, container, node, err
}

func containerOf(pod *corev1.Pod, name, what string) (string, error) {
	var all, init, names []string
	for _, c := range pod.Spec.InitContainers {
		init = append(init, c.Name)
	}
	for _, c := range pod.Spec.Containers {
		names = append(names, c.Name)
	}
	all = append(append(all, names...), init...)
	for _, c := range pod.Spec.EphemeralContainers {
		all = append(all, c.Name)
	}
	if name == "" {
		if len(names) == 1 {
			return names[0], nil
		}
		if d := pod.Annotations["kubectl.kubernetes.io/default-container"]; d != "" && what != "log" {
			name = d
		} else {
			msg := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", pod.Name, strings.Join(names, " "))
			if len(init) > 0 {
				msg += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(init, " "))
			}
			return "", apierrors.NewBadRequest(msg)
		}
	}
	for _, c := range all {
		if c == name {
			return name, nil
		}
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
}

func (s *Streams) log(w http.ResponseWriter, r *http.Request, i *request.Info, fail func(error)) error {
	q := r.URL.Query()
	pod, c, node, err := s.place(i, q, "log")
	if err != nil {
		return err
	}
	if node == nil {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	q.Del("container")
	node.Path = "/containerLogs/" + pod.Namespace + "/" + pod.Name + "/" + c
	node.RawQuery = q.Encode()
	if wsstream.IsWebSocketRequest(r) {
		return s.logOverWebSocket(w, r, node)
	}
	s.forward(w, r, node, s.kubelet, "", refusedLog, fail)
	return nil
}

// logOverWebSocket sends a log as messages of the protocols that watches have too: the node itself speaks plain HTTP.
func (s *Streams) logOverWebSocket(w http.ResponseWriter, r *http.Request, node *url.URL) error {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, node.String(), nil)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	resp, err := s.kubelet.RoundTrip(req)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("error dialing backend: %w", err))
	}
	defer resp.Body.Close()
	if err := refusedLog(resp); err != nil {
		return err
	}
	_ = wsstream.NewReader(resp.Body, true, wsstream.NewDefaultReaderProtocols()).Copy(w, r) // fails only when the client is gone
	return nil
}

// refusedLog makes an API error of a node's answer that is no log: the node says in plain text why there is none.
func refusedLog(resp *http.Response) error {
	if resp.StatusCode < http.StatusBadRequest {
		return nil
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 2<<10)) // what cannot be read of the message is left out
	text := strings.TrimSpace(string(b))
	switch resp.StatusCode {
	case http.StatusBadRequest:
		return apierrors.NewBadRequest(text)
	case http.StatusInternalServerError:
		return apierrors.NewInternalError(errors.New(text))
	}
	return apierrors.NewGenericServerResponse(resp.StatusCode, "get", corev1.Resource("pods/log"), "", text, 0, true)
}

func (s *Streams) exec(w http.ResponseWriter, r *http.Request, i *request.Info, fail func(error)) error {
	q := r.URL.Query()
	pod, c, node, err := s.place(i, q, i.Subresource)
	if err != nil {
		return err
	}
	// The kubelet's names of the streams differ from the API's.
	out := url.Values{}
	for from, to := range map[string]string{"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"} {
		if v := q.Get(from); v == "true" || v == "1" {
			out.Set(to, "1")
		}
	}
	for _, cmd := range q["command"] {
		out.Add("command", cmd)
	}
	node.Path = "/" + i.Subresource + "/" + pod.Namespace + "/" + pod.Name + "/" + c
	node.RawQuery = out.Encode()
	h := s.upgrade(node, fail)
	if wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) {
		// Container runtimes speak SPDY only, so the newest WebSocket protocol is translated here, as upstream does.
		h = apiproxy.NewStreamTranslatorHandler(node, s.kubelet, 0, apiproxy.Options{Stdin: out.Has("input"), Stdout: out.Has("output"),
			Stderr: out.Has("error"), Tty: out.Has("tty")})
	}
	h.ServeHTTP(w, r)
	return nil
}

func (s *Streams) portForward(w http.ResponseWriter, r *http.Request, i *request.Info, fail func(error)) error {
	pod, _, node, err := s.place(i, nil, "")
	if err != nil {
		return err
	}
	node.Path = "/portForward/" + pod.Namespace + "/" + pod.Name
	if ports := r.URL.Query()["ports"]; len(ports) > 0 {
		node.RawQuery = url.Values{"port": ports}.Encode()
	}
	h := s.upgrade(node, fail)
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		h = apiproxy.NewTunnelingHandler(h)
	}
	h.ServeHTTP(w, r)
	return nil
}

// upgrade passes on a request that must change protocols.
func (s *Streams) upgrade(target *url.URL, fail func(error)) http.Handler {
	h := utilproxy.NewUpgradeAwareHandler(target, s.kubelet, false, true, utilproxy.NewErrorResponder(responder(fail)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") {
			fail(apierrors.NewBadRequest("Upgrade request required"))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// responder hands a proxy's errors to the front.
type responder func(error)

func (f responder) Error(err error) {
	var st apierrors.APIStatus
	if !errors.As(err, &st) {
		err = apierrors.NewInternalError(err)
	}
	f(err)
}

// proxy passes a request on to a node's kubelet API, a pod or a service.
func (s *Streams) proxy(w http.ResponseWriter, r *http.Request, i *request.Info, fail func(error)) error {
	var target *url.URL
	var err error
	rt := s.direct
	switch i.Resource {
	case "nodes":
		rt = s.kubelet
		_, name, _, _ := splitNode(i.Name)
		target, err = s.nodeURL(name)
	case "pods":
		target, err = s.podURL(i.Namespace, i.Name)
	default:
		target, err = s.serviceURL(i.Namespace, i.Name, rand.IntN)
	}
	if err != nil {
		return err
	}
	prefix := strings.TrimSuffix(strings.TrimSuffix(r.URL.Path, i.Rest), "/")
	if i.Rest == "" {
		// A page's relative links need the final slash.
		if (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Header.Get("Upgrade") == "" && !strings.HasSuffix(r.URL.Path, "/") {
			to := *r.URL
			to.Path += "/"
			http.Redirect(w, r, to.String(), http.StatusMovedPermanently)
			return nil
		}
		i.Rest = "/"
	}
	target.Path, target.RawQuery = i.Rest, r.URL.RawQuery
	s.forward(w, r, target, rt, prefix, func(*http.Response) error { return nil }, fail)
	return nil
}

// splitNode takes [scheme:]node[:port] apart; the scheme and port of a node are always its kubelet's.
func splitNode(id string) (scheme, name, port string, ok bool) {
	return "", PodOf(id), "", true
}

// forward passes a request on. Below a prefix, the other side's redirects and the links of its pages are moved there.
// check may turn an answer into an error.
func (s *Streams) forward(w http.ResponseWriter, r *http.Request, target *url.URL, rt http.RoundTripper, prefix string,
	check func(*http.Response) error, fail func(error)) {
	if prefix != "" {
		rt = &utilproxy.Transport{PathPrepend: prefix, RoundTripper: rt}
	}
	p := &httputil.ReverseProxy{Transport: rt, FlushInterval: -1,
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL = target
			pr.Out.Host = target.Host
			pr.SetXForwarded()
			pr.Out.Header.Del("Authorization")
		},
		ModifyResponse: func(res *http.Response) error {
			res.Header.Del("Audit-Id")
			res.Header.Del("Cache-Control")
			return check(res)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return
			}
			var st apierrors.APIStatus
			if errors.As(err, &st) {
				fail(err)
				return
			}
			if rt == s.kubelet {
				fail(apierrors.NewInternalError(fmt.Errorf("error dialing backend: %w", err)))
				return
			}
			fail(apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach service: %v", err)))
		},
		ErrorLog: nil,
	}
	p.ServeHTTP(w, r)
}
