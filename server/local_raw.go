package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

// callerKey is where the context of a request that never left the process says who makes it.
type callerKey struct{}

// caller is who makes a request from within the process; nil for one that came over the wire.
func caller(ctx context.Context) user.Info {
	u, _ := ctx.Value(callerKey{}).(user.Info)
	return u
}

// answer keeps what is written to it.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// Raw sends a request of the caller's own making through the whole of the server, without the socket, and returns the
// JSON that it answers. A failure is a *errors.StatusError.
func (l *Local) Raw(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	u := url.URL{Scheme: "https", Host: "localhost", Path: path, RawQuery: query.Encode()}
	r, err := http.NewRequestWithContext(context.WithValue(ctx, callerKey{}, l.user), method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.RemoteAddr = "127.0.0.1:0"
	r.Header.Set("User-Agent", agent(l.user.GetName()))
	r.Header.Set("Accept", "application/json")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	a := &answer{header: http.Header{}}
	l.s.serve(a, r)
	if a.code < 300 {
		return a.body.Bytes(), nil
	}
	var status metav1.Status
	if err := json.Unmarshal(a.body.Bytes(), &status); err != nil || status.Status != metav1.StatusFailure {
		status = metav1.Status{Status: metav1.StatusFailure, Code: int32(a.code), Reason: metav1.StatusReasonUnknown,
			Message: fmt.Sprintf("%s %s: %d %s", method, path, a.code, http.StatusText(a.code))}
	}
	return nil, &apierrors.StatusError{ErrStatus: status}
}
