package server

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/version"
)

// version is what /version and the metrics tell.
func (c *Config) version() version.Info {
	v := c.GitVersion
	major, rest, _ := strings.Cut(strings.TrimPrefix(v, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	return version.Info{Major: major, Minor: minor, EmulationMajor: major, EmulationMinor: minor, MinCompatibilityMajor: major,
		MinCompatibilityMinor: before(minor), GitVersion: v, GitTreeState: "clean", GoVersion: runtime.Version(), Compiler: runtime.Compiler,
		Platform: runtime.GOOS + "/" + runtime.GOARCH}
}

// before is the minor version before one.
func before(minor string) string {
	var n int
	if _, err := fmt.Sscan(minor, &n); err != nil || n == 0 {
		return minor
	}
	return fmt.Sprint(n - 1)
}

// debugPaths answer who looks into the server. Authorization has let them in.
func (s *Server) debugPaths() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/flagz":               s.flagz,
		"/statusz":             s.statusz,
		"/debug/pprof":         redirect("/debug/pprof/"),
		"/debug/pprof/":        pprof.Index,
		"/debug/pprof/cmdline": pprof.Cmdline,
		"/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol":  pprof.Symbol,
		"/debug/pprof/trace":   pprof.Trace,
		"/debug/api_priority_and_fairness/dump_priority_levels": s.flow.DumpLevels,
		"/debug/api_priority_and_fairness/dump_queues":          s.flow.DumpQueues,
	}
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusMovedPermanently) }
}

// debug finds the handler of a path.
func (s *Server) debug(path string) (http.Handler, bool) {
	if h, ok := s.debugPaths()[path]; ok {
		return h, true
	}
	if strings.HasPrefix(path, "/debug/pprof/") {
		return http.HandlerFunc(pprof.Index), true
	}
	return nil, false
}

// zpage begins one of the pages that people read.
func zpage(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", plainText)
	fmt.Fprintf(w, "\napiserver %s\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n", name)
}

// flagz shows the flags that the server was started with.
func (s *Server) flagz(w http.ResponseWriter, _ *http.Request) {
	zpage(w, "flagz")
	var lines []string
	for name, value := range s.cfg.Flags {
		lines = append(lines, name+" "+value)
	}
	slices.Sort(lines)
	for _, l := range lines {
		fmt.Fprintln(w, l)
	}
}

func (s *Server) statusz(w http.ResponseWriter, _ *http.Request) {
	zpage(w, "statusz")
	up := time.Since(s.metrics.started).Round(time.Second)
	v := s.cfg.version()
	fmt.Fprintf(w, "\nStarted: %s\nUp: %d hr %02d min %02d sec\nGo version: %s\nBinary version: %s\nEmulation version: %s.%s\nPaths: %s\n",
		s.metrics.started.UTC().Format(time.UnixDate), int(up.Hours()), int(up.Minutes())%60, int(up.Seconds())%60, v.GoVersion,
		strings.TrimPrefix(v.GitVersion, "v"), v.Major, v.Minor, "/flagz /healthz /livez /metrics /readyz /statusz /version")
}
