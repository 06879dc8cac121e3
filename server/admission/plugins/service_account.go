package plugins

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/podref"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// serviceAccount gives every pod its service account, the account's pull secrets, and a volume with its token.
type serviceAccount struct{ st store.Store }

const (
	tokenVolume    = "kube-api-access-"
	tokenMount     = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenSeconds   = int64(3607)
	rootCA         = "kube-root-ca.crt"
	onlyMountables = "kubernetes.io/enforce-mountable-secrets"
	nameLetters    = "bcdfghjklmnpqrstvwxz2456789"
)

func (*serviceAccount) Name() string { return "ServiceAccount" }
func (*serviceAccount) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return isPod(k) && ((op == admission.Create && sub == "") || (op == admission.Update && sub == "ephemeralcontainers"))
}

func (p *serviceAccount) Admit(ctx context.Context, r *admission.Request) error {
	o := pod(r)
	if o == nil || r.Operation != admission.Create {
		return nil
	}
	if _, mirror := o.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return p.mirror(r, o)
	}
	if o.Spec.ServiceAccountName == "" {
		o.Spec.ServiceAccountName = "default"
	}
	o.Spec.DeprecatedServiceAccount = o.Spec.ServiceAccountName
	sa, err := p.account(ctx, r, o)
	if err != nil {
		return err
	}
	if automount(sa, o) {
		mountToken(o)
	}
	if len(o.Spec.ImagePullSecrets) == 0 {
		o.Spec.ImagePullSecrets = slices.Clone(sa.ImagePullSecrets)
	}
	return nil
}

func (p *serviceAccount) Validate(ctx context.Context, r *admission.Request) error {
	o := pod(r)
	if o == nil {
		return nil
	}
	if _, mirror := o.Annotations[corev1.MirrorPodAnnotationKey]; mirror && r.Operation == admission.Create {
		return p.mirror(r, o)
	}
	if o.Spec.ServiceAccountName == "" {
		return forbidden(r, "no service account specified for pod %s/%s", r.Namespace, o.Name)
	}
	sa, err := p.account(ctx, r, o)
	if err != nil {
		return err
	}
	if only, _ := strconv.ParseBool(sa.Annotations[onlyMountables]); only {
		if err := mountable(sa, o, r.Operation == admission.Update); err != nil {
			return forbidden(r, "%w", err)
		}
	}
	return nil
}

// account finds the pod's account. The default account of a namespace that was made a moment ago comes from a
// controller, so it is waited for, up to two seconds.
func (p *serviceAccount) account(ctx context.Context, r *admission.Request, o *corev1.Pod) (*corev1.ServiceAccount, error) {
	name := o.Spec.ServiceAccountName
	tries := 1
	if name == "default" {
		tries = 20
	}
	for i := range tries {
		if i > 0 {
			select {
			case <-ctx.Done():
				return nil, forbidden(r, "error looking up service account %s/%s: %w", r.Namespace, name, ctx.Err())
			case <-time.After(100 * time.Millisecond):
			}
		}
		sa, ok, err := read.Fresh[*corev1.ServiceAccount](ctx, p.st, r.Namespace, name)
		if err != nil {
			return nil, forbidden(r, "error looking up service account %s/%s: %w", r.Namespace, name, err)
		}
		if ok {
			return sa, nil
		}
	}
	return nil, forbidden(r, "error looking up service account %s/%s: %w", r.Namespace, name, notFound("serviceaccount", name))
}

// mirror refuses what a node must not get by making a pod itself.
func (p *serviceAccount) mirror(r *admission.Request, o *corev1.Pod) error {
	if o.Spec.ServiceAccountName != "" {
		return forbidden(r, "a mirror pod may not reference service accounts")
	}
	for kind := range podref.All(o) {
		if kind == podref.Secret {
			return forbidden(r, "a mirror pod may not reference secrets")
		}
	}
	if projectsToken(o) {
		return forbidden(r, "a mirror pod may not use ServiceAccountToken volume projections")
	}
	return nil
}

func projectsToken(o *corev1.Pod) bool {
	return slices.ContainsFunc(o.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.ServiceAccountToken != nil })
	})
}

func automount(sa *corev1.ServiceAccount, o *corev1.Pod) bool {
	switch {
	case o.Spec.AutomountServiceAccountToken != nil:
		return *o.Spec.AutomountServiceAccountToken
	case sa.AutomountServiceAccountToken != nil:
		return *sa.AutomountServiceAccountToken
	}
	return true
}

// mountToken mounts the token into every container that has nothing at its place yet.
func mountToken(o *corev1.Pod) {
	name, exists := "", false
	for _, v := range o.Spec.Volumes {
		if strings.HasPrefix(v.Name, tokenVolume) {
			name, exists = v.Name, true
			break
		}
	}
	if name == "" {
		b := []byte(tokenVolume)
		for range 5 {
			b = append(b, nameLetters[rand.IntN(len(nameLetters))])
		}
		name = string(b)
	}
	mounted := false
	for _, cs := range [][]corev1.Container{o.Spec.InitContainers, o.Spec.Containers} {
		for i := range cs {
			if slices.ContainsFunc(cs[i].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == tokenMount }) {
				continue
			}
			cs[i].VolumeMounts = append(cs[i].VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenMount})
			mounted = true
		}
	}
	if mounted && !exists {
		o.Spec.Volumes = append(o.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: tokenSource()}})
	}
}

func tokenSource() *corev1.ProjectedVolumeSource {
	seconds, mode := tokenSeconds, corev1.ProjectedVolumeSourceDefaultMode
	return &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: rootCA},
			Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace",
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
	}}
}

// mountable checks that the pod uses only secrets that its account names, for accounts that ask for it.
func mountable(sa *corev1.ServiceAccount, o *corev1.Pod, ephemeralOnly bool) error {
	named := map[string]bool{}
	for _, s := range sa.Secrets {
		named[s.Name] = true
	}
	container := func(kind string, c *corev1.Container) error {
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && !named[e.ValueFrom.SecretKeyRef.Name] {
				return fmt.Errorf("%s %s with envVar %s referencing secret.secretName=\"%s\" is not allowed because service account %s does not reference that secret",
					kind, c.Name, e.Name, e.ValueFrom.SecretKeyRef.Name, sa.Name)
			}
		}
		for _, e := range c.EnvFrom {
			if e.SecretRef != nil && !named[e.SecretRef.Name] {
				return fmt.Errorf("%s %s with envFrom referencing secret.secretName=\"%s\" is not allowed because service account %s does not reference that secret",
					kind, c.Name, e.SecretRef.Name, sa.Name)
			}
		}
		return nil
	}
	if ephemeralOnly {
		for i := range o.Spec.EphemeralContainers {
			c := corev1.Container(o.Spec.EphemeralContainers[i].EphemeralContainerCommon)
			if err := container("ephemeral container", &c); err != nil {
				return err
			}
		}
		return nil
	}
	for _, v := range o.Spec.Volumes {
		if v.Secret != nil && !named[v.Secret.SecretName] {
			return fmt.Errorf("volume with secret.secretName=\"%s\" is not allowed because service account %s does not reference that secret", v.Secret.SecretName, sa.Name)
		}
	}
	for i := range o.Spec.InitContainers {
		if err := container("init container", &o.Spec.InitContainers[i]); err != nil {
			return err
		}
	}
	for i := range o.Spec.Containers {
		if err := container("container", &o.Spec.Containers[i]); err != nil {
			return err
		}
	}
	for i, s := range o.Spec.ImagePullSecrets {
		if !slices.Contains(sa.ImagePullSecrets, s) {
			return fmt.Errorf(`imagePullSecrets[%d].name="%s" is not allowed because service account %s does not reference that imagePullSecret`, i, s.Name, sa.Name)
		}
	}
	return nil
}
