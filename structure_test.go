package skiff_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/skiff-sh/skiff"

// direction says which folders may import which; a folder stands for all below it. What is not listed may import
// nothing of this module but api, image and internal. ctl may import the scheduler's core, which is pure, to explain its
// decisions without asking the scheduler's process. docs/ARCHITECTURE.md shows the same as a picture.
const direction = `
cmd/skiff: daemon ctl node/runtime
cmd/skiff-shim: podnet/cni
cmd/skiff-pause:
ctl: daemon client image node/runtime scheduler/core
daemon: server controllers scheduler node proxy podnet dns store store/etcd client reconcile
server: store
controllers: reconcile client
scheduler: reconcile client
node: reconcile client image
proxy: reconcile client
podnet: reconcile client
dns: reconcile client
reconcile: client
client:
store:
api:
image:
internal:
examples:
test: client daemon
`

// onlyDaemon may be imported by daemon alone, and by tests.
var onlyDaemon = []string{"store/etcd"}

func TestImportDirection(t *testing.T) {
	allowed := map[string][]string{}
	for line := range strings.Lines(strings.TrimSpace(direction)) {
		from, to, _ := strings.Cut(strings.TrimSpace(line), ":")
		allowed[from] = strings.Fields(to)
	}
	files := sources(t)
	if len(files) < 20 {
		t.Fatalf("found %d packages only: the test looks in the wrong place", len(files))
	}
	for from, parsed := range files {
		house := home(from, allowed)
		if house == "" {
			t.Errorf("%s stands in no folder that the list of directions knows: add it", from)
			continue
		}
		for imported := range imports(parsed) {
			to, ours := strings.CutPrefix(imported, module+"/")
			if !ours || within(to, house) || within(to, "api") || within(to, "internal") || within(to, "image") {
				continue
			}
			if !may(allowed[house], to) {
				t.Errorf("%s imports %s: %s may import only [%s]", from, to, house, strings.Join(allowed[house], " "))
			}
			for _, secret := range onlyDaemon {
				if within(to, secret) && house != "daemon" {
					t.Errorf("%s imports %s, which only daemon may", from, to)
				}
			}
		}
	}
}

func home(path string, allowed map[string][]string) string {
	best := ""
	for house := range allowed {
		if within(path, house) && len(house) > len(best) {
			best = house
		}
	}
	return best
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func may(allowed []string, to string) bool {
	for _, a := range allowed {
		if within(to, a) {
			return true
		}
	}
	return false
}

// Every package opens with what it is for: godoc is where a reader starts.
func TestPackageDocs(t *testing.T) {
	for dir, files := range sources(t) {
		documented := false
		for _, f := range files {
			documented = documented || f.Doc != nil && len(f.Doc.Text()) > 40
		}
		if !documented {
			t.Errorf("package %s has no package comment that says what it is for and what it keeps true", dir)
		}
	}
}

// sources parses the heads of all files but tests, by folder. Folders with a go.mod are other modules.
func sources(t *testing.T) map[string][]*ast.File {
	t.Helper()
	out := map[string][]*ast.File{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path == "." {
				return nil
			}
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if err == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		out[filepath.Dir(path)] = append(out[filepath.Dir(path)], f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func imports(files []*ast.File) map[string]bool {
	out := map[string]bool{}
	for _, f := range files {
		for _, i := range f.Imports {
			out[strings.Trim(i.Path.Value, `"`)] = true
		}
	}
	return out
}
