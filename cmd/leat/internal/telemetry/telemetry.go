// Package telemetry turns what the pipeline's Observer is told into metrics and log lines.
//
// Metrics stand in a registry of their own: counters and histograms are fed by the Observer, once per
// batch, without allocating; gauges are read from the status when somebody scrapes. Log lines are for people: changes
// of state and warnings, never one per batch, and no line is repeated without end.
package telemetry

import (
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
	"golang.org/x/term"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Options of a Telemetry.
type Options struct {
	// Format of log lines: console, json, or auto (default): console on a terminal, else json.
	Format string
	// Level: trace, debug, info (default), warn, error.
	Level string
	// Version stands in leat_build_info.
	Version string
	// NoColor forbids colours on a terminal (NO_COLOR).
	NoColor bool
}

// Telemetry is the process's metrics and log. Safe for concurrent use.
type Telemetry struct {
	log      zerolog.Logger
	once     *limiter
	registry *prometheus.Registry
	m        *metrics
	status   atomic.Pointer[func() *leatv1.StatusResponse]
}

// New returns a Telemetry that writes its log to w.
func New(w io.Writer, o Options) (*Telemetry, error) {
	level := zerolog.InfoLevel
	if o.Level != "" {
		l, err := zerolog.ParseLevel(strings.ToLower(o.Level))
		if err != nil || l > zerolog.ErrorLevel {
			return nil, fmt.Errorf("log level %q is none of trace, debug, info, warn, error", o.Level)
		}
		level = l
	}
	out, err := writer(w, o)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{
		log:      zerolog.New(out).Level(level).With().Timestamp().Logger(),
		once:     newLimiter(),
		registry: prometheus.NewRegistry(),
	}
	t.m = newMetrics(t.registry)
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "leat_build_info", Help: "What runs; always 1.",
		ConstLabels: prometheus.Labels{"version": o.Version, "go": runtime.Version()},
	})
	build.Set(1)
	t.registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), anonymous{}, newGauges(&t.status))
	return t, nil
}

// writer puts the format and the scrubbing before w.
func writer(w io.Writer, o Options) (io.Writer, error) {
	f, ok := w.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	console := o.Format == "console"
	switch o.Format {
	case "", "auto":
		console = terminal
	case "json", "console":
	default:
		return nil, fmt.Errorf("log format %q is none of auto, console, json", o.Format)
	}
	if console {
		w = zerolog.ConsoleWriter{Out: w, NoColor: o.NoColor || !terminal, TimeFormat: "15:04:05.000"}
	}
	return zerolog.SyncWriter(scrubber{w}), nil
}

// Logger writes lines of the process itself (started, stopped, applied).
func (t *Telemetry) Logger() *zerolog.Logger { return &t.log }

// Slog is the same log for libraries that want slog; part names the library. Lines below least are left
// out, repeated ones are shown seldom.
func (t *Telemetry) Slog(part string, least slog.Level) *slog.Logger {
	inner := zerolog.NewSlogHandler(t.log.With().Str("part", part).Logger())
	return slog.New(&bridge{inner: inner, once: t.once, part: part, least: least})
}

// ServerLog takes what net/http says about broken connections, at level debug.
func (t *Telemetry) ServerLog() *log.Logger {
	return slog.NewLogLogger(t.Slog("http", slog.LevelDebug).Handler(), slog.LevelDebug)
}

// Handler answers /metrics.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		Registry:            t.registry,
		MaxRequestsInFlight: 4,
		ErrorHandling:       promhttp.ContinueOnError,
	})
}

// Collect names where the gauges come from; status is called for each scrape and must not block. nil
// results show no gauges.
func (t *Telemetry) Collect(status func() *leatv1.StatusResponse) { t.status.Store(&status) }

// SourceRate is what came from a source per second, over the last ten seconds.
func (t *Telemetry) SourceRate(name string) (events, bytes float64) {
	if s, ok := t.m.sources.peek(name); ok {
		return s.rate.PerSecond()
	}
	return 0, 0
}

// SubscriptionRate is what a subscription's subscriber took per second, over the last ten seconds.
func (t *Telemetry) SubscriptionRate(name string) (events, bytes float64) {
	if s, ok := t.m.subscriptions.peek(name); ok {
		return s.rate.PerSecond()
	}
	return 0, 0
}

// ForgetSource drops the series of a source that was removed.
func (t *Telemetry) ForgetSource(name string) { t.m.forgetSource(name) }

// ForgetSubscription drops the series of a subscription that was removed.
func (t *Telemetry) ForgetSubscription(name string) { t.m.forgetSubscription(name) }

// Observer feeds metrics and log.
func (t *Telemetry) Observer() pipeline.Observer {
	return pipeline.Observer{
		SourceState:       t.sourceState,
		Ingested:          t.m.ingested,
		Synced:            t.m.synced,
		LogFull:           t.logFull,
		Noticed:           t.noticed,
		Warned:            t.warned,
		SubscriptionState: t.subscriptionState,
		SubscriptionLag:   t.subscriptionLag,
		SnapshotState:     t.snapshotState,
		Delivered:         t.m.observeDelivery,
		DeadLettered:      t.deadLettered,
	}
}
