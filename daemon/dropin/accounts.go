package dropin

import (
	"context"
	"fmt"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
)

// accounts makes clients that are service accounts of kube-system, each with tokens of its own that c asks for.
func accounts(conn *connection, c client.Interface) func(name string) client.Interface {
	return func(name string) client.Interface {
		t := &accountToken{c: c, name: name}
		as, err := conn.with(t.get, name)
		if err != nil {
			return c // the address has been good for c
		}
		return as
	}
}

// accountToken is a service account's token, renewed when four fifths of its life are over.
type accountToken struct {
	c    client.Interface
	name string

	mu    sync.Mutex
	token string
	renew time.Time
}

const accountTokenLife = time.Hour

func (t *accountToken) get(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token != "" && time.Now().Before(t.renew) {
		return t.token, nil
	}
	token, err := t.request(ctx)
	if apierrors.IsNotFound(err) {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: t.name}}
		if _, err := client.Create(ctx, t.c, account); err != nil && !apierrors.IsAlreadyExists(err) {
			return "", err
		}
		token, err = t.request(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("a token for the service account %s: %w", t.name, err)
	}
	t.token, t.renew = token, time.Now().Add(accountTokenLife*4/5)
	return t.token, nil
}

func (t *accountToken) request(ctx context.Context) (string, error) {
	seconds := int64(accountTokenLife / time.Second)
	out, err := t.c.Action(ctx, client.KindOf[*corev1.ServiceAccount](), metav1.NamespaceSystem, t.name, "token",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}})
	if err != nil {
		return "", err
	}
	made, ok := out.(*authenticationv1.TokenRequest)
	if !ok {
		return "", fmt.Errorf("a %T is no TokenRequest", out)
	}
	return made.Status.Token, nil
}
