package scheduler

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	configv1 "k8s.io/kube-scheduler/config/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/skiff-sh/skiff/scheduler/core"
)

// extender is a program that is asked over HTTP which nodes it refuses, which it prefers, whom to evict, and to bind.
type extender struct {
	configv1.Extender
	http *http.Client
	node func(name string) (*corev1.Node, bool)
}

// maxAnswer bounds what an extender may answer, in bytes.
const maxAnswer = 64 << 20

func newExtender(in configv1.Extender, node func(string) (*corev1.Node, bool)) (*extender, error) {
	config, err := tlsOf(in)
	if err != nil {
		return nil, fmt.Errorf("extender %s: %w", in.URLPrefix, err)
	}
	transport := &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute}
	return &extender{in, &http.Client{Transport: transport, Timeout: cmp.Or(in.HTTPTimeout.Duration, 5*time.Second)}, node}, nil
}

func tlsOf(in configv1.Extender) (*tls.Config, error) {
	t := in.TLSConfig
	if t == nil {
		if in.EnableHTTPS {
			return &tls.Config{InsecureSkipVerify: true}, nil //nolint:gosec // what enableHTTPS without tlsConfig means upstream
		}
		return nil, nil
	}
	config := &tls.Config{ServerName: t.ServerName, InsecureSkipVerify: t.Insecure} //nolint:gosec // asked for
	read := func(data []byte, file string) ([]byte, error) {
		if len(data) > 0 || file == "" {
			return data, nil
		}
		return os.ReadFile(file)
	}
	ca, err1 := read(t.CAData, t.CAFile)
	cert, err2 := read(t.CertData, t.CertFile)
	key, err3 := read(t.KeyData, t.KeyFile)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if len(ca) > 0 {
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("tlsConfig has no certificate of an authority")
		}
	}
	if len(cert) > 0 {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// interested reports whether a pod asks for one of the resources that the extender manages; without any, it manages all.
func (e *extender) interested(p *corev1.Pod) bool {
	if len(e.ManagedResources) == 0 {
		return true
	}
	asks := func(containers []corev1.Container) bool {
		return slices.ContainsFunc(containers, func(c corev1.Container) bool {
			return slices.ContainsFunc(e.ManagedResources, func(r configv1.ExtenderManagedResource) bool {
				_, requested := c.Resources.Requests[corev1.ResourceName(r.Name)]
				_, limited := c.Resources.Limits[corev1.ResourceName(r.Name)]
				return requested || limited
			})
		})
	}
	return asks(p.Spec.Containers) || asks(p.Spec.InitContainers)
}

func (e *extender) ask(ctx context.Context, verb string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	url := strings.TrimRight(e.URLPrefix, "/") + "/" + verb
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("failed %v with extender at URL %v, code %v", verb, url, resp.StatusCode)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(answer)
}

func (e *extender) args(p *corev1.Pod, nodes []string) *extenderv1.ExtenderArgs {
	args := &extenderv1.ExtenderArgs{Pod: p}
	if e.NodeCacheCapable {
		args.NodeNames = &nodes
		return args
	}
	args.Nodes = &corev1.NodeList{}
	for _, name := range nodes {
		if n, ok := e.node(name); ok {
			args.Nodes.Items = append(args.Nodes.Items, *n)
		}
	}
	return args
}

// filter returns the nodes that the extender refuses.
func (e *extender) filter(ctx context.Context, p *corev1.Pod, nodes []string) (map[string]core.Refusal, error) {
	var result extenderv1.ExtenderFilterResult
	if err := e.ask(ctx, e.FilterVerb, e.args(p, nodes), &result); err != nil {
		return nil, err
	}
	if result.Error != "" {
		return nil, errors.New(result.Error)
	}
	kept := map[string]bool{}
	switch {
	case e.NodeCacheCapable && result.NodeNames != nil:
		for _, name := range *result.NodeNames {
			kept[name] = true
		}
	case result.Nodes != nil:
		for i := range result.Nodes.Items {
			kept[result.Nodes.Items[i].Name] = true
		}
	}
	refused := map[string]core.Refusal{}
	for _, name := range nodes {
		if kept[name] {
			continue
		}
		if why, ok := result.FailedAndUnresolvableNodes[name]; ok {
			refused[name] = core.Refusal{Plugin: fromExtender, Reason: why, Lasting: true}
		} else {
			refused[name] = core.Refusal{Plugin: fromExtender, Reason: cmp.Or(result.FailedNodes[name], "node(s) were refused by an extender")}
		}
	}
	return refused, nil
}

// outside is what all extenders have to say about a pod. An extender that fails and is not ignorable fails the attempt.
func (s *Scheduler) outside(ctx context.Context, p *corev1.Pod) (out core.Outside, failure *error) {
	var err error
	var raters []*extender
	failure = &err
	for _, e := range s.extenders {
		if !e.interested(p) {
			continue
		}
		if e.FilterVerb != "" {
			before := out.Filter
			out.Filter = func(nodes []string) (map[string]core.Refusal, error) {
				refused := map[string]core.Refusal{}
				if before != nil {
					if refused, err = before(nodes); err != nil {
						return nil, err
					}
					nodes = slices.DeleteFunc(nodes, func(n string) bool { _, no := refused[n]; return no })
				}
				more, problem := e.filter(ctx, p, nodes)
				if problem != nil {
					if e.Ignorable {
						s.log.Warn("an extender is ignored", "extender", e.URLPrefix, "error", problem)
						return refused, nil
					}
					err = problem
					return nil, problem
				}
				for name, why := range more {
					refused[name] = why
				}
				return refused, nil
			}
		}
		if e.PrioritizeVerb != "" {
			raters = append(raters, e)
		}
	}
	if len(raters) > 0 {
		out.Score = func(nodes []string) map[string]int64 { return s.prioritize(ctx, p, raters, nodes) }
	}
	return out, failure
}

// prioritize adds up what extenders think of nodes. They are asked all at once, so that the slowest alone counts.
func (s *Scheduler) prioritize(ctx context.Context, p *corev1.Pod, raters []*extender, nodes []string) map[string]int64 {
	var group sync.WaitGroup
	answers := make([]extenderv1.HostPriorityList, len(raters))
	for i, e := range raters {
		group.Go(func() {
			if err := e.ask(ctx, e.PrioritizeVerb, e.args(p, nodes), &answers[i]); err != nil {
				s.log.Warn("an extender's preferences are ignored", "extender", e.URLPrefix, "error", err)
				answers[i] = nil
			}
		})
	}
	group.Wait()
	sum := map[string]int64{}
	for i, list := range answers {
		for _, one := range list {
			sum[one.Host] += one.Score * raters[i].Weight * (core.MaxScore / extenderv1.MaxExtenderPriority)
		}
	}
	return sum
}

// preemption lets extenders narrow the sacrifices for a pod; nil if none wants to.
func (s *Scheduler) preemption(ctx context.Context, p *corev1.Pod) func([]core.Sacrifice) ([]core.Sacrifice, error) {
	var asked []*extender
	for _, e := range s.extenders {
		if e.PreemptVerb != "" && e.interested(p) {
			asked = append(asked, e)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	return func(all []core.Sacrifice) ([]core.Sacrifice, error) {
		for _, e := range asked {
			left, err := e.preempt(ctx, p, all)
			if err != nil && !e.Ignorable {
				return nil, err
			}
			if err == nil {
				all = left
			}
		}
		return all, nil
	}
}

func (e *extender) preempt(ctx context.Context, p *corev1.Pod, all []core.Sacrifice) ([]core.Sacrifice, error) {
	args := &extenderv1.ExtenderPreemptionArgs{Pod: p}
	pods := map[string]*core.Pod{}
	if e.NodeCacheCapable {
		args.NodeNameToMetaVictims = map[string]*extenderv1.MetaVictims{}
	} else {
		args.NodeNameToVictims = map[string]*extenderv1.Victims{}
	}
	for _, one := range all {
		meta := &extenderv1.MetaVictims{NumPDBViolations: int64(one.Violations)}
		full := &extenderv1.Victims{NumPDBViolations: int64(one.Violations)}
		for _, v := range one.Victims {
			o := v.Object()
			pods[string(o.UID)] = v
			meta.Pods, full.Pods = append(meta.Pods, &extenderv1.MetaPod{UID: string(o.UID)}), append(full.Pods, o)
		}
		if e.NodeCacheCapable {
			args.NodeNameToMetaVictims[one.Node] = meta
		} else {
			args.NodeNameToVictims[one.Node] = full
		}
	}
	var result extenderv1.ExtenderPreemptionResult
	if err := e.ask(ctx, e.PreemptVerb, args, &result); err != nil {
		return nil, err
	}
	var out []core.Sacrifice
	for name, victims := range result.NodeNameToMetaVictims {
		one := core.Sacrifice{Node: name, Violations: int(victims.NumPDBViolations)}
		for _, v := range victims.Pods {
			if pod := pods[v.UID]; pod != nil {
				one.Victims = append(one.Victims, pod)
			}
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b core.Sacrifice) int { return cmp.Compare(a.Node, b.Node) })
	return out, nil
}

// binder is the extender that binds a pod; nil: the API server is told.
func (s *Scheduler) binderFor(p *corev1.Pod) *extender {
	for _, e := range s.extenders {
		if e.BindVerb != "" && e.interested(p) {
			return e
		}
	}
	return nil
}

func (e *extender) bind(ctx context.Context, namespace, name string, uid types.UID, node string) error {
	var result extenderv1.ExtenderBindingResult
	err := e.ask(ctx, e.BindVerb, &extenderv1.ExtenderBindingArgs{PodName: name, PodNamespace: namespace, PodUID: uid, Node: node}, &result)
	if err == nil && result.Error != "" {
		err = errors.New(result.Error)
	}
	return err
}
