package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/skiff-sh/skiff/api"
)

// upstream writes answers and reads bodies with upstream's own serializers, in the format that it is told to prefer.
type upstream struct {
	*testing.T
	format string // typeJSON or typeProtobuf
}

func (u upstream) info() runtime.SerializerInfo {
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), u.format)
	if !ok {
		u.Fatal(u.format)
	}
	return info
}

func (u upstream) answer(w http.ResponseWriter, code int, obj runtime.Object) {
	w.Header().Set("Content-Type", u.format)
	w.WriteHeader(code)
	if err := scheme.Codecs.EncoderForVersion(u.info().Serializer, corev1.SchemeGroupVersion).Encode(obj, w); err != nil {
		u.Error(err)
	}
}

func (u upstream) read(r *http.Request) runtime.Object {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		u.Error(err)
	}
	obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(b, nil, nil)
	if err != nil {
		u.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	return obj
}

func (u upstream) watch(w http.ResponseWriter, events ...watch.Event) {
	w.Header().Set("Content-Type", u.format+";stream=watch")
	stream := u.info().StreamSerializer
	frames := stream.Framer.NewFrameWriter(w)
	for _, e := range events {
		var b bytes.Buffer
		if err := scheme.Codecs.EncoderForVersion(u.info().Serializer, corev1.SchemeGroupVersion).Encode(e.Object, &b); err != nil {
			u.Error(err)
		}
		we := &metav1.WatchEvent{Type: string(e.Type), Object: runtime.RawExtension{Raw: b.Bytes()}}
		if err := stream.Serializer.Encode(we, frames); err != nil {
			u.Error(err)
		}
		w.(http.Flusher).Flush()
	}
}

func serve(t *testing.T, h http.HandlerFunc) Interface {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := NewHTTP(HTTPConfig{Server: s.URL + "/prefix", BearerToken: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pod(name, rv string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, ResourceVersion: rv},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
}

func TestHTTPSpeaksUpstream(t *testing.T) {
	for _, format := range []string{typeJSON, typeProtobuf} {
		t.Run(format, func(t *testing.T) {
			u := upstream{t, format}
			var asked []string
			c := serve(t, func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.Method+" "+r.URL.String())
				if got := r.Header.Get("Authorization"); got != "Bearer secret" {
					t.Errorf("Authorization: %s", got)
				}
				switch {
				case r.URL.Query().Get("watch") != "":
					u.watch(w, watch.Event{Type: watch.Added, Object: pod("a", "2")}, watch.Event{Type: watch.Bookmark, Object: pod("", "3")},
						watch.Event{Type: watch.Error, Object: &metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired}})
				case r.Method == "GET" && strings.HasSuffix(r.URL.Path, "/pods"):
					u.answer(w, 200, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}, Items: []corev1.Pod{*pod("a", "1"), *pod("b", "2")}})
				case r.Method == "GET":
					u.answer(w, 200, pod("a", "1"))
				case r.Method == "PATCH":
					if r.Header.Get("Content-Type") != string(types.MergePatchType) {
						t.Errorf("Content-Type: %s", r.Header.Get("Content-Type"))
					}
					u.answer(w, 200, pod("a", "9"))
				case r.Method == "DELETE":
					if o := u.read(r).(*metav1.DeleteOptions); *o.Preconditions.UID != "u" {
						t.Errorf("options: %+v", o)
					}
					u.answer(w, 200, &metav1.Status{Status: metav1.StatusSuccess})
				case strings.HasSuffix(r.URL.Path, "/binding"):
					if b := u.read(r).(*corev1.Binding); b.Target.Name != "n1" {
						t.Errorf("binding: %+v", b)
					}
					u.answer(w, 201, &metav1.Status{Status: metav1.StatusSuccess})
				default:
					u.answer(w, 200, u.read(r))
				}
			})
			ctx := t.Context()
			k := KindOf[*corev1.Pod]()

			got, err := Get[*corev1.Pod](ctx, c, "ns", "a")
			if err != nil || got.Spec.NodeName != "n1" || got.Kind != "Pod" || got.APIVersion != "v1" {
				t.Errorf("get: %+v, %v", got, err)
			}
			objs, meta, err := c.List(ctx, k, "", metav1.ListOptions{LabelSelector: "a=b", Limit: 5})
			if err != nil || len(objs) != 2 || objs[1].GetName() != "b" || meta.ResourceVersion != "7" || objs[0].GetObjectKind().GroupVersionKind().Kind != "Pod" {
				t.Errorf("list: %v, %v, %v", objs, meta, err)
			}
			made, err := Create(ctx, c, pod("new", ""))
			if err != nil || made.Name != "new" || made.Spec.Containers[0].Image != "i" {
				t.Errorf("create: %+v, %v", made, err)
			}
			if _, err := UpdateStatus(ctx, c, pod("a", "1")); err != nil {
				t.Error(err)
			}
			if p, err := Patch[*corev1.Pod](ctx, c, "ns", "a", "", types.MergePatchType, []byte(`{}`)); err != nil || p.ResourceVersion != "9" {
				t.Errorf("patch: %v, %v", p, err)
			}
			if err := Delete[*corev1.Pod](ctx, c, "ns", "a", "u"); err != nil {
				t.Error(err)
			}
			answer, err := c.Action(ctx, k, "ns", "a", "binding", &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Target: corev1.ObjectReference{Name: "n1"}})
			if s, ok := answer.(*metav1.Status); !ok || s.Status != metav1.StatusSuccess {
				t.Errorf("binding: %v, %v", answer, err)
			}
			w, err := c.Watch(ctx, k, "ns", metav1.ListOptions{ResourceVersion: "1", AllowWatchBookmarks: true})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			var events []string
			for e := range w.ResultChan() {
				s := string(e.Type)
				if o, ok := e.Object.(*corev1.Pod); ok {
					s += o.Name + o.ResourceVersion
				} else if !apierrors.IsResourceExpired(apierrors.FromObject(e.Object)) {
					t.Errorf("%s carries %T", e.Type, e.Object)
				}
				events = append(events, s)
			}
			if got := fmt.Sprint(events); got != "[ADDEDa2 BOOKMARK3 ERROR]" {
				t.Errorf("events %s", got)
			}
			want := []string{"GET /prefix/api/v1/namespaces/ns/pods/a", "GET /prefix/api/v1/pods?labelSelector=a%3Db&limit=5",
				"POST /prefix/api/v1/namespaces/ns/pods", "PUT /prefix/api/v1/namespaces/ns/pods/a/status", "PATCH /prefix/api/v1/namespaces/ns/pods/a",
				"DELETE /prefix/api/v1/namespaces/ns/pods/a", "POST /prefix/api/v1/namespaces/ns/pods/a/binding",
				"GET /prefix/api/v1/namespaces/ns/pods?allowWatchBookmarks=true&resourceVersion=1&watch=true"}
			if got := strings.Join(asked, "\n"); got != strings.Join(want, "\n") {
				t.Errorf("asked\n%s\nwant\n%s", got, strings.Join(want, "\n"))
			}
		})
	}
}

func TestHTTPCustomResources(t *testing.T) {
	k := &api.Kind{Group: "example.com", Version: "v1", Kind: "Thing", Plural: "things", CRD: true,
		New:     func() api.Object { return &unstructured.Unstructured{} },
		NewList: func() runtime.Object { return &unstructured.UnstructuredList{} }}
	const thing = `{"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"a","resourceVersion":"5"},"n":7}`
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Query().Get("watch") != "":
			fmt.Fprintf(w, `{"type":"MODIFIED","object":%s}`+"\n", thing)
		case r.Method == "GET":
			fmt.Fprintf(w, `{"apiVersion":"example.com/v1","kind":"ThingList","metadata":{"resourceVersion":"6"},"items":[%s]}`, thing)
		default:
			io.Copy(w, r.Body)
		}
	})
	objs, meta, err := c.List(t.Context(), k, "", metav1.ListOptions{})
	if err != nil || len(objs) != 1 || meta.ResourceVersion != "6" || objs[0].(*unstructured.Unstructured).Object["n"] != int64(7) {
		t.Errorf("list: %v %v %v", objs, meta, err)
	}
	w, err := c.Watch(t.Context(), k, "", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if e := <-w.ResultChan(); e.Type != watch.Modified || e.Object.(api.Object).GetName() != "a" {
		t.Errorf("event %v", e)
	}
	if _, ok := <-w.ResultChan(); ok {
		t.Error("the watch goes on")
	}
	made, err := c.Create(t.Context(), k, objs[0], metav1.CreateOptions{})
	if err != nil || made.GetName() != "a" {
		t.Errorf("create: %v %v", made, err)
	}
}

func TestHTTPErrors(t *testing.T) {
	u := upstream{t, typeProtobuf}
	tries := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]; name {
		case "missing":
			status := apierrors.NewNotFound(corev1.Resource("pods"), name).ErrStatus
			u.answer(w, 404, &status)
		case "busy":
			if tries++; tries == 1 {
				w.Header().Set("Retry-After", "1")
				http.Error(w, "later", http.StatusTooManyRequests)
				return
			}
			u.answer(w, 200, pod("busy", "1"))
		case "plain":
			http.Error(w, "no", http.StatusForbidden)
		case "garbage":
			io.WriteString(w, "<html>")
		}
	})
	if _, err := Get[*corev1.Pod](t.Context(), c, "ns", "missing"); !apierrors.IsNotFound(err) || err.Error() != `pods "missing" not found` {
		t.Errorf("missing: %v", err)
	}
	if _, err := Get[*corev1.Pod](t.Context(), c, "ns", "plain"); !apierrors.IsForbidden(err) {
		t.Errorf("plain: %v", err)
	}
	if _, err := Get[*corev1.Pod](t.Context(), c, "ns", "garbage"); err == nil {
		t.Error("garbage was decoded")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := Get[*corev1.Pod](ctx, c, "ns", "busy"); err != nil || tries != 2 {
		t.Errorf("busy: %v after %d tries", err, tries)
	}
}

func FuzzDecode(f *testing.F) {
	body, _, err := encode(KindOf[*corev1.Pod](), pod("a", "1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	text, _ := json.Marshal(pod("a", "1"))
	f.Add(text)
	f.Add([]byte(`{"kind":"Status","apiVersion":"v1"}`))
	f.Add([]byte("\x00\x00\x00\x05\x0a\x01A\x12\x00"))
	k := KindOf[*corev1.Pod]()
	f.Fuzz(func(t *testing.T, b []byte) {
		if obj, err := decodeObject(b, func(string) runtime.Object { return k.New() }); err == nil && obj == nil {
			t.Error("neither an object nor an error")
		}
		for _, next := range []func() (*metav1.WatchEvent, error){jsonFrames(bytes.NewReader(b)), protobufFrames(bytes.NewReader(b))} {
			for range len(b) + 1 {
				e, err := next()
				if err != nil {
					break
				}
				decodeEvent(e, k)
			}
		}
	})
}
