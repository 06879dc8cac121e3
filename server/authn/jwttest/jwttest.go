// Package jwttest is OpenID Connect providers for tests, and tokens that they have signed.
//
// Invariant: all keys are made anew for each World, and nothing outlives it. Only tests import jwttest.
package jwttest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"sigs.k8s.io/yaml"
)

// Case is a configuration and the tokens to try with it.
type Case struct {
	Name   string  `json:"name"`
	JWT    []any   `json:"jwt"`
	Tokens []Token `json:"tokens"`
}

// Token is what a provider says, and who its bearer is taken for; nobody if User is nil.
type Token struct {
	Claims    map[string]any `json:"claims"`
	From      string         `json:"from"`      // the provider that signs: by default the first, Issuer
	Algorithm string         `json:"algorithm"` // RS256 by default
	Key       string         `json:"key"`       // "stranger": a key that the provider does not publish
	User      *User          `json:"user"`
}

// User is as in a SelfSubjectReview.
type User struct {
	Username string              `json:"username"`
	UID      string              `json:"uid"`
	Groups   []string            `json:"groups"`
	Extra    map[string][]string `json:"extra"`
}

// Cleaner is what a World needs of a test.
type Cleaner interface{ Cleanup(func()) }

// World is two providers with keys of their own.
type World struct {
	Issuer, Other string // URLs
	CA            string // who signs their certificates, as PEM
	keys          map[string][]jose.JSONWebKey
	stranger      jose.JSONWebKey
}

// NewWorld starts the providers; they end with the test.
func NewWorld(t Cleaner) *World {
	w := &World{keys: map[string][]jose.JSONWebKey{}, stranger: rsaKey("stranger")}
	for _, at := range []*string{&w.Issuer, &w.Other} {
		s := httptest.NewUnstartedServer(nil)
		url := "https://" + s.Listener.Addr().String()
		*at = url
		s.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.serve(url, rw, r) })
		w.keys[url] = []jose.JSONWebKey{rsaKey("rsa"), ecKey("ec")}
		s.StartTLS()
		w.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
		t.Cleanup(s.Close)
	}
	return w
}

func rsaKey(id string) jose.JSONWebKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return jose.JSONWebKey{Key: k, KeyID: id, Use: "sig", Algorithm: string(jose.RS256)}
}

func ecKey(id string) jose.JSONWebKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return jose.JSONWebKey{Key: k, KeyID: id, Use: "sig", Algorithm: string(jose.ES256)}
}

// Serve answers as the first provider.
func (w *World) Serve(rw http.ResponseWriter, r *http.Request) { w.serve(w.Issuer, rw, r) }

func (w *World) serve(url string, rw http.ResponseWriter, r *http.Request) {
	var answer any
	switch r.URL.Path {
	case "/.well-known/openid-configuration", "/moved-issuer":
		answer = map[string]any{"issuer": url, "jwks_uri": url + "/keys"}
	case "/moved":
		answer = map[string]any{"issuer": "https://elsewhere.example", "jwks_uri": url + "/keys"}
	case "/keys":
		set := jose.JSONWebKeySet{}
		for _, k := range w.keys[url] {
			set.Keys = append(set.Keys, k.Public())
		}
		answer = set
	case "/claims":
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(rw, "who?", http.StatusUnauthorized)
			return
		}
		token, err := w.sign(Token{From: url, Claims: map[string]any{"groups": []string{"far"}}})
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = rw.Write([]byte(token))
		return
	default:
		http.NotFound(rw, r)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(answer)
}

// Fill puts the providers' URLs in the places that are kept for them.
func (w *World) Fill(text []byte) []byte {
	for place, url := range map[string]string{"ISSUER": w.Issuer, "OTHER": w.Other} {
		text = bytes.ReplaceAll(text, []byte(place), []byte(url))
	}
	return text
}

// Configuration is the case's AuthenticationConfiguration as YAML.
func (c *Case) Configuration(w *World) []byte {
	for _, one := range c.JWT {
		issuer := one.(map[string]any)["issuer"].(map[string]any)
		if issuer["certificateAuthority"] == "CA" {
			issuer["certificateAuthority"] = w.CA
		}
	}
	b, err := yaml.Marshal(map[string]any{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": c.JWT})
	if err != nil {
		panic(err)
	}
	return b
}

// Failer is what Sign needs of a test.
type Failer interface{ Fatal(...any) }

// Sign makes the token. What its claims do not say of issuer, audience and time is added.
func (w *World) Sign(t Failer, token Token) string {
	s, err := w.sign(token)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *World) sign(token Token) (string, error) {
	if token.From == "" {
		token.From = w.Issuer
	}
	claims := map[string]any{"iss": token.From, "aud": "skiff", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(claims, token.Claims)
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	key := jose.SigningKey{Algorithm: jose.RS256, Key: w.keys[token.From][0]}
	switch {
	case token.Algorithm == string(jose.ES256):
		key = jose.SigningKey{Algorithm: jose.ES256, Key: w.keys[token.From][1]}
	case token.Algorithm == string(jose.HS256):
		key = jose.SigningKey{Algorithm: jose.HS256, Key: []byte("0123456789abcdef0123456789abcdef")}
	case token.Key == "stranger":
		key.Key = w.stranger
	}
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
