package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/node/env"
	"github.com/skiff-sh/skiff/node/lifecycle"
	"github.com/skiff-sh/skiff/node/objects"
	"github.com/skiff-sh/skiff/node/spec"
	"github.com/skiff-sh/skiff/node/volume"
)

// volumeSources gives volumes their content from the API.
func (a *Agent) volumeSources() volume.Sources {
	return volume.Sources{
		ConfigMap: func(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
			return getObject[*corev1.ConfigMap](ctx, a.objects, namespace, name)
		},
		Secret: func(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
			return getObject[*corev1.Secret](ctx, a.objects, namespace, name)
		},
		Claim: func(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
			return client.Get[*corev1.PersistentVolumeClaim](ctx, a.cfg.Client, namespace, name)
		},
		Volume: func(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
			return client.Get[*corev1.PersistentVolume](ctx, a.cfg.Client, "", name)
		},
		Token: a.token, Bundle: a.bundle, NotFound: apierrors.IsNotFound, Now: a.cfg.Clock.Now,
		Field: func(pod *corev1.Pod, path string) (string, error) {
			return env.Field(pod, path, env.Sources{HostIP: a.cfg.NodeIP.String(), HostIPs: []string{a.cfg.NodeIP.String()}})
		},
		Resource: func(pod *corev1.Pod, ref *corev1.ResourceFieldSelector) (string, error) {
			c, ok := lifecycle.Find(pod, ref.ContainerName)
			if !ok {
				return "", fmt.Errorf("container %q not found", ref.ContainerName)
			}
			return env.Resource(c, ref, a.allocatable())
		},
	}
}

// token asks for a service account token that is bound to the pod.
func (a *Agent) token(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) (string, time.Time, time.Time, error) {
	ttl := int64(3600)
	if p.ExpirationSeconds != nil {
		ttl = *p.ExpirationSeconds
	}
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &ttl,
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}}
	if p.Audience != "" {
		req.Spec.Audiences = []string{p.Audience}
	}
	now := a.cfg.Clock.Now()
	out, err := a.cfg.Client.Action(ctx, client.KindOf[*corev1.ServiceAccount](), pod.Namespace, pod.Spec.ServiceAccountName, "token", req)
	if err != nil {
		return "", now, now, fmt.Errorf("failed to fetch token: %w", err)
	}
	tr, ok := out.(*authenticationv1.TokenRequest)
	if !ok || tr.Status.Token == "" {
		return "", now, now, fmt.Errorf("failed to fetch token: the answer holds none")
	}
	// The life that was asked for decides the refresh: the server may give a longer one to be kind to old clients.
	return tr.Status.Token, now, now.Add(min(time.Duration(ttl)*time.Second, max(tr.Status.ExpirationTimestamp.Sub(now), time.Minute))), nil
}

// bundle joins the cluster's trust bundles that a projection names.
func (a *Agent) bundle(ctx context.Context, p *corev1.ClusterTrustBundleProjection) (string, error) {
	if _, ok := builtin.Table().Of(&certificatesv1beta1.ClusterTrustBundle{}); !ok {
		return "", errors.New("this cluster has no trust bundles")
	}
	if p.Name != nil {
		b, err := client.Get[*certificatesv1beta1.ClusterTrustBundle](ctx, a.cfg.Client, "", *p.Name)
		if err != nil {
			return "", err
		}
		return b.Spec.TrustBundle, nil
	}
	sel, err := metav1.LabelSelectorAsSelector(p.LabelSelector)
	if err != nil {
		return "", err
	}
	all, err := client.List[*certificatesv1beta1.ClusterTrustBundle](ctx, a.cfg.Client, "", metav1.ListOptions{LabelSelector: sel.String()})
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, b := range all {
		if p.SignerName != nil && b.Spec.SignerName == *p.SignerName && sel.Matches(labels.Set(b.Labels)) {
			out.WriteString(strings.TrimSuffix(b.Spec.TrustBundle, "\n") + "\n")
		}
	}
	return out.String(), nil
}

// pullSecrets are those of the pod that exist.
func (a *Agent) pullSecrets(ctx context.Context, pod *corev1.Pod) []*corev1.Secret {
	var out []*corev1.Secret
	for _, r := range pod.Spec.ImagePullSecrets {
		s, err := getObject[*corev1.Secret](ctx, a.objects, pod.Namespace, r.Name)
		if err != nil {
			a.event(pod, "", corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
				"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", r.Name)
			continue
		}
		out = append(out, s)
	}
	return out
}

// references lists the config maps and secrets that a pod refers to.
func references(pod *corev1.Pod) []objects.Ref {
	seen := map[objects.Ref]bool{}
	var out []objects.Ref
	add := func(r objects.Ref) {
		if r.Name != "" && !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	cm := func(name string) {
		add(objects.Ref{Kind: client.KindOf[*corev1.ConfigMap](), Namespace: pod.Namespace, Name: name})
	}
	sec := func(name string) {
		add(objects.Ref{Kind: client.KindOf[*corev1.Secret](), Namespace: pod.Namespace, Name: name})
	}
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.ConfigMap != nil:
			cm(v.ConfigMap.Name)
		case v.Secret != nil:
			sec(v.Secret.SecretName)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					cm(s.ConfigMap.Name)
				}
				if s.Secret != nil {
					sec(s.Secret.Name)
				}
			}
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			for _, f := range c.EnvFrom {
				if f.ConfigMapRef != nil {
					cm(f.ConfigMapRef.Name)
				}
				if f.SecretRef != nil {
					sec(f.SecretRef.Name)
				}
			}
			for _, e := range c.Env {
				if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
					cm(e.ValueFrom.ConfigMapKeyRef.Name)
				}
				if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
					sec(e.ValueFrom.SecretKeyRef.Name)
				}
			}
		}
	}
	return out
}

func hostDNS(path string) (spec.DNS, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return spec.DNS{}, nil
	}
	if err != nil {
		return spec.DNS{}, err
	}
	defer f.Close()
	return spec.ParseResolvConf(f)
}
