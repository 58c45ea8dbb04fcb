// Package backfill runs the snapshot jobs of one source: it keeps them, hands them to the stream each time that one is
// opened, gives them their pace, and notes how far they came by the marks that the log made durable.
//
// The rows themselves are read and put into the stream by package sources/snapshot, behind pipeline.Snapshotter. What a
// job logged is the truth: the store knows which jobs there are and what a person wanted of them, no more.
package backfill

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Store keeps jobs; what it returned from is durable.
type Store interface {
	// PutSnapshot keeps a job; one of the same ID is replaced.
	PutSnapshot(ctx context.Context, j pipeline.Snapshot) error
	// Snapshots lists a source's jobs, the oldest first.
	Snapshots(ctx context.Context, source string) ([]pipeline.Snapshot, error)
}

// Config of a source's jobs. All fields but Initial and Observer are required.
type Config struct {
	Source   string
	Store    Store
	Observer pipeline.Observer
	// Initial: a log that is new begins with a snapshot of all tables, for all.
	Initial bool
	// NewID returns an id that no job of any kind has.
	NewID func(ctx context.Context) (string, error)
	// Allowed is the share of the time that reading chunks may take, and why it is not all.
	Allowed func() (ratio float64, why string)
	// Undelivered returns how many bytes of the log the subscription has still to be delivered; with an empty name those
	// of the slowest that counts, and which that is. ok is false where it does not run.
	Undelivered func(name string) (bytes int64, who string, ok bool)
	// Bound of what is undelivered of a job, in bytes.
	Bound func() int64
	// Takers lists the subscriptions that take a table's rows.
	Takers func(table string) []string
	// Append writes a batch without events into the log.
	Append func(ctx context.Context, b *pipeline.Batch) error
	// Release ends the quarantines of tables, by subject; durable when it returns.
	Release func(ctx context.Context, tables []string) error
}

// RefusedError says why something cannot be done with a job; nothing was changed.
type RefusedError struct{ What string }

// Error says why and what to do.
func (e *RefusedError) Error() string { return e.What }

func refuse(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }

// Jobs of one source. Safe for concurrent use.
type Jobs struct {
	cfg  Config
	wake chan struct{}
	// turn has its one place taken while jobs are changed: the store is asked meanwhile.
	turn chan struct{}
	// ready is closed when the first log was opened.
	ready chan struct{}
	once  sync.Once

	mu     sync.Mutex
	log    pipeline.Log
	active []*job // those that have not ended, the oldest first
	stream pipeline.Snapshotter
	unable bool // the stream that is open knows no snapshots
}

// job is one that has not ended.
type job struct {
	pipeline.Snapshot
	started bool // on the stream that is open
	ratio   float64
	why     string // of the ratio
	held    string // what it waits for, as its last mark says
	rate    Meter
	warned  map[string]bool // tables whose fault was told
}

// New returns the jobs of a source; they are known after Open.
func New(cfg Config) *Jobs {
	cfg.Observer = cfg.Observer.Fill()
	return &Jobs{cfg: cfg, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1), ready: make(chan struct{})}
}

func (s *Jobs) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Jobs) give() { <-s.turn }

func (s *Jobs) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Open takes a log that was opened, before it is read into: it finds which jobs are under way there, and makes the
// initial one when the log is new.
func (s *Jobs) Open(ctx context.Context, log pipeline.Log) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	all, err := s.cfg.Store.Snapshots(ctx, s.cfg.Source)
	if err != nil {
		return err
	}
	_, next := log.Bounds()
	initial := s.cfg.Initial && log.Last().Zero()
	var active []*job
	for _, j := range all {
		if j.Cause == pipeline.CauseInitial && j.Log == log.ID() {
			initial = false
		}
		if j.State.Ended() {
			continue
		}
		if j.Log != log.ID() { // what it logged is gone with the log
			j.Log, j.After, j.Progress = log.ID(), next, nil
			if err := s.cfg.Store.PutSnapshot(ctx, j); err != nil {
				return err
			}
		}
		active = append(active, &job{Snapshot: j, warned: map[string]bool{}})
	}
	s.mu.Lock()
	s.log, s.active = log, active
	s.mu.Unlock()
	if initial {
		_, err = s.add(ctx, pipeline.Snapshot{Cause: pipeline.CauseInitial, Tables: []string{"*.*"}, Owner: "leat.yaml"})
	}
	if err == nil {
		s.once.Do(func() { close(s.ready) })
	}
	s.poke()
	return err
}

// known takes the turn once the jobs are known.
func (s *Jobs) known(ctx context.Context) error {
	select {
	case <-s.ready:
		return s.take(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// add makes a job durable. It is the caller's turn.
func (s *Jobs) add(ctx context.Context, j pipeline.Snapshot) (pipeline.Snapshot, error) {
	s.mu.Lock()
	log := s.log
	s.mu.Unlock()
	var err error
	if j.ID, err = s.cfg.NewID(ctx); err != nil {
		return j, err
	}
	j.Source, j.Log, j.State, j.Created = s.cfg.Source, log.ID(), pipeline.JobRunning, time.Now()
	_, j.After = log.Bounds()
	if err := s.cfg.Store.PutSnapshot(ctx, j); err != nil {
		return j, err
	}
	s.mu.Lock()
	added := &job{Snapshot: j, warned: map[string]bool{}}
	s.active = append(s.active, added)
	s.start(added)
	s.mu.Unlock()
	s.cfg.Observer.SnapshotState(s.cfg.Source, j.ID, string(pipeline.JobRunning), string(j.Cause))
	s.poke()
	return j, nil
}

// Add makes a job durable and begins it. Cause, Tables, Where, For and Owner are the caller's. Who asks for the rows of
// quarantined tables ends their quarantines: they are read again from a place that the job begins behind. A
// *RefusedError when that cannot be now.
func (s *Jobs) Add(ctx context.Context, j pipeline.Snapshot) (pipeline.Snapshot, error) {
	if err := s.known(ctx); err != nil {
		return j, err
	}
	defer s.give()
	if err := s.release(ctx, j.Tables); err != nil {
		return j, err
	}
	return s.add(ctx, j)
}

// Ensure returns the offset at or above which the rows of a job for one subscription stand, which begins to read there:
// of the one that is under way for this cause, else of a new one. When retention has taken what the former wrote first,
// it is given up for a new one.
func (s *Jobs) Ensure(ctx context.Context, cause pipeline.SnapshotCause, name string, tables []string, oldest pipeline.Offset) (pipeline.Offset, error) {
	if err := s.known(ctx); err != nil {
		return 0, err
	}
	defer s.give()
	for _, j := range s.list() {
		switch {
		case j.For != name || j.Cause != cause:
		case j.After >= oldest:
			return j.After, nil
		default:
			if err := s.end(ctx, j.ID, pipeline.JobCancelled, "retention took what it had brought: another begins"); err != nil {
				return 0, err
			}
		}
	}
	if len(tables) == 0 {
		tables = []string{"*.*"}
	}
	j, err := s.add(ctx, pipeline.Snapshot{Cause: cause, For: name, Tables: tables, Owner: "leat.yaml"})
	return j.After, err
}

// list copies the jobs that have not ended.
func (s *Jobs) list() []pipeline.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []pipeline.Snapshot
	for _, j := range s.active {
		all = append(all, j.Snapshot)
	}
	return all
}

// find: s.mu is held.
func (s *Jobs) find(id string) *job {
	if i := slices.IndexFunc(s.active, func(j *job) bool { return j.ID == id }); i >= 0 {
		return s.active[i]
	}
	return nil
}

// Has reports whether the job is under way here.
func (s *Jobs) Has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(id) != nil
}

// Change pauses a job (JobPaused), lets it go on (JobRunning) or cancels it (JobCancelled). It returns when that is
// durable. A *RefusedError when there is no such job, or it has ended.
func (s *Jobs) Change(ctx context.Context, id string, to pipeline.JobState, reason string) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	s.mu.Lock()
	opened := s.log != nil
	s.mu.Unlock()
	switch {
	case !opened:
		return s.early(ctx, id, to, reason)
	case to.Ended():
		return s.end(ctx, id, to, reason)
	}
	s.mu.Lock()
	j := s.find(id)
	if j == nil {
		s.mu.Unlock()
		return refuse("job %s has ended", id)
	}
	now := j.Snapshot
	s.mu.Unlock()
	now.State, now.Reason = to, reason
	if err := s.cfg.Store.PutSnapshot(ctx, now); err != nil {
		return err
	}
	s.mu.Lock()
	j.State, j.Reason = to, reason
	s.start(j)
	s.pace()
	s.mu.Unlock()
	s.poke()
	return nil
}

// early changes a job before the log was opened: Open finds it so. It is the caller's turn.
func (s *Jobs) early(ctx context.Context, id string, to pipeline.JobState, reason string) error {
	all, err := s.cfg.Store.Snapshots(ctx, s.cfg.Source)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(j pipeline.Snapshot) bool { return j.ID == id && !j.State.Ended() })
	if i < 0 {
		return refuse("job %s has ended", id)
	}
	j := all[i]
	if j.State, j.Reason = to, reason; to.Ended() {
		j.Ended = time.Now()
	}
	if err := s.cfg.Store.PutSnapshot(ctx, j); err != nil {
		return err
	}
	s.cfg.Observer.SnapshotState(s.cfg.Source, id, string(to), reason)
	return nil
}

// end makes a job's end durable. It is the caller's turn.
func (s *Jobs) end(ctx context.Context, id string, to pipeline.JobState, reason string) error {
	s.mu.Lock()
	j := s.find(id)
	if j == nil {
		s.mu.Unlock()
		return refuse("job %s has ended", id)
	}
	now := j.Snapshot
	s.mu.Unlock()
	now.State, now.Reason, now.Ended = to, reason, time.Now()
	if err := s.cfg.Store.PutSnapshot(ctx, now); err != nil {
		return err
	}
	s.mu.Lock()
	s.active = slices.DeleteFunc(s.active, func(o *job) bool { return o == j })
	stream := s.stream
	if stream != nil && to == pipeline.JobCancelled {
		stream.Stop(id)
	}
	s.pace()
	s.mu.Unlock()
	s.cfg.Observer.SnapshotState(s.cfg.Source, id, string(to), reason)
	if stream == nil && to == pipeline.JobCancelled {
		s.sweep(ctx)
	}
	s.poke()
	return nil
}

// sweep ends in the log what ended without its stream: else the log would keep the mark for ever.
func (s *Jobs) sweep(ctx context.Context) {
	s.mu.Lock()
	log := s.log
	var over []pipeline.SnapshotMark
	if log != nil && s.stream == nil {
		for _, m := range log.Snapshots() {
			if m.State == pipeline.JobRunning && s.find(m.Job) == nil {
				over = append(over, m)
			}
		}
	}
	s.mu.Unlock()
	for _, m := range over {
		b := pipeline.NewBatch()
		b.Snapshot = &pipeline.SnapshotMark{Job: m.Job, For: m.For, State: pipeline.JobCancelled, Reason: "no job goes on with it"}
		if s.cfg.Append(ctx, b) != nil {
			return // the log tells what is wrong with it; the next stream tries again
		}
	}
}
