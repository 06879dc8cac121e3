package rest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"path"
	"strings"
)

// token is upstream's continue token (meta.k8s.io/v1): the revision that a list is read at (-1: the newest) and the
// key to go on from, relative to the list's prefix.
type token struct {
	Version string `json:"v"`
	Rev     int64  `json:"rv"`
	Start   string `json:"start"`
}

const tokenVersion = "meta.k8s.io/v1"

func encodeToken(lastKey, prefix string, rev int64) string {
	b, err := json.Marshal(token{tokenVersion, rev, strings.TrimPrefix(lastKey, prefix) + "\x00"})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// decodeToken returns the full key to start from and the revision.
func decodeToken(s, prefix string) (from string, rev int64, err error) {
	data, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return "", 0, err
	}
	var t token
	if err := json.Unmarshal(data, &t); err != nil {
		return "", 0, err
	}
	switch {
	case t.Version != tokenVersion:
		return "", 0, errors.New("server does not recognize this encoded version " + t.Version)
	case t.Rev == 0 || t.Rev < -1:
		return "", 0, errors.New("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	case t.Start == "":
		return "", 0, errors.New("encoded start key empty (version meta.k8s.io/v1)")
	}
	// The key must stay inside the prefix whatever the client made of it.
	start := t.Start
	if !strings.HasPrefix(start, "/") {
		start = "/" + start
	}
	if path.Clean(start) != start {
		return "", 0, errors.New(t.Start)
	}
	return prefix + start[1:], t.Rev, nil
}
