package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// busyboxSource is the archive of BusyBox's source for the release that the suite's image holds. Debian 12's own program is
// older, and both it and later ones of Debian drop variables from the environment whose names are no identifiers, which
// specs look for; so it is built as its authors ship it.
const (
	busyboxSource = "http://deb.debian.org/debian/pool/main/b/busybox/busybox_1.37.0.orig.tar.bz2"
	busyboxSHA256 = "3311dff32e746499f4df0d5df04d7eb396382d7e108bb9250e7b519b837043a4"
)

// buildBusybox leaves a static out/bin/busybox in the configuration of the public image: the defaults.
func buildBusybox(ctx context.Context, out string) error {
	target := filepath.Join(out, "bin", "busybox")
	return fresh(target, busyboxSource+" "+busyboxSHA256, func() error {
		say("building busybox")
		dir := filepath.Join(out, "busybox")
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		archive := filepath.Join(dir, "source.tar.bz2")
		if err := download(ctx, busyboxSource, busyboxSHA256, archive); err != nil {
			return err
		}
		// Two of the defaults do not compile on every machine: tc needs a part of the kernel's interface that is gone, and
		// the hashes an assembler's newer instructions.
		script := `tar -xjf "$1" -C "$2" --strip-components=1 && cd "$2" && make -s defconfig >/dev/null &&
sed -i -e 's/^\(CONFIG_TC\|CONFIG_SHA1_HWACCEL\|CONFIG_SHA256_HWACCEL\)=y/# \1 is not set/' \
	-e 's/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/' .config && make -s -j2 busybox`
		if err := command(exec.CommandContext(ctx, "sh", "-c", script, "sh", archive, dir)); err != nil {
			return fmt.Errorf("busybox: %w; it needs gcc, make, bzip2 and libc6-dev", err)
		}
		return os.Rename(filepath.Join(dir, "busybox"), target)
	})
}

// busyboxApplets asks busybox for its commands.
func busyboxApplets(ctx context.Context, bin string) ([]string, error) {
	list, err := exec.CommandContext(ctx, filepath.Join(bin, "busybox"), "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox: %w", err)
	}
	return slices.DeleteFunc(strings.Fields(string(list)), func(name string) bool { return name == "busybox" }), nil
}

// download fetches a file that has this SHA-256 sum, or none.
func download(ctx context.Context, url, sum, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	const largest = 64 << 20
	content, err := io.ReadAll(io.LimitReader(resp.Body, largest))
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	if got := sha256.Sum256(content); hex.EncodeToString(got[:]) != sum {
		return fmt.Errorf("%s: its SHA-256 sum is %x, not %s", url, got, sum)
	}
	return os.WriteFile(file, content, 0o644)
}
