package etcd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/api/codec"
)

// serversPrefix holds a key for each living API server, named by its address and bound to a lease that the server renews.
// Upstream's servers keep theirs there in the same form, so both may serve one cluster.
const serversPrefix = root + "/masterleases/"

// Presence is this process's entry among the API servers of the cluster. It is used by one goroutine.
type Presence struct {
	s     *Store
	key   string
	value string
	lease clientv3.LeaseID
}

// Presence makes the entry of the server that is reached at ip; nothing is written before Renew.
func (s *Store) Presence(ip string) (*Presence, error) {
	k, ok := builtin.Table().Of(&corev1.Endpoints{})
	if !ok {
		return nil, fmt.Errorf("endpoints are no built-in kind")
	}
	//lint:ignore SA1019 the form in which upstream's servers keep their addresses
	b, err := codec.For(k).Encode(&corev1.Endpoints{Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: ip}}}}})
	if err != nil {
		return nil, err
	}
	return &Presence{s: s, key: serversPrefix + ip, value: string(b)}, nil
}

// Renew keeps the entry for ttl seconds more.
func (p *Presence) Renew(ctx context.Context, ttl int64) error {
	if p.lease != 0 {
		if _, err := p.s.client.KeepAliveOnce(ctx, p.lease); err == nil {
			return nil
		}
	}
	granted, err := p.s.client.Grant(ctx, ttl)
	if err != nil {
		return wrap(err)
	}
	if _, err := p.s.client.Put(ctx, p.key, p.value, clientv3.WithLease(granted.ID)); err != nil {
		return wrap(err)
	}
	p.lease = granted.ID
	return nil
}

// Remove takes the entry back.
func (p *Presence) Remove(ctx context.Context) error {
	if p.lease == 0 {
		return nil
	}
	_, err := p.s.client.Revoke(ctx, p.lease)
	p.lease = 0
	return wrap(err)
}

// Servers are the addresses of all living API servers, sorted.
func (s *Store) Servers(ctx context.Context) ([]string, error) {
	resp, err := s.client.Get(ctx, serversPrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, wrap(err)
	}
	out := make([]string, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		out = append(out, strings.TrimPrefix(string(kv.Key), serversPrefix))
	}
	slices.Sort(out)
	return out, nil
}
