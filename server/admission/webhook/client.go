package webhook

import (
	"time"

	regv1 "k8s.io/api/admissionregistration/v1"

	"github.com/skiff-sh/skiff/server/internal/callout"
	"github.com/skiff-sh/skiff/store"
)

const defaultTimeout = 10 * time.Second

func newClient(st store.Store, c regv1.WebhookClientConfig, seconds *int32) (*callout.Client, error) {
	out := callout.Config{CA: c.CABundle, Timeout: defaultTimeout, Agent: "kube-apiserver-admission"}
	if seconds != nil {
		out.Timeout = time.Duration(*seconds) * time.Second
	}
	if c.URL != nil {
		out.URL = *c.URL
	}
	if s := c.Service; s != nil {
		out.Service = &callout.Service{Namespace: s.Namespace, Name: s.Name, Port: 443}
		if s.Port != nil {
			out.Service.Port = *s.Port
		}
		if s.Path != nil {
			out.Service.Path = *s.Path
		}
	}
	return callout.New(st, out)
}
