package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
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
}

// JobStore keeps jobs; what PutJob returned from is durable. An engine whose Config.Store is none has no replays.
type JobStore interface {
	PutJob(ctx context.Context, j pipeline.Job) error
	// Jobs lists a subscription's jobs, or all of them when it is empty, the oldest first.
	Jobs(ctx context.Context, subscription string) ([]pipeline.Job, error)
}

// PlanReplay is the dry run: it reads the window and counts. A *ReplayError says why the replay cannot be.
func (e *Engine) PlanReplay(ctx context.Context, r ReplayRequest) (ReplayPlan, error) {
	return ReplayPlan{}, refuse("replays are not supported by this version")
}

// StartReplay plans a replay and starts it. It returns when the job is durable. A *ReplayError says why it
// cannot be.
func (e *Engine) StartReplay(ctx context.Context, r ReplayRequest) (pipeline.Job, ReplayPlan, error) {
	return pipeline.Job{}, ReplayPlan{}, refuse("replays are not supported by this version")
}

// Jobs lists the jobs of a subscription, or all when it is empty, the oldest first.
func (e *Engine) Jobs(ctx context.Context, subscription string) ([]JobStatus, error) {
	return nil, nil
}

// PauseJob stops a job until ResumeJob, also over restarts; what is in flight ends. Idempotent. A *ReplayError
// when there is no such job, or it has ended.
func (e *Engine) PauseJob(ctx context.Context, id, reason string) error {
	return refuse("no job %q", id)
}

// ResumeJob ends a pause. Idempotent.
func (e *Engine) ResumeJob(ctx context.Context, id string) error {
	return refuse("no job %q", id)
}

// CancelJob ends a job for good. Keys that a rewind or a fenced replay has taken back are first brought up to
// live, no others.
func (e *Engine) CancelJob(ctx context.Context, id, by string) error {
	return refuse("no job %q", id)
}
