package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// storeClient speaks to the store tier.
type storeClient struct {
	url      string
	password func() (string, error)
	http     *http.Client
}

var errNoKey = errors.New("no such key")

func (c *storeClient) list(ctx context.Context, prefix string) (items []item, servedBy string, err error) {
	servedBy, err = c.do(ctx, http.MethodGet, "/keys?prefix="+url.QueryEscape(prefix), nil, &items)
	return items, servedBy, err
}

func (c *storeClient) get(ctx context.Context, key string) (v value, err error) {
	_, err = c.do(ctx, http.MethodGet, "/keys/"+url.PathEscape(key), nil, &v)
	return v, err
}

// put writes over the expected version; errStale means that another was there.
func (c *storeClient) put(ctx context.Context, key string, data any, expected int) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPut, fmt.Sprintf("/keys/%s?version=%d", url.PathEscape(key), expected), raw, nil)
	return err
}

func (c *storeClient) do(ctx context.Context, method, path string, body []byte, into any) (servedBy string, err error) {
	password, err := c.password()
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.SetBasicAuth("shop", password)
	response, err := c.http.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	switch {
	case response.StatusCode == http.StatusConflict:
		return "", errStale
	case response.StatusCode == http.StatusNotFound:
		return "", errNoKey
	case response.StatusCode != http.StatusOK:
		return "", fmt.Errorf("store: %s: %s", response.Status, strings.TrimSpace(string(raw)))
	case into == nil:
		return response.Header.Get("Served-By"), nil
	}
	return response.Header.Get("Served-By"), json.Unmarshal(raw, into)
}
