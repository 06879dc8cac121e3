package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/client/clienttest"
)

func configMap(ns, name string, labels map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labels}}
}

// bubble runs f with caches over a fake API that run until f returns.
func bubble(t *testing.T, a *clienttest.API, f func(ctx context.Context, cs *client.Caches)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cs := client.NewCaches(a, nil)
		done := make(chan error)
		go func() { done <- cs.Run(ctx) }()
		synctest.Wait() // running
		f(ctx, cs)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func names[T api.Object](objs []T) string {
	var out []string
	for _, o := range objs {
		out = append(out, o.GetName())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestCacheFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := clienttest.New(nil, configMap("x", "a", map[string]string{"app": "1"}))
		cs := client.NewCaches(a, nil)
		c := client.CacheOf[*corev1.ConfigMap](cs)
		byApp := func(o *corev1.ConfigMap) []string { return []string{o.Labels["app"]} }
		c.AddIndex("app", byApp)
		var told []string
		cancel := c.Subscribe(func(e client.Event[*corev1.ConfigMap]) {
			switch {
			case e.Old == nil:
				told = append(told, "+"+e.New.Name)
			case e.New == nil:
				told = append(told, "-"+e.Old.Name)
			default:
				told = append(told, "~"+e.New.Name)
			}
		})
		ctx, stop := context.WithCancel(t.Context())
		defer func() { stop(); synctest.Wait() }()
		go cs.Run(ctx)
		if err := cs.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		b, err := client.Create(ctx, a, configMap("y", "b", map[string]string{"app": "2"}))
		if err != nil {
			t.Fatal(err)
		}
		b = b.DeepCopy()
		b.Labels["app"] = "1"
		if b, err = client.Update(ctx, a, b); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitFor(ctx, b.ResourceVersion); err != nil {
			t.Fatal(err)
		}
		if got := names(c.By("app", "1")); got != "a b" {
			t.Errorf("app=1: %q", got)
		}
		if got := names(c.By("app", "2")); got != "" {
			t.Errorf("app=2: %q", got)
		}
		if got := names(c.List("y")); got != "b" {
			t.Errorf("namespace y: %q", got)
		}
		if err := client.Delete[*corev1.ConfigMap](ctx, a, "x", "a", ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := names(c.List("")); got != "b" {
			t.Errorf("all: %q", got)
		}
		cancel()
		if _, err := client.Create(ctx, a, configMap("x", "late", nil)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := strings.Join(told, " "); got != "+a +b ~b -a" {
			t.Errorf("told %q", got)
		}
		if _, ok := c.Get("x", "late"); !ok {
			t.Error("late is missing")
		}
	})
}

func TestCacheSubscribesLate(t *testing.T) {
	a := clienttest.New(nil, configMap("x", "a", nil), configMap("x", "b", nil))
	bubble(t, a, func(ctx context.Context, cs *client.Caches) {
		c := client.CacheOf[*corev1.ConfigMap](cs) // asked for while running
		if err := cs.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		n := 0
		c.Subscribe(func(e client.Event[*corev1.ConfigMap]) { n++ })
		if n != 2 {
			t.Errorf("told of %d objects, want 2", n)
		}
		c.AddIndex("name", func(o *corev1.ConfigMap) []string { return []string{o.Name} })
		if got := names(c.By("name", "b")); got != "b" {
			t.Errorf("late index: %q", got)
		}
	})
}

func TestCacheRelists(t *testing.T) {
	a := clienttest.New(nil, configMap("x", "a", nil), configMap("x", "b", nil))
	var down bool
	a.Fail = func(c clienttest.Call) error {
		if down {
			return errors.New("the server is down")
		}
		return nil
	}
	bubble(t, a, func(ctx context.Context, cs *client.Caches) {
		c := client.CacheOf[*corev1.ConfigMap](cs)
		if err := cs.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		var told []string
		c.Subscribe(func(e client.Event[*corev1.ConfigMap]) { told = append(told, fmt.Sprint(e.Old != nil, e.New != nil)) })
		told = nil
		synctest.Wait()
		// The watch breaks, and what happens next is compacted away: only a relist can tell.
		a.Break()
		down = true
		synctest.Wait()
		down = false
		if err := client.Delete[*corev1.ConfigMap](ctx, a, "x", "a", ""); err != nil {
			t.Fatal(err)
		}
		made, err := client.Create(ctx, a, configMap("x", "c", nil))
		if err != nil {
			t.Fatal(err)
		}
		a.Compact()
		if err := c.WaitFor(ctx, made.ResourceVersion); err != nil {
			t.Fatal(err)
		}
		if got := names(c.List("x")); got != "b c" {
			t.Errorf("after the relist: %q", got)
		}
		slices.Sort(told)
		if got := strings.Join(told, ", "); got != "false true, true false" {
			t.Errorf("told %q, want one addition and one deletion", got)
		}
	})
}

func TestCacheSelects(t *testing.T) {
	a := clienttest.New(nil, configMap("x", "a", map[string]string{"app": "1"}), configMap("x", "b", nil))
	bubble(t, a, func(ctx context.Context, cs *client.Caches) {
		c := client.CacheOf[*corev1.ConfigMap](cs, client.Labels("app=1"))
		byName := client.CacheOf[*corev1.ConfigMap](cs, client.Fields("metadata.name=b"))
		if err := cs.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		if got := names(c.List("")) + "|" + names(byName.List("")); got != "a|b" {
			t.Errorf("selected %q", got)
		}
		o, _ := c.Get("x", "a")
		o = o.DeepCopy()
		o.Labels = nil
		o, err := client.Update(ctx, a, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := cs.WaitForWrite(ctx, client.KindOf[*corev1.ConfigMap](), o); err != nil {
			t.Fatal(err)
		}
		if got := names(c.List("")); got != "" {
			t.Errorf("still selected: %q", got)
		}
	})
}
