package resource

import (
	resourcev1 "k8s.io/api/resource/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api/core"
)

// deviceID is a device, or a share of one, as upstream's messages show it.
type deviceID struct{ Driver, Pool, Device, ShareID string }

func share(id *string) string {
	if id == nil {
		return ""
	}
	return *id
}

func uidShare(id *types.UID) string {
	if id == nil {
		return ""
	}
	return string(*id)
}

// validateResourceClaimStatus judges what the scheduler, the drivers and the controller write: an allocation is only ever
// made or taken back whole.
func validateResourceClaimStatus(x, old *resourcev1.ResourceClaim) field.ErrorList {
	path := field.NewPath("status")
	var errs field.ErrorList
	uids := map[types.UID]bool{}
	for i, c := range x.Status.ReservedFor {
		at := path.Child("reservedFor").Index(i)
		errs = append(errs, core.Required(at.Child("resource"), c.Resource, "")...)
		errs = append(errs, core.Required(at.Child("name"), c.Name, "")...)
		errs = append(errs, core.Required(at.Child("uid"), string(c.UID), "")...)
		if uids[c.UID] {
			errs = append(errs, field.Duplicate(at, c.UID))
		}
		uids[c.UID] = true
	}
	now, was := x.Status.Allocation, old.Status.Allocation
	if now == nil {
		if len(x.Status.ReservedFor) > 0 {
			errs = append(errs, field.Forbidden(path.Child("reservedFor"), "may not be specified when `allocated` is not set"))
		}
		return errs
	}
	allocated := map[deviceID]bool{}
	for _, a := range []*resourcev1.AllocationResult{now, was} { // a change of the allocation has an error of its own
		if a == nil {
			continue
		}
		for _, r := range a.Devices.Results {
			allocated[deviceID{r.Driver, r.Pool, r.Device, uidShare(r.ShareID)}] = true
		}
	}
	seen := map[deviceID]bool{}
	for i := range x.Status.Devices {
		d, at := &x.Status.Devices[i], path.Child("devices").Index(i)
		id := deviceID{d.Driver, d.Pool, d.Device, share(d.ShareID)}
		errs = append(errs, core.CSIDriverName(at.Child("driver"), d.Driver)...)
		errs = append(errs, validatePoolName(at.Child("pool"), d.Pool)...)
		errs = append(errs, core.Label(at.Child("device"), d.Device)...)
		if !allocated[id] {
			errs = append(errs, field.Invalid(at, id, "must be an allocated device in the claim"))
		}
		errs = append(errs, validateDeviceStatus(at, d)...)
		if seen[id] {
			errs = append(errs, field.Duplicate(at, id))
		}
		seen[id] = true
	}
	if was != nil {
		errs = append(errs, core.Immutable(path.Child("allocation"), now, was)...)
	}
	return errs
}

const (
	mostAddresses     = 16
	longestInterface  = 256 // bytes
	longestHardware   = 128 // bytes
	mostDevConditions = 8
)

// validateDeviceStatus checks what a driver reports of a device.
func validateDeviceStatus(path *field.Path, d *resourcev1.AllocatedDeviceStatus) field.ErrorList {
	var errs field.ErrorList
	if n := len(d.Conditions); n > mostDevConditions {
		errs = append(errs, field.TooMany(path.Child("conditions"), n, mostDevConditions))
	}
	errs = append(errs, metavalidation.ValidateConditions(d.Conditions, path.Child("conditions"))...)
	n := d.NetworkData
	if n == nil {
		return errs
	}
	path = path.Child("networkData")
	if len(n.InterfaceName) > longestInterface {
		errs = append(errs, field.TooLong(path.Child("interfaceName"), "", longestInterface))
	}
	if len(n.HardwareAddress) > longestHardware {
		errs = append(errs, field.TooLong(path.Child("hardwareAddress"), "", longestHardware))
	}
	if len(n.IPs) > mostAddresses {
		errs = append(errs, field.TooMany(path.Child("ips"), len(n.IPs), mostAddresses))
	}
	seen := map[string]bool{}
	for i, ip := range n.IPs {
		at := path.Child("ips").Index(i)
		errs = append(errs, validation.IsValidInterfaceAddress(at, ip)...)
		if seen[ip] {
			errs = append(errs, field.Duplicate(at, ip))
		}
		seen[ip] = true
	}
	return errs
}
