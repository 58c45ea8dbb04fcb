// Package app is the running installation: it starts the parts that a configuration names (server.go), carries a
// change of the configuration through, and answers what the API asks (backend.go and one file per question).
package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/telemetry"
	"github.com/leat-cdc/leat/pipeline/state"
)

// Options of Run.
type Options struct {
	Config *config.Config
	// Reload returns the configuration file as it is now, for SIGHUP; nil = SIGHUP does nothing.
	Reload func() (*config.Config, error)
	// Version of the binary.
	Version string
	// Stdout is where stdout sinks write; Stderr takes the log lines.
	Stdout, Stderr io.Writer
	// LogFormat is auto, console or json; LogLevel debug, info, warn or error.
	LogFormat, LogLevel string
	// Grace that Deliveries in flight get at the end; default 10 s.
	Grace time.Duration
	// Limits of the API; zero fields have its defaults.
	Limits api.Limits
	// FS below the logs; nil = the system's.
	FS diskfs.FS
	// Space returns how many bytes of the disk that holds a folder are free, of how many; nil = what the system says.
	Space func(folder string) (free, total uint64, err error)
	// MemoryLimit sets where the collector works harder, in bytes, and returns what was set before; nil = the process's.
	MemoryLimit func(int64) int64
	// Started, when set, is called once with the API's address.
	Started func(s *Server, addr net.Addr)
}

// spaceEvery is how often a start is tried again on a full disk.
const spaceEvery = 5 * time.Second

// Run is `leat run`: it serves until ctx ends, then stops: it takes nothing more, finishes or abandons what
// is in flight, persists cursors. On a disk that has no room to begin it waits until there is some.
func Run(ctx context.Context, o Options) error {
	if err := o.Config.CheckRun(); err != nil {
		return err
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	if o.Space == nil {
		o.Space = freeSpace
	}
	if o.MemoryLimit == nil {
		o.MemoryLimit = debug.SetMemoryLimit
	}
	// What is not a budgeted buffer (code, stacks, one batch a reader) takes a share of its own.
	o.MemoryLimit(int64(o.Config.Memory) + 96<<20)
	for said := ""; ; {
		tel, err := telemetry.New(o.Stderr, telemetry.Options{Format: o.LogFormat, Level: o.LogLevel, Version: o.Version})
		if err != nil {
			return err
		}
		begun, err := run(ctx, o, tel)
		if begun || ctx.Err() != nil || !state.NoSpace(err) {
			return err
		}
		if err.Error() != said {
			said = err.Error()
			log := tel.Logger()
			log.Error().Err(err).Str("cure", "free space in "+o.Config.Data).Msgf("cannot begin, as the disk is full: tried again every %s", spaceEvery)
		}
		select {
		case <-time.After(spaceEvery):
		case <-ctx.Done():
			return err
		}
	}
}

// run is one start, and all that follows it when it has begun.
func run(ctx context.Context, o Options, tel *telemetry.Telemetry) (begun bool, err error) {
	listener, err := net.Listen("tcp", o.Config.Listen)
	if err != nil {
		return false, fmt.Errorf("listen on %s: %w; is another `leat run` there? `listen:` in the config names another address", o.Config.Listen, err)
	}
	s, err := newServer(ctx, o, tel, listener.Addr())
	if err != nil {
		listener.Close()
		return false, err
	}
	defer func() {
		if serr := s.stop(); err == nil {
			err = serr
		}
	}()
	options, err := s.apiOptions(o.Config)
	if err != nil {
		listener.Close()
		return false, err
	}
	http, err := api.New(options)
	if err != nil {
		listener.Close()
		return false, err
	}
	s.http = http
	if err := s.begin(ctx); err != nil {
		listener.Close()
		return false, err
	}
	log := tel.Logger()
	log.Info().Str("version", o.Version).Str("address", listener.Addr().String()).Str("data", o.Config.Data).Msg("listening")
	if o.Started != nil {
		o.Started(s, listener.Addr())
	}
	hup := make(chan os.Signal, 1)
	if o.Reload != nil {
		signal.Notify(hup, syscall.SIGHUP)
		defer signal.Stop(hup)
	}
	served := make(chan error, 1)
	serveCtx, stopServing := context.WithCancel(context.Background())
	defer stopServing()
	go func() { served <- http.Serve(serveCtx, listener) }()
	for {
		select {
		case <-ctx.Done():
			s.quiesce() // pull subscribers can still ack what they hold while Deliveries end
			stopServing()
			err := <-served
			s.hub.Wait()
			return true, err
		case err := <-served:
			return true, fmt.Errorf("the API ended: %w", err)
		case <-hup:
			s.reload(ctx, o.Reload)
		}
	}
}

// folders of the data folder.
func stateFile(data string) string         { return filepath.Join(data, "state.db") }
func logFolder(data, source string) string { return filepath.Join(data, "logs", source) }
