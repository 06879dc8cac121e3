// Shop is a small shop of three tiers in one program, to show an application on a cluster:
//
//	shop web    serves the page; asks api
//	shop api    products and purchases as JSON; reads its settings and a password from files; asks store
//	shop store  keys and values over HTTP, each a file on a volume
//	shop seed   fills the store with the catalog's products, once (for a Job)
//	shop own    gives a folder to the user that store runs as (for an init container)
//
// Every tier adds its own name to what it answers, so that the page can show which pods it came through.
// It is an example and imports nothing of Skiff.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want one of web, api, store, seed, own")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	listen := flags.String("listen", ":8080", "address to serve on")
	name := flags.String("name", hostname(), "what this tier calls itself in its answers")
	apiURL := flags.String("api", "http://api", "URL of the api tier")
	storeURL := flags.String("store", "http://store", "URL of the store tier")
	config := flags.String("config", "/etc/shop/config", "folder with the files title, greeting and currency")
	password := flags.String("password", "/etc/shop/secret/password", "file with the store's password")
	data := flags.String("data", "/data", "the store's folder")
	catalog := flags.String("catalog", "/etc/shop/catalog/products.json", "file with the products to seed")
	owner := flags.Int("owner", 65532, "user and group number that own gives the folder to")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}

	store := &storeClient{url: *storeURL, password: fileReader(*password), http: &http.Client{Timeout: 5 * time.Second}}
	switch args[0] {
	case "web":
		return serve(ctx, *listen, newWeb(*name, *apiURL))
	case "api":
		return serve(ctx, *listen, newAPI(*name, settings{dir: *config}, store))
	case "store":
		s, err := openStore(*name, *data, fileReader(*password))
		if err != nil {
			return err
		}
		return serve(ctx, *listen, s.handler())
	case "seed":
		return seed(ctx, store, *catalog)
	case "own":
		return os.Chown(*data, *owner, *owner)
	}
	return fmt.Errorf("no tier is called %q", args[0])
}

// serve answers requests until ctx ends, then lets those under way finish.
func serve(ctx context.Context, address string, handler http.Handler) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	slog.Info("serving", "address", listener.Addr().String())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		slog.Info("stopping")
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return server.Shutdown(last)
	}
}

func hostname() string {
	if name := os.Getenv("POD_NAME"); name != "" {
		return name
	}
	name, _ := os.Hostname()
	return name
}

// fileReader reads the file anew each time, because a Secret's file changes when the Secret does.
func fileReader(file string) func() (string, error) {
	return func() (string, error) {
		raw, err := os.ReadFile(file)
		return string(raw), err
	}
}

func healthy(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }
