package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// product is one thing for sale. Price is in hundredths of the currency.
type product struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	About string `json:"about"`
	Icon  string `json:"icon"`
	Price int    `json:"price"`
	Stock int    `json:"stock"`
}

// shelf is what the api tier answers: everything that the page shows.
type shelf struct {
	Title    string    `json:"title"`
	Greeting string    `json:"greeting"`
	Currency string    `json:"currency"`
	Products []product `json:"products"`
	Through  []hop     `json:"through"`
}

// hop says which pod answered for a tier.
type hop struct {
	Tier string `json:"tier"`
	Pod  string `json:"pod"`
}

const productPrefix = "product."

var errSoldOut = errors.New("sold out")

// settings reads the files of a mounted ConfigMap at each request, so a change shows without a restart.
type settings struct{ dir string }

func (s settings) read(name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(s.dir, name))
	return strings.TrimSpace(string(raw)), err
}

type api struct {
	name     string
	settings settings
	store    *storeClient
}

func newAPI(name string, settings settings, store *storeClient) http.Handler {
	a := &api{name: name, settings: settings, store: store}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthy)
	mux.HandleFunc("GET /readyz", a.ready)
	mux.HandleFunc("GET /shelf", a.shelf)
	mux.HandleFunc("POST /buy/{id}", a.buy)
	return mux
}

// ready needs the files, but not the store: when that is away the page should say so, not vanish.
func (a *api) ready(w http.ResponseWriter, r *http.Request) {
	_, err := a.settings.read("title")
	if err == nil {
		_, err = a.store.password()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	healthy(w, r)
}

func (a *api) shelf(w http.ResponseWriter, r *http.Request) {
	s, err := a.fill(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	answer(w, http.StatusOK, s)
}

func (a *api) fill(ctx context.Context) (*shelf, error) {
	s := &shelf{Products: []product{}}
	for name, into := range map[string]*string{"title": &s.Title, "greeting": &s.Greeting, "currency": &s.Currency} {
		text, err := a.settings.read(name)
		if err != nil {
			return nil, err
		}
		*into = text
	}
	items, storeName, err := a.store.list(ctx, productPrefix)
	if err != nil {
		return nil, err
	}
	for _, i := range items {
		var p product
		if err := json.Unmarshal(i.Data, &p); err != nil {
			return nil, fmt.Errorf("%s: %w", i.Key, err)
		}
		s.Products = append(s.Products, p)
	}
	s.Through = []hop{{"api", a.name}, {"store", storeName}}
	return s, nil
}

func (a *api) buy(w http.ResponseWriter, r *http.Request) {
	p, err := a.sell(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, errNoKey):
		http.Error(w, "no such product", http.StatusNotFound)
	case errors.Is(err, errSoldOut):
		http.Error(w, "sold out", http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	default:
		answer(w, http.StatusOK, p)
	}
}

// sell takes one from stock. When someone else bought in between it looks again, and the stock is finite, so this ends.
func (a *api) sell(ctx context.Context, id string) (*product, error) {
	for {
		v, err := a.store.get(ctx, productPrefix+id)
		if err != nil {
			return nil, err
		}
		var p product
		if err := json.Unmarshal(v.Data, &p); err != nil {
			return nil, err
		}
		if p.Stock <= 0 {
			return nil, errSoldOut
		}
		p.Stock--
		err = a.store.put(ctx, productPrefix+id, p, v.Version)
		if err == nil {
			return &p, nil
		}
		if !errors.Is(err, errStale) {
			return nil, err
		}
	}
}
