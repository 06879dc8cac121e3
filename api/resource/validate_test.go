package resource

import (
	"strings"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

func slice(change func(*resourcev1.ResourceSlice)) *resourcev1.ResourceSlice {
	x := &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{Driver: "d.example.com", NodeName: api.Ptr("n"),
		Pool: resourcev1.ResourcePool{Name: "a/b", ResourceSliceCount: 1}}}
	change(x)
	return x
}

func TestResourceSlice(t *testing.T) {
	old := slice(func(*resourcev1.ResourceSlice) {})
	for _, c := range []struct {
		want   string // empty: valid
		change func(*resourcev1.ResourceSlice)
	}{
		{"", func(*resourcev1.ResourceSlice) {}},
		{"spec.allNodes, spec", func(x *resourcev1.ResourceSlice) { x.Spec.NodeName, x.Spec.AllNodes = nil, api.Ptr(false) }},
		{"spec", func(x *resourcev1.ResourceSlice) { x.Spec.AllNodes = api.Ptr(true) }},
		{"spec.pool.name", func(x *resourcev1.ResourceSlice) { x.Spec.Pool.Name = "a//b" }},
		{"spec.devices[1]", func(x *resourcev1.ResourceSlice) { x.Spec.Devices = []resourcev1.Device{{Name: "d"}, {Name: "d"}} }},
		{"", func(x *resourcev1.ResourceSlice) {
			x.Spec.Devices = attribute(resourcev1.DeviceAttribute{StringValues: []string{"a"}})
		}},
		{"spec.devices[0].attributes[a]", func(x *resourcev1.ResourceSlice) { x.Spec.Devices = attribute(resourcev1.DeviceAttribute{}) }},
		{"spec.devices[0].attributes[a].version", func(x *resourcev1.ResourceSlice) {
			x.Spec.Devices = attribute(resourcev1.DeviceAttribute{VersionValue: api.Ptr("1.02.3")})
		}},
	} {
		if got := fields(validateResourceSlice(slice(c.change))); got != c.want {
			t.Errorf("errors at %q, want %q", got, c.want)
		}
	}
	moved := slice(func(x *resourcev1.ResourceSlice) { x.Spec.NodeName = api.Ptr("other") })
	if got := fields(validateResourceSliceUpdate(moved, old)); got != "spec.nodeName" {
		t.Errorf("moving a slice to another node: errors at %q", got)
	}
}

func attribute(a resourcev1.DeviceAttribute) []resourcev1.Device {
	return []resourcev1.Device{{Name: "d", Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"a": a}}}
}

func TestResourceClaimStatus(t *testing.T) {
	claim := func(device string, reserved ...resourcev1.ResourceClaimConsumerReference) *resourcev1.ResourceClaim {
		x := &resourcev1.ResourceClaim{Status: resourcev1.ResourceClaimStatus{ReservedFor: reserved}}
		if device != "" {
			x.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
				Results: []resourcev1.DeviceRequestAllocationResult{{Driver: "d", Pool: "p", Device: device}}}}
		}
		return x
	}
	pod := resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: "p", UID: "u"}
	for _, c := range []struct {
		name, want string
		now, old   *resourcev1.ResourceClaim
	}{
		{"allocate", "", claim("a", pod), claim("")},
		{"give back", "", claim(""), claim("a", pod)},
		{"change", "status.allocation", claim("b"), claim("a")},
		{"reserved without devices", "status.reservedFor", claim("", pod), claim("a", pod)},
		{"reserved twice", "status.reservedFor[1]", claim("a", pod, pod), claim("a")},
	} {
		if got := fields(validateResourceClaimStatus(c.now, c.old)); got != c.want {
			t.Errorf("%s: errors at %q, want %q", c.name, got, c.want)
		}
	}
}

func fields(errs field.ErrorList) string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Field)
	}
	return strings.Join(out, ", ")
}
