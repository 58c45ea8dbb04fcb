// Command leat reads the changes of databases through a durable log and delivers them to subscribers.
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli"
)

// version is set by the linker (see the Makefile).
var version = "dev"

func main() {
	// net/http prints there what strangers send, past our log lines and what they hide.
	log.SetOutput(io.Discard)
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals // stop, and finish what is under way
		cancel()
		<-signals // now: the log and the cursors are safe at any moment
		os.Exit(1)
	}()
	end, err := profile()
	if err == nil {
		err = cli.Run(ctx, deps(), os.Args[1:])
		if e := end(); e != nil {
			err = errors.Join(err, e)
		}
	}
	cli.Report(os.Stderr, err)
	os.Exit(cli.ExitCode(err))
}
