package api

import (
	"context"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Object is any API object with metadata. Objects that come out of a store, a cache or a watch are shared
// by everybody in the process and must never be changed: DeepCopyObject first.
type Object interface {
	runtime.Object
	metav1.Object
}

// Kind is one row of the table: all that the server, the clients and the command line know about one kind.
// The zero value of every function field means "nothing special".
type Kind struct {
	Group      string // "" for the core group
	Version    string
	Kind       string // "Deployment"
	Plural     string // "deployments", the resource's name in paths
	Singular   string // "deployment"
	ShortNames []string
	Categories []string
	Namespaced bool

	// StoragePath is the folder under /registry that upstream keeps the kind in ("pods",
	// "services/specs", "minions"). Empty means that the kind is not stored (TokenReview).
	StoragePath string

	// Verbs that the resource itself serves, sorted. Nil means all eight: create, delete,
	// deletecollection, get, list, patch, update, watch.
	Verbs []string

	New     func() Object         // an empty object of the GA type
	NewList func() runtime.Object // an empty list of them

	// Hub is the row whose type is stored, for a second version of the same kind (autoscaling/v1 beside v2,
	// events.k8s.io beside core). Nil for a row that is its own hub. ToHub and FromHub convert whole objects
	// without touching their argument and are set exactly where Hub is.
	Hub     *Kind
	ToHub   func(Object) (Object, error)
	FromHub func(Object) (Object, error)
	// Ready does the slow part of FromHub for objects of the store, all of them in one go: a custom resource's webhook
	// may have to convert them. Nil where there is none.
	Ready func(ctx context.Context, stored []Object) error
	// Outdated reports whether a stored object was written in another version than is written now, so that a write which
	// changes nothing else is still done. Nil: never.
	Outdated func(stored Object) bool

	// Default fills in what the user left out. It is called on every decoded object, stored ones too,
	// may change its argument and must be idempotent.
	Default func(Object)

	// Prune drops the fields that a custom resource's schema does not know and, with track, returns their paths.
	// It may change its argument; an error says that the object's metadata is malformed. Nil for built-in kinds.
	Prune func(obj Object, track bool) (unknown []string, err error)

	// PrepareCreate drops what a client must not set on create (status above all). PrepareUpdate does the
	// same for an update of the main resource, where old is shared and read-only. The server itself looks after
	// metadata and, where HasGeneration, metadata.generation.
	PrepareCreate func(ctx context.Context, obj Object)
	PrepareUpdate func(ctx context.Context, obj, old Object)

	// HasGeneration says that metadata.generation counts changes outside metadata and status.
	HasGeneration bool

	// Validate judges a new object; ValidateUpdate judges a change and must itself include the rules of
	// Validate that still apply. ValidateStatus judges a write to the status subresource. Common metadata
	// rules are the server's. A row with a Hub is judged by the hub's; where it has rules of its own (events.k8s.io is
	// stricter than core), they get objects of the hub's type all the same.
	Validate       func(obj Object) field.ErrorList
	ValidateUpdate func(obj, old Object) field.ErrorList
	ValidateStatus func(obj, old Object) field.ErrorList
	ValidateName   func(name string, prefix bool) []string // nil: DNS subdomain, as apimachinery's NameIsDNSSubdomain
	// Warnings returns the texts of Warning headers for a create or update (old is nil on create).
	Warnings func(obj, old Object) []string

	Subresources []Subresource

	// Fields gives the values that field selectors may ask for beyond metadata.name and metadata.namespace,
	// by selector key ("spec.nodeName"). FieldKeys lists the keys.
	FieldKeys []string
	Fields    func(Object) map[string]string

	// Columns are the printer columns of the Table representation. Nil means Name and Age.
	Columns []Column

	// GracefulDelete says how a delete waits for someone outside (the node, for pods). Returning
	// wait=false deletes at once. It may set fields of o (the grace period in seconds).
	GracefulDelete func(obj Object, o *metav1.DeleteOptions) (wait bool)

	// AllowCreateOnUpdate lets PUT create a missing object (leases, endpoints and a few more).
	AllowCreateOnUpdate bool
	// UnconditionalUpdate lets an update without a resourceVersion overwrite.
	UnconditionalUpdate bool

	// Deprecated is the warning that every answer carries, if any.
	Deprecated string
	// Closed is why no objects of the kind can be created now; empty if they can.
	Closed string

	// CRD is set on rows that a CustomResourceDefinition made: their objects are *unstructured.Unstructured.
	CRD bool
	// Aggregated is set on rows of kinds that an aggregated API server has, which are in no server's table: calls go to it
	// as requests. Their objects are *unstructured.Unstructured.
	Aggregated bool
}

// Subresource is one path under a resource ("status", "scale", "log").
type Subresource struct {
	Name string
	// Group, Version, Kind of the body, where it differs from the parent's ("autoscaling/v1 Scale").
	// All empty: the parent's.
	Group, Version, Kind string
	Verbs                []string // sorted; connect subresources list what they serve ("create", "get")
	Type                 SubresourceType
	// New makes an empty body for Action subresources; nil for the others.
	New func() runtime.Object
	// Scale maps the parent to its scale and back; set where Type is ScaleSub.
	Scale *ScaleMapping
}

// SubresourceType says which mechanism of the server serves a subresource.
type SubresourceType int

const (
	StatusSub  SubresourceType = iota // a view of the parent that changes status alone
	ScaleSub                          // autoscaling/v1 Scale over the parent
	ActionSub                         // a POST with a body of its own (binding, eviction, token)
	ConnectSub                        // a stream or a proxy (log, exec, attach, portforward, proxy)
	PartSub                           // another named view of the parent (ephemeralcontainers, resize, approval, finalize)
)

// ScaleMapping is how autoscaling/v1 Scale reads and writes one kind.
type ScaleMapping struct {
	// Path is the field of the wanted replicas; nil is spec.replicas. Check says why an object has no scale; nil is that
	// every object has one.
	Path  []string
	Check func(Object) error

	Get func(Object) (spec int32, status int32, selector string)
	Set func(obj Object, replicas int32) // obj is the caller's own copy
}

// Column is one printer column. Its cells follow apimachinery's TableColumnDefinition.
type Column struct {
	Name, Type, Format, Description string
	Priority                        int32 // 0 is shown always, 1 with -o wide
	// Cell gives the value (string, int64, bool or nil). It is pure, so the server may keep its result beside the
	// object. A cell that contains an age would be wrong then: such columns set Age or CellAt instead.
	Cell func(Object) any
	// CellAt is Cell for a text with an age inside ("3 (5m ago)"); its result must not be kept, unless Steady says that
	// this object's has none.
	CellAt func(obj Object, now time.Time) any
	Steady func(Object) bool
	// Age marks a column that shows the time since the creation.
	Age bool
}

// Fixed reports whether the object's value depends on the object alone and may be kept.
func (c *Column) Fixed(obj Object) bool {
	return !c.Age && (c.CellAt == nil || c.Steady != nil && c.Steady(obj))
}

// Value is the column's cell for one object at one time.
func (c *Column) Value(obj Object, now time.Time) any {
	switch {
	case c.Age:
		return Age(obj.GetCreationTimestamp(), now)
	case c.CellAt != nil:
		return c.CellAt(obj, now)
	case c.Cell != nil:
		return c.Cell(obj)
	}
	return nil
}

// Age writes the time since t the way kubectl does ("5m", "3d2h"); "<unknown>" for a zero t.
func Age(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

var allVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// AllVerbs returns the verbs that the resource serves.
func (k *Kind) AllVerbs() []string {
	if k.Verbs != nil {
		return k.Verbs
	}
	return allVerbs
}

// Serves reports whether the resource serves the verb.
func (k *Kind) Serves(verb string) bool { return slices.Contains(k.AllVerbs(), verb) }

// Storage returns the row whose type is stored: the hub, or k itself.
func (k *Kind) Storage() *Kind {
	if k.Hub != nil {
		return k.Hub
	}
	return k
}

func (k *Kind) GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: k.Group, Version: k.Version}
}
func (k *Kind) GroupVersionKind() schema.GroupVersionKind { return k.GroupVersion().WithKind(k.Kind) }
func (k *Kind) GroupVersionResource() schema.GroupVersionResource {
	return k.GroupVersion().WithResource(k.Plural)
}
func (k *Kind) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.Plural}
}

// Subresource finds a subresource by name.
func (k *Kind) Subresource(name string) (*Subresource, bool) {
	for i := range k.Subresources {
		if k.Subresources[i].Name == name {
			return &k.Subresources[i], true
		}
	}
	return nil, false
}

// Key is the store's key of one object: /registry/<StoragePath>/[namespace/]name.
func (k *Kind) Key(namespace, name string) string { return k.Prefix(namespace) + name }

// Prefix is the store's key prefix of all objects of the kind, or of those in one namespace, with its final slash.
func (k *Kind) Prefix(namespace string) string {
	s := k.Storage()
	if namespace == "" || !s.Namespaced {
		return "/registry/" + s.StoragePath + "/"
	}
	return "/registry/" + s.StoragePath + "/" + namespace + "/"
}

func (k *Kind) String() string { return k.GroupVersionResource().String() }
