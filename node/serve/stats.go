package serve

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/skiff-sh/skiff/node/cri"
	"github.com/skiff-sh/skiff/node/status"
)

// Stats measures the node and its pods. Rates come from the difference to the measurement before.
type Stats struct {
	Runtime runtimeapi.RuntimeServiceClient
	Node    string
	Dir     string // where pods' data lies
	Started time.Time

	mu   sync.Mutex
	last map[string]sample
}

type sample struct {
	at time.Time
	ns uint64
}

// Summary is the node API's /stats/summary.
func (s *Stats) Summary(ctx context.Context) (*stats.Summary, error) {
	now := time.Now()
	out := &stats.Summary{Node: s.node(now), Pods: []stats.PodStats{}}
	pods, err := s.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	if err != nil {
		return nil, err
	}
	for _, p := range pods.Stats {
		l := p.Attributes.GetLabels()
		if l[cri.LabelPodUID] == "" {
			continue
		}
		ps := stats.PodStats{PodRef: stats.PodReference{Name: l[cri.LabelPodName], Namespace: l[cri.LabelPodNamespace], UID: l[cri.LabelPodUID]},
			StartTime: metav1.NewTime(now), Containers: []stats.ContainerStats{}}
		if lin := p.Linux; lin != nil {
			ps.CPU, ps.Memory, ps.Network = s.cpu("pod/"+l[cri.LabelPodUID], lin.Cpu), memory(lin.Memory), network(lin.Network)
			if n := lin.Process.GetProcessCount(); n != nil {
				ps.ProcessStats = &stats.ProcessStats{ProcessCount: &n.Value}
			}
			for _, c := range lin.Containers {
				ps.Containers = append(ps.Containers, s.container(c))
			}
		}
		out.Pods = append(out.Pods, ps)
	}
	sort.Slice(out.Pods, func(i, j int) bool { return out.Pods[i].PodRef.UID < out.Pods[j].PodRef.UID })
	return out, nil
}

func (s *Stats) container(c *runtimeapi.ContainerStats) stats.ContainerStats {
	cs := stats.ContainerStats{Name: c.Attributes.GetLabels()[cri.LabelContainer], StartTime: metav1.Now(), CPU: s.cpu(c.Attributes.GetId(), c.Cpu), Memory: memory(c.Memory)}
	if l := c.WritableLayer; l != nil {
		cs.Rootfs = &stats.FsStats{Time: at(l.Timestamp), UsedBytes: value(l.UsedBytes), InodesUsed: value(l.InodesUsed)}
	}
	return cs
}

func at(ns int64) metav1.Time { return metav1.NewTime(time.Unix(0, ns)) }

func value(v *runtimeapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}

func (s *Stats) cpu(key string, c *runtimeapi.CpuUsage) *stats.CPUStats {
	if c == nil {
		return nil
	}
	out := &stats.CPUStats{Time: at(c.Timestamp), UsageCoreNanoSeconds: value(c.UsageCoreNanoSeconds), UsageNanoCores: value(c.UsageNanoCores)}
	if out.UsageNanoCores == nil && out.UsageCoreNanoSeconds != nil {
		out.UsageNanoCores = s.rate(key, sample{time.Unix(0, c.Timestamp), *out.UsageCoreNanoSeconds})
	}
	return out
}

const maxSamples = 10_000

func (s *Stats) rate(key string, now sample) *uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || len(s.last) > maxSamples {
		s.last = map[string]sample{}
	}
	was, ok := s.last[key]
	if d := now.at.Sub(was.at); ok && d < time.Second {
		return ptr(uint64(0))
	}
	s.last[key] = now
	if !ok || now.ns < was.ns {
		return ptr(uint64(0))
	}
	return ptr(uint64(float64(now.ns-was.ns) / now.at.Sub(was.at).Seconds()))
}

func ptr[T any](v T) *T { return &v }

func memory(m *runtimeapi.MemoryUsage) *stats.MemoryStats {
	if m == nil {
		return nil
	}
	return &stats.MemoryStats{Time: at(m.Timestamp), WorkingSetBytes: value(m.WorkingSetBytes), AvailableBytes: value(m.AvailableBytes),
		UsageBytes: value(m.UsageBytes), RSSBytes: value(m.RssBytes), PageFaults: value(m.PageFaults), MajorPageFaults: value(m.MajorPageFaults)}
}

func network(n *runtimeapi.NetworkUsage) *stats.NetworkStats {
	if n == nil || n.DefaultInterface == nil {
		return nil
	}
	one := func(i *runtimeapi.NetworkInterfaceUsage) stats.InterfaceStats {
		return stats.InterfaceStats{Name: i.Name, RxBytes: value(i.RxBytes), RxErrors: value(i.RxErrors), TxBytes: value(i.TxBytes), TxErrors: value(i.TxErrors)}
	}
	out := &stats.NetworkStats{Time: at(n.Timestamp), InterfaceStats: one(n.DefaultInterface)}
	for _, i := range n.Interfaces {
		out.Interfaces = append(out.Interfaces, one(i))
	}
	return out
}

// node measures the whole machine.
func (s *Stats) node(now time.Time) stats.NodeStats {
	h := status.ReadHost(s.Dir)
	used := h.Memory - h.MemoryAvailable
	ns := cpuTime()
	t := metav1.NewTime(now)
	return stats.NodeStats{NodeName: s.Node, StartTime: metav1.NewTime(s.Started),
		CPU:    &stats.CPUStats{Time: t, UsageCoreNanoSeconds: &ns, UsageNanoCores: s.rate("node", sample{now, ns})},
		Memory: &stats.MemoryStats{Time: t, AvailableBytes: ptr(uint64(h.MemoryAvailable)), UsageBytes: ptr(uint64(used)), WorkingSetBytes: ptr(uint64(used)), RSSBytes: ptr(uint64(used))},
		Fs: &stats.FsStats{Time: t, AvailableBytes: ptr(uint64(h.DiskAvailable)), CapacityBytes: ptr(uint64(h.Disk)), UsedBytes: ptr(uint64(h.Disk - h.DiskAvailable)),
			Inodes: ptr(uint64(h.DiskInodes)), InodesFree: ptr(uint64(h.InodesFree)), InodesUsed: ptr(uint64(h.DiskInodes - h.InodesFree))},
		Rlimit: &stats.RlimitStats{Time: t, MaxPID: &h.PIDsMax, NumOfRunningProcesses: &h.PIDs}}
}

// cpuTime is the time in nanoseconds that all processors were busy since the machine started.
func cpuTime() uint64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var ticks uint64
	for i, f := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // the name, idle, waiting for input and output, guests (counted as user)
			continue
		}
		n, err := strconv.ParseUint(f, 10, 64)
		if err == nil {
			ticks += n
		}
	}
	const perTick = uint64(time.Second) / 100
	return ticks * perTick
}

func (s *server) summary(w http.ResponseWriter, r *http.Request) {
	sum, err := s.Stats.Summary(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	s.json(w, sum)
}

// resourceMetrics is what a metrics server scrapes.
func (s *server) resourceMetrics(w http.ResponseWriter, r *http.Request) {
	sum, err := s.Stats.Summary(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprint(w, Metrics(sum))
}

// Metrics renders a summary in the text format of Prometheus.
func Metrics(sum *stats.Summary) string {
	var b strings.Builder
	head := func(name, help, typ string) {
		fmt.Fprintf(&b, "# HELP %s [STABLE] %s\n# TYPE %s %s\n", name, help, name, typ)
	}
	cpu := func(name, labels string, c *stats.CPUStats) {
		if c != nil && c.UsageCoreNanoSeconds != nil {
			fmt.Fprintf(&b, "%s%s %g %d\n", name, labels, float64(*c.UsageCoreNanoSeconds)/1e9, c.Time.UnixMilli())
		}
	}
	mem := func(name, labels string, m *stats.MemoryStats) {
		if m != nil && m.WorkingSetBytes != nil {
			fmt.Fprintf(&b, "%s%s %d %d\n", name, labels, *m.WorkingSetBytes, m.Time.UnixMilli())
		}
	}
	eachContainer := func(f func(labels string, c *stats.ContainerStats)) {
		for i := range sum.Pods {
			p := &sum.Pods[i]
			for j := range p.Containers {
				f(fmt.Sprintf("{container=%q,namespace=%q,pod=%q}", p.Containers[j].Name, p.PodRef.Namespace, p.PodRef.Name), &p.Containers[j])
			}
		}
	}
	eachPod := func(f func(labels string, p *stats.PodStats)) {
		for i := range sum.Pods {
			f(fmt.Sprintf("{namespace=%q,pod=%q}", sum.Pods[i].PodRef.Namespace, sum.Pods[i].PodRef.Name), &sum.Pods[i])
		}
	}
	head("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", "counter")
	eachContainer(func(l string, c *stats.ContainerStats) { cpu("container_cpu_usage_seconds_total", l, c.CPU) })
	head("container_memory_working_set_bytes", "Current working set of the container in bytes", "gauge")
	eachContainer(func(l string, c *stats.ContainerStats) { mem("container_memory_working_set_bytes", l, c.Memory) })
	head("container_start_time_seconds", "Start time of the container since unix epoch in seconds", "gauge")
	eachContainer(func(l string, c *stats.ContainerStats) {
		fmt.Fprintf(&b, "container_start_time_seconds%s %d\n", l, c.StartTime.Unix())
	})
	head("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", "counter")
	cpu("node_cpu_usage_seconds_total", "", sum.Node.CPU)
	head("node_memory_working_set_bytes", "Current working set of the node in bytes", "gauge")
	mem("node_memory_working_set_bytes", "", sum.Node.Memory)
	head("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", "counter")
	eachPod(func(l string, p *stats.PodStats) { cpu("pod_cpu_usage_seconds_total", l, p.CPU) })
	head("pod_memory_working_set_bytes", "Current working set of the pod in bytes", "gauge")
	eachPod(func(l string, p *stats.PodStats) { mem("pod_memory_working_set_bytes", l, p.Memory) })
	head("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", "gauge")
	b.WriteString("resource_scrape_error 0\n")
	return b.String()
}
