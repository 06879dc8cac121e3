package image

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Spec says what an image holds and how it starts. The zero value of each field means "as the base has it".
type Spec struct {
	// Name is the reference that the image is known by, such as "example.skiff.dev/shop-web:1". A name without a
	// tag gets ":latest", one without a registry "docker.io/library", as everywhere. Required.
	Name string

	// Base is the image to put one more layer on; nil starts from nothing. BaseFile opens one from a tar.
	Base v1.Image

	// Files go into the new layer. Where two set the same path the later one wins; folders are merged.
	Files []File

	// Architecture is a Go architecture name; empty is the machine's own, or the base's.
	Architecture string

	Entrypoint []string
	Cmd        []string
	Env        []string // "NAME=value"; replaces the base's variable of that name
	WorkDir    string
	User       string            // "uid", "uid:gid" or a name from the image's /etc/passwd
	Ports      []string          // "8080", "8080/tcp" or "53/udp"
	Labels     map[string]string // merged over the base's
}

// File is one thing to put into the image: the local file or folder Source; or, without one, Content, Link or an
// empty folder (Mode with fs.ModeDir).
type File struct {
	// Source is a local path. A folder is taken with everything in it; symlinks inside are kept as they are.
	// A symlink named as Source itself is followed.
	Source string

	// Dest is the absolute path in the image. For a Source that is a file, a final slash means "into that folder".
	Dest string

	// Mode replaces the permission bits (with setuid, setgid and sticky) of a single file. 0 keeps the source's,
	// and is 0644 for Content, 0755 for a folder.
	Mode fs.FileMode

	Content []byte
	Link    string // the symlink's target

	// Libraries brings along what a dynamically linked program needs to start: its loader and its shared
	// libraries, and theirs, at the paths where this machine has them. What a program opens while running (NSS
	// modules, plug-ins) can't be seen and is not brought.
	Libraries bool
}

var envName = regexp.MustCompile(`^[^=\x00]+=`)

// ParseFile reads the command line's form of a File, "SRC:DST". The last colon divides.
func ParseFile(s string) (File, error) {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || i == len(s)-1 {
		return File{}, fmt.Errorf("%q: want SRC:DST", s)
	}
	f := File{Source: s[:i], Dest: s[i+1:]}
	return f, f.validate()
}

func (f File) validate() error {
	if !strings.HasPrefix(f.Dest, "/") {
		return fmt.Errorf("destination %q is not an absolute path", f.Dest)
	}
	if strings.ContainsRune(f.Dest, 0) {
		return fmt.Errorf("destination %q holds a zero byte", f.Dest)
	}
	given := 0
	for _, is := range []bool{f.Source != "", f.Content != nil, f.Link != "", f.Source == "" && f.Mode.IsDir()} {
		if is {
			given++
		}
	}
	if given != 1 {
		return fmt.Errorf("%s: want exactly one of a source, content, a link, or a folder's mode", f.Dest)
	}
	if path.Clean(f.Dest) == "/" && (f.Content != nil || f.Link != "") {
		return fmt.Errorf("%s: only a folder can be put there", f.Dest)
	}
	return nil
}

func (s *Spec) validate() error {
	var errs []error
	if _, err := name.ParseReference(s.Name); err != nil {
		errs = append(errs, fmt.Errorf("name: %w", err))
	}
	for _, f := range s.Files {
		if err := f.validate(); err != nil {
			errs = append(errs, err)
		}
	}
	for _, e := range s.Env {
		if !envName.MatchString(e) {
			errs = append(errs, fmt.Errorf("environment %q: want NAME=value", e))
		}
	}
	if s.WorkDir != "" && !path.IsAbs(s.WorkDir) {
		errs = append(errs, fmt.Errorf("working folder %q is not an absolute path", s.WorkDir))
	}
	for _, p := range s.Ports {
		if _, err := parsePort(p); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
