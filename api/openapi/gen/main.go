// Command gen makes the OpenAPI documents of the built-in kinds: kube-openapi's generator reads the API's Go sources
// into definitions, which the table of kinds adds paths to.
//
// Invariant: it writes the output file and nothing else in the source tree. The definitions, 5 MB of generated Go, are
// never in the tree: gen runs itself again with an overlay that puts them in place of definitions.go.
package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

func main() {
	out := flag.String("o", "documents.zip", "the `file` to write")
	flag.Parse()
	run := build
	if GetOpenAPIDefinitions == nil {
		run = generate
	}
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// sources are the packages whose types the documents describe.
var sources = []string{
	"k8s.io/api/admissionregistration/v1",
	"k8s.io/api/apps/v1",
	"k8s.io/api/authentication/v1",
	"k8s.io/api/authorization/v1",
	"k8s.io/api/autoscaling/v1",
	"k8s.io/api/autoscaling/v2",
	"k8s.io/api/batch/v1",
	"k8s.io/api/certificates/v1",
	"k8s.io/api/coordination/v1",
	"k8s.io/api/core/v1",
	"k8s.io/api/discovery/v1",
	"k8s.io/api/events/v1",
	"k8s.io/api/flowcontrol/v1",
	"k8s.io/api/networking/v1",
	"k8s.io/api/node/v1",
	"k8s.io/api/policy/v1",
	"k8s.io/api/rbac/v1",
	"k8s.io/api/resource/v1",
	"k8s.io/api/scheduling/v1",
	"k8s.io/api/storage/v1",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
	"k8s.io/apimachinery/pkg/api/resource",
	"k8s.io/apimachinery/pkg/apis/meta/v1",
	"k8s.io/apimachinery/pkg/runtime",
	"k8s.io/apimachinery/pkg/util/intstr",
	"k8s.io/apimachinery/pkg/version",
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1",
}

// generator is the version of openapi-gen that Kubernetes v1.36 is built with: later ones leave the defaults of lists out.
const generator = "k8s.io/kube-openapi/cmd/openapi-gen@v0.0.0-20260317180543-43fb72c5454a"

// generate makes the definitions and runs gen again with them.
func generate(out string) error {
	_, err := os.Stat("gen/definitions.go")
	if err != nil {
		return fmt.Errorf("run it through go generate: %w", err)
	}
	tmp, err := os.MkdirTemp("", "openapi")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	header := filepath.Join(tmp, "header.txt")
	if err := os.WriteFile(header, nil, 0o600); err != nil {
		return err
	}
	args := append([]string{"run", generator, "--go-header-file", header, "--output-dir", tmp,
		"--output-pkg", "generated", "--output-file", "generated.go", "--report-filename", os.DevNull}, sources...)
	if err := command(args...); err != nil {
		return err
	}
	src, err := os.ReadFile(filepath.Join(tmp, "generated.go"))
	if err != nil {
		return err
	}
	// The function becomes the value of the variable that definitions.go declares.
	src = bytes.Replace(src, []byte("package generated"), []byte("package main"), 1)
	src = bytes.Replace(src, []byte("func GetOpenAPIDefinitions("), []byte("var GetOpenAPIDefinitions common.GetOpenAPIDefinitions = func("), 1)
	generated := filepath.Join(tmp, "main.go")
	if err := os.WriteFile(generated, src, 0o600); err != nil {
		return err
	}
	abs, err := filepath.Abs("gen/definitions.go")
	if err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{abs: generated}})
	if err != nil {
		return err
	}
	file := filepath.Join(tmp, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return err
	}
	return command("run", "-overlay", file, "./gen", "-o", out)
}

func command(args ...string) error {
	c := exec.Command("go", args...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("go %s: %w", args[0], err)
	}
	return nil
}

// build makes the documents and packs them, always the same bytes for the same sources.
func build(out string) error {
	docs, err := makeDocuments()
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	w.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.BestCompression)
	})
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
		if err != nil {
			return err
		}
		if _, err := f.Write(docs[name]); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(out, buf.Bytes(), 0o644)
}
