package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// member is an etcd server in this process. It listens nowhere: its only client calls it directly.
type member struct {
	etcd   *embed.Etcd
	client *clientv3.Client
}

func startMember(ctx context.Context, cfg Config) (*member, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, err
	}
	c := embed.NewConfig()
	c.Name = "skiff"
	c.Dir = cfg.DataDir
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ListenPeerUrls, c.ListenClientUrls = nil, nil
	c.AutoCompactionMode, c.AutoCompactionRetention = "periodic", "0" // off: see compactEvery
	// The raft log is kept in memory between snapshots; a single member needs none of it to catch others up.
	c.SnapshotCount, c.SnapshotCatchUpEntries = 2000, 100
	c.ElectionMs = 5 * c.TickMs // a single member elects itself after one to two of these: the time it takes to start
	c.QuotaBackendBytes = 8 << 30
	c.MaxTxnOps = 1024
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(slogCore{cfg.Log}))
	e, err := embed.StartEtcd(c)
	if err != nil {
		return nil, fmt.Errorf("embedded etcd in %s: %w", cfg.DataDir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		e.Close()
		return nil, fmt.Errorf("embedded etcd in %s: %w", cfg.DataDir, err)
	case <-ctx.Done():
		e.Close()
		return nil, fmt.Errorf("embedded etcd in %s is not ready: %w", cfg.DataDir, ctx.Err())
	}
	return &member{etcd: e, client: v3client.New(e.Server)}, nil
}

func (m *member) close() { m.etcd.Close() }

// revision is the last applied one. With a single member that is the current one.
func (m *member) revision() int64 { return m.etcd.Server.KV().Rev() }

// slogCore hands etcd's warnings and errors on. Its other messages are of no use to an operator of Skiff.
type slogCore struct{ log *slog.Logger }

func (c slogCore) Enabled(l zapcore.Level) bool        { return l >= zapcore.WarnLevel }
func (c slogCore) Sync() error                         { return nil }
func (c slogCore) With(f []zapcore.Field) zapcore.Core { return slogCore{c.log.With(attrs(f)...)} }

func (c slogCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !expected[e.Message] {
		return checked.AddCore(e, c)
	}
	return checked
}

// expected are warnings about what we chose.
var expected = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
}

func (c slogCore) Write(e zapcore.Entry, f []zapcore.Field) error {
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, "etcd: "+e.Message, attrs(f)...)
	return nil
}

func attrs(fields []zapcore.Field) []any {
	m := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(m)
	}
	out := make([]any, 0, len(m.Fields))
	for k, v := range m.Fields {
		out = append(out, slog.Any(k, v))
	}
	return out
}
