package ctl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	yamlreader "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/scheduler/core"
)

// explainer asks the scheduler's core about a snapshot of a cluster, read from any API server.
type explainer struct {
	client  client.Interface
	cluster *core.Cluster
	profile *core.Profile
	json    bool
	out     io.Writer
}

func explainCommand(in *instance) *cobra.Command {
	var namespace, file, kubeconfig, output string
	cmd := &cobra.Command{
		Use: "explain pod NAME", Short: "Say why a pod is where it is, or what keeps it from each node",
		Example: `  skiff explain pod web-0                   # what keeps it from each node, and what would have to change
  skiff explain pod web-0 -n shop -o json   # the same for a program
  skiff explain --what-if app.yaml          # where its pods would go; nothing is created`,
		Args: func(_ *cobra.Command, args []string) error {
			if file == "" && (len(args) != 2 || args[0] != "pod" && args[0] != "pods" && args[0] != "po") {
				return errors.New(`explain needs "pod NAME", or --what-if FILE`)
			}
			if file != "" && len(args) > 0 {
				return errors.New("--what-if takes no other arguments")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("-o %s: only json is known", output)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			c, err := in.clientFor(kubeconfig)
			if err != nil {
				return err
			}
			e := &explainer{client: c, cluster: core.New(), profile: core.DefaultProfile(), json: output == "json", out: cmd.OutOrStdout()}
			if err := e.snapshot(ctx); err != nil {
				return err
			}
			if file != "" {
				return e.whatIf(ctx, file, namespace)
			}
			pod, err := client.Get[*corev1.Pod](ctx, c, namespace, args[1])
			if err != nil {
				return err
			}
			return e.print([]core.Explanation{e.cluster.Explain(pod, e.profile)})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&namespace, "namespace", "n", metav1.NamespaceDefault, "the pod's namespace")
	f.StringVar(&file, "what-if", "", "a manifest of pods or of what makes pods (\"-\" for standard input)")
	f.StringVar(&kubeconfig, "kubeconfig", "", "the cluster, when it is not the instance (or KUBECONFIG)")
	f.StringVarP(&output, "output", "o", "", "json for a program")
	return cmd
}

// clientFor is a client of the cluster that a kubeconfig names; without one, the instance's administrator.
func (i *instance) clientFor(kubeconfig string) (client.Interface, error) {
	if kubeconfig == "" {
		kubeconfig = os.Getenv("KUBECONFIG")
	}
	if kubeconfig == "" {
		cfg, err := i.load()
		if err != nil {
			return nil, err
		}
		return cfg.AdminClient()
	}
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: strings.Split(kubeconfig, string(os.PathListSeparator))}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, err
	}
	tls, err := rest.TLSConfigFor(cfg)
	if err != nil {
		return nil, err
	}
	return client.NewHTTP(client.HTTPConfig{Server: cfg.Host, TLS: tls, BearerToken: cfg.BearerToken, UserAgent: "skiff"})
}

// snapshot lists everything that the rules ask about. Kinds that the server does not have, or does not show, count as none.
func (e *explainer) snapshot(ctx context.Context) error {
	for _, o := range core.Kinds() {
		k, ok := builtin.Table().Of(o)
		if !ok {
			continue
		}
		objects, _, err := e.client.List(ctx, k, "", metav1.ListOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return fmt.Errorf("listing %s: %w", k.Plural, err)
		}
		for _, o := range objects {
			e.cluster.Set(o)
		}
	}
	return nil
}

// whatIf places the pods of a manifest one after the other. The server completes each as if it were created.
func (e *explainer) whatIf(ctx context.Context, file, namespace string) error {
	var r io.Reader = os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		r = f
	}
	pods, owners, err := podsIn(r, namespace)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, o := range owners {
		e.cluster.Set(o)
	}
	if len(pods) == 0 {
		return fmt.Errorf("%s: nothing in it makes pods", file)
	}
	var out []core.Explanation
	for _, p := range pods {
		made, err := e.client.Create(ctx, client.KindOf[*corev1.Pod](), p, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return fmt.Errorf("pod %s/%s would be refused: %w", p.Namespace, p.Name, err)
		}
		p = made.(*corev1.Pod).DeepCopy()
		p.UID = types.UID("what-if-" + p.Namespace + "-" + p.Name)
		one := e.cluster.Explain(p, e.profile)
		out = append(out, one)
		if one.Node != "" && !one.Bound {
			e.cluster.Assume(e.cluster.Pod(p, e.profile), one.Node)
		}
	}
	return e.print(out)
}

// maxReplicas bounds the pods that --what-if places of one object.
const maxReplicas = 1000

// podsIn makes the pods of a manifest's objects, and their owners as far as these spread them; objects that make none are
// left out.
func podsIn(r io.Reader, namespace string) (pods []*corev1.Pod, owners []api.Object, err error) {
	docs := yamlreader.NewYAMLReader(bufio.NewReader(r))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return pods, owners, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		more, owner, err := podsOf(doc, namespace)
		if err != nil {
			return nil, nil, err
		}
		if pods = append(pods, more...); owner != nil {
			owners = append(owners, owner)
		}
	}
}

func podsOf(doc []byte, namespace string) ([]*corev1.Pod, api.Object, error) {
	var head metav1.PartialObjectMetadata
	if err := yaml.Unmarshal(doc, &head); err != nil {
		return nil, nil, err
	}
	if head.Namespace != "" {
		namespace = head.Namespace
	}
	many := func(n *int32, t *corev1.PodTemplateSpec, kind string) []*corev1.Pod {
		count := int32(1)
		if n != nil {
			count = min(*n, maxReplicas)
		}
		var out []*corev1.Pod
		controls := true
		for i := range count {
			p := &corev1.Pod{ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: *t.Spec.DeepCopy()}
			p.Name, p.Namespace = fmt.Sprintf("%s-%d", head.Name, i), namespace
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: head.Name, UID: "what-if", Controller: &controls}}
			out = append(out, p)
		}
		return out
	}
	switch head.Kind {
	case "Pod":
		var p corev1.Pod
		err := yaml.UnmarshalStrict(doc, &p)
		if p.Namespace = namespace; p.Name == "" {
			p.Name = p.GenerateName + "0"
		}
		return []*corev1.Pod{&p}, nil, err
	case "Deployment":
		var o appsv1.Deployment
		err := yaml.UnmarshalStrict(doc, &o)
		set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: head.Name, Namespace: namespace}, Spec: appsv1.ReplicaSetSpec{Selector: o.Spec.Selector}}
		return many(o.Spec.Replicas, &o.Spec.Template, "ReplicaSet"), set, err
	case "ReplicaSet":
		var o appsv1.ReplicaSet
		err := yaml.UnmarshalStrict(doc, &o)
		o.Namespace = namespace
		return many(o.Spec.Replicas, &o.Spec.Template, head.Kind), &o, err
	case "StatefulSet":
		var o appsv1.StatefulSet
		err := yaml.UnmarshalStrict(doc, &o)
		o.Namespace = namespace
		return many(o.Spec.Replicas, &o.Spec.Template, head.Kind), &o, err
	case "Job":
		var o batchv1.Job
		err := yaml.UnmarshalStrict(doc, &o)
		return many(o.Spec.Parallelism, &o.Spec.Template, head.Kind), nil, err
	case "CronJob":
		var o batchv1.CronJob
		err := yaml.UnmarshalStrict(doc, &o)
		return many(o.Spec.JobTemplate.Spec.Parallelism, &o.Spec.JobTemplate.Spec.Template, "Job"), nil, err
	case "Service":
		var o corev1.Service
		err := yaml.UnmarshalStrict(doc, &o)
		o.Namespace = namespace
		return nil, &o, err
	}
	return nil, nil, nil
}

// print shows explanations for people, or as JSON: one as an object, several as a list.
func (e *explainer) print(list []core.Explanation) error {
	if e.json {
		enc := json.NewEncoder(e.out)
		enc.SetIndent("", "  ")
		if len(list) == 1 {
			return enc.Encode(list[0])
		}
		return enc.Encode(list)
	}
	for i := range list {
		if i > 0 {
			fmt.Fprintln(e.out)
		}
		printExplanation(e.out, &list[i])
	}
	return nil
}

// shownNodes is how many nodes of a kind are named.
const shownNodes = 5

func printExplanation(out io.Writer, e *core.Explanation) {
	switch {
	case e.Bound:
		fmt.Fprintf(out, "%s is on %s. As the cluster is now, without it:\n", e.Pod, e.Node)
	case e.Node != "":
		fmt.Fprintf(out, "%s goes to %s\n", e.Pod, e.Node)
	default:
		fmt.Fprintf(out, "%s fits on no node\n  %s\n", e.Pod, e.Message)
	}
	if e.Reason != "" {
		fmt.Fprintf(out, "\n  %s\n", e.Reason)
	}
	if e.Cleared != "" {
		fmt.Fprintf(out, "\n  it may evict %s from %s\n", strings.Join(e.Victims, ", "), e.Cleared)
	}
	if len(e.Scores) > 0 {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprint(w, "\n  NODE\tSCORE")
		for _, p := range e.Scores[0].Parts {
			fmt.Fprintf(w, "\t%s", p.Plugin)
		}
		fmt.Fprintln(w)
		for i, s := range e.Scores {
			if i >= shownNodes && s.Node != e.Node {
				continue
			}
			fmt.Fprintf(w, "  %s\t%d", s.Node, s.Total)
			for _, p := range s.Parts {
				fmt.Fprintf(w, "\t%d x %d", p.Score, p.Weight)
			}
			fmt.Fprintln(w)
		}
		w.Flush()
		if more := len(e.Scores) - shownNodes; more > 0 {
			fmt.Fprintf(out, "  and %d more that could take it\n", more)
		}
	}
	for _, g := range e.Refused {
		names := g.Nodes
		rest := ""
		if len(names) > shownNodes {
			rest = fmt.Sprintf(" and %d more", len(names)-shownNodes)
			names = names[:shownNodes]
		}
		fmt.Fprintf(out, "\n  %s%s\n", strings.Join(names, ", "), rest)
		for _, o := range g.Obstacles {
			fmt.Fprintf(out, "    %s (%s)\n", o.Reason, o.Plugin)
			if o.Change != "" {
				fmt.Fprintf(out, "      %s\n", o.Change)
			}
		}
	}
}
