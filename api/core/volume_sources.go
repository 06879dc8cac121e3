package core

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// This file judges the sources of volumes, those that pods and persistent volumes share first. Some fields of error
// paths are not those of the type ("persistentDisk", "initiatorname"): they are upstream's, and clients show them.

var (
	iqnForm = regexp.MustCompile(`^iqn\.\d{4}-\d{2}\.[[:alnum:].-]+(:[^,;*&$|\s]+)$`)
	euiForm = regexp.MustCompile(`^eui.[[:alnum:]]{16}$`)
	naaForm = regexp.MustCompile(`^naa.[[:alnum:]]{32}$`)
)

func validateIQN(path *field.Path, s string) field.ErrorList {
	for prefix, form := range map[string]*regexp.Regexp{"iqn": iqnForm, "eui": euiForm, "naa": naaForm} {
		if strings.HasPrefix(s, prefix) && form.MatchString(s) {
			return nil
		}
	}
	return field.ErrorList{field.Invalid(path, s, "must be valid format starting with iqn, eui, or naa")}
}

func between(path *field.Path, n, low, high int32) field.ErrorList {
	if n < low || n > high {
		return field.ErrorList{field.Invalid(path, n, validation.InclusiveRangeError(int(low), int(high)))}
	}
	return nil
}

// validatePartition checks a partition's number, where 0 means the whole disk though the text does not say so.
func validatePartition(path *field.Path, n int32) field.ErrorList {
	if n == 0 {
		return nil
	}
	return between(path, n, 1, 255)
}

// iscsi is what the two types of iSCSI volumes have in common.
type iscsi struct {
	portal, iqn   string
	lun           int32
	initiator     *string
	authenticated bool
	secret        bool
}

func (v iscsi) validate(path *field.Path, name string) field.ErrorList {
	errs := Required(path.Child("targetPortal"), v.portal, "")
	if v.iqn == "" {
		errs = append(errs, field.Required(path.Child("iqn"), ""))
	} else {
		errs = append(errs, validateIQN(path.Child("iqn"), v.iqn)...)
	}
	errs = append(errs, between(path.Child("lun"), v.lun, 0, 255)...)
	if v.authenticated && !v.secret {
		errs = append(errs, field.Required(path.Child("secretRef"), ""))
	}
	if v.initiator != nil {
		errs = append(errs, validateIQN(path.Child("initiatorname"), *v.initiator)...)
	}
	return errs
}

func validateFC(path *field.Path, v *corev1.FCVolumeSource) field.ErrorList {
	var errs field.ErrorList
	if (len(v.TargetWWNs) == 0) == (len(v.WWIDs) == 0) {
		errs = append(errs, field.Required(path.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both"))
	}
	if len(v.TargetWWNs) > 0 {
		if v.Lun == nil {
			errs = append(errs, field.Required(path.Child("lun"), "lun is required if targetWWNs is specified"))
		} else {
			errs = append(errs, between(path.Child("lun"), *v.Lun, 0, 255)...)
		}
	}
	return errs
}

const (
	blobURI = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	diskURI = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
)

func validateAzureDisk(path *field.Path, v *corev1.AzureDiskVolumeSource) field.ErrorList {
	errs := Required(path.Child("diskName"), v.DiskName, "")
	errs = append(errs, Required(path.Child("diskURI"), v.DataDiskURI, "")...)
	if v.CachingMode != nil {
		errs = append(errs, Known(path.Child("cachingMode"), *v.CachingMode, corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)...)
	}
	if v.Kind == nil {
		return errs
	}
	errs = append(errs, Known(path.Child("kind"), *v.Kind, corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)...)
	switch {
	case *v.Kind == corev1.AzureManagedDisk && !strings.HasPrefix(v.DataDiskURI, "/subscriptions"):
		errs = append(errs, field.NotSupported(path.Child("diskURI"), v.DataDiskURI, []string{diskURI}))
	case *v.Kind != corev1.AzureManagedDisk && !strings.HasPrefix(v.DataDiskURI, "https://"):
		errs = append(errs, field.NotSupported(path.Child("diskURI"), v.DataDiskURI, []string{blobURI}))
	}
	return errs
}

func validateQuobyte(path *field.Path, v *corev1.QuobyteVolumeSource) field.ErrorList {
	const form = "must be a host:port pair or multiple pairs separated by commas"
	var errs field.ErrorList
	switch {
	case v.Registry == "":
		errs = append(errs, field.Required(path.Child("registry"), form))
	case len(v.Tenant) >= 65:
		errs = append(errs, field.Required(path.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
	default:
		for _, pair := range strings.Split(v.Registry, ",") {
			if host, port, ok := strings.Cut(pair, ":"); !ok || host == "" || port == "" {
				errs = append(errs, field.Invalid(path.Child("registry"), v.Registry, form))
			}
		}
	}
	return append(errs, Required(path.Child("volume"), v.Volume, "")...)
}

func validateCSIDriverName(path *field.Path, name string) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(path, ""))
	}
	if len(name) > 63 {
		errs = append(errs, field.TooLong(path, name, 63))
	}
	if name != "" {
		errs = append(errs, Problems(path, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))...)
	}
	return errs
}

// CSIDriverName checks the name of a CSI driver.
func CSIDriverName(path *field.Path, name string) field.ErrorList {
	return validateCSIDriverName(path, name)
}

// required lists the fields of a volume source that must not be empty.
func required(path *field.Path, pairs ...string) field.ErrorList {
	var errs field.ErrorList
	for i := 0; i < len(pairs); i += 2 {
		errs = append(errs, Required(path.Child(pairs[i]), pairs[i+1], "")...)
	}
	return errs
}

// sharedSource judges the sources that a pod's volume and a persistent volume have in common. ok is false for others.
func sharedSource(path *field.Path, v *corev1.VolumeSource) (errs field.ErrorList, ok bool) {
	switch {
	case v.GCEPersistentDisk != nil:
		at := path.Child("persistentDisk")
		errs = append(required(at, "pdName", v.GCEPersistentDisk.PDName), validatePartition(at.Child("partition"), v.GCEPersistentDisk.Partition)...)
	case v.AWSElasticBlockStore != nil:
		at := path.Child("awsElasticBlockStore")
		errs = append(required(at, "volumeID", v.AWSElasticBlockStore.VolumeID), validatePartition(at.Child("partition"), v.AWSElasticBlockStore.Partition)...)
	case v.HostPath != nil:
		errs = validateHostPath(path.Child("hostPath"), v.HostPath)
	case v.NFS != nil:
		errs = validateNFS(path.Child("nfs"), v.NFS)
	case v.FC != nil:
		errs = validateFC(path.Child("fc"), v.FC)
	case v.Flocker != nil:
		at := path.Child("flocker")
		switch {
		case v.Flocker.DatasetName == "" && v.Flocker.DatasetUUID == "":
			errs = field.ErrorList{field.Required(at, "one of datasetName and datasetUUID is required")}
		case v.Flocker.DatasetName != "" && v.Flocker.DatasetUUID != "":
			errs = field.ErrorList{field.Invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously")}
		case strings.Contains(v.Flocker.DatasetName, "/"):
			errs = field.ErrorList{field.Invalid(at.Child("datasetName"), v.Flocker.DatasetName, "must not contain '/'")}
		}
	case v.VsphereVolume != nil:
		errs = required(path.Child("vsphereVolume"), "volumePath", v.VsphereVolume.VolumePath)
	case v.PhotonPersistentDisk != nil:
		errs = required(path.Child("photonPersistentDisk"), "pdID", v.PhotonPersistentDisk.PdID)
	case v.PortworxVolume != nil:
		errs = required(path.Child("portworxVolume"), "volumeID", v.PortworxVolume.VolumeID)
	case v.Quobyte != nil:
		errs = validateQuobyte(path.Child("quobyte"), v.Quobyte)
	case v.AzureDisk != nil:
		errs = validateAzureDisk(path.Child("azureDisk"), v.AzureDisk)
	default:
		return nil, false
	}
	return errs, true
}

// podSource judges a pod's volume.
func podSource(path *field.Path, name string, v *corev1.VolumeSource) field.ErrorList {
	if errs, ok := sharedSource(path, v); ok {
		return errs
	}
	switch {
	case v.EmptyDir != nil:
		if q := v.EmptyDir.SizeLimit; q != nil && q.Sign() < 0 {
			return field.ErrorList{field.Forbidden(path.Child("emptyDir", "sizeLimit"), "SizeLimit field must be a valid resource quantity")}
		}
	case v.GitRepo != nil:
		at := path.Child("gitRepo")
		return append(required(at, "repository", v.GitRepo.Repository), localPath(at.Child("directory"), v.GitRepo.Directory)...)
	case v.Secret != nil:
		return projectedItems(path.Child("secret"), "secretName", v.Secret.SecretName, v.Secret.DefaultMode, v.Secret.Items)
	case v.ConfigMap != nil:
		return projectedItems(path.Child("configMap"), "name", v.ConfigMap.Name, v.ConfigMap.DefaultMode, v.ConfigMap.Items)
	case v.ISCSI != nil:
		s := v.ISCSI
		errs := iscsi{s.TargetPortal, s.IQN, s.Lun, s.InitiatorName, s.DiscoveryCHAPAuth || s.SessionCHAPAuth, s.SecretRef != nil}.validate(path.Child("iscsi"), name)
		if id := name + ":" + s.TargetPortal; s.InitiatorName != nil && len(id) > 64 {
			errs = append(errs, field.Invalid(path.Child("name"), id, "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."))
		}
		return errs
	case v.Glusterfs != nil:
		return required(path.Child("glusterfs"), "endpoints", v.Glusterfs.EndpointsName, "path", v.Glusterfs.Path)
	case v.PersistentVolumeClaim != nil:
		return required(path.Child("persistentVolumeClaim"), "claimName", v.PersistentVolumeClaim.ClaimName)
	case v.RBD != nil:
		return append(notEmpty(path.Child("rbd", "monitors"), v.RBD.CephMonitors), required(path.Child("rbd"), "image", v.RBD.RBDImage)...)
	case v.Cinder != nil:
		errs := required(path.Child("cinder"), "volumeID", v.Cinder.VolumeID)
		if v.Cinder.SecretRef != nil {
			errs = append(errs, required(path.Child("cinder", "secretRef"), "name", v.Cinder.SecretRef.Name)...)
		}
		return errs
	case v.CephFS != nil:
		return notEmpty(path.Child("cephfs", "monitors"), v.CephFS.Monitors)
	case v.DownwardAPI != nil:
		at := path.Child("downwardAPI")
		return append(fileMode(at.Child("defaultMode"), v.DownwardAPI.DefaultMode), validateDownward(at, v.DownwardAPI.Items)...)
	case v.FlexVolume != nil:
		return validateFlex(path.Child("flexVolume"), v.FlexVolume.Driver, v.FlexVolume.Options)
	case v.AzureFile != nil:
		return required(path.Child("azureFile"), "secretName", v.AzureFile.SecretName, "shareName", v.AzureFile.ShareName)
	case v.Projected != nil:
		return validateProjected(path.Child("projected"), v.Projected)
	case v.ScaleIO != nil:
		return required(path.Child("scaleIO"), "gateway", v.ScaleIO.Gateway, "system", v.ScaleIO.System, "volumeName", v.ScaleIO.VolumeName)
	case v.StorageOS != nil:
		at := path.Child("storageos")
		if v.StorageOS.VolumeName == "" {
			return field.ErrorList{field.Required(at.Child("volumeName"), "")}
		}
		return Label(at.Child("volumeName"), v.StorageOS.VolumeName)
	case v.CSI != nil:
		at := path.Child("csi")
		errs := validateCSIDriverName(at.Child("driver"), v.CSI.Driver)
		if r := v.CSI.NodePublishSecretRef; r != nil {
			if r.Name == "" {
				errs = append(errs, field.Required(at.Child("nodePublishSecretRef", "name"), ""))
			} else {
				errs = append(errs, Subdomain(at.Child("name"), r.Name)...)
			}
		}
		return errs
	case v.Ephemeral != nil:
		return validateEphemeralVolume(path.Child("ephemeral"), v.Ephemeral)
	case v.Image != nil:
		at := path.Child("image")
		return append(required(at, "reference", v.Image.Reference),
			Known(at.Child("pullPolicy"), v.Image.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	}
	return nil
}

func notEmpty(path *field.Path, list []string) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	return nil
}

func projectedItems(path *field.Path, nameField, name string, mode *int32, items []corev1.KeyToPath) field.ErrorList {
	errs := Required(path.Child(nameField), name, "")
	errs = append(errs, fileMode(path.Child("defaultMode"), mode)...)
	return append(errs, validateItems(path.Child("items"), items)...)
}

func validateFlex(path *field.Path, driver string, options map[string]string) field.ErrorList {
	errs := Required(path.Child("driver"), driver, "")
	for key := range options {
		domain, _, ok := strings.Cut(strings.ToLower(key), "/")
		if !ok {
			continue
		}
		for _, reserved := range []string{"kubernetes.io", "k8s.io"} {
			if domain == reserved || strings.HasSuffix(domain, "."+reserved) {
				errs = append(errs, field.Invalid(path.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved"))
				break
			}
		}
	}
	return errs
}

func validateEphemeralVolume(path *field.Path, v *corev1.EphemeralVolumeSource) field.ErrorList {
	at := path.Child("volumeClaimTemplate")
	if v.VolumeClaimTemplate == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	errs := validateTemplateMeta(at.Child("metadata"), &v.VolumeClaimTemplate.ObjectMeta)
	return append(errs, validateClaimSpec(at.Child("spec"), &v.VolumeClaimTemplate.Spec, false)...)
}

// pathsOf collects the files of a projected volume and reports those that two sources claim.
type pathsOf struct {
	at   *field.Path
	seen sets.Set[string]
	errs field.ErrorList
}

func (p *pathsOf) add(source, path string) {
	if path == "" {
		return
	}
	if p.seen.Has(path) {
		if source != "" {
			p.errs = append(p.errs, field.Invalid(p.at, source, "conflicting duplicate paths"))
		} else {
			p.errs = append(p.errs, field.Invalid(p.at, path, "conflicting duplicate paths"))
		}
	}
	p.seen.Insert(path)
}

func validateProjected(path *field.Path, v *corev1.ProjectedVolumeSource) field.ErrorList {
	errs := fileMode(path.Child("defaultMode"), v.DefaultMode)
	files := pathsOf{at: path, seen: sets.New[string]()}
	for i := range v.Sources {
		s, at := &v.Sources[i], path.Child("sources").Index(i)
		n := 0
		one := func() {
			if n++; n > 1 {
				errs = append(errs, field.Forbidden(at, "may not specify more than 1 volume type per source"))
			}
		}
		if s.Secret != nil {
			one()
			errs = append(errs, projectedItems(at.Child("secret"), "name", s.Secret.Name, nil, s.Secret.Items)...)
			for _, it := range s.Secret.Items {
				files.add(s.Secret.Name, it.Path)
			}
		}
		if s.ConfigMap != nil {
			one()
			errs = append(errs, projectedItems(at.Child("configMap"), "name", s.ConfigMap.Name, nil, s.ConfigMap.Items)...)
			for _, it := range s.ConfigMap.Items {
				files.add(s.ConfigMap.Name, it.Path)
			}
		}
		if s.DownwardAPI != nil {
			one()
			errs = append(errs, validateDownward(at.Child("downwardAPI"), s.DownwardAPI.Items)...)
			for _, it := range s.DownwardAPI.Items {
				files.add("", it.Path)
			}
		}
		if t := s.ServiceAccountToken; t != nil {
			one()
			errs = append(errs, validateTokenSource(at.Child("serviceAccountToken"), path.Child("path"), t)...)
			files.add("", t.Path)
		}
	}
	return append(errs, files.errs...)
}

func validateTokenSource(path, file *field.Path, t *corev1.ServiceAccountTokenProjection) field.ErrorList {
	var errs field.ErrorList
	if e := t.ExpirationSeconds; e != nil {
		if *e < 600 {
			errs = append(errs, field.Invalid(path.Child("expirationSeconds"), *e, "may not specify a duration less than 10 minutes"))
		}
		if *e > 1<<32 {
			errs = append(errs, field.Invalid(path.Child("expirationSeconds"), *e, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	if t.Path == "" {
		return append(errs, field.Required(file, ""))
	}
	return append(errs, localPath(file, t.Path)...)
}

// ephemeralClaims checks the names of the claims that a pod's ephemeral volumes will have.
func ephemeralClaims(path *field.Path, p *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	if p.Name == "" {
		return nil
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.Ephemeral == nil || v.Ephemeral.VolumeClaimTemplate == nil || v.Name == "" {
			continue
		}
		claim := p.Name + "-" + v.Name
		for _, m := range validation.IsDNS1123Subdomain(claim) {
			errs = append(errs, field.Invalid(path.Child("volumes").Index(i).Child("name"), v.Name, fmt.Sprintf("PVC name %q: %s", claim, m)))
		}
	}
	return errs
}
