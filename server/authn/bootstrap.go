package authn

import (
	"context"
	"crypto/subtle"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

const (
	bootstrapType   = corev1.SecretTypeBootstrapToken
	bootstrapPrefix = "bootstrap-token-" // of the secrets' names
	bootstrapUser   = "system:bootstrap:"
	bootstrapGroup  = "system:bootstrappers"
)

var (
	bootstrapToken  = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	bootstrapGroups = regexp.MustCompile(`^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`)
)

// bootstrap knows the tokens (ID.SECRET) with which nodes join: each is a Secret in kube-system.
type bootstrap struct {
	secret func(ctx context.Context, namespace, name string) (*corev1.Secret, bool, error)
	now    func() time.Time
}

// AuthenticateToken implements authenticator.Token: a token without a good Secret is nobody's, which is no error.
func (b bootstrap) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	parts := bootstrapToken.FindStringSubmatch(token)
	if parts == nil {
		return nil, false, nil
	}
	id := parts[1]
	s, ok, err := b.secret(ctx, metav1.NamespaceSystem, bootstrapPrefix+id)
	if err != nil || !ok || s.DeletionTimestamp != nil || s.Type != bootstrapType {
		return nil, false, err
	}
	if subtle.ConstantTimeCompare(s.Data["token-secret"], []byte(parts[2])) != 1 || string(s.Data["token-id"]) != id ||
		string(s.Data["usage-bootstrap-authentication"]) != "true" {
		return nil, false, nil
	}
	if text := string(s.Data["expiration"]); text != "" {
		if until, err := time.Parse(time.RFC3339, text); err != nil || !b.now().Before(until) {
			return nil, false, nil
		}
	}
	groups := []string{bootstrapGroup}
	if extra := string(s.Data["auth-extra-groups"]); extra != "" {
		for g := range strings.SplitSeq(extra, ",") {
			if !bootstrapGroups.MatchString(g) {
				return nil, false, fmt.Errorf("bootstrap token %s: group %q must match %s", id, g, bootstrapGroups)
			}
			groups = append(groups, g)
		}
	}
	slices.Sort(groups)
	return &authenticator.Response{User: &user.DefaultInfo{Name: bootstrapUser + id, Groups: slices.Compact(groups)}}, true, nil
}
