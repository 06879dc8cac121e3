package node

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/node/lifecycle"
)

const (
	logEvery   = 10 * time.Second // while containers run
	imageEvery = 5 * time.Minute
	imageAge   = 2 * time.Minute // an image younger than this is not removed
)

// collectGarbage rotates logs and removes images when the disk fills up. Dead containers are the lifecycle's.
func (a *Agent) collectGarbage(ctx context.Context) error {
	since := map[string]time.Time{} // when an image was first seen unused
	var images time.Time
	for a.sleep(ctx, logEvery) {
		a.rotateLogs(ctx)
		if now := a.cfg.Clock.Now(); now.Sub(images) >= imageEvery {
			images = now
			if err := a.collectImages(ctx, since); err != nil && ctx.Err() == nil {
				a.cfg.Log.Warn("image garbage collection failed", "error", err)
			}
			a.removeDeadLinks()
		}
	}
	return ctx.Err()
}

// rotateLogs moves the log of each running container aside once it is large. It costs one stat for each container.
func (a *Agent) rotateLogs(ctx context.Context) {
	type log struct{ id, path string }
	var logs []log
	a.mu.Lock()
	for _, w := range a.workers {
		p, _ := w.desired()
		w.mu.Lock()
		for _, c := range w.seen.Containers {
			if c.State == lifecycle.Running {
				logs = append(logs, log{c.ID, a.logPath(p, c.Name, c.Attempt)})
			}
		}
		w.mu.Unlock()
	}
	a.mu.Unlock()
	for _, l := range logs {
		fi, err := os.Stat(l.path)
		if err != nil || fi.Size() < a.cfg.LogMaxSize {
			continue
		}
		if err := a.rotate(ctx, l.id, l.path); err != nil {
			a.cfg.Log.Warn("cannot rotate a container's log", "log", l.path, "error", err)
		}
	}
}

func (a *Agent) rotate(ctx context.Context, id, path string) error {
	old, err := filepath.Glob(path + ".*")
	if err != nil {
		return err
	}
	slices.Sort(old)
	for len(old) > a.cfg.LogMaxFiles-2 {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
		old = old[1:]
	}
	aside := path + "." + a.cfg.Clock.Now().Format("20060102-150405")
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	if _, err := a.runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		if back := os.Rename(aside, path); back != nil {
			return fmt.Errorf("%w; and %w", err, back)
		}
		return err
	}
	return nil
}

// collectImages removes unused images, those longest unused first, when the image file system is too full.
func (a *Agent) collectImages(ctx context.Context, since map[string]time.Time) error {
	info, err := a.runtime.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return err
	}
	if len(info.ImageFilesystems) == 0 {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(info.ImageFilesystems[0].GetFsId().GetMountpoint(), &fs); err != nil {
		return err
	}
	total, free := int64(fs.Blocks)*fs.Bsize, int64(fs.Bavail)*fs.Bsize
	full := total > 0 && (total-free)*100/total >= int64(a.cfg.ImageGCHigh)
	unused, err := a.unusedImages(ctx, since)
	if err != nil || !full {
		return err
	}
	need := (total - free) - total*int64(a.cfg.ImageGCLow)/100
	now := a.cfg.Clock.Now()
	for _, i := range unused {
		if need <= 0 {
			return nil
		}
		if i.Pinned || now.Sub(since[i.Id]) < imageAge {
			continue
		}
		if _, err := a.runtime.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: i.Id}}); err != nil {
			return err
		}
		need -= int64(i.Size)
	}
	if n, ok := a.nodes.Get("", a.cfg.Name); ok && need > 0 {
		a.events.Eventf(n, corev1.EventTypeWarning, "FreeDiskSpaceFailed", "Failed to garbage collect required amount of images. Attempted to free %d bytes more", need)
	}
	return nil
}

func (a *Agent) unusedImages(ctx context.Context, since map[string]time.Time) ([]*runtimeapi.Image, error) {
	imgs, err := a.runtime.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	cs, err := a.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, c := range cs.Containers {
		used[c.ImageRef], used[c.ImageId], used[c.Image.GetImage()] = true, true, true
	}
	now := a.cfg.Clock.Now()
	seen := map[string]bool{}
	var out []*runtimeapi.Image
	for _, i := range imgs.Images {
		seen[i.Id] = true
		if used[i.Id] || slices.ContainsFunc(append(slices.Clone(i.RepoDigests), i.RepoTags...), func(s string) bool { return used[s] }) {
			delete(since, i.Id)
			continue
		}
		if _, ok := since[i.Id]; !ok {
			since[i.Id] = now
		}
		out = append(out, i)
	}
	for id := range since {
		if !seen[id] {
			delete(since, id)
		}
	}
	slices.SortFunc(out, func(x, y *runtimeapi.Image) int { return cmp.Compare(since[x.Id].UnixNano(), since[y.Id].UnixNano()) })
	return out, nil
}

// removeDeadLinks removes links to logs of this node's pods that are gone.
func (a *Agent) removeDeadLinks() {
	if a.cfg.ContainerLogDir == "" {
		return
	}
	links, err := filepath.Glob(filepath.Join(a.cfg.ContainerLogDir, "*.log"))
	if err != nil {
		return
	}
	for _, l := range links {
		target, err := os.Readlink(l)
		if err != nil || !strings.HasPrefix(target, a.cfg.PodLogDir+"/") {
			continue
		}
		if _, err := os.Stat(l); os.IsNotExist(err) {
			_ = os.Remove(l) // tried again next time
		}
	}
}
