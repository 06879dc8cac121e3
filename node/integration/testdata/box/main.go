// Command box is the program of the integration test's image. Its arguments say what it does, one after the other.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	for i := 1; i < len(os.Args); i++ {
		arg := func() string { i++; return os.Args[i] }
		switch os.Args[i] {
		case "echo":
			fmt.Println(arg())
		case "env":
			name := arg()
			fmt.Printf("%s=%s\n", name, os.Getenv(name))
		case "cat":
			b, err := os.ReadFile(arg())
			if err != nil {
				fmt.Println("error:", err)
				os.Exit(1)
			}
			os.Stdout.Write(b)
		case "write":
			path := arg()
			if err := os.WriteFile(path, []byte(arg()), 0o644); err != nil {
				fmt.Println("error:", err)
				os.Exit(1)
			}
		case "id":
			groups, _ := os.Getgroups()
			fmt.Println("id", os.Getuid(), os.Getgid(), groups)
		case "exit":
			code, _ := strconv.Atoi(arg())
			os.Exit(code)
		case "http":
			addr := arg()
			go func() {
				fmt.Println(http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })))
			}()
		case "sleep":
			d, _ := time.ParseDuration(arg())
			time.Sleep(d)
		case "wait":
			stop := make(chan os.Signal, 1)
			signal.Notify(stop, syscall.SIGTERM)
			<-stop
			fmt.Println("stopping")
		}
	}
}
