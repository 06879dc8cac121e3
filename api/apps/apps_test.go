package apps

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

const web = `
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx}]}
`

func TestDeployment(t *testing.T) {
	d := &appsv1.Deployment{}
	if err := yaml.UnmarshalStrict([]byte(web), d); err != nil {
		t.Fatal(err)
	}
	defaultDeployment(d)
	if *d.Spec.Replicas != 1 || d.Spec.Strategy.RollingUpdate.MaxSurge.String() != "25%" || *d.Spec.ProgressDeadlineSeconds != 600 ||
		*d.Spec.RevisionHistoryLimit != 10 || d.Spec.Template.Spec.EnableServiceLinks != nil {
		t.Errorf("defaults: %+v", d.Spec)
	}
	if errs := validateDeployment(d); len(errs) > 0 {
		t.Error(errs)
	}
	other := d.DeepCopy()
	other.Spec.Template.Labels["app"] = "other"
	if err := validateDeployment(other).ToAggregate(); err == nil || !strings.Contains(err.Error(), "`selector` does not match template `labels`") {
		t.Error(err)
	}
	other = d.DeepCopy()
	other.Spec.Selector.MatchLabels["tier"] = "x"
	other.Spec.Template.Labels["tier"] = "x"
	if err := validateDeploymentUpdate(other, d).ToAggregate(); err == nil || !strings.Contains(err.Error(), "field is immutable") {
		t.Error(err)
	}
}

func TestStatefulSetUpdate(t *testing.T) {
	s := &appsv1.StatefulSet{}
	if err := yaml.UnmarshalStrict([]byte(web), s); err != nil {
		t.Fatal(err)
	}
	defaultStatefulSet(s)
	next := s.DeepCopy()
	*next.Spec.Replicas = 3
	next.Spec.Template.Spec.Containers[0].Image = "nginx:2"
	if errs := validateStatefulSetUpdate(next, s); len(errs) > 0 {
		t.Error(errs)
	}
	next.Spec.ServiceName = "other"
	if err := validateStatefulSetUpdate(next, s).ToAggregate(); err == nil || !strings.Contains(err.Error(), "updates to statefulset spec for fields other than") {
		t.Error(err)
	}
}
