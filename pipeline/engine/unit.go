package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/backfill"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/flow"
	"github.com/leat-cdc/leat/pipeline/ingest"
)

// unit is one source with its log and its subscriptions.
type unit struct {
	cfg      Config
	spec     Source
	again    chan struct{}
	governor *governor
	jobs     *backfill.Jobs // nil: the store keeps none
	releases *ingest.Releases
	cancel   context.CancelFunc
	done     chan struct{}

	mu      sync.Mutex
	log     pipeline.Log // nil while it is being opened
	ranges  *ranges      // of log while it is read into
	runners map[string]*runner
	state   SourceStatus
	err     error // of closing the last log
}

func startUnit(cfg Config, s Source, log pipeline.Log) *unit {
	ctx, cancel := context.WithCancel(context.Background())
	u := &unit{cfg: cfg, spec: s, again: make(chan struct{}, 1), releases: ingest.NewReleases(), cancel: cancel, done: make(chan struct{}), runners: map[string]*runner{}}
	u.governor = newGovernor(s, cfg.Observer)
	u.governor.unended = u.unended
	u.jobs = newJobs(u)
	u.state = SourceStatus{Name: s.Name, State: "connecting", Since: time.Now()}
	u.opened(log)
	go func() {
		defer close(u.done)
		u.run(ctx)
	}()
	return u
}

func (u *unit) stop() error {
	u.cancel()
	<-u.done
	return u.err
}

// run lives as long as the unit: one log after another.
func (u *unit) run(ctx context.Context) {
	for {
		u.live(ctx)
		u.mu.Lock()
		runners := slices.Collect(maps.Values(u.runners))
		log := u.log
		u.log, u.ranges = nil, nil
		u.mu.Unlock()
		var all sync.WaitGroup
		for _, r := range runners {
			all.Go(r.stop)
		}
		all.Wait()
		err := log.Close()
		if ctx.Err() != nil {
			u.err = err
			return
		}
		if !u.reopen(ctx) {
			return
		}
	}
}

// live reads the source into the open log until the unit ends or the log fails.
func (u *unit) live(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	log := u.currentLog()
	var floor sync.WaitGroup
	floor.Go(func() { u.keepFloor(ctx, log) })
	if k, ok := log.(pipeline.Keeper); ok {
		k.Guard(0) // until parks are known
		floor.Go(func() { u.keepParks(ctx, k) })
	}
	into := log
	if u.ranges != nil { // set before live began
		into = u.ranges
		floor.Go(func() { u.ranges.balance(ctx) })
	}
	floor.Go(func() { u.governor.run(ctx) })
	defer floor.Wait()
	defer cancel()
	if !u.openJobs(ctx, log) {
		return
	}
	floor.Go(func() { u.runJobs(ctx) })
	u.mu.Lock()
	for _, r := range u.runners {
		r.start(log)
	}
	u.mu.Unlock()
	obs := u.cfg.Observer
	obs.SourceState = u.sourceState
	c := ingest.Config{Name: u.spec.Name, Source: u.spec.Source, Log: into, Route: u.spec.Routes, Form: u.cfg.Form, Observer: obs}
	c.Gate, c.Shed = throttleGate(u.governor.reading), u.governor.shed
	c.Releases = u.releases
	if u.jobs != nil {
		c.Opened = func(s pipeline.Stream) func() { return u.jobs.Opened(ctx, s) }
	}
	for {
		err := ingest.Run(ctx, c)
		var se *pipeline.SourceError
		if err == nil || !errors.As(err, &se) || !u.wait(ctx) {
			return
		}
	}
}

// opened takes an open log, and lets its ranges be changed.
func (u *unit) opened(log pipeline.Log) {
	r, err := newRanges(log, u.spec.Name, u.spec.Ranges)
	if err != nil {
		u.cfg.Observer.Warned("log of "+u.spec.Name, err.Error(), "events flow on; ranges cannot be changed: `leat log verify` shows the log")
	}
	if r != nil && u.jobs != nil {
		r.marked = u.jobs.Appended
	}
	u.mu.Lock()
	u.log, u.ranges = log, r
	u.mu.Unlock()
}

// wait lets pass Again, or until Retry; false when ctx ended.
func (u *unit) wait(ctx context.Context) bool {
	t := time.NewTimer(u.cfg.Again)
	defer t.Stop()
	select {
	case <-t.C:
	case <-u.again:
	case <-ctx.Done():
		return false
	}
	return true
}

// reopen opens the log again after it failed; false when ctx ended first.
func (u *unit) reopen(ctx context.Context) bool {
	for u.wait(ctx) {
		log, err := openLog(ctx, u.spec)
		if err == nil {
			u.opened(log)
			return true
		}
		u.sourceState(u.spec.Name, "stopped", fmt.Errorf("the log cannot be opened again: %w", err))
	}
	return false
}

// keepFloor tells the log which offsets are still wanted.
func (u *unit) keepFloor(ctx context.Context, log pipeline.Log) {
	squeezed := false
	each(ctx, floorPhase, func() {
		if k, ok := log.(pipeline.Keeper); ok && squeezed != (u.governor.stage() >= flow.DiskLaggard) {
			squeezed = !squeezed
			k.Squeeze(squeezed)
		}
		if floor, known := u.floor(log); known {
			log.Floor(floor)
		}
		u.watchLaggards(log, time.Now())
	})
}

// floor returns the lowest offset that is still wanted, and whether that is known: it is not before each
// subscription's cursor was read.
func (u *unit) floor(log pipeline.Log) (floor pipeline.Offset, known bool) {
	_, floor = log.Bounds()
	u.mu.Lock()
	runners := slices.Collect(maps.Values(u.runners))
	u.mu.Unlock() // Hold may have a lock of its own
	room := u.governor.stage() < flow.DiskReplays
	for _, r := range runners {
		if r.spec.Deliver.Laggard == deliver.LaggardSkip {
			continue // it holds nothing back: what retention takes is listed as skipped
		}
		o, ok := r.progress(room)
		if !ok {
			return 0, false
		}
		floor = min(floor, o)
	}
	if u.spec.Hold != nil {
		if o, ok := u.spec.Hold(); ok {
			floor = min(floor, o)
		}
	}
	return floor, true
}

func (u *unit) sourceState(source, state string, err error) {
	u.mu.Lock()
	changed := u.state.State != state
	u.state.State, u.state.Reason, u.state.Code = state, "", ""
	if err != nil {
		u.state.Reason = err.Error()
	}
	var se *pipeline.SourceError
	if errors.As(err, &se) {
		u.state.Code = se.Code
	}
	if changed {
		u.state.Since = time.Now()
	}
	u.mu.Unlock()
	u.cfg.Observer.SourceState(source, state, err)
}

// unended asks the log, while one is open, what open transactions hold.
func (u *unit) unended() pipeline.Unended {
	if h, ok := u.currentLog().(pipeline.Holder); ok {
		return h.Unended()
	}
	return pipeline.Unended{}
}

func (u *unit) currentLog() pipeline.Log {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.log
}

func (u *unit) add(s Subscription) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.runners[s.Deliver.Name] != nil {
		return fmt.Errorf("subscription %q runs already", s.Deliver.Name)
	}
	s.Deliver.Snapshot = u.snapshotFor(s)
	r := &runner{cfg: u.cfg, spec: s, replays: newReplays(u.cfg, s.Deliver.Name, u.governor.replaying)}
	u.runners[s.Deliver.Name] = r
	if u.log != nil {
		r.start(u.log)
	}
	return nil
}

func (u *unit) remove(name string) bool {
	u.mu.Lock()
	r := u.runners[name]
	delete(u.runners, name)
	u.mu.Unlock()
	if r != nil {
		r.stop()
	}
	return r != nil
}

func (u *unit) find(name string) *runner {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.runners[name]
}

func (u *unit) status() (SourceStatus, []SubscriptionStatus) {
	u.mu.Lock()
	s, log, runners := u.state, u.log, slices.Collect(maps.Values(u.runners))
	u.mu.Unlock()
	if log != nil {
		s.LogID, s.End, s.Notices, s.Tables = log.ID(), log.Last(), log.Notices(), len(log.Tables())
		s.Oldest, s.Next = log.Bounds()
	}
	u.governor.status(&s)
	if u.jobs != nil {
		s.Snapshots = u.jobs.Status()
	}
	var subs []SubscriptionStatus
	for _, r := range runners {
		subs = append(subs, SubscriptionStatus{Name: r.spec.Deliver.Name, Source: s.Name, Status: r.status(), Lag: r.verdict(), Policy: r.spec.Deliver.Laggard})
	}
	return s, subs
}

// runner runs one subscription over one log after another.
type runner struct {
	cfg     Config
	spec    Subscription
	replays *replays

	mu     sync.Mutex
	sub    *deliver.Subscription
	cancel context.CancelFunc
	done   chan struct{}
	failed string // why it could not be started
	lag    flow.Laggard
	behind flow.LagVerdict
}

func (r *runner) start(log pipeline.Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		r.run(ctx, log)
	}(r.done)
}

// run keeps the subscription running until ctx ends: an error of its store or sink is tried again.
func (r *runner) run(ctx context.Context, log pipeline.Log) {
	for ctx.Err() == nil {
		err := r.once(ctx, log)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.mu.Lock()
			r.failed = err.Error()
			r.mu.Unlock()
			r.cfg.Observer.SubscriptionState(r.spec.Deliver.Name, deliver.StateStopped, err.Error())
		}
		t := time.NewTimer(r.cfg.Again)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

func (r *runner) once(ctx context.Context, log pipeline.Log) (err error) {
	sink, err := r.spec.OpenSink(ctx)
	if err != nil {
		return fmt.Errorf("open the sink: %w", err)
	}
	defer func() { err = errors.Join(err, sink.Close()) }()
	c := r.spec.Deliver
	c.Log, c.Cursors, c.Store, c.Sink, c.Observer = log, r.cfg.Cursors, r.cfg.Store, sink, r.cfg.Observer
	c.Gate, c.Memory = r.cfg.Gate, r.cfg.Memory
	c.Jobs, c.Form = r.replays.store, r.cfg.Form
	sub, err := deliver.New(c)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.sub, r.failed = sub, ""
	r.mu.Unlock()
	side, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { r.replays.run(side, sub) })
	defer beside.Wait() // before the sink is closed
	defer cancel()
	return sub.Run(ctx)
}

func (r *runner) stop() {
	r.mu.Lock()
	cancel, done := r.cancel, r.done
	r.mu.Unlock()
	if done == nil {
		return
	}
	cancel()
	<-done
	r.mu.Lock()
	r.done = nil
	r.mu.Unlock()
}

func (r *runner) current() *deliver.Subscription {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sub
}

// progress is where the subscription's cursor stands on disk, or below it what its parked keys hold, where nobody
// copies that; or, while our disk has room for it, what its replays aside still want.
func (r *runner) progress(room bool) (pipeline.Offset, bool) {
	s := r.current()
	if s == nil {
		return 0, false
	}
	o, ok := s.Progress()
	parked, any, known := s.Wanted()
	if any && !s.KeepsCopies() {
		o = min(o, parked)
	}
	replay, any, read := r.replays.wanted(room)
	if any {
		o = min(o, replay)
	}
	return o, ok && known && read
}

func (r *runner) status() deliver.Status {
	r.mu.Lock()
	sub, failed := r.sub, r.failed
	r.mu.Unlock()
	if sub == nil {
		return deliver.Status{State: deliver.StateStopped, Reason: failed}
	}
	s := sub.Status()
	if failed != "" {
		s.State, s.Reason = deliver.StateStopped, failed
	}
	return s
}
