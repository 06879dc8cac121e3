package dropin

import (
	"fmt"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-sh/skiff/daemon"
	"github.com/skiff-sh/skiff/server/audit"
)

// auditFlags are the flags of kube-apiserver about auditing that mean something here.
type auditFlags struct {
	policy  string
	file    audit.FileConfig
	webhook audit.WebhookConfig
	config  string
	format  string
	slow    bool
	qps     float32
}

func (o *auditFlags) define(f *flags) {
	f.StringVar(&o.policy, "audit-policy-file", "", "the audit policy; without one nothing is audited")
	f.StringVar(&o.file.Path, "audit-log-path", "", "the file of audit events; - is standard output")
	f.IntVar(&o.file.MaxAge, "audit-log-maxage", 0, "how many days full files are kept; 0 is for ever")
	f.IntVar(&o.file.MaxBackups, "audit-log-maxbackup", 0, "how many full files are kept; 0 is all")
	f.IntVar(&o.file.MaxSize, "audit-log-maxsize", 0, "the size in megabytes from which a file is full")
	f.BoolVar(&o.file.Compress, "audit-log-compress", false, "compress full files")
	f.StringVar(&o.format, "audit-log-format", "json", "json is the only one")
	f.StringVar(&o.config, "audit-webhook-config-file", "", "the kubeconfig of a server that takes audit events")
	f.DurationVar(&o.webhook.InitialBackoff, "audit-webhook-initial-backoff", 10*time.Second, "the time before a request is tried again")
	f.IntVar(&o.webhook.BufferSize, "audit-webhook-batch-buffer-size", 10000, "how many events wait to be sent")
	f.IntVar(&o.webhook.MaxBatchSize, "audit-webhook-batch-max-size", 400, "how many events are sent at once")
	f.DurationVar(&o.webhook.MaxBatchWait, "audit-webhook-batch-max-wait", 30*time.Second, "how long an event waits for others")
	f.BoolVar(&o.slow, "audit-webhook-batch-throttle-enable", true, "bound the requests in a second")
	f.Float32Var(&o.qps, "audit-webhook-batch-throttle-qps", 10, "how many requests in a second")
	f.IntVar(&o.webhook.Burst, "audit-webhook-batch-throttle-burst", 15, "how many requests at once after a rest")
}

// auditor opens what the flags ask for.
func (o *auditFlags) auditor(f *flags, a *daemon.APIServer) error {
	if o.format != "json" {
		return fmt.Errorf("--audit-log-format %q is not supported: events are written as json", o.format)
	}
	if o.policy == "" || o.file.Path == "" && o.config == "" {
		return nil // upstream needs both as well
	}
	policy, err := audit.ReadPolicy(o.policy)
	if err != nil {
		return err
	}
	cfg := audit.Config{Policy: policy, Log: f.p.log}
	if o.file.Path != "" {
		cfg.File = &o.file
	}
	if o.config != "" {
		kubeconfig, err := clientcmd.BuildConfigFromFlags("", o.config)
		if err != nil {
			return fmt.Errorf("--audit-webhook-config-file: %w", err)
		}
		if o.webhook.Client, err = rest.HTTPClientFor(kubeconfig); err != nil {
			return fmt.Errorf("--audit-webhook-config-file: %w", err)
		}
		o.webhook.URL, o.webhook.QPS = kubeconfig.Host, float64(o.qps)
		if !o.slow {
			o.webhook.QPS, o.webhook.Burst = 1e6, 1e6
		}
		cfg.Webhook = &o.webhook
	}
	a.Server.Audit, err = audit.New(cfg)
	return err
}
