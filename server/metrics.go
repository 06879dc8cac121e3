package server

import (
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

// metrics are the server's own, under upstream's names, in a registry of its own.
type metrics struct {
	registry *prometheus.Registry
	handler  http.Handler
	started  time.Time

	mu     sync.RWMutex
	series map[seriesKey]*series

	requests     *prometheus.CounterVec
	latency, sli *prometheus.HistogramVec
	sizes        *prometheus.HistogramVec
	longRunning  *prometheus.GaugeVec
	terminations *prometheus.CounterVec
	aborts       *prometheus.CounterVec
	watchEvents  *prometheus.CounterVec
	deprecated   *prometheus.GaugeVec
	logins       [3]prometheus.Counter       // success, failure, error
	users        map[bool]prometheus.Counter // the user admin, and all others: names are no labels
	rulings      map[authorizer.Decision]prometheus.Counter
	healthchecks *prometheus.CounterVec
	inFlight     [2]atomic.Int64 // reading and changing requests
}

// seriesKey is what requests are told apart by. It holds nothing that a client can make up.
type seriesKey struct {
	kind                   *api.Kind
	verb, sub, scope, path string
	dryRun                 bool
	code                   int
}

// series is where the requests of one key are counted.
type series struct {
	count        prometheus.Counter
	latency, sli prometheus.Observer
	size         prometheus.Observer // of answers to reads; nil for the others
}

var (
	requestLabels = []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}
	sliBuckets    = []float64{0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}
)

func newMetrics(cfg *Config) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), started: time.Now(), series: map[seriesKey]*series{}}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m.requests = counter("apiserver_request_total",
		"Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
		append(slices.Clip(requestLabels), "dry_run", "code")...)
	m.latency = histogram("apiserver_request_duration_seconds",
		"Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
		append([]float64{0.005, 0.025}, sliBuckets...), append(slices.Clip(requestLabels), "dry_run")...)
	m.sli = histogram("apiserver_request_sli_duration_seconds",
		"Response latency distribution (not counting priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
		sliBuckets, requestLabels...)
	m.sizes = histogram("apiserver_response_sizes",
		"Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
		[]float64{1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}, requestLabels...)
	m.longRunning = gauge("apiserver_longrunning_requests",
		"Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.", requestLabels...)
	m.terminations = counter("apiserver_request_terminations_total", "Number of requests which apiserver terminated in self-defense.",
		append(slices.Clip(requestLabels), "code")...)
	m.aborts = counter("apiserver_request_aborts_total",
		"Number of requests which apiserver aborted possibly due to a timeout, for each group, version, verb, resource, subresource and scope", requestLabels[:6]...)
	m.watchEvents = counter("apiserver_watch_events_total", "Number of events sent in watch clients", "group", "version", "resource")
	m.deprecated = gauge("apiserver_requested_deprecated_apis",
		"Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
		"group", "version", "resource", "subresource", "removed_release")
	logins := counter("authentication_attempts", "Counter of authenticated attempts.", "result")
	for i, result := range []string{"success", "failure", "error"} {
		m.logins[i] = logins.WithLabelValues(result)
	}
	users := counter("authenticated_user_requests", "Counter of authenticated requests broken out by username.", "username")
	m.users = map[bool]prometheus.Counter{true: users.WithLabelValues("admin"), false: users.WithLabelValues("other")}
	rulings := counter("authorization_attempts_total",
		"Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.", "result")
	m.rulings = map[authorizer.Decision]prometheus.Counter{authorizer.DecisionAllow: rulings.WithLabelValues("allowed"),
		authorizer.DecisionDeny: rulings.WithLabelValues("denied"), authorizer.DecisionNoOpinion: rulings.WithLabelValues("no-opinion")}
	m.healthchecks = counter("kubernetes_healthchecks_total", "This metric records the results of all healthcheck.", "name", "type", "status")
	m.registry.MustRegister(m.requests, m.latency, m.sli, m.sizes, m.longRunning, m.terminations, m.aborts, m.watchEvents, m.deprecated,
		logins, users, rulings, m.healthchecks, buildInfo(cfg), objectCounts{cfg.Store, cfg.Kinds},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for i, kind := range []string{"readOnly", "mutating"} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "apiserver_current_inflight_requests",
			Help:        "Number of requests per request kind that are being served.",
			ConstLabels: prometheus.Labels{"request_kind": kind}}, func() float64 { return float64(m.inFlight[i].Load()) }))
	}
	if c, ok := cfg.Store.(prometheus.Collector); ok {
		m.registry.MustRegister(c)
	}
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return m
}

// Collect shows the metrics of another component of this process beside the server's own.
func (s *Server) Collect(all ...prometheus.Collector) { s.metrics.registry.MustRegister(all...) }

func buildInfo(cfg *Config) prometheus.Collector {
	v := cfg.version()
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubernetes_build_info",
		Help: "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
		ConstLabels: prometheus.Labels{"major": v.Major, "minor": v.Minor, "git_version": v.GitVersion, "git_commit": v.GitCommit,
			"git_tree_state": v.GitTreeState, "build_date": v.BuildDate, "go_version": runtime.Version(), "compiler": v.Compiler, "platform": v.Platform}})
	g.Set(1)
	return g
}

// count sets a request's place among those in flight, until the function that it returns is called.
func (m *metrics) count(x *exchange) (end func()) {
	if x.longRunning() {
		key := m.key(x)
		g := m.longRunning.WithLabelValues(key.labels()...)
		g.Inc()
		return g.Dec
	}
	n := &m.inFlight[0]
	switch x.info.Verb {
	case "get", "list", "watch":
	default:
		n = &m.inFlight[1]
	}
	n.Add(1)
	return func() { n.Add(-1) }
}

// observe counts a request that was answered. waited is the part of its time that it spent in a queue.
func (m *metrics) observe(x *exchange, took, waited time.Duration) {
	key := m.key(x)
	if key.code = x.code; key.code == 0 {
		key.code = http.StatusOK
	}
	m.mu.RLock()
	s := m.series[key]
	m.mu.RUnlock()
	if s == nil {
		s = m.add(key)
	}
	s.count.Inc()
	s.latency.Observe(took.Seconds())
	s.sli.Observe((took - waited).Seconds())
	if s.size != nil {
		s.size.Observe(float64(x.size))
	}
	if key.code == http.StatusTooManyRequests {
		m.terminations.WithLabelValues(append(key.labels(), "429")...).Inc()
	}
}

func (m *metrics) add(key seriesKey) *series {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.series[key]; s != nil {
		return s
	}
	labels, dry := key.labels(), ""
	if key.dryRun {
		dry = "All"
	}
	s := &series{count: m.requests.WithLabelValues(append(labels[:7:7], dry, strconv.Itoa(key.code))...),
		latency: m.latency.WithLabelValues(append(labels[:7:7], dry)...), sli: m.sli.WithLabelValues(labels...)}
	if key.verb == "GET" || key.verb == "LIST" {
		s.size = m.sizes.WithLabelValues(labels...)
	}
	m.mark(key)
	m.series[key] = s
	return s
}

// mark says that a deprecated kind is in use.
func (m *metrics) mark(key seriesKey) {
	if key.kind == nil {
		return
	}
	obj := key.kind.New()
	if _, ok := obj.(interface{ APILifecycleDeprecated() (int, int) }); !ok {
		return
	}
	removed := ""
	if r, ok := obj.(interface{ APILifecycleRemoved() (int, int) }); ok {
		major, minor := r.APILifecycleRemoved()
		removed = strconv.Itoa(major) + "." + strconv.Itoa(minor)
	}
	m.deprecated.WithLabelValues(key.kind.Group, key.kind.Version, key.kind.Plural, key.sub, removed).Set(1)
}

// forget drops what was counted of a row that is no longer served.
func (m *metrics) forget(k *api.Kind) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.series {
		if key.kind == k {
			delete(m.series, key)
		}
	}
	of := prometheus.Labels{"group": k.Group, "version": k.Version, "resource": k.Plural}
	for _, vec := range []interface{ DeletePartialMatch(prometheus.Labels) int }{m.requests, m.latency, m.sli, m.sizes, m.terminations, m.watchEvents} {
		vec.DeletePartialMatch(of)
	}
}

// login counts an attempt to authenticate, and who was let in.
func (m *metrics) login(name string, ok bool, err error) {
	switch {
	case err != nil:
		m.logins[2].Inc()
	case !ok:
		m.logins[1].Inc()
	default:
		m.logins[0].Inc()
		m.users[name == "admin"].Inc()
	}
}

func (k *seriesKey) labels() []string {
	if k.kind == nil {
		return []string{k.verb, "", "", "", k.path, "", ""}
	}
	return []string{k.verb, k.kind.Group, k.kind.Version, k.kind.Plural, k.sub, k.scope, "apiserver"}
}

// verbs are upstream's names for the verbs of resources.
var verbs = map[string]string{"get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH",
	"delete": "DELETE", "deletecollection": "DELETECOLLECTION"}

func (m *metrics) key(x *exchange) seriesKey {
	i := x.info
	if i.Kind == nil { // names that clients made up are no labels
		k := seriesKey{verb: x.r.Method, path: knownPath(i.Path)}
		switch k.verb {
		case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		default:
			k.verb = "OTHER"
		}
		return k
	}
	k := seriesKey{kind: i.Kind, verb: verbs[i.Verb], scope: "cluster"}
	if k.verb == "" {
		k.verb = "OTHER"
	}
	switch {
	case i.Name != "" || i.Verb == "create":
		k.scope = "resource"
	case i.Namespace != "":
		k.scope = "namespace"
	}
	if sub, ok := i.Kind.Subresource(i.Subresource); ok {
		if k.sub = i.Subresource; sub.Type == api.ConnectSub && sub.Name != "log" {
			k.verb = "CONNECT"
		}
	}
	switch {
	case i.Verb == "patch" && strings.HasPrefix(x.r.Header.Get("Content-Type"), "application/apply-patch+"):
		k.verb = "APPLY"
	case i.Verb == "watch" && i.Name != "":
		k.scope = "resource"
	}
	k.dryRun = strings.Contains(x.r.URL.RawQuery, "dryRun=All")
	return k
}

// knownPath is a path that metrics tell apart; "" is all the others.
func knownPath(path string) string {
	for _, p := range []string{"/healthz", "/livez", "/readyz", "/metrics", "/version", "openapi/v2", "openapi/v3"} {
		if strings.HasPrefix(strings.TrimPrefix(path, "/"), strings.TrimPrefix(p, "/")) {
			return p
		}
	}
	return ""
}

// objectCounts tells how many objects of each kind are stored.
type objectCounts struct {
	store store.Store
	kinds *api.Table
}

var (
	storageObjects  = prometheus.NewDesc("apiserver_storage_objects", "Number of stored objects at the time of last check split by kind.", []string{"resource"}, nil)
	resourceObjects = prometheus.NewDesc("apiserver_resource_objects", "Number of stored objects at the time of last check split by kind.", []string{"group", "resource"}, nil)
)

func (objectCounts) Describe(out chan<- *prometheus.Desc) {
	out <- storageObjects
	out <- resourceObjects
}

func (c objectCounts) Collect(out chan<- prometheus.Metric) {
	seen := map[string]bool{}
	for _, k := range c.kinds.Kinds() {
		name := k.GroupResource().String()
		if k.StoragePath == "" || k.Hub != nil || seen[name] {
			continue
		}
		seen[name] = true
		prefix := k.Prefix("")
		n := float64(c.store.Snapshot(prefix).Len(prefix))
		out <- prometheus.MustNewConstMetric(storageObjects, prometheus.GaugeValue, n, name)
		out <- prometheus.MustNewConstMetric(resourceObjects, prometheus.GaugeValue, n, k.Group, k.Plural)
	}
}
