// Package engine owns the goroutines of the pipeline: it starts, joins, restarts and stops them.
//
// A unit is one source: its log, its ingest, and the subscriptions that read it. A unit lives from
// AddSource to RemoveSource or Stop. Inside it one log follows another: a log that failed (a failed fsync:
// nothing of it is trusted any more) is closed with all its readers and opened again, which recovers what
// was durable; everything goes on from there.
package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/backfill"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/flow"
	"github.com/leat-cdc/leat/pipeline/ingest"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/pipeline/sched"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Config of an engine. Cursors, Store and Form are required.
type Config struct {
	Cursors  pipeline.Cursors
	Store    deliver.Store
	Form     func(*schemas.Table) *cell.Form
	Observer pipeline.Observer
	// Gate that the Deliveries of all subscriptions go through; default: one of sched.DefaultSlots.
	Gate *sched.Gate
	// Memory that all subscriptions hold together at most; nil: each has its own.
	Memory *deliver.Memory
	// Again is how long a source that stopped (a person has to act) or a log that failed waits until it
	// is tried again by itself; default 30 s. Retry does it at once.
	Again time.Duration

	ids *ids
}

// Source is what the engine needs to run one source.
type Source struct {
	Name   string
	Source pipeline.Source
	Routes ingest.Routes
	// OpenLog opens the source's log; called again after the log failed.
	OpenLog func(ctx context.Context) (pipeline.Log, error)
	// Hold, when set, returns the lowest offset that somebody who does not run here still wants (a paused
	// subscription that the configuration no longer names), and whether there is one.
	Hold func() (pipeline.Offset, bool)
	// Initial: a log that is new begins with a snapshot of all tables. Snapshots need a Source whose streams are
	// pipeline.Snapshotters, and a Config.Store that is a backfill.Store.
	Initial bool
	// SnapshotRoom, when set, bounds what is not delivered of a snapshot, in bytes; default 1 GiB.
	SnapshotRoom func() int64
	// Ranges splits and merges the source's key ranges by load; Hot 0: only when a person asks.
	Ranges partition.Policy
	// Limits of the database's load; asked of a Source that is a pipeline.Prober.
	Limits flow.Limits
	// Throttles, when set, returns those in force besides the signal table's. Asked before each batch.
	Throttles func() []flow.Throttle
	// Disk, when set, returns how many bytes are free of how many where the log is.
	Disk func() (free, total uint64, err error)
	// DiskStage, when set, is told when the disk fills to a stage.
	DiskStage func(flow.DiskStage)
}

// Subscription is what the engine needs to run one subscription. Deliver comes without Log, Cursors, Store,
// Sink and Observer, which the engine sets.
type Subscription struct {
	Deliver deliver.Config
	// Tables that its snapshots bring, globs; none: all.
	Tables []string
	// OpenSink makes the sink; called for each start, closed by the engine.
	OpenSink func(ctx context.Context) (pipeline.Sink, error)
}

// Engine runs units. Safe for concurrent use.
type Engine struct {
	cfg Config

	mu      sync.Mutex
	units   map[string]*unit
	opening map[string]bool // sources whose log is being opened
	opens   sync.WaitGroup  // of those
	stopped bool
}

// New returns an engine without units.
func New(cfg Config) *Engine {
	cfg.Observer = cfg.Observer.Fill()
	if cfg.Gate == nil {
		cfg.Gate = sched.NewGate(sched.DefaultSlots())
	}
	if cfg.Again == 0 {
		cfg.Again = 30 * time.Second
	}
	cfg.ids = newIDs(cfg.Store)
	return &Engine{cfg: cfg, units: map[string]*unit{}, opening: map[string]bool{}}
}

var (
	// ErrStopped: the engine takes nothing more.
	ErrStopped = errors.New("the engine is stopped")
	// ErrUnknown: no such source or subscription runs here.
	ErrUnknown = errors.New("not running here")
)

// AddSource opens the source's log and starts to read. It returns once the log is open; a source that
// cannot be reached is retried.
func (e *Engine) AddSource(ctx context.Context, s Source) error {
	if err := e.reserve(s.Name); err != nil {
		return err
	}
	defer e.opens.Done()
	log, err := openLog(ctx, s) // may recover for long: nobody waits for e.mu meanwhile
	if e.opened(s, log, err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("source %q: %w", s.Name, err)
	}
	return errors.Join(ErrStopped, log.Close()) // writes, and so without e.mu
}

// opened starts the unit unless the log could not be opened or the engine was stopped meanwhile.
func (e *Engine) opened(s Source, log pipeline.Log, err error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.opening, s.Name)
	if err != nil || e.stopped {
		return false
	}
	e.units[s.Name] = startUnit(e.cfg, s, log)
	return true
}

// reserve keeps the name for a source whose log is going to be opened.
func (e *Engine) reserve(source string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return ErrStopped
	}
	if e.units[source] != nil || e.opening[source] {
		return fmt.Errorf("source %q runs already", source)
	}
	e.opening[source] = true
	e.opens.Add(1)
	return nil
}

// openLog closes a log that comes with an error.
func openLog(ctx context.Context, s Source) (pipeline.Log, error) {
	log, err := s.OpenLog(ctx)
	if err != nil && log != nil {
		return nil, errors.Join(err, log.Close())
	}
	return log, err
}

// RemoveSource stops a source and its subscriptions and closes its log. Nothing on disk is removed.
func (e *Engine) RemoveSource(name string) error {
	e.mu.Lock()
	u := e.units[name]
	delete(e.units, name)
	e.mu.Unlock()
	if u == nil {
		return fmt.Errorf("source %q: %w", name, ErrUnknown)
	}
	return u.stop()
}

// AddSubscription starts a subscription of a source that runs.
func (e *Engine) AddSubscription(s Subscription) error {
	u, err := e.unit(s.Deliver.Source)
	if err != nil {
		return err
	}
	return u.add(s)
}

// RemoveSubscription stops a subscription; its cursor stays.
func (e *Engine) RemoveSubscription(name string) error {
	for _, u := range e.all() {
		if u.remove(name) {
			return nil
		}
	}
	return fmt.Errorf("subscription %q: %w", name, ErrUnknown)
}

// Do calls f with the running subscription.
func (e *Engine) Do(name string, f func(*deliver.Subscription) error) error {
	for _, u := range e.all() {
		if r := u.find(name); r != nil {
			if s := r.current(); s != nil {
				return f(s)
			}
			return fmt.Errorf("subscription %q is being started: %w", name, ErrUnknown)
		}
	}
	return fmt.Errorf("subscription %q: %w", name, ErrUnknown)
}

// Log returns the open log of a source.
func (e *Engine) Log(source string) (pipeline.Log, error) {
	u, err := e.unit(source)
	if err != nil {
		return nil, err
	}
	if l := u.currentLog(); l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("the log of source %q is being opened: %w", source, ErrUnknown)
}

// Retry lets a source that stopped or waits try again at once.
func (e *Engine) Retry(source string) error {
	u, err := e.unit(source)
	if err != nil {
		return err
	}
	select {
	case u.again <- struct{}{}:
	default:
	}
	return nil
}

// Stop stops everything: no source is read any more, Deliveries in flight end or are abandoned after the
// subscriptions' grace, cursors are persisted, logs closed. Idempotent.
func (e *Engine) Stop() error {
	e.mu.Lock()
	e.stopped = true
	units := e.units
	e.units = map[string]*unit{}
	e.mu.Unlock()
	e.opens.Wait()
	var all sync.WaitGroup
	errs := make([]error, len(units))
	i := 0
	for _, u := range units {
		n := i
		i++
		all.Go(func() { errs[n] = u.stop() })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (e *Engine) unit(source string) (*unit, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if u := e.units[source]; u != nil {
		return u, nil
	}
	return nil, fmt.Errorf("source %q: %w", source, ErrUnknown)
}

func (e *Engine) all() []*unit {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*unit, 0, len(e.units))
	for _, u := range e.units {
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b *unit) int {
		if a.spec.Name < b.spec.Name {
			return -1
		}
		return 1
	})
	return all
}

// SourceStatus is a source at a moment.
type SourceStatus struct {
	Name string
	// State: connecting, streaming, retrying, stopped, closed; Reason why, with the cure.
	State, Reason string
	// Code of a *pipeline.SourceError.
	Code  string
	Since time.Time
	// LogID, Oldest and Next offset, End position of the log.
	LogID        string
	Oldest, Next pipeline.Offset
	End          pipeline.Position
	Notices      []pipeline.Notice
	Tables       int
	// Load is what the database said last, LoadError why it says nothing now; Verdict what is made of it and of
	// the throttles; Disk how full ours is.
	Load      pipeline.SourceLoad
	LoadError string
	Verdict   flow.Verdict
	Disk      flow.DiskStage
	// Unended is what transactions that have not ended hold in the log.
	Unended pipeline.Unended
	// Snapshots are the jobs that have not ended, the oldest first.
	Snapshots []backfill.Status
}

// Status is the engine at a moment.
type Status struct {
	Sources       []SourceStatus
	Subscriptions []SubscriptionStatus
	// Gate is how busy the gate is that all Deliveries go through.
	Gate sched.Stats
}

// SubscriptionStatus is a subscription at a moment.
type SubscriptionStatus struct {
	Name, Source string
	deliver.Status
	// Lag says how near it is to what retention removes; zero where the log cannot tell. Policy is what then happens.
	Lag    flow.LagVerdict
	Policy deliver.Laggard
}

// Status never blocks on IO.
func (e *Engine) Status() Status {
	s := Status{Gate: e.cfg.Gate.Stats()}
	for _, u := range e.all() {
		src, subs := u.status()
		s.Sources = append(s.Sources, src)
		s.Subscriptions = append(s.Subscriptions, subs...)
	}
	slices.SortFunc(s.Subscriptions, func(a, b SubscriptionStatus) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return s
}
