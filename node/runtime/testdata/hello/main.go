// Command hello is what the runtime's test runs in a container: it says a line, then waits to be told to stop.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Println("exec", os.Args[1])
		return
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	fmt.Println("hello from the container")
	<-stop
	fmt.Println("bye")
}
