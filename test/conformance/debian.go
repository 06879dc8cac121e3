package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packages are the Debian packages, besides those that they need, that the images' tools come from.
var packages = []string{
	"base-files", "bash", "bind9-dnsutils", "bind9-host", "conntrack", "coreutils", "curl", "iperf",
	"iproute2", "iptables", "libc-bin", "netcat-openbsd", "nginx-light", "perl", "stress", "util-linux",
}

// unneeded are folders of packages that no program reads.
var unneeded = []string{"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/bash-completion"}

// debianTree downloads the packages, with all that they need, as if to an empty machine, and unpacks them into a
// folder. Nothing is installed on this machine and no package's scripts are run.
func debianTree(ctx context.Context, out string) (root string, err error) {
	root = filepath.Join(out, "debian")
	return root, fresh(root, strings.Join(packages, " "), func() error {
		say("unpacking Debian packages: %s", strings.Join(packages, " "))
		if err := os.RemoveAll(root); err != nil {
			return err
		}
		debs, err := downloadDebs(ctx, out)
		if err != nil {
			return err
		}
		if err := mergedUsr(root); err != nil {
			return err
		}
		for _, deb := range debs {
			unpack := exec.CommandContext(ctx, "sh", "-c",
				`dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink --no-same-owner -p`, "sh", deb, root)
			if err := command(unpack); err != nil {
				return err
			}
		}
		for _, dir := range unneeded {
			if err := os.RemoveAll(filepath.Join(root, dir)); err != nil {
				return err
			}
		}
		return nil
	})
}

func downloadDebs(ctx context.Context, out string) ([]string, error) {
	archives := filepath.Join(out, "debs")
	if err := os.RemoveAll(archives); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(archives, "partial"), 0o755); err != nil {
		return nil, err
	}
	nothingInstalled := filepath.Join(out, "debs", "status")
	if err := os.WriteFile(nothingInstalled, nil, 0o644); err != nil {
		return nil, err
	}
	args := append([]string{
		"-o", "Dir::State::status=" + nothingInstalled, "-o", "Dir::Cache::archives=" + archives, "-o", "APT::Sandbox::User=root",
		"-y", "--no-install-recommends", "--download-only", "install",
	}, packages...)
	err := command(exec.CommandContext(ctx, "apt-get", args...))
	if err != nil { // most likely the lists of packages are missing, or older than the archive
		if updateErr := command(exec.CommandContext(ctx, "apt-get", "update")); updateErr != nil {
			return nil, errors.Join(err, updateErr)
		}
		err = command(exec.CommandContext(ctx, "apt-get", args...))
	}
	if err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(archives, "*.deb"))
}

// mergedUsr makes the links from /bin to /usr/bin and so on that a Debian machine has from its installer.
func mergedUsr(root string) error {
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", name), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+name, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return nil
}
