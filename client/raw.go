package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RawCaller is a client that can also send a request of its own making: for paths of aggregated API servers, scale
// subresources of kinds that the table does not know, and documents. Both clients of this program can.
type RawCaller interface {
	// Raw sends JSON (a nil body: none) and returns the JSON answer. Errors are *errors.StatusError where the server
	// answered with a failure.
	Raw(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error)
}

// Raw is c's RawCaller.Raw, if it has it; a wrapper shows what it wraps by a method Unwrap.
func Raw(ctx context.Context, c Interface, method, path string, query url.Values, body []byte) ([]byte, error) {
	for {
		if r, ok := c.(RawCaller); ok {
			return r.Raw(ctx, method, path, query, body)
		}
		w, ok := c.(interface{ Unwrap() Interface })
		if !ok {
			return nil, fmt.Errorf("%s %s: a %T sends no raw requests", method, path, c)
		}
		c = w.Unwrap()
	}
}

// rawFailure makes the error of a raw answer that is no success.
func rawFailure(code int, method, path string, body []byte) error {
	if status, ok := decodeStatus(body); ok && status.Status != metav1.StatusSuccess {
		return &apierrors.StatusError{ErrStatus: *status}
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: rawReason(code),
		Message: fmt.Sprintf("%s %s: %d %s", method, path, code, http.StatusText(code))}}
}

func rawReason(code int) metav1.StatusReason {
	switch code {
	case http.StatusNotFound:
		return metav1.StatusReasonNotFound
	case http.StatusConflict:
		return metav1.StatusReasonConflict
	case http.StatusForbidden:
		return metav1.StatusReasonForbidden
	case http.StatusServiceUnavailable:
		return metav1.StatusReasonServiceUnavailable
	}
	return metav1.StatusReasonUnknown
}

// Raw implements RawCaller.
func (c *httpClient) Raw(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	resp, err := c.send(ctx, call{method: method, path: path, query: query, body: body, contentType: typeJSON, accept: typeJSON})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 300 {
		return nil, rawFailure(resp.StatusCode, method, path, answer)
	}
	return answer, nil
}
