package controllers_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
)

// aggregated is an aggregated server with flunders, in front of another API.
type aggregated struct {
	client.Interface

	mu       sync.Mutex
	down     bool
	flunders map[string]map[string]any // by namespace/name
	deleted  []string
	watches  map[*io.PipeWriter]bool
	rev      int
}

const flunders = "/apis/wardle.example.com/v1alpha1"

func (a *aggregated) RoundTrip(req *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answer := func(code int, body any) (*http.Response, error) {
		b, err := json.Marshal(body)
		return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(b)))}, err
	}
	if a.down || !strings.HasPrefix(req.URL.Path, flunders) {
		return answer(503, "service unavailable")
	}
	rest := strings.Split(strings.Trim(strings.TrimPrefix(req.URL.Path, flunders), "/"), "/")
	if rest[0] == "" {
		return answer(200, metav1.APIResourceList{GroupVersion: "wardle.example.com/v1alpha1", APIResources: []metav1.APIResource{
			{Name: "flunders", Kind: "Flunder", Namespaced: true, Verbs: []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}},
			{Name: "flunders/status", Kind: "Flunder", Namespaced: true, Verbs: []string{"get"}}}})
	}
	namespace, name := "", ""
	if rest[0] == "namespaces" {
		namespace, rest = rest[1], rest[2:]
	}
	if len(rest) == 2 {
		name = rest[1]
	}
	switch {
	case req.Method == "GET" && req.URL.Query().Get("watch") != "":
		r, w := io.Pipe()
		a.watches[w] = true
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: r}, nil
	case req.Method == "GET" && name == "":
		items := []any{}
		for key, f := range a.flunders {
			if strings.HasPrefix(key, namespace+"/") || namespace == "" {
				items = append(items, f)
			}
		}
		return answer(200, map[string]any{"apiVersion": "wardle.example.com/v1alpha1", "kind": "FlunderList", "metadata": map[string]any{"resourceVersion": fmt.Sprint(a.rev)}, "items": items})
	case req.Method == "DELETE":
		for key, f := range a.flunders {
			if key == namespace+"/"+name || name == "" && strings.HasPrefix(key, namespace+"/") {
				delete(a.flunders, key)
				a.deleted = append(a.deleted, key)
				a.rev++
				f["metadata"].(map[string]any)["resourceVersion"] = fmt.Sprint(a.rev)
				event, _ := json.Marshal(map[string]any{"type": "DELETED", "object": f})
				for w := range a.watches {
					go w.Write(append(event, '\n'))
				}
			}
		}
		return answer(200, metav1.Status{Status: metav1.StatusSuccess})
	}
	return answer(404, metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: 404})
}

func (a *aggregated) put(namespace, name string, owners ...metav1.OwnerReference) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rev++
	a.flunders[namespace+"/"+name] = map[string]any{"apiVersion": "wardle.example.com/v1alpha1", "kind": "Flunder", "metadata": map[string]any{
		"namespace": namespace, "name": name, "uid": "flunder-" + name, "resourceVersion": fmt.Sprint(a.rev), "ownerReferences": owners}}
}

func (a *aggregated) gone() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.deleted)
}

// stopped ends what is still watched.
func (a *aggregated) stopped(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
	for w := range a.watches {
		w.Close()
		delete(a.watches, w)
	}
}

func flunderService(available apiregistrationv1.ConditionStatus) *apiregistrationv1.APIService {
	return &apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: "v1alpha1.wardle.example.com"},
		Spec: apiregistrationv1.APIServiceSpec{Group: "wardle.example.com", Version: "v1alpha1", GroupPriorityMinimum: 1000, VersionPriority: 15,
			Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "wardle"}},
		Status: apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{{Type: apiregistrationv1.Available, Status: available}}}}
}

func inAggregated(t *testing.T, f func(c *cluster, a *aggregated), objects ...api.Object) {
	a := &aggregated{flunders: map[string]map[string]any{}, watches: map[*io.PipeWriter]bool{}, rev: 1}
	inClusterOf(t, func(c *cluster) {
		c.wrap = func(in client.Interface) client.Interface {
			a.Interface = in
			return client.InProcess(a)
		}
		c.read = c.wrap
	}, func(c *cluster) {
		f(c, a)
		a.stopped(true)
	}, objects...)
}

// What an aggregated server holds in a namespace goes with it, and as long as nobody knows what that is, it stays.
func TestNamespaceOfAggregatedKinds(t *testing.T) {
	inAggregated(t, func(c *cluster, a *aggregated) {
		a.put("default", "one")
		a.put("other", "two")
		a.stopped(true)
		c.endNamespace()
		time.Sleep(time.Minute)
		synctest.Wait()
		ns, err := client.Get[*corev1.Namespace](c.ctx, c.API, "", "default")
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool { return c.Type == corev1.NamespaceDeletionDiscoveryFailure })
		if i < 0 || ns.Status.Conditions[i].Status != corev1.ConditionTrue || ns.Status.Conditions[i].Reason != "DiscoveryFailed" ||
			ns.Status.Conditions[i].Message != "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "+
				"wardle.example.com/v1alpha1: stale GroupVersion discovery: wardle.example.com/v1alpha1" {
			t.Errorf("conditions: %+v", ns.Status.Conditions)
		}
		if len(ns.Status.Conditions) != 5 || len(a.gone()) > 0 {
			t.Errorf("%d conditions; deleted: %v", len(ns.Status.Conditions), a.gone())
		}
		a.stopped(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := a.gone(); !slices.Equal(got, []string{"default/one"}) {
			t.Errorf("deleted: %v", got)
		}
		if w := c.Writes(); !slices.Contains(w, "update namespaces/finalize default") {
			t.Errorf("the namespace was not finalized: %v", w)
		}
	}, flunderService(apiregistrationv1.ConditionTrue))
}

// An aggregated object whose owner goes is collected.
func TestGarbageOfAggregatedKinds(t *testing.T) {
	owner := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "owner", UID: "owner-uid"}}
	inAggregated(t, func(c *cluster, a *aggregated) {
		a.put("default", "owned", metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: "owner-uid"})
		a.put("default", "free")
		a.stopped(false) // the watches begin anew and find them
		time.Sleep(time.Minute)
		if err := client.Delete[*corev1.ConfigMap](c.ctx, c.API, "default", "owner", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := a.gone(); !slices.Equal(got, []string{"default/owned"}) {
			t.Errorf("deleted: %v", got)
		}
	}, flunderService(apiregistrationv1.ConditionTrue), owner)
}
