package client

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Raw sends a request of the caller's own making as JSON (a nil body: none) and returns the JSON answer: for documents,
// and for paths of kinds that the table does not know. Errors are *errors.StatusError where the server answered with a
// failure. A wrapper of clients shows what it wraps by a method Unwrap.
func Raw(ctx context.Context, c Interface, method, path string, query url.Values, body []byte) ([]byte, error) {
	for {
		switch w := c.(type) {
		case *httpClient:
			return w.raw(ctx, method, path, query, body)
		case *inProcess:
			return w.wire.raw(ctx, method, path, query, body)
		case interface{ Unwrap() Interface }:
			c = w.Unwrap()
		default:
			return nil, fmt.Errorf("%s %s: a %T sends no raw requests", method, path, c)
		}
	}
}

func (c *httpClient) raw(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	resp, err := c.do(ctx, schema.GroupResource{}, call{method: method, path: path, query: query, body: body, contentType: typeJSON, accept: typeJSON})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return answer, nil
}
