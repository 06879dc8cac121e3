package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"golang.org/x/time/rate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// WebhookConfig is a server that takes batches of events. Zero values are upstream's defaults.
type WebhookConfig struct {
	// URL and Client say where to and how.
	URL    string
	Client *http.Client

	BufferSize   int           // events that wait to be sent; more are lost. 10,000
	MaxBatchSize int           // events in one request. 400
	MaxBatchWait time.Duration // from the first event to its request. 30 s
	QPS          float64       // requests a second. 10
	Burst        int           // 15
	// InitialBackoff is the time before the second attempt; the next take half as much longer each. 10 s
	InitialBackoff time.Duration
}

// attempts is how often a batch is sent.
const attempts = 5

type webhook struct {
	cfg   WebhookConfig
	queue chan *auditv1.Event
	rate  *rate.Limiter
	lost  func(plugin string, n int, err error)
}

func openWebhook(cfg WebhookConfig, lost func(string, int, error)) (*webhook, error) {
	if cfg.URL == "" || cfg.Client == nil {
		return nil, errors.New("audit: the webhook has no URL or no client")
	}
	set := func(n *int, otherwise int) {
		if *n == 0 {
			*n = otherwise
		}
	}
	set(&cfg.BufferSize, 10000)
	set(&cfg.MaxBatchSize, 400)
	set(&cfg.Burst, 15)
	if cfg.MaxBatchWait == 0 {
		cfg.MaxBatchWait = 30 * time.Second
	}
	if cfg.QPS == 0 {
		cfg.QPS = 10
	}
	if cfg.InitialBackoff == 0 {
		cfg.InitialBackoff = 10 * time.Second
	}
	return &webhook{cfg: cfg, queue: make(chan *auditv1.Event, cfg.BufferSize), rate: rate.NewLimiter(rate.Limit(cfg.QPS), cfg.Burst), lost: lost}, nil
}

func (*webhook) name() string { return "webhook" }

var errFull = errors.New("the buffer is full")

func (w *webhook) write(ev *auditv1.Event) error {
	select {
	case w.queue <- ev:
		return nil
	default:
		return errFull
	}
}

func (w *webhook) run(ctx context.Context) {
	for {
		batch := w.collect(ctx)
		if len(batch) > 0 {
			w.send(ctx, batch)
		}
		if ctx.Err() != nil && len(w.queue) == 0 {
			return
		}
	}
}

// collect waits for a batch to be full, or for its first event to have waited long enough.
func (w *webhook) collect(ctx context.Context) (batch []auditv1.Event) {
	var due <-chan time.Time
	for len(batch) < w.cfg.MaxBatchSize {
		select {
		case ev := <-w.queue:
			if batch = append(batch, *ev); due == nil {
				due = time.After(w.cfg.MaxBatchWait)
			}
			continue
		default:
		}
		select {
		case ev := <-w.queue:
			if batch = append(batch, *ev); due == nil {
				due = time.After(w.cfg.MaxBatchWait)
			}
		case <-due:
			return batch
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// send tries a batch several times. What is left when ctx has ended gets a few seconds.
func (w *webhook) send(ctx context.Context, batch []auditv1.Event) {
	if ctx.Err() != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		ctx = late
	}
	body, err := json.Marshal(auditv1.EventList{TypeMeta: metav1.TypeMeta{Kind: "EventList", APIVersion: "audit.k8s.io/v1"}, Items: batch})
	if err != nil {
		w.lost(w.name(), len(batch), err)
		return
	}
	backoff := w.cfg.InitialBackoff
	for try := 1; ; try++ {
		if err = w.rate.Wait(ctx); err == nil {
			var again bool
			if again, err = w.post(ctx, body); err == nil {
				return
			} else if !again || try == attempts {
				break
			}
		}
		select {
		case <-time.After(backoff + rand.N(backoff/5+1)):
			backoff += backoff / 2
		case <-ctx.Done():
			w.lost(w.name(), len(batch), err)
			return
		}
	}
	w.lost(w.name(), len(batch), err)
}

func (w *webhook) post(ctx context.Context, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := w.cfg.Client.Do(req)
	if err != nil {
		return true, err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)) // so that the connection can be used again
	if res.StatusCode/100 == 2 {
		return false, nil
	}
	return res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests, fmt.Errorf("the webhook answers %s", res.Status)
}
