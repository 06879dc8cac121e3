package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/server/audit"
	"github.com/skiff-sh/skiff/server/flow"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/server/rest"
)

// anonymous is who asks without credentials.
var anonymous user.Info = &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}

// publicPath reports whether a path is open to everybody whom no authorizer denies it.
func publicPath(path string) bool {
	switch path {
	case "/healthz", "/livez", "/readyz", "/version", "/version/":
		return true
	}
	return strings.HasPrefix(path, "/healthz/") || strings.HasPrefix(path, "/livez/") || strings.HasPrefix(path, "/readyz/")
}

// Handler serves the API without TLS or a socket of its own.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// exchange is one request and its answer.
type exchange struct {
	w        http.ResponseWriter
	r        *http.Request
	info     *request.Info
	query    url.Values // parsed when first asked for
	warnings []string
	code     int // as answered
	size     int // of the answer, in bytes, where it is known
	ticket   flow.Ticket
	audit    *audit.Record  // nil: nobody asks about the request
	failed   *metav1.Status // as answered
	taken    bool           // the body is being read, or was
}

func (x *exchange) q() url.Values {
	if x.query == nil {
		x.query = x.r.URL.Query()
	}
	return x.query
}

// serve is the request's way.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	x := &exchange{w: w, r: r}
	x.info = request.Parse(s.kinds, r.Method, r.URL.Path, x.q)
	x.info.UserAgent = r.UserAgent()
	x.info.SourceIP, _, _ = net.SplitHostPort(r.RemoteAddr)
	id := r.Header.Get("Audit-ID")
	if id == "" || len(id) > 64 {
		id = string(uuid.NewUUID())
	}
	h := w.Header()
	h.Set("Audit-Id", id)
	h.Set("Cache-Control", "no-cache, private")
	defer func() {
		p := recover()
		defer func() { x.audit.Done(x.code, x.failed, p != nil) }()
		if p != nil {
			s.recovered(x, p)
		}
		s.metrics.observe(x, time.Since(start), x.ticket.Waited)
	}()
	err := s.admit(x)
	if s.cfg.Audit != nil {
		x.audit, x.w, x.r = s.cfg.Audit.Begin(w, r, x.info, id, start, x.longRunning())
		r = x.r
	}
	if err == nil {
		err = s.actAs(x)
	}
	if err != nil {
		s.fail(x, err)
		return
	}
	ctx := request.With(r.Context(), x.info)
	ctx = rest.WithWarnings(ctx, x.warn)
	if !x.longRunning() {
		timeout, err := s.timeout(x)
		if err != nil {
			s.fail(x, err)
			return
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	x.r = r.WithContext(ctx)
	if !s.enter(x) {
		return
	}
	defer x.ticket.Done()
	defer s.metrics.count(x)()
	if err := s.authorizeRequest(x); err != nil {
		s.fail(x, err)
		return
	}
	if r := s.remote(x); r != nil {
		err = s.foreign(x, s.aggregation.Handler(r, x.info.User))
	} else if x.info.IsResource() {
		err = s.serveResource(x)
	} else {
		err = s.servePath(x)
	}
	if err != nil {
		s.fail(x, err)
	}
}

func (s *Server) recovered(x *exchange, p any) {
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.cfg.Log.Error("a request panicked", "method", x.r.Method, "path", x.r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	if x.code == 0 {
		s.fail(x, apierrors.NewInternalError(fmt.Errorf("this request caused apiserver to panic. Look in the logs for details")))
	}
}

// warn keeps a Warning header's text for the answer.
func (x *exchange) warn(text string) {
	if text != "" && !slices.Contains(x.warnings, text) {
		x.warnings = append(x.warnings, text)
	}
}

// longRunning requests have no deadline and take no place among those in flight.
func (x *exchange) longRunning() bool {
	if x.info.Verb == "watch" {
		return true
	}
	switch x.info.Subresource {
	case "log", "exec", "attach", "portforward", "proxy":
		return true
	}
	return false
}

// admit finds out who asks.
func (s *Server) admit(x *exchange) error {
	if u := caller(x.r.Context()); u != nil {
		x.info.User = u
		return nil
	}
	res, ok, err := s.authn.AuthenticateRequest(x.r)
	name := ""
	if err == nil && ok {
		name = res.User.GetName()
	}
	s.metrics.login(name, ok, err)
	switch {
	case err == nil && ok:
		x.info.User = res.User
	case err == nil && s.open(x.r.URL.Path):
		x.info.User = anonymous
	default:
		return apierrors.NewUnauthorized("Unauthorized")
	}
	x.r.Header.Del("Authorization")
	return nil
}

// actAs lets the caller be somebody else, where the request asks for that.
func (s *Server) actAs(x *exchange) error {
	if caller(x.r.Context()) != nil || !hasImpersonation(x.r.Header) {
		return nil
	}
	if err := s.impersonate(x); err != nil {
		return err
	}
	x.audit.Impersonated(x.info.User)
	return nil
}

// enter waits for flow control to let the request in, or answers that it must come again. Streams pass freely; a watch
// holds its seats until it has begun.
func (s *Server) enter(x *exchange) bool {
	ask := flow.Request{Info: x.info}
	switch {
	case x.longRunning() && x.info.Verb != "watch":
		return true
	case x.r.URL.RawQuery == "":
		ask.Initial = x.info.Verb == "watch"
	case x.info.Verb == "list":
		ask.Limit, _ = strconv.ParseInt(x.q().Get("limit"), 10, 64)
	case x.info.Verb == "watch":
		rev := x.q().Get("resourceVersion")
		ask.Initial = rev == "" || rev == "0" || x.q().Get("sendInitialEvents") == "true"
	}
	var err error
	x.ticket, err = s.flow.Enter(x.r.Context(), ask)
	h := x.w.Header()
	h["X-Kubernetes-Pf-Flowschema-Uid"], h["X-Kubernetes-Pf-Prioritylevel-Uid"] = x.ticket.UIDs()
	if err != nil {
		x.leaveBody()
		h.Set("Retry-After", strconv.Itoa(x.ticket.RetryAfter))
		h.Set("X-Content-Type-Options", "nosniff")
		_ = x.send(http.StatusTooManyRequests, "text/plain; charset=utf-8", []byte(err.Error()+"\n"))
		return false
	}
	return true
}

func (s *Server) timeout(x *exchange) (time.Duration, error) {
	t := s.cfg.RequestTimeout
	if !strings.Contains(x.r.URL.RawQuery, "timeout") {
		return t, nil
	}
	if v := x.q().Get("timeout"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			if n, nerr := strconv.Atoi(v); nerr == nil {
				d, err = time.Duration(n)*time.Second, nil
			}
		}
		if err != nil {
			return 0, apierrors.NewBadRequest("invalid timeout specified in the request URL - " + err.Error())
		}
		if d > 0 && d < t {
			t = d
		}
	}
	return t, nil
}

func (s *Server) authorizeRequest(x *exchange) error {
	return s.ruled(x.r.Context(), x.audit, x.info)
}

// ruled authorizes a request, and tells its record.
func (s *Server) ruled(ctx context.Context, r *audit.Record, i *request.Info) error {
	reason, err := s.rule(ctx, i.Attributes())
	if r != nil {
		decision := "allow"
		if err != nil {
			decision = "forbid"
		}
		r.Annotate("authorization.k8s.io/decision", decision)
		r.Annotate("authorization.k8s.io/reason", reason)
	}
	return err
}

// htmlSafe keeps error texts from being taken for HTML.
var htmlSafe = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// forbidden is upstream's 403.
func forbidden(a authorizer.Attributes, reason string) error {
	who := ""
	if u := a.GetUser(); u != nil {
		who = u.GetName()
	}
	var msg string
	switch resource := a.GetResource(); {
	case !a.IsResourceRequest():
		msg = fmt.Sprintf("User %q cannot %s path %q", who, a.GetVerb(), a.GetPath())
	default:
		if sub := a.GetSubresource(); sub != "" {
			resource += "/" + sub
		}
		msg = fmt.Sprintf("User %q cannot %s resource %q in API group %q ", who, a.GetVerb(), resource, a.GetAPIGroup())
		if ns := a.GetNamespace(); ns != "" {
			msg += fmt.Sprintf("in the namespace %q", ns)
		} else {
			msg += "at the cluster scope"
		}
	}
	msg = htmlSafe.Replace(msg)
	if reason != "" {
		msg += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.GetAPIGroup(), Resource: a.GetResource()}, a.GetName(), errors.New(msg))
}

// statusOf is an error as the API tells it. Errors that carry no status are 500 with their own text.
func statusOf(err error) *metav1.Status {
	var as apierrors.APIStatus
	if errors.As(err, &as) {
		st := as.Status()
		if st.Status == "" {
			st.Status = metav1.StatusFailure
		}
		if st.Code == 0 {
			st.Code = http.StatusInternalServerError
		}
		st.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		return &st
	}
	code := int32(http.StatusInternalServerError)
	if errors.Is(err, context.DeadlineExceeded) {
		return statusOf(apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0))
	}
	return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: code,
		Reason: metav1.StatusReasonUnknown, Message: err.Error()}
}
