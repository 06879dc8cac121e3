package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// member is an etcd server in this process. Its client calls it directly; it listens only for the other members.
type member struct {
	etcd   *embed.Etcd
	client *clientv3.Client
	quota  int64 // of the database, in bytes
	alone  bool  // it has no peers and never will have
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
	// The last entries of the raft log are kept in memory. A single member has nobody to catch up, but who stands for election
	// looks through what raft has not noted as applied yet, at most all since the last snapshot: that must not be cut off.
	c.SnapshotCount, c.SnapshotCatchUpEntries = 2000, 2200
	if cfg.Peers == nil {
		c.TickMs = 250 // nobody waits for its heartbeats, and each tick is a wake-up
	}
	c.ElectionMs = 5 * c.TickMs // the least that etcd allows
	// What is not in the database yet is in the log: a longer batch writes fewer pages twice, and wakes up less often.
	c.BackendBatchInterval = 500 * time.Millisecond
	c.QuotaBackendBytes = cmp.Or(cfg.Quota, 8<<30)
	c.MaxTxnOps = 1024
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(slogCore{cfg.Log}))
	if cfg.Peers != nil {
		if err := cfg.Peers.configure(ctx, c); err != nil {
			return nil, err
		}
	}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return nil, fmt.Errorf("embedded etcd in %s: %w", cfg.DataDir, err)
	}
	if cfg.Peers == nil {
		elect(ctx, e.Server)
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
	m := &member{etcd: e, client: v3client.New(e.Server), alone: cfg.Peers == nil, quota: c.QuotaBackendBytes}
	if cfg.Peers != nil {
		if err := m.advertise(ctx, cfg.Peers.URL); err != nil {
			m.close()
			return nil, err
		}
	}
	return m, nil
}

// quiet is how long a member that starts must have applied nothing before it is made to stand for election.
const quiet = 150 * time.Millisecond

// elect makes a single member its own leader as soon as it has applied its log. By itself it would wait for five to nine
// ticks whether there is another. Earlier would be in vain: raft lets nobody stand who may not know all members yet.
func elect(ctx context.Context, s *etcdserver.EtcdServer) {
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	id, what := uint64(s.MemberID()), raftpb.MsgTimeoutNow
	applied, since := s.AppliedIndex(), time.Now()
	for s.Leader() == 0 {
		if now := s.AppliedIndex(); now != applied || now == 0 {
			applied, since = now, time.Now()
		} else if time.Since(since) >= quiet {
			if s.Process(ctx, &raftpb.Message{Type: &what, To: &id, From: &id}) != nil {
				return // it stops, or the ticks will do
			}
			since = time.Now()
		}
		select {
		case <-look.C:
		case <-s.StopNotify():
			return
		case <-ctx.Done():
			return
		}
	}
}

func (m *member) close() { m.etcd.Close() }

// slogCore hands etcd's warnings and errors on. Its other messages are of no use to an operator of Skiff.
type slogCore struct{ log *slog.Logger }

func (c slogCore) Enabled(l zapcore.Level) bool        { return l >= zapcore.WarnLevel }
func (c slogCore) Sync() error                         { return nil }
func (c slogCore) With(f []zapcore.Field) zapcore.Core { return slogCore{c.log.With(attrs(f)...)} }

func (c slogCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !expected[e.Message] && !strings.Contains(e.Message, "cannot campaign at term") { // see elect
		return checked.AddCore(e, c)
	}
	return checked
}

// expected are warnings about what we chose, or about what etcd does again by itself: it looks for its schema's version
// before the first batch is in the database.
var expected = map[string]bool{
	"Failed to detect schema version": true,
	"Failed to detect storage schema version. Please wait till wal snapshot before upgrading cluster.": true,
	"failed to update storage version": true,
	"failed to update cluster version": true,
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
}

// publishing is what etcd says, over and over and without a pause, while a member that has just started reads its log and
// cannot publish itself yet. It only has to wait, and this is the one place where it can be made to.
const publishing = "failed to publish local member to cluster through raft"

func (c slogCore) Write(e zapcore.Entry, f []zapcore.Field) error {
	if e.Message == publishing && busy(f) {
		time.Sleep(time.Millisecond)
		return nil
	}
	level := slog.LevelWarn
	if e.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, "etcd: "+e.Message, attrs(f)...)
	return nil
}

// busy reports whether an error among the fields says that the log is not applied yet.
func busy(fields []zapcore.Field) bool {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && errors.Is(err, etcderrors.ErrTooManyRequests) {
			return true
		}
	}
	return false
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
