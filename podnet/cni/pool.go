package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// pool hands out the addresses of a range, one after another and round again, so that an address rests as long as
// possible before somebody else gets it. A taken address is a file that names its owner; a file lock keeps concurrent
// plug-ins apart.
type pool struct {
	dir    string
	prefix netip.Prefix
}

// lastFile remembers the address that was given last.
const lastFile = "last"

func owner(containerID, ifName string) string { return containerID + " " + ifName }

func (p *pool) lock() (unlock func(), err error) {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(p.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// taken lists the addresses that are taken and their owners.
func (p *pool) taken() (map[netip.Addr]string, error) {
	entries, err := os.ReadDir(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[netip.Addr]string{}
	for _, e := range entries {
		addr, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(p.dir, e.Name()))
		if err != nil {
			return nil, err
		}
		out[addr] = string(b)
	}
	return out, nil
}

// take reserves an address for an owner; one that has one keeps it.
func (p *pool) take(containerID, ifName string) (netip.Addr, error) {
	unlock, err := p.lock()
	if err != nil {
		return netip.Addr{}, err
	}
	defer unlock()
	taken, err := p.taken()
	if err != nil {
		return netip.Addr{}, err
	}
	me := owner(containerID, ifName)
	for addr, who := range taken {
		if who == me && p.prefix.Contains(addr) {
			return addr, nil
		}
	}
	addr, ok := p.next(taken)
	if !ok {
		return netip.Addr{}, fmt.Errorf("all addresses of %s are taken (%d pods)", p.prefix, len(taken))
	}
	// The owner's file first: an address that is taken but not last is only skipped.
	if err := os.WriteFile(filepath.Join(p.dir, addr.String()), []byte(me), 0o644); err != nil {
		return netip.Addr{}, err
	}
	return addr, os.WriteFile(filepath.Join(p.dir, lastFile), []byte(addr.String()), 0o644)
}

// next is the first free address after the one given last. The network's own address, the gateway and the broadcast
// address are never given.
func (p *pool) next(taken map[netip.Addr]string) (netip.Addr, bool) {
	first := p.prefix.Addr().Next().Next()
	at := first
	if b, err := os.ReadFile(filepath.Join(p.dir, lastFile)); err == nil {
		if last, err := netip.ParseAddr(strings.TrimSpace(string(b))); err == nil && p.prefix.Contains(last) {
			at = last.Next()
		}
	}
	for range 1 << (p.prefix.Addr().BitLen() - p.prefix.Bits()) {
		if !p.prefix.Contains(at) || !p.prefix.Contains(at.Next()) {
			at = first
		}
		if _, ok := taken[at]; !ok {
			return at, true
		}
		at = at.Next()
	}
	return netip.Addr{}, false
}

// release frees an owner's address; one that has none is no error.
func (p *pool) release(containerID, ifName string) error {
	return p.remove(func(who string) bool { return who == owner(containerID, ifName) })
}

// keepOnly frees the addresses of all other owners.
func (p *pool) keepOnly(valid map[string]bool) error {
	return p.remove(func(who string) bool { return !valid[who] })
}

func (p *pool) remove(match func(who string) bool) error {
	unlock, err := p.lock()
	if err != nil {
		return err
	}
	defer unlock()
	taken, err := p.taken()
	if err != nil {
		return err
	}
	for addr, who := range taken {
		if match(who) {
			if err := os.Remove(filepath.Join(p.dir, addr.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// owned is the address of an owner.
func (p *pool) owned(containerID, ifName string) (netip.Addr, bool) {
	taken, err := p.taken()
	if err != nil {
		return netip.Addr{}, false
	}
	for addr, who := range taken {
		if who == owner(containerID, ifName) {
			return addr, true
		}
	}
	return netip.Addr{}, false
}
