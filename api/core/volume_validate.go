package core

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateVolumes returns the valid volumes by name: what mounts another one finds nothing.
func validateVolumes(path *field.Path, vols []corev1.Volume) (map[string]*corev1.Volume, field.ErrorList) {
	byName, seen := map[string]*corev1.Volume{}, map[string]bool{}
	var errs field.ErrorList
	for i := range vols {
		v, at := &vols[i], path.Index(i)
		el := oneSource(at, v.VolumeSource)
		if len(el) == 0 {
			el = podSource(at, v.Name, &v.VolumeSource)
		}
		if v.Name == "" {
			el = append(el, field.Required(at.Child("name"), ""))
		} else {
			el = append(el, Label(at.Child("name"), v.Name)...)
		}
		if seen[v.Name] {
			el = append(el, field.Duplicate(at.Child("name"), v.Name))
		}
		if len(el) == 0 {
			seen[v.Name], byName[v.Name] = true, v
		}
		errs = append(errs, el...)
	}
	return byName, errs
}

// oneSource checks that exactly one field of a union of pointers is set.
func oneSource(path *field.Path, union any) field.ErrorList {
	v, set := reflect.ValueOf(union), ""
	var errs field.ErrorList
	for i := range v.NumField() {
		if v.Field(i).IsNil() {
			continue
		}
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if set != "" {
			errs = append(errs, field.Forbidden(path.Child(name), "may not specify more than 1 volume type"))
		}
		set = name
	}
	if set == "" {
		errs = append(errs, field.Required(path, "must specify a volume type"))
	}
	return errs
}

func validateNFS(path *field.Path, n *corev1.NFSVolumeSource) field.ErrorList {
	errs := Required(path.Child("server"), n.Server, "")
	errs = append(errs, Required(path.Child("path"), n.Path, "")...)
	if !strings.HasPrefix(n.Path, "/") {
		errs = append(errs, field.Invalid(path.Child("path"), n.Path, "must be an absolute path"))
	}
	return errs
}

func validateHostPath(path *field.Path, h *corev1.HostPathVolumeSource) field.ErrorList {
	if h.Path == "" {
		return field.ErrorList{field.Required(path.Child("path"), "")}
	}
	errs := noBackSteps(path.Child("path"), h.Path)
	if h.Type != nil {
		errs = append(errs, Known(path.Child("type"), *h.Type, corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev,
			corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)...)
	}
	return errs
}

const fileModeText = "must be a number between 0 and 0777 (octal), both inclusive"

func fileMode(path *field.Path, m *int32) field.ErrorList {
	if m != nil && (*m < 0 || *m > 0o777) {
		return field.ErrorList{field.Invalid(path, *m, fileModeText)}
	}
	return nil
}

func validateItems(path *field.Path, items []corev1.KeyToPath) field.ErrorList {
	var errs field.ErrorList
	for i, it := range items {
		at := path.Index(i)
		errs = append(errs, Required(at.Child("key"), it.Key, "")...)
		errs = append(errs, Required(at.Child("path"), it.Path, "")...)
		errs = append(errs, localPath(at.Child("path"), it.Path)...)
		errs = append(errs, fileMode(at.Child("mode"), it.Mode)...)
	}
	return errs
}

// localPath checks a relative path that does not leave its folder. Empty is fine.
func localPath(path *field.Path, p string) field.ErrorList {
	errs := relativePath(path, p)
	if strings.HasPrefix(p, "..") && !strings.HasPrefix(p, "../") && p != ".." {
		errs = append(errs, field.Invalid(path, p, "must not start with '..'"))
	}
	return errs
}

// validateDownward names no index: upstream's paths do not.
func validateDownward(at *field.Path, items []corev1.DownwardAPIVolumeFile) field.ErrorList {
	var errs field.ErrorList
	for _, it := range items {
		errs = append(errs, Required(at.Child("path"), it.Path, "")...)
		errs = append(errs, localPath(at.Child("path"), it.Path)...)
		switch {
		case it.FieldRef != nil && it.ResourceFieldRef != nil:
			errs = append(errs, field.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		case it.FieldRef != nil:
			errs = append(errs, validateFieldRef(at.Child("fieldRef"), it.FieldRef, fileFields)...)
		case it.ResourceFieldRef != nil:
			errs = append(errs, validateResourceFieldRef(at.Child("resourceFieldRef"), it.ResourceFieldRef, true)...)
		default:
			errs = append(errs, field.Required(at, "one of fieldRef and resourceFieldRef is required"))
		}
		errs = append(errs, fileMode(at.Child("mode"), it.Mode)...)
	}
	return errs
}

func validateAccessModes(path *field.Path, modes []corev1.PersistentVolumeAccessMode) field.ErrorList {
	if len(modes) == 0 {
		return field.ErrorList{field.Required(path, "at least 1 access mode is required")}
	}
	var errs field.ErrorList
	alone, others := false, false
	for _, m := range modes {
		errs = append(errs, Known(path, m, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)...)
		if m == corev1.ReadWriteOncePod {
			alone = true
		} else {
			others = true
		}
	}
	if alone && others {
		errs = append(errs, field.Forbidden(path, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

func validateClaimSpec(path *field.Path, s *corev1.PersistentVolumeClaimSpec, anyGroup bool) field.ErrorList {
	errs := validateAccessModes(path.Child("accessModes"), s.AccessModes)
	errs = append(errs, LabelSelector(path.Child("selector"), s.Selector)...)
	at := path.Child("resources").Key(string(corev1.ResourceStorage))
	if q, ok := s.Resources.Requests[corev1.ResourceStorage]; !ok {
		errs = append(errs, field.Required(at, ""))
	} else if q.Sign() <= 0 {
		errs = append(errs, field.Invalid(at, q.String(), "must be greater than zero"))
	}
	if c := s.StorageClassName; c != nil && *c != "" {
		errs = append(errs, Problems(path.Child("storageClassName"), *c, validation.IsDNS1123Subdomain(*c))...)
	}
	if s.VolumeMode != nil {
		errs = append(errs, Known(path.Child("volumeMode"), *s.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	if n := s.VolumeAttributesClassName; n != nil && *n != "" {
		errs = append(errs, Subdomain(path.Child("volumeAttributesClassName"), *n)...)
	}
	if d := s.DataSource; d != nil {
		errs = append(errs, validateDataSource(path.Child("dataSource"), d.APIGroup, d.Kind, d.Name, anyGroup)...)
	}
	if d := s.DataSourceRef; d != nil {
		errs = append(errs, validateDataSource(path.Child("dataSourceRef"), d.APIGroup, d.Kind, d.Name, anyGroup)...)
		if d.Namespace != nil && *d.Namespace != "" {
			if s.DataSource != nil {
				errs = append(errs, field.Invalid(path, field.OmitValueType{}, "may not be specified when dataSourceRef.namespace is specified"))
			}
		} else if o := s.DataSource; o != nil && (o.Kind != d.Kind || o.Name != d.Name || !samePointee(o.APIGroup, d.APIGroup)) {
			errs = append(errs, field.Invalid(path, s.DataSource, "must match dataSourceRef"))
		}
	}
	return errs
}

func samePointee(a, b *string) bool {
	return (a == nil) == (b == nil) && (a == nil || *a == *b)
}

// ValidateClaimSpec checks the spec of a claim.
func ValidateClaimSpec(path *field.Path, s *corev1.PersistentVolumeClaimSpec) field.ErrorList {
	return validateClaimSpec(path, s, false)
}
