package dropin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/skiff-sh/skiff/api/builtin"
)

// encryption is what an EncryptionConfiguration says about the values in etcd, read again when the file changes.
type encryption struct {
	file    string
	every   time.Duration // between looks at the file
	log     *slog.Logger
	folders map[string]schema.GroupResource // of built-in kinds, below the prefix of all keys
	now     atomic.Pointer[providers]
}

// providers are those of one reading of the file. They talk to key management plug-ins until they are closed.
type providers struct {
	*encryptionconfig.EncryptionConfiguration
	close context.CancelFunc
}

// newEncryption reads the file. The providers live until ctx ends.
func newEncryption(ctx context.Context, file string, log *slog.Logger) (*encryption, error) {
	e := &encryption{file: file, every: 10 * time.Second, log: log, folders: map[string]schema.GroupResource{}}
	for _, k := range builtin.Kinds() {
		if k.StoragePath != "" && k.Hub == nil {
			e.folders[k.StoragePath] = k.GroupResource()
		}
	}
	p, err := e.load(ctx)
	if err != nil {
		return nil, err
	}
	e.now.Store(p)
	return e, nil
}

func (e *encryption) load(ctx context.Context) (*providers, error) {
	ctx, stop := context.WithCancel(ctx)
	cfg, err := encryptionconfig.LoadEncryptionConfig(ctx, e.file, true, "skiff")
	if err != nil {
		stop()
		return nil, err
	}
	return &providers{cfg, stop}, nil
}

// transformer is what the store does to the values of a key, nil where nothing is said. Keys of custom resources name
// their group and resource themselves.
func (e *encryption) transformer(key string) value.Transformer {
	parts := strings.SplitN(key, "/", 5) // "", "registry", "apps", "deployments", ...
	for n := min(len(parts), 4); n > 2; n-- {
		if gr, ok := e.folders[strings.Join(parts[2:n], "/")]; ok {
			return e.of(gr)
		}
	}
	if len(parts) == 5 && strings.Contains(parts[2], ".") {
		return e.of(schema.GroupResource{Group: parts[2], Resource: parts[3]})
	}
	return nil
}

func (e *encryption) of(gr schema.GroupResource) value.Transformer {
	return encryptionconfig.StaticTransformers(e.now.Load().Transformers).TransformerForResource(gr)
}

// healthy asks the key management plug-ins whether they work.
func (e *encryption) healthy(ctx context.Context) error { return e.now.Load().healthy(ctx) }

func (p *providers) healthy(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/healthz", nil)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range p.HealthChecks {
		errs = append(errs, c.Check(r))
	}
	return errors.Join(errs...)
}

// follow takes up what the file says whenever it changes, until ctx ends. A file that is wrong, or whose plug-ins do not
// answer, is reported, and what was read before goes on.
func (e *encryption) follow(ctx context.Context) {
	tick := time.NewTicker(e.every)
	defer tick.Stop()
	for refused := ""; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		hash, err := encryptionconfig.GetEncryptionConfigHash(e.file)
		if err == nil && hash == e.now.Load().EncryptionFileContentHash {
			refused = ""
			continue
		}
		if err == nil {
			err = e.reload(ctx)
		}
		switch {
		case err == nil:
			e.log.Info("the encryption configuration has been read again", "file", e.file)
		case err.Error() != refused:
			refused = err.Error()
			e.log.Error("the encryption configuration has changed and cannot be used; the former one stays", "file", e.file, "err", err)
		}
	}
}

func (e *encryption) reload(ctx context.Context) error {
	p, err := e.load(ctx)
	if err != nil {
		return err
	}
	asking, stop := context.WithTimeout(ctx, max(p.KMSCloseGracePeriod, time.Second))
	defer stop()
	if err := p.healthy(asking); err != nil {
		p.close()
		return fmt.Errorf("its plug-ins are not healthy: %w", err)
	}
	old := e.now.Swap(p)
	time.AfterFunc(old.KMSCloseGracePeriod, old.close) // what is under way may still need it
	return nil
}
