package audit

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"sync"

	"gopkg.in/natefinch/lumberjack.v2"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// FileConfig is a file of JSON lines.
type FileConfig struct {
	Path string // "-" is standard output
	// MaxAge (days), MaxBackups (files) and MaxSize (megabytes) bound what is kept; 0 is no bound, but for the size, where it is 100.
	MaxAge, MaxBackups, MaxSize int
	Compress                    bool // of files that are full
}

type file struct {
	mu  sync.Mutex
	out io.WriteCloser
}

func openFile(cfg FileConfig) (*file, error) {
	if cfg.Path == "-" {
		return &file{out: os.Stdout}, nil
	}
	// Rotation opens the file with the first event; that is too late to learn that it cannot be written.
	f, err := os.OpenFile(cfg.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return &file{out: &lumberjack.Logger{Filename: cfg.Path, MaxAge: cfg.MaxAge, MaxBackups: cfg.MaxBackups, MaxSize: cfg.MaxSize, Compress: cfg.Compress}}, nil
}

func (*file) name() string { return "log" }

// write is one line, written before the request goes on: an acknowledged write is always in the log.
func (f *file) write(ev *auditv1.Event) error {
	line, err := json.Marshal(ev)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err = f.out.Write(append(line, '\n'))
	return err
}

func (f *file) run(ctx context.Context) {
	<-ctx.Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out != os.Stdout {
		_ = f.out.Close() // it opens again when a late event comes
	}
}
