package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// seed puts the catalog's products into the store where they are not there yet. It waits for a store that is still
// starting, backing off from 100 ms to 5 s.
func seed(ctx context.Context, store *storeClient, catalog string) error {
	raw, err := os.ReadFile(catalog)
	if err != nil {
		return err
	}
	var products []product
	if err := json.Unmarshal(raw, &products); err != nil {
		return fmt.Errorf("%s: %w", catalog, err)
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		if _, _, err = store.list(ctx, productPrefix); err == nil {
			break
		}
		slog.Info("the store does not answer yet", "error", err, "wait", wait)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
	added := 0
	for _, p := range products {
		err := store.put(ctx, productPrefix+p.ID, p, 0)
		switch {
		case errors.Is(err, errStale): // sold from already
		case err != nil:
			return fmt.Errorf("product %s: %w", p.ID, err)
		default:
			added++
		}
	}
	slog.Info("seeded", "added", added, "known", len(products)-added)
	return nil
}
