package plugins

import (
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/internal/read"
)

func TestNodeTokens(t *testing.T) {
	mine := newPod(on("n1"), func(p *corev1.Pod) {
		p.UID = "u"
		p.Spec.Volumes = []corev1.Volume{
			{Name: "v", VolumeSource: corev1.VolumeSource{Projected: tokenSource()}},
			{Name: "w", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault"}}}}}}}
	})
	other := newPod(on("n2"), func(p *corev1.Pod) { p.Name, p.UID = "q", "w" })
	p := &nodeRestriction{memstore.New(mine, other), may{"request-serviceaccounts-token-audience granted/robot"}}
	for _, c := range []struct {
		name, uid string
		audiences []string
		want      string
	}{
		{"p", "u", nil, ""},
		{"p", "u", []string{"vault"}, ""},
		{"p", "u", []string{"granted"}, ""},
		{"p", "u", []string{"x"}, `audience "x" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience`},
		{"p", "u", []string{"x", "y"}, "node may only request 0 or 1 audiences"},
		{"p", "", nil, "node requested token with a pod binding without a uid"},
		{"p", "old", nil, "the UID in the bound object reference (old) does not match the UID in record"},
		{"q", "w", nil, "node requested token bound to a pod scheduled on a different node"},
		{"none", "u", nil, `pods "none" not found`},
		{"", "", nil, "node requested token not bound to a pod"},
	} {
		tr := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: c.audiences}}
		if c.name != "" {
			tr.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: c.name}
			tr.Spec.BoundObjectRef.UID = types.UID(c.uid)
		}
		err := run(t, p, &admission.Request{Operation: admission.Create, Kind: read.Kind[*corev1.ServiceAccount](), Subresource: "token",
			Namespace: "a", Name: "robot", Object: tr, User: node})
		expect(t, c.name+" "+c.uid, err, c.want)
	}
}
