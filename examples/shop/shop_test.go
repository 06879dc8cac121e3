package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// shop is the three tiers, connected over HTTP.
type shop struct {
	web, api, store *httptest.Server
	client          *storeClient
	config, data    string
}

func password(p string) func() (string, error) { return func() (string, error) { return p, nil } }

func open(t *testing.T) *shop {
	t.Helper()
	s := &shop{config: t.TempDir(), data: t.TempDir()}
	for name, text := range map[string]string{"title": "Test <shop>\n", "greeting": "Hello", "currency": "EUR"} {
		if err := os.WriteFile(filepath.Join(s.config, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	st, err := openStore("store-1", s.data, password("pw"))
	if err != nil {
		t.Fatal(err)
	}
	s.store = httptest.NewServer(st.handler())
	t.Cleanup(s.store.Close)
	s.client = &storeClient{url: s.store.URL, password: password("pw"), http: s.store.Client()}
	s.api = httptest.NewServer(newAPI("api-1", settings{dir: s.config}, s.client))
	t.Cleanup(s.api.Close)
	s.web = httptest.NewServer(newWeb("web-1", s.api.URL))
	t.Cleanup(s.web.Close)
	return s
}

func fetch(t *testing.T, address string) (int, string) {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(raw)
}

func (s *shop) seed(t *testing.T, products ...product) {
	t.Helper()
	raw, err := json.Marshal(products)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "products.json")
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := seed(t.Context(), s.client, file); err != nil {
		t.Fatal(err)
	}
}

func TestPageShowsProductsAndTiers(t *testing.T) {
	s := open(t)
	if code, body := fetch(t, s.web.URL); code != http.StatusOK || !strings.Contains(body, "shelves are empty") {
		t.Errorf("empty shop: %d %s", code, body)
	}
	s.seed(t, product{ID: "rope", Name: "Rope", Price: 1875, Stock: 2}, product{ID: "horn", Name: "Horn", Price: 5})
	code, body := fetch(t, s.web.URL)
	for _, want := range []string{"Test &lt;shop&gt;", "Hello", "EUR 18.75", "EUR 0.05", "2 left", "Sold out", "web-1", "api-1", "store-1"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if code != http.StatusOK {
		t.Errorf("status %d", code)
	}
}

func TestBuyTakesFromStockAndSeedingAgainDoesNotRefill(t *testing.T) {
	s := open(t)
	rope := product{ID: "rope", Name: "Rope", Price: 1875, Stock: 1}
	s.seed(t, rope)
	for range 2 { // the second finds it sold out and shows the page all the same
		response, err := http.PostForm(s.web.URL+"/buy/rope", url.Values{})
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK || response.Request.URL.Path != "/" {
			t.Errorf("bought: %s at %s", response.Status, response.Request.URL)
		}
	}
	s.seed(t, rope)
	if _, body := fetch(t, s.web.URL); !strings.Contains(body, "0 left") {
		t.Error("the stock was filled again")
	}
	response, err := http.PostForm(s.web.URL+"/buy/none", url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown product: %s", response.Status)
	}
}

func TestManyBuyersNeverOversell(t *testing.T) {
	s := open(t)
	const stock, buyers = 10, 25
	s.seed(t, product{ID: "rope", Stock: stock})
	a := &api{store: s.client}
	var sold sync.Map
	var wg sync.WaitGroup
	for i := range buyers {
		wg.Go(func() {
			if _, err := a.sell(t.Context(), "rope"); err == nil {
				sold.Store(i, true)
			} else if err != errSoldOut {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	sold.Range(func(any, any) bool { n++; return true })
	if n != stock {
		t.Errorf("sold %d of %d", n, stock)
	}
}

func TestSettingsAreReadAnew(t *testing.T) {
	s := open(t)
	if err := os.WriteFile(filepath.Join(s.config, "title"), []byte("Renamed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, body := fetch(t, s.web.URL); !strings.Contains(body, "<h1>Renamed</h1>") {
		t.Error("the page does not follow the settings")
	}
	if err := os.Remove(filepath.Join(s.config, "title")); err != nil {
		t.Fatal(err)
	}
	if code, _ := fetch(t, s.api.URL+"/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("ready without settings: %d", code)
	}
}

func TestPageWhenTheStoreIsAway(t *testing.T) {
	s := open(t)
	s.store.Close()
	code, body := fetch(t, s.web.URL)
	if code != http.StatusBadGateway || !strings.Contains(body, "be reached right now") || !strings.Contains(body, "web-1") {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := fetch(t, s.api.URL+"/readyz"); code != http.StatusOK {
		t.Errorf("api readiness follows the store: %d", code)
	}
}

func TestStoreSurvivesItsRestart(t *testing.T) {
	dir := t.TempDir()
	first, err := openStore("a", dir, password("pw"))
	if err != nil {
		t.Fatal(err)
	}
	key := "odd/key ../%2e" // must neither leave the folder nor clash
	if _, err := first.put(key, json.RawMessage(`{"n":1}`), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := first.put(key, json.RawMessage(`{"n":2}`), 0); err != errStale {
		t.Errorf("a write over an unexpected version: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tmp-1"), []byte(`{"half`), 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := openStore("b", dir, password("pw"))
	if err != nil {
		t.Fatal(err)
	}
	if v := second.values[key]; v.Version != 1 || string(v.Data) != `{"n":1}` {
		t.Errorf("after the restart: %+v", v)
	}
}

func TestStoreRefuses(t *testing.T) {
	s := open(t)
	for name, c := range map[string]struct {
		password, method, path, body string
		want                         int
	}{
		"wrong password": {"guess", "GET", "/keys", "", http.StatusUnauthorized},
		"no key":         {"pw", "GET", "/keys/none", "", http.StatusNotFound},
		"not JSON":       {"pw", "PUT", "/keys/a", "{", http.StatusBadRequest},
		"bad version":    {"pw", "PUT", "/keys/a?version=x", "1", http.StatusBadRequest},
		"stale":          {"pw", "PUT", "/keys/a?version=3", "1", http.StatusConflict},
		"too large":      {"pw", "PUT", "/keys/a", `"` + strings.Repeat("x", maxValue) + `"`, http.StatusRequestEntityTooLarge},
		"method":         {"pw", "DELETE", "/keys/a", "", http.StatusMethodNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), c.method, s.store.URL+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			request.SetBasicAuth("shop", c.password)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != c.want {
				t.Errorf("status %d, want %d", response.StatusCode, c.want)
			}
		})
	}
}

func TestSeedStopsWhenAsked(t *testing.T) {
	s := open(t)
	s.store.Close()
	file := filepath.Join(t.TempDir(), "products.json")
	if err := os.WriteFile(file, []byte("[]"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := seed(ctx, s.client, file); err == nil {
		t.Error("seeded a store that is away")
	}
}

func TestUnknownTier(t *testing.T) {
	for _, args := range [][]string{nil, {"warehouse"}, {"web", "-nosuchflag"}} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("run(%q) did not fail", args)
		}
	}
}
