package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Override takes every field of c that is set.
func (c *Config) Override(o *Config) {
	take(&c.NodeName, o.NodeName)
	take(&c.NodeIP, o.NodeIP)
	take(&c.APIPort, o.APIPort)
	take(&c.NodePort, o.NodePort)
	take(&c.PodCIDR, o.PodCIDR)
	take(&c.ServiceCIDR, o.ServiceCIDR)
	take(&c.NodePorts, o.NodePorts)
	take(&c.ClusterDomain, o.ClusterDomain)
	take(&c.MaxPods, o.MaxPods)
	take(&c.EtcdPorts, o.EtcdPorts)
	take(&c.Nodes, o.Nodes)
	if o.EtcdServers != nil {
		c.EtcdServers = o.EtcdServers
	}
}

func take[T comparable](field *T, value T) {
	var zero T
	if value != zero {
		*field = value
	}
}

// claim makes this process the instance's only one: the process id file stays locked until release, or the process's
// end however it comes.
func (c *Config) claim() (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(c.PIDFile()), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(c.PIDFile(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	// A lock of the open file, which can be asked about without being taken (flock cannot).
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s runs already (%s is locked): \"skiff down\" stops it", c.Name, c.PIDFile())
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		f.Close()
		return nil, err
	}
	return func() { os.Remove(c.PIDFile()); f.Close() }, nil
}

// Running returns the process id of the instance, if it runs.
func (c *Config) Running() (pid int, ok bool) {
	f, err := os.Open(c.PIDFile())
	if err != nil {
		return 0, false
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK {
		return 0, false // nobody holds it: its process is gone
	}
	var buf [16]byte
	n, _ := f.Read(buf[:])
	pid, err = strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	return pid, err == nil
}
