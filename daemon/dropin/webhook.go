package dropin

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	tokencache "k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/util/webhook"
	tokenwebhook "k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"

	"github.com/skiff-sh/skiff/daemon"
	"github.com/skiff-sh/skiff/server/authz"
)

// webhookFlags are the flags of kube-apiserver about servers that are asked who somebody is and what they may do.
type webhookFlags struct {
	tokenConfig, tokenVersion string
	tokenTTL                  time.Duration
	authzConfig, authzVersion string
	allowedTTL, deniedTTL     time.Duration
	authorization             string
}

func (o *webhookFlags) define(f *flags) {
	f.StringVar(&o.tokenConfig, "authentication-token-webhook-config-file", "", "the kubeconfig of a server that knows bearer tokens")
	f.StringVar(&o.tokenVersion, "authentication-token-webhook-version", "v1beta1", "the version of the TokenReviews that it is sent: v1 or v1beta1")
	f.DurationVar(&o.tokenTTL, "authentication-token-webhook-cache-ttl", 2*time.Minute, "how long its answers are remembered")
	f.StringVar(&o.authzConfig, "authorization-webhook-config-file", "", "the kubeconfig of the server that the mode Webhook asks")
	f.StringVar(&o.authzVersion, "authorization-webhook-version", "v1beta1", "the version of the SubjectAccessReviews that it is sent: v1 or v1beta1")
	f.DurationVar(&o.allowedTTL, "authorization-webhook-cache-authorized-ttl", 5*time.Minute, "how long it is remembered that it allowed something")
	f.DurationVar(&o.deniedTTL, "authorization-webhook-cache-unauthorized-ttl", 30*time.Second, "how long it is remembered that it did not")
	f.StringVar(&o.authorization, "authorization-config", "", "an AuthorizationConfiguration, instead of --authorization-mode and what belongs to it; read again when it changes")
}

// ask makes the clients of the servers that the flags name.
func (o *webhookFlags) ask(f *flags, a *daemon.APIServer) (err error) {
	if o.tokenConfig != "" {
		if a.Server.TokenWebhook, err = o.tokens(a.Server.Audiences); err != nil {
			return fmt.Errorf("--authentication-token-webhook-config-file: %w", err)
		}
	}
	if o.authorization != "" {
		for _, name := range []string{"authorization-mode", "authorization-webhook-config-file", "authorization-webhook-version",
			"authorization-webhook-cache-authorized-ttl", "authorization-webhook-cache-unauthorized-ttl"} {
			if f.Changed(name) {
				return fmt.Errorf("--authorization-config can not be specified when --%s is specified", name)
			}
		}
		a.Server.AuthorizationConfig = &authz.StructuredConfig{File: o.authorization}
		if err := authz.Check(*a.Server.AuthorizationConfig); err != nil { // before anything starts
			return fmt.Errorf("--authorization-config: %w", err)
		}
		return nil
	}
	if o.authzConfig == "" {
		return nil
	}
	a.Server.AuthorizationWebhook, err = authz.Webhook("default", &apiserver.WebhookConfiguration{FailurePolicy: apiserver.FailurePolicyNoOpinion,
		SubjectAccessReviewVersion: o.authzVersion, AuthorizedTTL: metav1.Duration{Duration: o.allowedTTL}, UnauthorizedTTL: metav1.Duration{Duration: o.deniedTTL},
		CacheAuthorizedRequests: true, CacheUnauthorizedRequests: true, Timeout: metav1.Duration{Duration: 30 * time.Second},
		ConnectionInfo: apiserver.WebhookConnectionInfo{KubeConfigFile: &o.authzConfig}})
	if err != nil {
		return fmt.Errorf("--authorization-webhook-config-file: %w", err)
	}
	return nil
}

func (o *webhookFlags) tokens(audiences authenticator.Audiences) (authenticator.Token, error) {
	c, err := webhook.LoadKubeconfig(o.tokenConfig, nil)
	if err != nil {
		return nil, err
	}
	w, err := tokenwebhook.New(c, o.tokenVersion, audiences, webhook.DefaultRetryBackoffWithInitialDelay(500*time.Millisecond))
	if err != nil {
		return nil, err
	}
	return tokencache.New(w, false, o.tokenTTL, o.tokenTTL), nil
}
