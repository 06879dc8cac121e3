package main

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// maxValue bounds a stored value, in bytes.
const maxValue = 64 << 10

// store keeps each key as a file in its folder and all of them in memory. A write is on disk before it is answered.
type store struct {
	name     string
	dir      string
	password func() (string, error)

	mu     sync.RWMutex
	values map[string]value
}

// value has a version that every write raises by one; a writer can ask for the one it read to be still there.
type value struct {
	Version int             `json:"version"`
	Data    json.RawMessage `json:"data"`
}

var errStale = errors.New("the value has changed")

func openStore(name, dir string, password func() (string, error)) (*store, error) {
	s := &store{name: name, dir: dir, password: password, values: map[string]value{}}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		base, isValue := strings.CutSuffix(f.Name(), ".json")
		if !isValue {
			continue // half-written when a former process died, or not ours
		}
		key, err := url.PathUnescape(base)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		var v value
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		s.values[key] = v
	}
	return s, nil
}

// put writes data under key if the version there is the expected one: 0 for none yet, -1 for any.
func (s *store) put(key string, data json.RawMessage, expected int) (value, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.values[key]
	if expected >= 0 && old.Version != expected {
		return old, errStale
	}
	v := value{Version: old.Version + 1, Data: data}
	raw, err := json.Marshal(v)
	if err != nil {
		return old, err
	}
	if err := writeFile(filepath.Join(s.dir, url.PathEscape(key)+".json"), raw); err != nil {
		return old, err
	}
	s.values[key] = v
	return v, nil
}

// writeFile replaces the file at once and for good, whenever the power goes.
func writeFile(file string, raw []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := tmp.Write(raw); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (s *store) handler() http.Handler {
	keys := http.NewServeMux()
	keys.HandleFunc("GET /keys", s.list)
	keys.HandleFunc("GET /keys/{key}", s.get)
	keys.HandleFunc("PUT /keys/{key}", s.set)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthy)
	mux.Handle("/keys", s.guard(keys))
	mux.Handle("/keys/", s.guard(keys))
	return mux
}

func (s *store) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Served-By", s.name)
		want, err := s.password()
		_, got, _ := r.BasicAuth()
		if err != nil || subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
			http.Error(w, "wrong password", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// list answers every key that starts with the prefix asked for, with its value, in key order.
func (s *store) list(w http.ResponseWriter, r *http.Request) {
	prefix := r.URL.Query().Get("prefix")
	found := []item{}
	s.mu.RLock()
	for key, v := range s.values {
		if strings.HasPrefix(key, prefix) {
			found = append(found, item{Key: key, value: v})
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(found, func(a, b item) int { return strings.Compare(a.Key, b.Key) })
	answer(w, http.StatusOK, found)
}

type item struct {
	Key string `json:"key"`
	value
}

func (s *store) get(w http.ResponseWriter, r *http.Request) {
	s.mu.RLock()
	v, ok := s.values[r.PathValue("key")]
	s.mu.RUnlock()
	if !ok {
		http.Error(w, "no such key", http.StatusNotFound)
		return
	}
	answer(w, http.StatusOK, v)
}

// set takes ?version=N to write only over version N, 0 meaning that the key must be new.
func (s *store) set(w http.ResponseWriter, r *http.Request) {
	expected := -1
	if q := r.URL.Query().Get("version"); q != "" {
		n, err := strconv.Atoi(q)
		if err != nil || n < 0 {
			http.Error(w, "version is not a number", http.StatusBadRequest)
			return
		}
		expected = n
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxValue))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	if !json.Valid(raw) {
		http.Error(w, "the value is not JSON", http.StatusBadRequest)
		return
	}
	v, err := s.put(r.PathValue("key"), raw, expected)
	switch {
	case errors.Is(err, errStale):
		answer(w, http.StatusConflict, v)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		answer(w, http.StatusOK, v)
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the reader has gone: nobody is left to tell
}
