package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

//go:embed page.html
var pageSource string

//go:embed style.css
var style []byte

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"money": func(hundredths int) string { return fmt.Sprintf("%d.%02d", hundredths/100, hundredths%100) },
}).Parse(pageSource))

type web struct {
	name string
	api  string
	http *http.Client
}

func newWeb(name, api string) http.Handler {
	s := &web{name: name, api: api, http: &http.Client{Timeout: 5 * time.Second}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthy)
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(style) // an error is the browser's going away
	})
	mux.HandleFunc("POST /buy/{id}", s.buy)
	return mux
}

// view is what the page's template sees.
type view struct {
	shelf
	Error string
}

func (s *web) home(w http.ResponseWriter, r *http.Request) {
	v := view{shelf: shelf{Title: "Shop"}}
	code := http.StatusOK
	if err := s.fetch(r, http.MethodGet, "/shelf", &v.shelf); err != nil {
		slog.Warn("the api tier failed", "error", err)
		v.Error, code = "The shelves can't be reached right now: "+err.Error(), http.StatusBadGateway
	}
	v.Through = append([]hop{{"web", s.name}}, v.Through...)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	if err := page.Execute(w, v); err != nil {
		slog.Warn("the page was cut short", "error", err)
	}
}

func (s *web) buy(w http.ResponseWriter, r *http.Request) {
	var bought product
	err := s.fetch(r, http.MethodPost, "/buy/"+url.PathEscape(r.PathValue("id")), &bought)
	var refused *apiError
	switch {
	case err == nil, errors.As(err, &refused) && refused.code == http.StatusConflict:
		// When someone else took the last one, the page says so. The way back is relative, like all of the page's
		// links, so that the shop also works below a path, such as that of the API server's proxy.
		w.Header().Set("Location", "../")
		w.WriteHeader(http.StatusSeeOther)
	case errors.As(err, &refused) && refused.code == http.StatusNotFound:
		http.Error(w, refused.message, http.StatusNotFound)
	default:
		http.Error(w, err.Error(), http.StatusBadGateway)
	}
}

func (s *web) fetch(r *http.Request, method, path string, into any) error {
	request, err := http.NewRequestWithContext(r.Context(), method, s.api+path, nil)
	if err != nil {
		return err
	}
	response, err := s.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return &apiError{code: response.StatusCode, message: strings.TrimSpace(string(raw))}
	}
	return json.Unmarshal(raw, into)
}

// apiError is an answer of the api tier other than 200.
type apiError struct {
	code    int
	message string
}

func (e *apiError) Error() string { return fmt.Sprintf("api: %d: %s", e.code, e.message) }
