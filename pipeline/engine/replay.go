package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
)

// Point is a place in a log: exactly one field is set. The zero Point is left to whoever takes it.
type Point struct {
	Offset pipeline.Offset
	// Time of commit: the first event of a transaction that is not older.
	Time time.Time
	// Position in the source, as events show it: an LSN, a GTID, file:position. The first event at or behind it.
	Position string
}

// ReplayRequest asks for a replay of a part of a log to one subscription.
type ReplayRequest struct {
	Subscription string
	Kind         pipeline.JobKind
	// From is required; To, half-open, only of JobAside, and there the zero Point is what the subscription has
	// been delivered so far. The others go up to the live reading.
	From, To Point
	// Scope narrows it, and so do RangeIDs: ranges of the source's log, open or closed.
	Scope    pipeline.Scope
	RangeIDs []RangeID
	// Owner is who asks: the name of a token.
	Owner string
}

// RangeID names a range of a key space; without a Space the one that has this ID.
type RangeID struct {
	Space string
	ID    uint64
}

// ReplayPlan is what a replay would deliver.
type ReplayPlan struct {
	// Window is [From, To) in offsets.
	From, To pipeline.Offset
	// Events, their Bytes (keys and row images) and distinct Keys; KeysAbout: too many to count, within 5 %.
	Events, Bytes, Keys uint64
	KeysAbout           bool
	// Oldest and Newest commit time among them; zero when there are none.
	Oldest, Newest time.Time
	// Takes is about how long it will take, by what the subscriber took lately; zero when that is not known.
	Takes time.Duration
	// Notes say what a person should know, such as where the window was cut.
	Notes []string
}

// ReplayError says why a replay cannot be; nothing was changed.
type ReplayError struct{ What string }

// Error says why and what to do.
func (e *ReplayError) Error() string { return e.What }

func refuse(format string, args ...any) error { return &ReplayError{fmt.Sprintf(format, args...)} }

// JobStatus is a job at a moment.
type JobStatus struct {
	pipeline.Job
	// Rate in events per second lately; Left is about how long it still takes, zero when that is not known.
	Rate float64
	Left time.Duration
	// Ends is what lets a job that waits go on; empty: what Reason names is over.
	Ends string
}

// JobStore keeps jobs. An engine whose Config.Store is none has no replays.
type JobStore = deliver.JobStore

// PlanReplay is the dry run: it reads the window and counts. A *ReplayError says why the replay cannot be.
func (e *Engine) PlanReplay(ctx context.Context, r ReplayRequest) (ReplayPlan, error) {
	p, err := e.plan(ctx, r)
	if err != nil {
		return ReplayPlan{}, err
	}
	return p.ReplayPlan, nil
}

// StartReplay plans a replay and starts it. It returns when the job is durable. A *ReplayError says why it
// cannot be.
func (e *Engine) StartReplay(ctx context.Context, r ReplayRequest) (pipeline.Job, ReplayPlan, error) {
	p, err := e.plan(ctx, r)
	if err != nil {
		return pipeline.Job{}, ReplayPlan{}, err
	}
	j, err := p.runner.replays.add(ctx, p.job)
	return j, p.ReplayPlan, err
}

// Jobs lists the jobs of a subscription, or all when it is empty, the oldest first.
func (e *Engine) Jobs(ctx context.Context, subscription string) ([]JobStatus, error) {
	store, ok := e.cfg.Store.(JobStore)
	if !ok {
		return nil, nil
	}
	all, err := store.Jobs(ctx, subscription)
	if err != nil {
		return nil, err
	}
	list := make([]JobStatus, len(all))
	now := time.Now()
	for i, j := range all {
		if r := e.replaysOf(j.Subscription); r != nil {
			list[i] = r.status(j, now)
			continue
		}
		if list[i].Job = j; j.State == pipeline.JobRunning {
			list[i].State, list[i].Reason = pipeline.JobWaiting, "the subscription does not run here"
			list[i].Ends = "leat.yaml names the subscription again, or leat jobs cancel " + j.ID
		}
	}
	return list, nil
}

// PauseJob stops a job until ResumeJob, also over restarts; what is in flight ends. Idempotent. A *ReplayError
// when there is no such job, or it has ended.
func (e *Engine) PauseJob(ctx context.Context, id, reason string) error {
	return e.changeJob(ctx, id, pipeline.JobPaused, reason)
}

// ResumeJob ends a pause. Idempotent.
func (e *Engine) ResumeJob(ctx context.Context, id string) error {
	return e.changeJob(ctx, id, pipeline.JobRunning, "")
}

// CancelJob ends a job for good. Keys that a rewind or a fenced replay has taken back are first brought up to
// live, no others.
func (e *Engine) CancelJob(ctx context.Context, id, by string) error {
	return e.changeJob(ctx, id, pipeline.JobCancelled, "cancelled by "+by)
}

func (e *Engine) replaysOf(subscription string) *replays {
	for _, u := range e.all() {
		if r := u.find(subscription); r != nil {
			return r.replays
		}
	}
	return nil
}

func (e *Engine) changeJob(ctx context.Context, id string, to pipeline.JobState, reason string) error {
	if found, err := e.changeSnapshot(ctx, id, to, reason); found || err != nil {
		return err
	}
	store, ok := e.cfg.Store.(JobStore)
	if !ok {
		return refuse("no job %q", id)
	}
	all, err := store.Jobs(ctx, "")
	if err != nil {
		return err
	}
	for _, j := range all {
		switch {
		case j.ID != id:
		case j.State.Ended():
			return refuse("job %s has ended: it is %s", id, j.State)
		default:
			r := e.replaysOf(j.Subscription)
			if r == nil { // nothing of it runs
				r = newReplays(e.cfg, j.Subscription, nil)
			}
			return r.change(ctx, id, to, reason)
		}
	}
	return refuse("no job %q: `leat jobs` lists them", id)
}
