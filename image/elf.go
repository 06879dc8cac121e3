package image

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Libraries gives the loader and the shared libraries that the ELF file needs to start, and those that they need,
// as absolute paths on this machine, sorted. It searches as ld.so does: the file's own run path, the folders of
// /etc/ld.so.conf, then the usual ones. A file that is not ELF, or is static, needs none.
func Libraries(file string) ([]string, error) {
	l := linker{dirs: configuredDirs("/etc/ld.so.conf", 0)}
	l.dirs = append(l.dirs, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
	if err := l.visit(file); err != nil {
		return nil, fmt.Errorf("shared libraries of %s: %w", file, err)
	}
	slices.Sort(l.found)
	return slices.Compact(l.found), nil
}

type linker struct {
	dirs  []string
	found []string
}

// visit adds what file needs, and then what that needs.
func (l *linker) visit(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		return err
	}
	defer f.Close()
	loader, err := interpreter(f)
	if err != nil {
		return err
	}
	if loader != "" {
		l.found = append(l.found, loader)
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	dirs := append(runPath(f, filepath.Dir(file)), l.dirs...)
	for _, soname := range needed {
		lib, err := find(soname, dirs, f)
		if err != nil {
			return err
		}
		if slices.Contains(l.found, lib) {
			continue
		}
		l.found = append(l.found, lib)
		if err := l.visit(lib); err != nil {
			return err
		}
	}
	return nil
}

// interpreter is the path in the PT_INTERP header; "" for a library or a static program.
func interpreter(f *elf.File) (string, error) {
	const maxPath = 4096
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		if p.Filesz > maxPath {
			return "", errors.New("the loader's path is too long")
		}
		raw := make([]byte, p.Filesz)
		if _, err := p.ReadAt(raw, 0); err != nil {
			return "", err
		}
		return strings.TrimRight(string(raw), "\x00"), nil
	}
	return "", nil
}

func runPath(f *elf.File, origin string) []string {
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		values, _ := f.DynString(tag)
		for _, v := range values {
			for _, dir := range filepath.SplitList(v) {
				dir = strings.NewReplacer("${ORIGIN}", origin, "$ORIGIN", origin).Replace(dir)
				if filepath.IsAbs(dir) {
					dirs = append(dirs, filepath.Clean(dir))
				}
			}
		}
	}
	return dirs
}

// find looks for a library of the same machine type as the file that asks.
func find(soname string, dirs []string, f *elf.File) (string, error) {
	if filepath.IsAbs(soname) {
		return soname, nil
	}
	for _, dir := range dirs {
		file := filepath.Join(dir, soname)
		lib, err := elf.Open(file)
		if err != nil {
			continue
		}
		same := lib.Class == f.Class && lib.Machine == f.Machine
		lib.Close()
		if same {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s is not in any of %s", soname, strings.Join(dirs, ":"))
}

// configuredDirs reads ld.so.conf and what it includes. A file that is not there has none: musl has no such file.
func configuredDirs(file string, depth int) []string {
	const maxIncludes = 8
	f, err := os.Open(file)
	if err != nil || depth > maxIncludes {
		return nil
	}
	defer f.Close()
	var dirs []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
		case fields[0] == "include":
			for _, pattern := range fields[1:] {
				if !filepath.IsAbs(pattern) {
					pattern = filepath.Join(filepath.Dir(file), pattern)
				}
				included, _ := filepath.Glob(pattern)
				for _, name := range included {
					dirs = append(dirs, configuredDirs(name, depth+1)...)
				}
			}
		default:
			dirs = append(dirs, fields...)
		}
	}
	return dirs
}
