package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	internal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/server/request"
)

// Record is the auditing of one request. All methods may be called on nil: that is a request nobody asks about.
type Record struct {
	a        *Auditor
	decision decision
	event    auditv1.Event
	request  *tee
	response *capture

	mu          sync.Mutex
	annotations map[string]string
}

// Begin decides about a request whose user is known, and tells that it was received. The user is nil if nobody was let in.
// What the policy wants to see of the bodies is read as it passes by, so the request and writer to go on with are
// returned; streams pass unseen.
func (a *Auditor) Begin(w http.ResponseWriter, r *http.Request, i *request.Info, id string, received time.Time, stream bool) (*Record, http.ResponseWriter, *http.Request) {
	if a == nil {
		return nil, w, r
	}
	d := decide(a.cfg.Policy, i, i.User)
	a.levels.WithLabelValues(string(d.level)).Inc()
	if d.level == internal.LevelNone {
		return nil, w, r
	}
	rec := &Record{a: a, decision: d, annotations: map[string]string{}}
	rec.event = auditv1.Event{TypeMeta: metav1.TypeMeta{Kind: "Event", APIVersion: "audit.k8s.io/v1"}, Level: auditv1.Level(d.level), AuditID: types.UID(id),
		RequestURI: r.URL.RequestURI(), Verb: i.Verb, User: userInfo(i.User), SourceIPs: sources(r, i), UserAgent: shortened(i.UserAgent),
		RequestReceivedTimestamp: metav1.NewMicroTime(received)}
	if i.IsResource() {
		rec.event.ObjectRef = &auditv1.ObjectReference{Resource: i.Resource, Namespace: i.Namespace, Name: i.Name,
			APIGroup: i.Group, APIVersion: i.Version, Subresource: i.Subresource}
	}
	rec.emit(internal.StageRequestReceived)
	r = r.WithContext(context.WithValue(r.Context(), recordKey{}, rec))
	if bodied := i.IsResource() && !stream && r.Body != nil && (i.Verb == "create" || i.Verb == "update" || i.Verb == "patch" || strings.HasPrefix(i.Verb, "delete")); bodied {
		rec.request = &tee{ReadCloser: r.Body, contentType: r.Header.Get("Content-Type")}
		r.Body = rec.request
	}
	if !d.level.Less(internal.LevelRequestResponse) && i.IsResource() && !stream {
		rec.response = &capture{ResponseWriter: w}
		r.Header.Del("Accept-Encoding") // what is captured must be readable
		return rec, rec.response, r
	}
	return rec, w, r
}

// Inside begins the record of a request that never leaves the process, and returns the context that carries it.
func (a *Auditor) Inside(ctx context.Context, i *request.Info, id string) context.Context {
	if a == nil {
		return ctx
	}
	d := decide(a.cfg.Policy, i, i.User)
	a.levels.WithLabelValues(string(d.level)).Inc()
	if d.level == internal.LevelNone {
		return context.WithValue(ctx, recordKey{}, (*Record)(nil)) // a caller's own record is not meant
	}
	rec := &Record{a: a, decision: d, annotations: map[string]string{}}
	rec.event = auditv1.Event{TypeMeta: metav1.TypeMeta{Kind: "Event", APIVersion: "audit.k8s.io/v1"}, Level: auditv1.Level(d.level), AuditID: types.UID(id),
		RequestURI: i.Path, Verb: i.Verb, User: userInfo(i.User), SourceIPs: []string{i.SourceIP}, UserAgent: i.UserAgent,
		RequestReceivedTimestamp: metav1.NewMicroTime(time.Now()),
		ObjectRef: &auditv1.ObjectReference{Resource: i.Resource, Namespace: i.Namespace, Name: i.Name, APIGroup: i.Group,
			APIVersion: i.Version, Subresource: i.Subresource}}
	rec.emit(internal.StageRequestReceived)
	return context.WithValue(ctx, recordKey{}, rec)
}

// From is the record of a context's request; nil if it is not audited.
func From(ctx context.Context) *Record {
	r, _ := ctx.Value(recordKey{}).(*Record)
	return r
}

// Sent tells the object that an in-process request came with: an object, or the bytes of a patch.
func (r *Record) Sent(obj any) {
	if r == nil || obj == nil {
		return
	}
	data, ok := obj.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(obj); err != nil {
			return
		}
	}
	body := &tee{contentType: "application/json"}
	body.data.Write(data)
	r.sent(body)
}

// shortened is a user agent of at most a thousand bytes.
func shortened(agent string) string {
	const most = 1024
	if len(agent) > most {
		return agent[:most] + "...TRUNCATED"
	}
	return agent
}

// sources are the addresses that a request came by, the nearest last.
func sources(r *http.Request, i *request.Info) []string {
	var out []string
	for _, h := range r.Header.Values("X-Forwarded-For") {
		for p := range strings.SplitSeq(h, ",") {
			if p = strings.TrimSpace(p); p != "" {
				out = append(out, p)
			}
		}
	}
	if real := r.Header.Get("X-Real-Ip"); len(out) == 0 && real != "" {
		out = append(out, real)
	}
	if i.SourceIP != "" && !slices.Contains(out, i.SourceIP) {
		out = append(out, i.SourceIP)
	}
	return out
}

func userInfo(u user.Info) authnv1.UserInfo {
	if u == nil {
		return authnv1.UserInfo{}
	}
	out := authnv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authnv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}

// Impersonated tells as whom the user acts.
func (r *Record) Impersonated(u user.Info) {
	if r != nil {
		who := userInfo(u)
		r.event.ImpersonatedUser = &who
	}
}

type recordKey struct{}

// Annotate adds an annotation to the event of a context's request, unless the request is not audited. The first value of
// a key stands.
func Annotate(ctx context.Context, key, value string) {
	From(ctx).Annotate(key, value)
}

// Annotate adds an annotation.
func (r *Record) Annotate(key, value string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.annotations[key]; !ok {
		r.annotations[key] = value
	}
}

// Started tells that a watch or stream has begun to answer.
func (r *Record) Started(code int) {
	if r != nil {
		r.status(code, nil)
		r.emit(internal.StageResponseStarted)
	}
}

// Done tells how the request ended. failure is the error that was answered, panicked that the server failed.
func (r *Record) Done(code int, failure *metav1.Status, panicked bool) {
	if r == nil {
		return
	}
	r.status(code, failure)
	if r.request != nil {
		r.sent(r.request)
	}
	if c := r.response; c != nil {
		r.event.ResponseObject = r.object(c.Header().Get("Content-Type"), c.body.Bytes())
	}
	if panicked {
		r.emit(internal.StagePanic)
		return
	}
	r.emit(internal.StageResponseComplete)
}

func (r *Record) status(code int, failure *metav1.Status) {
	st := &metav1.Status{Code: int32(code)}
	if failure != nil {
		st = &metav1.Status{Status: failure.Status, Message: failure.Message, Reason: failure.Reason, Details: failure.Details, Code: failure.Code}
	}
	r.event.ResponseStatus = st
}

// sent takes over what the request's body says.
func (r *Record) sent(body *tee) {
	obj := r.object(body.contentType, body.data.Bytes())
	if obj == nil {
		return
	}
	if !r.decision.level.Less(internal.LevelRequest) {
		r.event.RequestObject = obj
	}
	var meta struct {
		Metadata struct{ Name, Namespace, UID, ResourceVersion string }
	}
	if ref := r.event.ObjectRef; ref != nil && json.Unmarshal(obj.Raw, &meta) == nil {
		if ref.Name == "" {
			ref.Name = meta.Metadata.Name
		}
		if ref.Namespace == "" {
			ref.Namespace = meta.Metadata.Namespace
		}
		ref.UID, ref.ResourceVersion = types.UID(meta.Metadata.UID), meta.Metadata.ResourceVersion
	}
}

func (r *Record) object(contentType string, data []byte) *runtime.Unknown {
	if len(data) == 0 {
		return nil
	}
	b, err := toJSON(contentType, data, r.decision.omitManagedFields)
	if err != nil {
		return nil // no client's bytes are worth more than the rest of the event
	}
	return &runtime.Unknown{Raw: b, ContentType: runtime.ContentTypeJSON}
}

// emit gives the back ends a copy of the event as it is at a stage.
func (r *Record) emit(stage internal.Stage) {
	if slices.Contains(r.decision.omitStages, stage) {
		return
	}
	ev := r.event.DeepCopy()
	ev.Stage = auditv1.Stage(stage)
	ev.StageTimestamp = metav1.NewMicroTime(time.Now())
	if stage == internal.StageRequestReceived {
		ev.StageTimestamp = ev.RequestReceivedTimestamp
	}
	r.mu.Lock()
	if len(r.annotations) > 0 {
		ev.Annotations = make(map[string]string, len(r.annotations))
		for k, v := range r.annotations {
			ev.Annotations[k] = v
		}
	}
	r.mu.Unlock()
	r.a.emit(ev)
}

// tee keeps what is read of a body.
type tee struct {
	io.ReadCloser
	contentType string
	data        bytes.Buffer
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	t.data.Write(p[:n])
	return n, err
}

// capture keeps what is answered.
type capture struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (c *capture) Write(p []byte) (int, error) {
	c.body.Write(p)
	return c.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (c *capture) Unwrap() http.ResponseWriter { return c.ResponseWriter }
