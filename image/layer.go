package image

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// entry is one header of the layer. Its path is clean, absolute, and leads through no symlink of the layer.
type entry struct {
	mode    fs.FileMode
	source  string // the local file that holds the content, or
	content []byte // the content itself
	link    string
}

// tree is the layer's entries by path.
type tree map[string]entry

// maxLinks bounds how many symlinks one path may lead through, as the kernel does.
const maxLinks = 40

// collect reads the files' names and modes. With parents, folders that no file names are made; without, they are
// left to the base image, whose modes they may have.
func collect(files []File, parents bool) (tree, error) {
	t := tree{}
	for _, f := range files {
		if err := t.add(f); err != nil {
			return nil, err
		}
	}
	if parents {
		for p := range t {
			for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
				if _, ok := t[dir]; !ok {
					t[dir] = entry{mode: fs.ModeDir | folderMode(dir)}
				}
			}
		}
	}
	return t, nil
}

func folderMode(dir string) fs.FileMode {
	if dir == "/tmp" || dir == "/var/tmp" {
		return fs.ModeSticky | 0o777
	}
	return 0o755
}

func (t tree) add(f File) error {
	switch {
	case f.Link != "":
		return t.put(f.Dest, entry{mode: fs.ModeSymlink | 0o777, link: f.Link})
	case f.Content != nil:
		return t.put(f.Dest, entry{mode: orMode(f.Mode, 0o644), content: f.Content})
	case f.Source == "":
		return t.put(f.Dest, entry{mode: fs.ModeDir | orMode(f.Mode&^fs.ModeDir, 0o755)})
	}
	info, err := os.Stat(f.Source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return t.addFolder(f)
	}
	dest := f.Dest
	if strings.HasSuffix(dest, "/") {
		dest = path.Join(dest, filepath.Base(f.Source))
	}
	return t.addFile(f.Source, dest, orMode(f.Mode, info.Mode()), f.Libraries)
}

func orMode(mode, otherwise fs.FileMode) fs.FileMode {
	if mode == 0 {
		return otherwise
	}
	return mode
}

func (t tree) addFolder(f File) error {
	// EvalSymlinks, because WalkDir does not follow a root that is a symlink.
	root, err := filepath.EvalSymlinks(f.Source)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		dest := path.Join(f.Dest, filepath.ToSlash(rel))
		switch {
		case d.IsDir():
			return t.put(dest, entry{mode: info.Mode()})
		case d.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return t.put(dest, entry{mode: info.Mode(), link: link})
		default:
			return t.addFile(file, dest, info.Mode(), f.Libraries)
		}
	})
}

func (t tree) addFile(file, dest string, mode fs.FileMode, withLibraries bool) error {
	if !mode.IsRegular() {
		return fmt.Errorf("%s is neither a file, a folder nor a symlink", file)
	}
	if err := t.put(dest, entry{mode: mode, source: file}); err != nil || !withLibraries {
		return err
	}
	needed, err := Libraries(file)
	if err != nil {
		return err
	}
	for _, lib := range needed {
		if err := t.put(lib, entry{mode: 0o755, source: lib}); err != nil {
			return err
		}
	}
	return nil
}

// put sets e at dest, as seen through the symlinks already there, so that /lib/x lands in /usr/lib where /lib is a link.
func (t tree) put(dest string, e entry) error {
	dest = path.Clean(dest)
	if dest == "/" {
		return nil // the root's own mode is the runtime's
	}
	dir, err := t.resolve(path.Dir(dest))
	if err != nil {
		return err
	}
	p := path.Join(dir, path.Base(dest))
	if old, ok := t[p]; ok && e.mode.IsDir() && old.mode&fs.ModeSymlink != 0 {
		// A folder over a link to a folder merges with what the link names.
		if p, err = t.resolve(p); err != nil {
			return err
		}
	}
	if old, ok := t[p]; ok && old.mode.IsDir() && !e.mode.IsDir() {
		return fmt.Errorf("%s: a file can't replace a folder", dest)
	}
	t[p] = e
	return nil
}

// resolve gives dir with the layer's own symlinks followed.
func (t tree) resolve(dir string) (string, error) {
	done, rest := "/", strings.Split(strings.Trim(dir, "/"), "/")
	for links := 0; len(rest) > 0; {
		done, rest = path.Join(done, rest[0]), rest[1:]
		e, ok := t[done]
		switch {
		case !ok || e.mode.IsDir():
		case e.mode&fs.ModeSymlink == 0:
			return "", fmt.Errorf("%s is a file, not a folder", done)
		default:
			if links++; links > maxLinks {
				return "", fmt.Errorf("%s: too many symlinks", dir)
			}
			target := e.link
			if !path.IsAbs(target) {
				target = path.Join(path.Dir(done), target)
			}
			done, rest = "/", append(strings.Split(strings.Trim(path.Clean(target), "/"), "/"), rest...)
		}
	}
	return done, nil
}

// open streams the layer as a tar.
func (t tree) open() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(t.write(w)) }()
	return r, nil
}

func (t tree) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	paths := make([]string, 0, len(t))
	for p := range t {
		paths = append(paths, p)
	}
	slices.Sort(paths) // a folder sorts before what is in it
	for _, p := range paths {
		if err := t[p].write(tw, strings.TrimPrefix(p, "/")); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return tw.Close()
}

func (e entry) write(tw *tar.Writer, name string) error {
	header := &tar.Header{Name: name, Mode: tarMode(e.mode), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	switch {
	case e.mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
		return tw.WriteHeader(header)
	case e.mode&fs.ModeSymlink != 0:
		header.Typeflag, header.Linkname = tar.TypeSymlink, e.link
		return tw.WriteHeader(header)
	case e.source == "":
		header.Typeflag, header.Size = tar.TypeReg, int64(len(e.content))
		if err := tw.WriteHeader(header); err != nil {
			return err
		}
		_, err := tw.Write(e.content)
		return err
	}
	f, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// tarMode is the Unix form of a Go mode's permission, setuid, setgid and sticky bits.
func tarMode(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	if mode&fs.ModeSetuid != 0 {
		bits |= 0o4000
	}
	if mode&fs.ModeSetgid != 0 {
		bits |= 0o2000
	}
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return bits
}
