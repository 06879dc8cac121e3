// Package lifecycle decides what a pod needs next.
//
// Invariant: Step is a pure function. It has no clock, no goroutine and no input or output; what it wants done comes
// back as data, and calling it again with the same input gives the same answer. All that it remembers between calls
// is in Memory, which its caller keeps and which may be lost at any time: everything needed to go on is observed.
//
// Only node imports lifecycle.
package lifecycle

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Input is all that a decision depends on.
type Input struct {
	// Pod is what the API wants; it is shared and read-only. It is never nil: for a pod that only the runtime knows,
	// the caller makes a bare one with its names and UID and sets Gone.
	Pod *corev1.Pod
	// Gone says that the API no longer has the pod.
	Gone     bool
	Observed Observed
	Memory   *Memory
	// Busy holds the actions in flight by their Key.
	Busy map[string]Action
	// Old is the status as last computed here, or as the API has it at first.
	Old *corev1.PodStatus
	// Refused, if set, is why this node does not admit the pod; it fails without being started.
	Refused *Refusal
	// ResizePending, if set, is why this node cannot give the pod the resources that it asks for since it was admitted.
	ResizePending *Refusal
	HostIPs       []string
	Now           time.Time
}

// Refusal is why a node does not run a pod ("OutOfcpu", "NodeAffinity").
type Refusal struct{ Reason, Message string }

// Observed is what the runtime has of one pod, newest first.
type Observed struct {
	Sandboxes  []Sandbox
	Containers []Container
}

// Sandbox is one CRI pod sandbox.
type Sandbox struct {
	ID          string
	Attempt     uint32
	Ready       bool
	HostNetwork bool
	IPs         []string
	CreatedAt   time.Time
}

// ContainerState is CRI's.
type ContainerState int

const (
	Created ContainerState = iota
	Running
	Exited
	Unknown
)

func (s ContainerState) String() string {
	return [...]string{"created", "running", "exited", "unknown"}[s]
}

// Container is one CRI container.
type Container struct {
	ID, Name, SandboxID              string
	Attempt                          int
	State                            ContainerState
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int32
	Reason, Message                  string // of its end; Message is the termination message
	Image, ImageID                   string
	Hash                             string // of the spec that it was made from, see Hash
	Grace                            time.Duration
	User                             *corev1.ContainerUser
	Limits                           *Limits // what it runs under; nil: unknown
}

func (c *Container) alive() bool { return c.State == Running || c.State == Unknown }

// Result of a probe so far.
type Result int

const (
	NotYet Result = iota
	Success
	Failure
)

// ProbeKind is one of the three probes.
type ProbeKind string

const (
	Startup   ProbeKind = "Startup"
	Liveness  ProbeKind = "Liveness"
	Readiness ProbeKind = "Readiness"
)

// Probes are the results for one running container.
type Probes struct {
	ID                           string // the container that they are about
	Startup, Liveness, Readiness Result
}

// Backoff is how long to wait before the next try.
type Backoff struct {
	Delay time.Duration
	Since time.Time // when Delay was set
}

// Trouble is why something did not work, and when to try again.
type Trouble struct {
	Reason, Message string
	At, Retry       time.Time
	Delay           time.Duration
}

// ContainerMemory is what is remembered about one container of the spec.
type ContainerMemory struct {
	Restart Backoff
	Probes  Probes
	// Image is the reference of the image that is present for the attempt ImageAttempt.
	Image        string
	ImageAttempt int
	ImageTrouble *Trouble
	StartTrouble *Trouble
}

// Memory is what the caller keeps between steps. Losing it costs repeated work and forgotten back-offs, nothing more.
type Memory struct {
	VolumesReady   bool      // everything is mounted
	VolumesStale   bool      // an object that a volume shows has changed
	VolumesRefresh time.Time // when a volume's content must be made anew (tokens); zero: never
	VolumesTrouble *Trouble
	SandboxTrouble *Trouble
	ResizeTrouble  *Trouble
	Containers     map[string]*ContainerMemory
	// EndingSince is when it was first decided that the pod must end.
	EndingSince time.Time
	Cleaned     bool // volumes are unmounted and the pod's cgroup is gone
	Reported    bool // the API has the status that Decision.Status gave at the last step
	Deleted     bool // the API has been told to delete the pod
	Purged      bool // the pod's folders and logs are gone
}

// Container returns the memory of one container, making it at first use.
func (m *Memory) Container(name string) *ContainerMemory {
	if m.Containers == nil {
		m.Containers = map[string]*ContainerMemory{}
	}
	c := m.Containers[name]
	if c == nil {
		c = &ContainerMemory{ImageAttempt: -1}
		m.Containers[name] = c
	}
	return c
}

func (m *Memory) peek(name string) ContainerMemory {
	if c := m.Containers[name]; c != nil {
		return *c
	}
	return ContainerMemory{ImageAttempt: -1}
}

// Do is a kind of action.
type Do string

const (
	MountVolumes    Do = "mount volumes"
	CreateSandbox   Do = "create sandbox"
	PullImage       Do = "pull image"
	StartContainer  Do = "start container" // create, start, post-start hook
	StopContainer   Do = "stop container"  // pre-stop hook, stop signal, kill
	ResizePod       Do = "resize"          // change the limits of what runs
	RemoveContainer Do = "remove container"
	StopSandbox     Do = "stop sandbox"
	RemoveSandbox   Do = "remove sandbox"
	Cleanup         Do = "clean up" // unmount volumes, remove the cgroup
	DeletePod       Do = "delete pod"
	Purge           Do = "purge" // remove folders and logs
)

// Action is one thing to do, as data.
type Action struct {
	Do        Do
	Container string // name in the spec
	ID        string // of the container or sandbox
	SandboxID string // where a container is started
	Attempt   int
	Grace     time.Duration // of StopContainer
	Deadline  time.Time     // when that grace is over
	PreStop   bool          // run the pre-stop hook first
	Reason    string        // of StopContainer, for its event
	Backoff   Backoff       // StartContainer: what to remember
}

// Key names what an action works on. Of all actions with one key only one is in flight at a time.
func (a Action) Key() string {
	switch a.Do {
	case MountVolumes, Cleanup, Purge:
		return "volumes"
	case CreateSandbox, StopSandbox, RemoveSandbox:
		return "sandbox"
	case PullImage, StartContainer:
		return "start/" + a.Container
	case StopContainer:
		return "stop/" + a.ID
	case RemoveContainer:
		return "remove/" + a.ID
	}
	return string(a.Do)
}

func (a Action) String() string {
	var b strings.Builder
	b.WriteString(string(a.Do))
	if a.Container != "" {
		fmt.Fprintf(&b, " %s", a.Container)
	}
	switch a.Do {
	case StartContainer, CreateSandbox:
		fmt.Fprintf(&b, " #%d", a.Attempt)
	case StopContainer:
		fmt.Fprintf(&b, " %s grace %v", a.ID, a.Grace)
		if a.PreStop {
			b.WriteString(" with hook")
		}
	case RemoveContainer, StopSandbox, RemoveSandbox:
		fmt.Fprintf(&b, " %s", a.ID)
	}
	return b.String()
}

// Probe is one probe that should be running now.
type Probe struct {
	Container, ID string
	Kind          ProbeKind
	Spec          *corev1.Probe
	PodIP         string
	StartedAt     time.Time
}

// Event is something to tell the user, once for each different Key.
type Event struct {
	Key                   string
	Type, Reason, Message string
	Container             string
}

// Decision is what Step wants.
type Decision struct {
	Actions []Action // to start now; none has a Key that is busy
	Cancel  []string // keys of actions in flight to give up
	Status  corev1.PodStatus
	Probes  []Probe
	Events  []Event
	Wake    time.Time // look again then, if nothing happens before; zero: not
	Ending  bool      // the pod must end; the caller sets Memory.EndingSince
	Done    bool      // nothing is left of the pod
}
