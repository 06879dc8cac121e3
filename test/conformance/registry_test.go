package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-sh/skiff/image"
)

func TestRegistryServesPackedImages(t *testing.T) {
	const name = "registry.k8s.io/e2e-test-images/volume/app:1.2-3"
	tar := filepath.Join(t.TempDir(), "app.tar")
	if err := image.PackFile(image.Spec{Name: name, Files: []image.File{{Content: []byte("x"), Dest: "/x"}}}, tar); err != nil {
		t.Fatal(err)
	}
	lib := newLibrary()
	if err := lib.add(packed{name, tar}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(lib)
	defer server.Close()
	get := func(path string) (*http.Response, []byte) {
		t.Helper()
		response, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		raw, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, raw
	}
	digest := func(raw []byte) string { sum := sha256.Sum256(raw); return "sha256:" + hex.EncodeToString(sum[:]) }

	const repo = "/v2/e2e-test-images/volume/app"
	// containerd names the registry that it means in the query.
	byTag, raw := get(repo + "/manifests/1.2-3?ns=registry.k8s.io")
	if byTag.StatusCode != 200 || byTag.Header.Get("Docker-Content-Digest") != digest(raw) {
		t.Fatalf("by tag: %s, digest %s of %s", byTag.Status, byTag.Header.Get("Docker-Content-Digest"), raw)
	}
	if byDigest, again := get(repo + "/manifests/" + digest(raw)); byDigest.StatusCode != 200 || string(again) != string(raw) {
		t.Errorf("by digest: %s", byDigest.Status)
	}
	var manifest struct {
		MediaType string
		Config    struct{ Digest string }
		Layers    []struct{ Digest string }
	}
	if err := json.Unmarshal(raw, &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.MediaType != byTag.Header.Get("Content-Type") || len(manifest.Layers) != 1 {
		t.Errorf("manifest %s as %s", raw, byTag.Header.Get("Content-Type"))
	}
	for _, want := range []string{manifest.Config.Digest, manifest.Layers[0].Digest} {
		if response, blob := get(repo + "/blobs/" + want); response.StatusCode != 200 || digest(blob) != want {
			t.Errorf("blob %s: %s, digest %s", want, response.Status, digest(blob))
		}
	}
	for path, want := range map[string]int{
		"/v2/": 200, repo + "/manifests/2": 404, repo + "/blobs/sha256:00": 404, "/v2/other/manifests/1.2-3": 404, "/else": 404, repo + "/tags/list": 404,
	} {
		if response, _ := get(path); response.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, response.Status, want)
		}
	}
	response, err := http.Post(server.URL+repo+"/blobs/uploads/", "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("an upload: %s", response.Status)
	}
}

func TestMirrorFilesComeAndGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hosts")
	theirs := filepath.Join(dir, "docker.io", "other")
	if err := os.MkdirAll(filepath.Dir(theirs), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(theirs, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds what a killed run left
		written, err := mirror(dir, "127.0.0.1:5057")
		if err != nil || len(written) != len(mirrored) {
			t.Fatalf("wrote %q, %v", written, err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "registry.k8s.io", "hosts.toml"))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, string(raw), `server = "https://registry.k8s.io"`, `[host."http://127.0.0.1:5057"]`, `"resolve"`)
	written, err := mirror(dir, "127.0.0.1:5057")
	if err != nil {
		t.Fatal(err)
	}
	if err := unmirror(written); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error("someone else's file went too")
	}
	if _, err := os.Stat(filepath.Join(dir, "registry.k8s.io")); err == nil {
		t.Error("an empty folder was left")
	}
}

func TestMirrorLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "quay.io", "hosts.toml")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("server = \"https://mine\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := mirror(dir, "127.0.0.1:5057"); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v", err)
	}
	if raw, _ := os.ReadFile(file); !strings.Contains(string(raw), "mine") {
		t.Error("overwrote a mirror that someone set up")
	}
}
