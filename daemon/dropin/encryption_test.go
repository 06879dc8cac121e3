package dropin

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/storage/value"
	kms "k8s.io/kms/pkg/service"
)

const encryptionHeader = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func seal(t *testing.T, e *encryption, key string) []byte {
	t.Helper()
	f := e.transformer(key)
	if f == nil {
		return []byte("plain")
	}
	sealed, err := f.TransformToStorage(t.Context(), []byte("plain"), value.DefaultContext(key))
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return sealed
}

// Every key finds the resource whose providers it is meant for.
func TestEncryptionOfKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "e.yaml")
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	text := encryptionHeader
	for _, r := range []string{"secrets", "events", "'*.apps'", "boats.example.com", "services", "apiservices.apiregistration.k8s.io"} {
		name := strings.Trim(strings.ReplaceAll(r, "*", "all"), "'")
		text += fmt.Sprintf("- resources: [%s]\n  providers:\n  - aesgcm: {keys: [{name: for-%s, secret: %s}]}\n", r, name, key)
	}
	put(t, file, text)
	e, err := newEncryption(t.Context(), file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{
		"/registry/secrets/default/x":                                "k8s:enc:aesgcm:v1:for-secrets:",
		"/registry/events/default/x":                                 "k8s:enc:aesgcm:v1:for-events:",
		"/registry/deployments/default/x":                            "k8s:enc:aesgcm:v1:for-all.apps:",
		"/registry/services/specs/default/x":                         "k8s:enc:aesgcm:v1:for-services:",
		"/registry/services/endpoints/default/x":                     "plain",
		"/registry/example.com/boats/default/x":                      "k8s:enc:aesgcm:v1:for-boats.example.com:",
		"/registry/example.com/oars/x":                               "plain",
		"/registry/apiregistration.k8s.io/apiservices/v1.a":          "k8s:enc:aesgcm:v1:for-apiservices.apiregistration.k8s.io:",
		"/registry/apiextensions.k8s.io/customresourcedefinitions/a": "plain",
		"/registry/masterleases/192.0.2.1":                           "plain",
	} {
		if got := seal(t, e, at); !strings.HasPrefix(string(got), want) {
			t.Errorf("%s is kept as %q, want %q", at, got, want)
		}
	}
}

// A changed file is taken up, what was written before can be read and is stale, and a wrong file changes nothing.
func TestEncryptionFollowsItsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "e.yaml")
	provider := func(kind string, fill byte) string {
		return fmt.Sprintf("  - %s: {keys: [{name: k, secret: %s}]}\n", kind, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, 32)))
	}
	secrets := encryptionHeader + "- resources: [secrets]\n  providers:\n"
	put(t, file, secrets+provider("aescbc", 1))
	log := make(logged, 10)
	e, err := newEncryption(t.Context(), file, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	e.every = time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.follow(ctx) }()
	const key = "/registry/secrets/default/x"
	before := seal(t, e, key)

	put(t, file, secrets+provider("secretbox", 2)+provider("aescbc", 1))
	log.await(t, "has been read again")
	if after := seal(t, e, key); !bytes.HasPrefix(after, []byte("k8s:enc:secretbox:v1:k:")) {
		t.Errorf("after the rotation a value is kept as %q", after)
	}
	plain, stale, err := e.transformer(key).TransformFromStorage(t.Context(), before, value.DefaultContext(key))
	if err != nil || !stale || string(plain) != "plain" {
		t.Errorf("an old value is read as %q, stale %v, %v", plain, stale, err)
	}

	put(t, file, secrets+"  - nonsense: {}\n")
	log.await(t, "cannot be used")
	if after := seal(t, e, key); !bytes.HasPrefix(after, []byte("k8s:enc:secretbox:v1:k:")) {
		t.Errorf("after a wrong file a value is kept as %q", after)
	}
	stop()
	<-ended
}

// logged are the lines of a log.
type logged chan string

func (l logged) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

func (l logged) await(t *testing.T, text string) {
	t.Helper()
	for {
		select {
		case line := <-l:
			if strings.Contains(line, text) {
				return
			}
		case <-t.Context().Done():
			t.Fatalf("nothing was logged about %q", text)
		}
	}
}

// plugin is a key management service that turns every byte around.
type plugin struct{ sick atomic.Bool }

func turned(b []byte) []byte {
	out := bytes.Clone(b)
	for i := range out {
		out[i] ^= 0xff
	}
	return out
}

func (p *plugin) Encrypt(_ context.Context, _ string, data []byte) (*kms.EncryptResponse, error) {
	return &kms.EncryptResponse{Ciphertext: turned(data), KeyID: "one"}, nil
}

func (p *plugin) Decrypt(_ context.Context, _ string, r *kms.DecryptRequest) ([]byte, error) {
	return turned(r.Ciphertext), nil
}

func (p *plugin) Status(context.Context) (*kms.StatusResponse, error) {
	if p.sick.Load() {
		return &kms.StatusResponse{Version: "v2", Healthz: "no key", KeyID: "one"}, nil
	}
	return &kms.StatusResponse{Version: "v2", Healthz: "ok", KeyID: "one"}, nil
}

func TestKeyManagementPlugin(t *testing.T) {
	dir, err := os.MkdirTemp("", "kms") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	p := &plugin{}
	service := kms.NewGRPCService(socket, 5*time.Second, p)
	go func() { _ = service.ListenAndServe() }()
	t.Cleanup(service.Close)
	file := filepath.Join(dir, "e.yaml")
	put(t, file, encryptionHeader+"- resources: [secrets]\n  providers:\n  - kms: {apiVersion: v2, name: turn, endpoint: 'unix://"+socket+"', timeout: 5s}\n")
	e, err := newEncryption(t.Context(), file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for e.healthy(t.Context()) != nil { // until the plug-in listens
		select {
		case <-t.Context().Done():
			t.Fatal(e.healthy(context.Background()))
		case <-time.After(5 * time.Millisecond):
		}
	}
	const key = "/registry/secrets/default/x"
	sealed := seal(t, e, key)
	if !bytes.HasPrefix(sealed, []byte("k8s:enc:kms:v2:turn:")) {
		t.Errorf("a value is kept as %q", sealed)
	}
	if plain, stale, err := e.transformer(key).TransformFromStorage(t.Context(), sealed, value.DefaultContext(key)); err != nil || stale || string(plain) != "plain" {
		t.Errorf("it is read as %q, stale %v, %v", plain, stale, err)
	}
	p.sick.Store(true) // and the first one has just been asked
	if e, err = newEncryption(t.Context(), file, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if err := e.healthy(t.Context()); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("of a sick plug-in the health check says %v", err)
	}
}
