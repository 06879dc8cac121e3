package podautoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	custommetrics "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalmetrics "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	resourcemetrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
)

// Measurements are what an autoscaler asks of the metrics APIs. Values are in thousandths.
type Measurements interface {
	// Resource gives the samples of the selected pods, of one container where it is named.
	Resource(ctx context.Context, resource corev1.ResourceName, namespace string, sel labels.Selector, container string) (map[string]Sample, error)
	// Pods gives the samples of a custom metric of the selected pods.
	Pods(ctx context.Context, metric, namespace string, sel, metricSel labels.Selector) (map[string]Sample, error)
	// Object gives the value of a custom metric of one object.
	Object(ctx context.Context, metric, namespace, apiVersion, kind, name string, metricSel labels.Selector) (int64, error)
	// External gives the values of an external metric.
	External(ctx context.Context, metric, namespace string, sel labels.Selector) ([]int64, error)
}

// Scales reads and writes the scale of any kind that has one.
type Scales interface {
	Get(ctx context.Context, namespace, apiVersion, kind, name string) (*autoscalingv1.Scale, error)
	Update(ctx context.Context, namespace, apiVersion, kind string, s *autoscalingv1.Scale) error
}

// remote asks an API server for both. Kinds that the table does not know are looked up in the server's discovery.
type remote struct {
	client client.Interface
	kinds  *api.Table
}

func (r remote) get(ctx context.Context, path string, query url.Values, into any) error {
	b, err := client.Raw(ctx, r.client, "GET", path, query, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

func (r remote) Resource(ctx context.Context, resource corev1.ResourceName, namespace string, sel labels.Selector, container string) (map[string]Sample, error) {
	var list resourcemetrics.PodMetricsList
	if err := r.get(ctx, "/apis/metrics.k8s.io/v1beta1/namespaces/"+namespace+"/pods", url.Values{"labelSelector": {sel.String()}}, &list); err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from resource metrics API: %v", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from resource metrics API")
	}
	out := make(map[string]Sample, len(list.Items))
	for _, m := range list.Items {
		s, ok := sampleOf(m, resource, container)
		if ok {
			out[m.Name] = s
		}
	}
	return out, nil
}

// sampleOf adds a pod's containers up; false if one lacks the resource, or the named one is not there.
func sampleOf(m resourcemetrics.PodMetrics, resource corev1.ResourceName, container string) (Sample, bool) {
	s := Sample{At: m.Timestamp.Time, Window: m.Window.Duration}
	found := container == "" && len(m.Containers) > 0
	for _, c := range m.Containers {
		if container != "" && c.Name != container {
			continue
		}
		q, ok := c.Usage[resource]
		if !ok {
			return Sample{}, false
		}
		found = true
		s.Value += q.MilliValue()
	}
	return s, found
}

const customPath = "/apis/custom.metrics.k8s.io/v1beta2"

// metricWindow is the window of custom metrics that do not name one.
const metricWindow = time.Minute

func (r remote) Pods(ctx context.Context, metric, namespace string, sel, metricSel labels.Selector) (map[string]Sample, error) {
	var list custommetrics.MetricValueList
	if err := r.get(ctx, customPath+"/namespaces/"+namespace+"/pods/*/"+metric, query(sel, metricSel), &list); err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: %v", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from custom metrics API")
	}
	out := make(map[string]Sample, len(list.Items))
	for _, m := range list.Items {
		window := metricWindow
		if m.WindowSeconds != nil {
			window = time.Duration(*m.WindowSeconds) * time.Second
		}
		out[m.DescribedObject.Name] = Sample{Value: m.Value.MilliValue(), At: m.Timestamp.Time, Window: window}
	}
	return out, nil
}

func query(sel, metricSel labels.Selector) url.Values {
	q := url.Values{}
	if sel != nil && !sel.Empty() {
		q.Set("labelSelector", sel.String())
	}
	if metricSel != nil && !metricSel.Empty() {
		q.Set("metricLabelSelector", metricSel.String())
	}
	return q
}

func (r remote) Object(ctx context.Context, metric, namespace, apiVersion, kind, name string, metricSel labels.Selector) (int64, error) {
	path := customPath + "/namespaces/" + namespace
	if kind == "Namespace" {
		path = customPath + "/namespaces/" + name + "/metrics/" + metric
	} else {
		res, namespaced, err := r.resource(ctx, apiVersion, kind)
		if err != nil {
			return 0, err
		}
		if !namespaced {
			path = customPath
		}
		path += "/" + res.GroupResource().String() + "/" + name + "/" + metric
	}
	var list custommetrics.MetricValueList
	if err := r.get(ctx, path, query(nil, metricSel), &list); err != nil {
		return 0, fmt.Errorf("unable to fetch metrics from custom metrics API: %v", err)
	}
	if len(list.Items) == 0 {
		return 0, fmt.Errorf("unable to fetch metrics from custom metrics API: the custom metrics API server returned %d results when we asked for exactly one", len(list.Items))
	}
	return list.Items[0].Value.MilliValue(), nil
}

func (r remote) External(ctx context.Context, metric, namespace string, sel labels.Selector) ([]int64, error) {
	var list externalmetrics.ExternalMetricValueList
	if err := r.get(ctx, "/apis/external.metrics.k8s.io/v1beta1/namespaces/"+namespace+"/"+metric, query(sel, nil), &list); err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from external metrics API: %v", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from external metrics API")
	}
	out := make([]int64, len(list.Items))
	for i, m := range list.Items {
		out[i] = m.Value.MilliValue()
	}
	return out, nil
}

// resource finds the resource of a kind, in the table or else in the server's discovery.
func (r remote) resource(ctx context.Context, apiVersion, kind string) (res schema.GroupVersionResource, namespaced bool, err error) {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return res, false, err
	}
	for _, k := range r.kinds.Kinds() {
		if k.Kind == kind && k.Group == gv.Group && k.Version == gv.Version {
			return k.GroupVersionResource(), k.Namespaced, nil
		}
	}
	path := "/apis/" + apiVersion
	if gv.Group == "" {
		path = "/api/" + gv.Version
	}
	var list metav1.APIResourceList
	if err := r.get(ctx, path, nil, &list); err != nil {
		return res, false, err
	}
	for _, a := range list.APIResources {
		if a.Kind == kind && !strings.Contains(a.Name, "/") {
			return gv.WithResource(a.Name), a.Namespaced, nil
		}
	}
	return res, false, fmt.Errorf("no matches for kind %q in version %q", kind, apiVersion)
}

func (r remote) scalePath(ctx context.Context, namespace, apiVersion, kind, name string) (string, error) {
	res, namespaced, err := r.resource(ctx, apiVersion, kind)
	if err != nil {
		return "", err
	}
	path := "/apis/" + res.Group + "/" + res.Version
	if res.Group == "" {
		path = "/api/" + res.Version
	}
	if namespaced {
		path += "/namespaces/" + namespace
	}
	return path + "/" + res.Resource + "/" + name + "/scale", nil
}

// Get reads a scale.
func (r remote) Get(ctx context.Context, namespace, apiVersion, kind, name string) (*autoscalingv1.Scale, error) {
	path, err := r.scalePath(ctx, namespace, apiVersion, kind, name)
	if err != nil {
		return nil, err
	}
	s := &autoscalingv1.Scale{}
	return s, r.get(ctx, path, nil, s)
}

// Update writes a scale that Get has read; a stale one is a conflict.
func (r remote) Update(ctx context.Context, namespace, apiVersion, kind string, s *autoscalingv1.Scale) error {
	path, err := r.scalePath(ctx, namespace, apiVersion, kind, s.Name)
	if err != nil {
		return err
	}
	s = s.DeepCopy()
	s.TypeMeta = metav1.TypeMeta{APIVersion: autoscalingv1.SchemeGroupVersion.String(), Kind: "Scale"}
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = client.Raw(ctx, r.client, "PUT", path, nil, body)
	return err
}
