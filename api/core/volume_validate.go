package core

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateVolumes(path *field.Path, vols []corev1.Volume) (map[string]*corev1.Volume, field.ErrorList) {
	byName := map[string]*corev1.Volume{}
	var errs field.ErrorList
	for i := range vols {
		v, at := &vols[i], path.Index(i)
		if v.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, Label(at.Child("name"), v.Name)...)
		}
		if byName[v.Name] != nil {
			errs = append(errs, field.Duplicate(at.Child("name"), v.Name))
		}
		byName[v.Name] = v
		errs = append(errs, oneSource(at, v.VolumeSource)...)
		errs = append(errs, validateVolume(at, &v.VolumeSource)...)
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

func validateVolume(path *field.Path, v *corev1.VolumeSource) field.ErrorList {
	var errs field.ErrorList
	if e := v.EmptyDir; e != nil && e.SizeLimit != nil && e.SizeLimit.Sign() < 0 {
		errs = append(errs, field.Forbidden(path.Child("emptyDir", "sizeLimit"), "SizeLimit field must be a valid resource quantity"))
	}
	if h := v.HostPath; h != nil {
		errs = append(errs, validateHostPath(path.Child("hostPath"), h)...)
	}
	if s := v.Secret; s != nil {
		errs = append(errs, Required(path.Child("secret", "secretName"), s.SecretName, "")...)
		errs = append(errs, fileMode(path.Child("secret", "defaultMode"), s.DefaultMode)...)
		errs = append(errs, validateItems(path.Child("secret", "items"), s.Items)...)
	}
	if c := v.ConfigMap; c != nil {
		errs = append(errs, Required(path.Child("configMap", "name"), c.Name, "")...)
		errs = append(errs, fileMode(path.Child("configMap", "defaultMode"), c.DefaultMode)...)
		errs = append(errs, validateItems(path.Child("configMap", "items"), c.Items)...)
	}
	if d := v.DownwardAPI; d != nil {
		errs = append(errs, fileMode(path.Child("downwardAPI", "defaultMode"), d.DefaultMode)...)
		errs = append(errs, validateDownward(path.Child("downwardAPI", "items"), d.Items)...)
	}
	if p := v.Projected; p != nil {
		errs = append(errs, validateProjected(path.Child("projected"), p)...)
	}
	if c := v.PersistentVolumeClaim; c != nil {
		errs = append(errs, Required(path.Child("persistentVolumeClaim", "claimName"), c.ClaimName, "")...)
	}
	if n := v.NFS; n != nil {
		errs = append(errs, validateNFS(path.Child("nfs"), n)...)
	}
	if c := v.CSI; c != nil {
		errs = append(errs, Required(path.Child("csi", "driver"), c.Driver, "")...)
	}
	if e := v.Ephemeral; e != nil {
		if e.VolumeClaimTemplate == nil {
			errs = append(errs, field.Required(path.Child("ephemeral", "volumeClaimTemplate"), ""))
		} else {
			errs = append(errs, validateClaimSpec(path.Child("ephemeral", "volumeClaimTemplate", "spec"), &e.VolumeClaimTemplate.Spec)...)
		}
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
	if h.Type != nil && *h.Type != corev1.HostPathUnset {
		errs = append(errs, OneOf(path.Child("type"), *h.Type, corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory,
			corev1.HostPathFileOrCreate, corev1.HostPathFile, corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev)...)
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

func localPath(path *field.Path, p string) field.ErrorList {
	errs := relativePath(path, p)
	if strings.HasPrefix(p, "..") && len(errs) == 0 {
		errs = append(errs, field.Invalid(path, p, "must not start with '..'"))
	}
	return errs
}

func validateDownward(path *field.Path, items []corev1.DownwardAPIVolumeFile) field.ErrorList {
	var errs field.ErrorList
	for i, it := range items {
		at := path.Index(i)
		errs = append(errs, Required(at.Child("path"), it.Path, "")...)
		errs = append(errs, localPath(at.Child("path"), it.Path)...)
		errs = append(errs, fileMode(at.Child("mode"), it.Mode)...)
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
	}
	return errs
}

func validateProjected(path *field.Path, p *corev1.ProjectedVolumeSource) field.ErrorList {
	errs := fileMode(path.Child("defaultMode"), p.DefaultMode)
	for i, s := range p.Sources {
		at := path.Child("sources").Index(i)
		if s.Secret != nil {
			errs = append(errs, Required(at.Child("secret", "name"), s.Secret.Name, "")...)
			errs = append(errs, validateItems(at.Child("secret", "items"), s.Secret.Items)...)
		}
		if s.ConfigMap != nil {
			errs = append(errs, Required(at.Child("configMap", "name"), s.ConfigMap.Name, "")...)
			errs = append(errs, validateItems(at.Child("configMap", "items"), s.ConfigMap.Items)...)
		}
		if s.DownwardAPI != nil {
			errs = append(errs, validateDownward(at.Child("downwardAPI", "items"), s.DownwardAPI.Items)...)
		}
		if t := s.ServiceAccountToken; t != nil {
			if t.ExpirationSeconds != nil && *t.ExpirationSeconds < 600 {
				errs = append(errs, field.Invalid(at.Child("serviceAccountToken", "expirationSeconds"), *t.ExpirationSeconds, "may not specify a duration less than 10 minutes"))
			}
			errs = append(errs, Required(at.Child("serviceAccountToken", "path"), t.Path, "")...)
			errs = append(errs, localPath(at.Child("serviceAccountToken", "path"), t.Path)...)
		}
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
		errs = append(errs, OneOf(path, m, corev1.ReadWriteOnce, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOncePod)...)
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

func validateClaimSpec(path *field.Path, s *corev1.PersistentVolumeClaimSpec) field.ErrorList {
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
		errs = append(errs, OneOf(path.Child("volumeMode"), *s.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	return errs
}
