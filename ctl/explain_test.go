package ctl

import (
	"bytes"
	"strings"
	"testing"

	"github.com/skiff-sh/skiff/scheduler/core"
)

func TestPodsInManifests(t *testing.T) {
	pods, owners, err := podsIn(strings.NewReader(`
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: i}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "@daily"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}
---
apiVersion: v1
kind: Pod
metadata: {name: single}
spec: {containers: [{name: c, image: i}]}
`), "default")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range pods {
		names = append(names, p.Namespace+"/"+p.Name)
	}
	if got, want := strings.Join(names, " "), "shop/web-0 shop/web-1 default/nightly-0 default/single"; got != want || len(owners) != 1 || owners[0].GetNamespace() != "shop" {
		t.Errorf("got %s and %d owners, want %s", got, len(owners), want)
	}
	if _, _, err := podsIn(strings.NewReader("kind: Pod\nspec: {nodeNam: x}"), "default"); err == nil || !strings.Contains(err.Error(), "nodeNam") {
		t.Error("a misspelt field:", err)
	}
}

func TestPrintExplanation(t *testing.T) {
	var out bytes.Buffer
	printExplanation(&out, &core.Explanation{Pod: "ns/p", Message: "0/3 nodes are available: ...", Cleared: "c", Victims: []string{"ns/x"},
		Refused: []core.RefusedNodes{{Nodes: []string{"a", "b"}, Obstacles: []core.Obstacle{{Plugin: "NodeResourcesFit", Reason: "Insufficient cpu", Change: "it asks for 2"}}}}})
	want := `ns/p fits on no node
  0/3 nodes are available: ...

  it may evict ns/x from c

  a, b
    Insufficient cpu (NodeResourcesFit)
      it asks for 2
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
