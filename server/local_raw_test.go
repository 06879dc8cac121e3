package server_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
)

// Requests from within the process go the whole way in their user's name, and their answers stream.
func TestLocalRequests(t *testing.T) {
	f := start(t)
	do := func(ctx context.Context, u user.Info, method, path, body string) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, "https://localhost"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := (&http.Client{Transport: f.srv.Local(u)}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	const path = "/api/v1/namespaces/default/configmaps"
	if resp := do(t.Context(), &user.DefaultInfo{Name: "eve"}, "GET", path, ""); resp.StatusCode != 403 {
		t.Errorf("eve gets %s", resp.Status)
	}
	w := do(t.Context(), root, "GET", path+"?watch=1", "")
	defer w.Body.Close()
	made := do(t.Context(), root, "POST", path, `{"metadata":{"name":"x"}}`)
	made.Body.Close()
	if made.StatusCode != 201 {
		t.Fatalf("create: %s", made.Status)
	}
	line, err := bufio.NewReader(w.Body).ReadString('\n')
	if err != nil || !strings.Contains(line, `"type":"ADDED"`) || !strings.Contains(line, `"name":"x"`) {
		t.Errorf("the watch said %q, %v", line, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w = do(ctx, root, "GET", path+"?watch=1&resourceVersion=1", "")
	cancel()
	for err = nil; err == nil; {
		_, err = w.Body.Read(make([]byte, 1<<16))
	}
}
