package status

import (
	"cmp"
	"runtime"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Input is what a node's status depends on.
type Input struct {
	Host         Host
	Name, IP     string
	Port         int32
	MaxPods      int
	Version      string
	RuntimeName  string // "containerd"
	RuntimeVer   string
	Runtime      *runtimeapi.StatusResponse // nil: not reached
	RuntimeErr   error
	Images       []*runtimeapi.Image
	Old          *corev1.NodeStatus
	Now          time.Time
	VolumesInUse []corev1.UniqueVolumeName
}

const (
	hardMemory  = 100 << 20 // bytes that must be available before pods are evicted
	hardDisk    = 10        // percent of the disk that must be available
	shownImages = 50
	shownNames  = 5
)

// Capacity is what the machine has for pods.
func Capacity(h Host, maxPods int) corev1.ResourceList {
	l := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(h.CPUs), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(h.Memory, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(int64(maxPods), resource.DecimalSI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(h.Disk, resource.BinarySI),
	}
	for name, n := range h.Hugepages {
		l[corev1.ResourceName(name)] = *resource.NewQuantity(n, resource.BinarySI)
	}
	return l
}

// Allocatable is the capacity without what is kept free.
func Allocatable(h Host, maxPods int) corev1.ResourceList {
	l := Capacity(h, maxPods)
	mem := h.Memory - hardMemory
	for _, n := range h.Hugepages {
		mem -= n
	}
	l[corev1.ResourceMemory] = *resource.NewQuantity(max(mem, 0), resource.BinarySI)
	l[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(h.Disk*(100-hardDisk)/100, resource.DecimalSI)
	return l
}

// Node is the node's status, with the conditions that others set kept.
func Node(in Input) corev1.NodeStatus {
	st := *in.Old.DeepCopy()
	st.Capacity, st.Allocatable = Capacity(in.Host, in.MaxPods), Allocatable(in.Host, in.MaxPods)
	for name, n := range in.Old.Capacity { // extended resources are others' to set, and all for pods
		if strings.Contains(string(name), "/") {
			st.Capacity[name], st.Allocatable[name] = n, n
		}
	}
	st.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: in.IP}, {Type: corev1.NodeHostName, Address: in.Name}}
	st.DaemonEndpoints.KubeletEndpoint.Port = in.Port
	st.NodeInfo = corev1.NodeSystemInfo{MachineID: in.Host.MachineID, SystemUUID: in.Host.SystemUUID, BootID: in.Host.BootID,
		KernelVersion: in.Host.Kernel, OSImage: in.Host.OSImage, ContainerRuntimeVersion: in.RuntimeName + "://" + strings.TrimPrefix(in.RuntimeVer, "v"),
		KubeletVersion: in.Version, OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH}
	st.Images = images(in.Images)
	st.RuntimeHandlers = handlers(in.Runtime)
	st.VolumesInUse = in.VolumesInUse
	if f := in.Runtime.GetFeatures(); f != nil {
		st.Features = &corev1.NodeFeatures{SupplementalGroupsPolicy: &f.SupplementalGroupsPolicy}
	}
	set := func(t corev1.NodeConditionType, bad bool, good, wrong [2]string, positive bool) {
		c := corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: good[0], Message: good[1],
			LastHeartbeatTime: metav1.NewTime(in.Now.Truncate(time.Second)), LastTransitionTime: metav1.NewTime(in.Now.Truncate(time.Second))}
		if bad {
			c.Reason, c.Message = wrong[0], wrong[1]
		}
		if bad != positive {
			c.Status = corev1.ConditionTrue
		}
		i := slices.IndexFunc(st.Conditions, func(o corev1.NodeCondition) bool { return o.Type == t })
		if i < 0 {
			st.Conditions = append(st.Conditions, c)
			return
		}
		if st.Conditions[i].Status == c.Status {
			c.LastTransitionTime = st.Conditions[i].LastTransitionTime
		}
		st.Conditions[i] = c
	}
	h := in.Host
	set(corev1.NodeMemoryPressure, h.MemoryAvailable < hardMemory, [2]string{"KubeletHasSufficientMemory", "kubelet has sufficient memory available"},
		[2]string{"KubeletHasInsufficientMemory", "kubelet has insufficient memory available"}, false)
	set(corev1.NodeDiskPressure, h.Disk > 0 && h.DiskAvailable*100 < h.Disk*hardDisk, [2]string{"KubeletHasNoDiskPressure", "kubelet has no disk pressure"},
		[2]string{"KubeletHasDiskPressure", "kubelet has disk pressure"}, false)
	set(corev1.NodePIDPressure, h.PIDsMax > 0 && h.PIDs*100 > h.PIDsMax*95, [2]string{"KubeletHasSufficientPID", "kubelet has sufficient PID available"},
		[2]string{"KubeletHasInsufficientPID", "kubelet has insufficient PID available"}, false)
	why := NotReady(in.Runtime, in.RuntimeErr)
	set(corev1.NodeReady, why != "", [2]string{"KubeletReady", "kubelet is posting ready status"}, [2]string{"KubeletNotReady", why}, true)
	return st
}

// NotReady says why the runtime cannot take pods; empty if it can.
func NotReady(r *runtimeapi.StatusResponse, err error) string {
	if err != nil {
		return "container runtime is down: " + err.Error()
	}
	if r.GetStatus() == nil {
		return "container runtime status check may not have completed yet"
	}
	var why []string
	for _, t := range []struct{ condition, what string }{{"RuntimeReady", "container runtime"}, {"NetworkReady", "container runtime network"}} {
		i := slices.IndexFunc(r.Status.Conditions, func(c *runtimeapi.RuntimeCondition) bool { return c.Type == t.condition })
		if i < 0 {
			why = append(why, t.what+" not ready: its status is unknown")
			continue
		}
		if c := r.Status.Conditions[i]; !c.Status {
			why = append(why, t.what+" not ready: "+t.condition+"=false reason:"+c.Reason+" message:"+c.Message)
		}
	}
	return strings.Join(why, ", ")
}

func images(in []*runtimeapi.Image) []corev1.ContainerImage {
	in = slices.Clone(in)
	slices.SortFunc(in, func(a, b *runtimeapi.Image) int {
		if c := cmp.Compare(b.Size, a.Size); c != 0 {
			return c
		}
		return cmp.Compare(a.Id, b.Id)
	})
	var out []corev1.ContainerImage
	for _, i := range in[:min(len(in), shownImages)] {
		names := append(slices.Clone(i.RepoDigests), i.RepoTags...)
		out = append(out, corev1.ContainerImage{Names: names[:min(len(names), shownNames)], SizeBytes: int64(i.Size)})
	}
	return out
}

func handlers(r *runtimeapi.StatusResponse) []corev1.NodeRuntimeHandler {
	var out []corev1.NodeRuntimeHandler
	for _, h := range r.GetRuntimeHandlers() {
		n := corev1.NodeRuntimeHandler{Name: h.Name}
		if f := h.Features; f != nil {
			n.Features = &corev1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &f.RecursiveReadOnlyMounts, UserNamespaces: &f.UserNamespaces}
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b corev1.NodeRuntimeHandler) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Same reports whether two statuses differ in nothing but the time of their heartbeats.
func Same(a, b *corev1.NodeStatus) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	for _, s := range []*corev1.NodeStatus{x, y} {
		for i := range s.Conditions {
			s.Conditions[i].LastHeartbeatTime = metav1.Time{}
		}
	}
	return equal(x, y)
}
