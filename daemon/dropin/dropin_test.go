package dropin

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/clock"

	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers"
	"github.com/skiff-sh/skiff/reconcile"
)

// call makes a process whose log and output the test reads.
func call(name string, args ...string) (p *process, out, log *bytes.Buffer) {
	out, log = &bytes.Buffer{}, &bytes.Buffer{}
	p = &process{args: args, out: out, level: &slog.LevelVar{}, log: slog.New(slog.NewTextHandler(log, nil))}
	for _, one := range programs() {
		if one.name == name {
			p.program = one
		}
	}
	return p, out, log
}

// names are the flags that upstream's program has.
func names(t *testing.T, program string) []string {
	t.Helper()
	b, err := upstream.ReadFile("upstream/" + program + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		out = append(out, name)
	}
	return out
}

func TestEveryProgramKnowsItsFlags(t *testing.T) {
	for _, one := range programs() {
		p, out, _ := call(one.name, "--help")
		if err := one.run(t.Context(), p); !errors.Is(err, errDone) {
			t.Fatalf("%s --help: %v", one.name, err)
		}
		for _, name := range names(t, one.name) {
			if !strings.Contains(out.String(), "--"+name+" ") {
				t.Errorf("%s does not know --%s", one.name, name)
			}
		}
		p, out, _ = call(one.name, "--version")
		if err := one.run(t.Context(), p); !errors.Is(err, errDone) || !strings.HasPrefix(out.String(), "Kubernetes v1.36") {
			t.Errorf("%s --version: %v, %q", one.name, err, out)
		}
		for _, wrong := range []string{"--no-such-flag", "stray", "--v=x"} {
			p, _, _ = call(one.name, wrong)
			if err := one.run(t.Context(), p); err == nil || errors.Is(err, errDone) {
				t.Errorf("%s %s: %v", one.name, wrong, err)
			}
		}
	}
}

func TestUnusedFlagsAreToldOf(t *testing.T) {
	p, _, log := call("kube-apiserver", "--goaway-chance=0.1", "--profiling=false", "--audit_webhook_mode", "batch")
	f, _ := p.apiFlags()
	if err := f.parse(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--goaway-chance", "--audit-webhook-mode"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("nothing is told of %s: %s", want, log)
		}
	}
	if strings.Contains(log.String(), "profiling") {
		t.Errorf("too much is told: %s", log)
	}
	p, _, _ = call("kube-apiserver", "--goaway-chance=often")
	f, _ = p.apiFlags()
	if err := f.parse(); err == nil || !strings.Contains(err.Error(), "often") {
		t.Errorf("a wrong value of a flag without meaning: %v", err)
	}
}

func TestFeatureGates(t *testing.T) {
	p, _, log := call("kube-scheduler")
	f := p.flags()
	set, err := f.gates([]string{"kube:GangScheduling=true", "SidecarContainers = true"})
	if err != nil || !set["GangScheduling"] || !set["SidecarContainers"] {
		t.Errorf("%v, %v", set, err)
	}
	if !strings.Contains(log.String(), "GangScheduling") || strings.Contains(log.String(), "SidecarContainers") {
		t.Errorf("only what differs is to be told: %s", log)
	}
	for _, wrong := range []string{"NoSuchGate=true", "GangScheduling", "GangScheduling=perhaps", "wardle:X=true"} {
		if _, err := f.gates([]string{wrong}); err == nil {
			t.Errorf("%s was taken", wrong)
		}
	}
}

func TestAPIServerRefuses(t *testing.T) {
	complete := []string{"--etcd-servers=http://127.0.0.1:1", "--service-account-issuer=https://x", "--service-account-signing-key-file=/nowhere"}
	for want, args := range map[string][]string{
		"--etcd-servers must be specified":          {"--service-account-issuer=https://x"},
		"service-account-issuer is a required flag": {"--etcd-servers=http://127.0.0.1:1"},
		"unrecognized feature gate":                 append(complete, "--feature-gates=Foo=true"),
		"/nowhere":                                  complete,
		"is no range of ports":                      append(complete, "--service-node-port-range=9-1"),
		"--service-cluster-ip-range":                append(complete, "--service-cluster-ip-range=x"),
		"two of different families":                 append(complete, "--service-cluster-ip-range=10.0.0.0/24,10.1.0.0/24"),
		"--endpoint-reconciler-type":                append(complete, "--endpoint-reconciler-type=master-count"),
	} {
		p, _, _ := call("kube-apiserver", append(args, "--cert-dir="+t.TempDir())...)
		if err := p.run(t.Context(), p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want an error that says %q", args, err, want)
		}
	}
}

func TestPortRange(t *testing.T) {
	for text, want := range map[string][2]int{"30000-32767": {30000, 32767}, "100+5": {100, 105}, "80": {80, 80}} {
		if got, err := portRange(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "a-b", "5-4", "0-7", "1-70000"} {
		if got, err := portRange(text); err == nil {
			t.Errorf("%q was taken as %v", text, got)
		}
	}
}

func TestStaticTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens.csv")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("t1,admin,1,\"system:masters,dev\"\nt2, joe ,2\n")
	got, err := staticTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	if a := got["t1"]; a == nil || a.GetName() != "admin" || !slices.Equal(a.GetGroups(), []string{"system:masters", "dev"}) {
		t.Errorf("t1 is %v", a)
	}
	if j := got["t2"]; j == nil || j.GetUID() != "2" || len(j.GetGroups()) != 0 {
		t.Errorf("t2 is %v", j)
	}
	for _, text := range []string{"t,u", ",u,1", "\"t"} {
		write(text)
		if _, err := staticTokens(file); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestControllersSelection(t *testing.T) {
	p, _, _ := call("kube-controller-manager")
	only := func(args ...string) func(string) bool {
		o := managerFlags{controllers: args, allocate: true}
		f, err := o.only(p)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, c := range []struct {
		args []string
		name string
		want bool
	}{
		{[]string{"*"}, "job-controller", true},
		{[]string{"*"}, "token-cleaner-controller", false},
		{[]string{"*", "tokencleaner"}, "token-cleaner-controller", true},
		{[]string{"*", "-job"}, "job-controller", false},
		{[]string{"deployment"}, "deployment-controller", true},
		{[]string{"deployment"}, "job-controller", false},
		{[]string{"*"}, "node-ipam-controller", true},
	} {
		if got := only(c.args...)(c.name); got != c.want {
			t.Errorf("--controllers=%v runs %s: %v", c.args, c.name, got)
		}
	}
	if _, err := (&managerFlags{controllers: []string{"nothing"}}).only(p); err == nil {
		t.Error("an unknown controller was taken")
	}
	if f, err := (&managerFlags{controllers: []string{"*"}}).only(p); err != nil || f("node-ipam-controller") {
		t.Errorf("node ranges are given though nobody asked for them: %v", err)
	}
}

// Every controller must go by one of upstream's names, or --controllers could not reach it.
func TestControllersHaveUpstreamsNames(t *testing.T) {
	table, err := upstream.ReadFile("upstream/controllers.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(table)) {
		known[strings.Fields(line)[0]] = true
	}
	asked := 0
	log := slog.New(slog.DiscardHandler)
	deps := reconcile.NewDeps("nobody", nil, client.NewCaches(nil, log), clock.RealClock{}, log)
	controllers.All(func(string) reconcile.Deps { return deps }, controllers.Config{Kinds: builtin.Table(), Only: func(name string) bool {
		asked++
		if !known[name] {
			t.Errorf("%s is no controller of upstream's", name)
		}
		return false
	}})
	if asked < 20 {
		t.Errorf("asked about %d controllers only", asked)
	}
}

func TestKubeletFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(args ...string) (*kubeletFlags, *kubeletv1beta1.KubeletConfiguration, string, error) {
		p, _, log := call("kubelet", append(args, "--config="+file)...)
		f := p.flags()
		var o kubeletFlags
		o.flags(f)
		if err := f.parse(); err != nil {
			t.Fatal(err)
		}
		c, err := o.file(p, f)
		return &o, c, log.String(), err
	}
	const head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
	write(head + "port: 11250\nmaxPods: 20\nclusterDNS: [10.0.0.10]\nauthentication: {x509: {clientCAFile: /ca}}\ncpuManagerPolicy: static\n")
	o, _, log, err := read("--max-pods=30")
	if err != nil {
		t.Fatal(err)
	}
	if o.port != 11250 || o.maxPods != 30 || o.clientCA != "/ca" || !slices.Equal(o.dns, []string{"10.0.0.10"}) {
		t.Errorf("got %+v", o)
	}
	if !strings.Contains(log, "cpuManagerPolicy") || strings.Contains(log, "maxPods") {
		t.Errorf("told: %s", log)
	}
	write(head + "prot: 1\n")
	if _, _, _, err := read(); err == nil || !strings.Contains(err.Error(), "prot") {
		t.Errorf("an unknown field: %v", err)
	}
	write("kind: Other\napiVersion: v1\n")
	if _, _, _, err := read(); err == nil {
		t.Error("another kind was taken")
	}
}

func TestParseTaint(t *testing.T) {
	if got, err := parseTaint("a/b=c:NoSchedule"); err != nil || got.Key != "a/b" || got.Value != "c" || got.Effect != "NoSchedule" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, wrong := range []string{"a", "a=b", "a:Never", ":NoSchedule"} {
		if _, err := parseTaint(wrong); err == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
}

func TestIs(t *testing.T) {
	for _, name := range []string{"etcd", "kubelet", "kube-proxy", "kube-apiserver"} {
		if !Is(name) {
			t.Errorf("%s is not known", name)
		}
	}
	if Is("skiff") || Is("") {
		t.Error("too much is known")
	}
}

func TestEtcdAlone(t *testing.T) {
	for _, c := range []struct {
		args, env string
		want      bool
	}{
		{"--data-dir=/x --listen-client-urls=http://127.0.0.1:1", "HOME=/", true},
		{"--initial-cluster=a=http://x,b=http://y", "", false},
		{"--election-timeout 1000", "", false},
		{"--data-dir=/x", "ETCD_INITIAL_CLUSTER=a=http://x", false},
		{"gateway start", "", false},
		{"", "", true},
	} {
		if got := alone(strings.Fields(c.args), strings.Fields(c.env)); got != c.want {
			t.Errorf("%q %q: %v", c.args, c.env, got)
		}
	}
}
