// Load-gateway puts the gateway under many sessions at once, for minutes, while clients go away in the midst of a request and servers are
// killed at random: in front of a server on HTTP, and of one on stdio. It fails where
//
//   - an answer is not to its request: each carries a token, and so does all that comes before it;
//   - a request is neither answered nor failed with an error of JSON-RPC that names it;
//   - in the end, when all sessions are closed, the gateway has more goroutines, descriptors, processes or memory than before.
//
// Client, gateway and server are processes of their own, as in bench-gateway.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		fail(roles[os.Args[1]](os.Args[2:]))
		return
	}
	duration := flag.Duration("duration", 5*time.Minute, "How long the load lasts, for each of the two.")
	sessions := flag.Int("sessions", 1000, "How many sessions are open at once. On stdio each is a process.")
	only := flag.String("only", "", "http or stdio alone.")
	flag.Parse()
	if *duration <= 0 || *sessions <= 0 || *sessions > 5000 {
		fail(errors.New("-duration must be positive, and -sessions 1 to 5000"))
	}
	signal.Ignore(syscall.SIGPIPE)
	var all error
	for _, transport := range []string{"http", "stdio"} {
		if *only == "" || *only == transport {
			all = errors.Join(all, run(transport, *sessions, *duration))
		}
	}
	fail(all)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "load-gateway:", err)
		os.Exit(1)
	}
}
