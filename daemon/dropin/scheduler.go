package dropin

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	schedulerv1 "k8s.io/kube-scheduler/config/v1"

	"github.com/skiff-sh/skiff/daemon"
	"github.com/skiff-sh/skiff/scheduler"
)

func runScheduler(ctx context.Context, p *process) error {
	f := p.flags()
	var o ops
	var l leader
	o.flags(f, 10259)
	l.flags(f, "kube-scheduler")
	config := f.String("config", "", "a KubeSchedulerConfiguration")
	kubeconfig := f.String("kubeconfig", "", "how to reach the API server, and as whom")
	authn := f.String("authentication-kubeconfig", "", "the same for asking who a caller is")
	_ = f.String("authorization-kubeconfig", "", "the same for asking what a caller may")
	master := f.String("master", "", "the API server's address, over the kubeconfig's")
	featureGates := f.StringSlice("feature-gates", nil, "name=true|false")
	f.quiet = []string{"profiling", "kube-api-burst", "kube-api-qps", "kube-api-content-type", "authentication-skip-lookup"}
	if err := f.parse(); err != nil {
		return err
	}
	gates, err := f.gates(*featureGates, "GenericWorkload", "GangScheduling")
	if err != nil {
		return err
	}
	if gates["GangScheduling"] && !gates["GenericWorkload"] {
		return errors.New("the feature gate GangScheduling needs GenericWorkload")
	}
	cfg, file := scheduler.Config{Gangs: gates["GangScheduling"], Metrics: scheduler.NewMetrics()}, &schedulerv1.KubeSchedulerConfiguration{}
	if *config != "" {
		var err error
		if file, err = p.schedulerFile(*config); err != nil {
			return err
		}
		if err := cfg.Configure(file); err != nil {
			return fmt.Errorf("%s: %w", *config, err)
		}
		l.file(f, &file.LeaderElection)
		if *kubeconfig == "" {
			*kubeconfig = file.ClientConnection.Kubeconfig
		}
	}
	conn, err := connect(*kubeconfig, *master, "kube-scheduler")
	if err != nil {
		return err
	}
	c, err := conn.client()
	if err != nil {
		return err
	}
	ask, err := asker(*authn, c)
	if err != nil {
		return err
	}
	lead, err := l.make(p, c)
	if err != nil {
		return err
	}
	o.metrics = cfg.Metrics.Collectors()
	s := &daemon.Scheduler{Client: c, Config: cfg, Leader: lead, Log: p.log}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return o.run(ctx, ask) })
	g.Go(func() error { return s.Run(ctx) })
	return g.Wait()
}

func (p *process) schedulerFile(file string) (*schedulerv1.KubeSchedulerConfiguration, error) {
	c := &schedulerv1.KubeSchedulerConfiguration{}
	return c, p.readConfig(file, "kubescheduler.config.k8s.io/v1", "KubeSchedulerConfiguration", c,
		"profiles", "extenders", "leaderElection", "clientConnection", "percentageOfNodesToScore", "podInitialBackoffSeconds", "podMaxBackoffSeconds")
}
