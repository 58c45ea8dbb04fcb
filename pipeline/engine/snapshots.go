package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/backfill"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/ingest"
	"github.com/leat-cdc/leat/schemas"
)

// defaultSnapshotRoom is what may be undelivered of a snapshot.
const defaultSnapshotRoom = 1 << 30

// BackfillRequest asks for the existing rows of tables, for one subscription.
type BackfillRequest struct {
	Subscription string
	// Tables are globs over schema.table; none: those of the subscription.
	Tables []string
	// Where is a condition in the database's own language, for each of Tables; empty = all rows.
	Where string
	// Owner is who asks: the name of a token.
	Owner string
}

func newJobs(u *unit) *backfill.Jobs {
	store, ok := u.cfg.Store.(backfill.Store)
	if !ok {
		return nil
	}
	return backfill.New(backfill.Config{Source: u.spec.Name, Store: store, Observer: u.cfg.Observer, Initial: u.spec.Initial,
		NewID:       func(ctx context.Context) (string, error) { return u.cfg.ids.next(ctx, time.Now()) },
		Allowed:     u.governor.snapshotting,
		Undelivered: u.undelivered,
		Bound: func() int64 {
			if u.spec.SnapshotRoom == nil {
				return defaultSnapshotRoom
			}
			return u.spec.SnapshotRoom()
		},
		Takers: u.takers,
		Append: u.append, Release: u.release,
	})
}

// openJobs tells the jobs of a log that was opened; false when ctx ended first.
func (u *unit) openJobs(ctx context.Context, log pipeline.Log) bool {
	if u.jobs == nil {
		return true
	}
	for {
		err := u.jobs.Open(ctx, log)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		u.cfg.Observer.Warned("source "+u.spec.Name, err.Error()+"; tried again in "+u.cfg.Again.String(), "see that the data folder has space and can be written")
		if !u.wait(ctx) {
			return false
		}
	}
}

func (u *unit) runJobs(ctx context.Context) {
	if u.jobs != nil {
		u.jobs.Run(ctx)
	}
}

// snapshotFor returns what makes snapshots for a subscription; nil: nothing does.
func (u *unit) snapshotFor(s Subscription) func(context.Context, string, pipeline.Offset, pipeline.Offset) (pipeline.Offset, error) {
	if u.jobs == nil {
		return nil
	}
	return func(ctx context.Context, why string, oldest, _ pipeline.Offset) (pipeline.Offset, error) {
		cause := pipeline.CauseNew
		if why == deliver.WhyLaggard {
			cause = pipeline.CauseLaggard
		}
		return u.jobs.Ensure(ctx, cause, s.Deliver.Name, s.Tables, oldest)
	}
}

// undelivered is how many bytes of the log a subscription has still to be delivered. With an empty name those of the
// slowest: one that is paused, stopped or whose endpoint is away does not hold up what others wait for.
func (u *unit) undelivered(name string) (bytes int64, who string, ok bool) {
	u.mu.Lock()
	k, _ := u.log.(pipeline.Keeper)
	runners := slices.Collect(maps.Values(u.runners))
	u.mu.Unlock()
	for _, r := range runners {
		n := r.spec.Deliver.Name
		sub := r.current()
		if name != "" && n != name || sub == nil {
			continue
		}
		if st := sub.Status().State; name == "" && st != deliver.StateRunning && st != deliver.StateRetrying {
			continue
		}
		at, known := sub.Place()
		if !known {
			continue
		}
		ok = true
		if k == nil {
			continue
		}
		if d := k.Depth(at.Low).Behind; d > bytes || who == "" {
			bytes, who = d, n
		}
	}
	return bytes, who, ok
}

// takers lists the subscriptions that take a table's rows.
func (u *unit) takers(subject string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	schema, name, ok := schemas.ParseSubject(subject)
	if !ok {
		return nil
	}
	var names []string
	for n, r := range u.runners {
		if f := r.spec.Deliver.Filter; f == nil || f.Takes(schema, name) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

// append writes a batch without events into the log, in turn with ingest.
func (u *unit) append(ctx context.Context, b *pipeline.Batch) error {
	u.mu.Lock()
	r := u.ranges
	u.mu.Unlock()
	if r == nil {
		b.Release()
		return fmt.Errorf("the log of source %q cannot be written into now", u.spec.Name)
	}
	_, err := r.Append(ctx, b)
	return err
}

// releaseWait is how long a backfill waits for the quarantines to end that stand in its way: a stream is closed for that,
// and what it brought is made durable.
const releaseWait = 20 * time.Second

// release ends quarantines where the source is read now.
func (u *unit) release(ctx context.Context, tables []string) error {
	u.mu.Lock()
	state := u.state.State
	u.mu.Unlock()
	if state != "stopped" {
		ctx, cancel := context.WithTimeout(ctx, releaseWait)
		defer cancel()
		err := u.releases.Release(ctx, tables)
		if e := (*ingest.PreparedError)(nil); errors.As(err, &e) {
			return refuse("%v", e)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return refuse("a quarantine ends where the source is read on, and source %s is not being read now: see leat status", u.spec.Name)
}

// Lacking lists the subscriptions that take a notice's table and have not got it whole since then.
func (e *Engine) Lacking(ctx context.Context, source string, n pipeline.Notice) []string {
	for _, u := range e.all() {
		if u.spec.Name == source && u.jobs != nil {
			return u.jobs.Lacking(ctx, n)
		}
	}
	return nil
}

// Fence returns an offset below which all stands that was committed in the source before the call, durable. A
// *ReplayError says why that cannot be known now.
func (e *Engine) Fence(ctx context.Context, source string) (pipeline.Offset, error) {
	for _, u := range e.all() {
		if u.spec.Name != source || u.jobs == nil {
			continue
		}
		if err := u.jobs.Fence(ctx); err != nil {
			return 0, refused(err)
		}
		u.mu.Lock()
		r := u.ranges
		u.mu.Unlock()
		if r == nil {
			return 0, refuse("the log of source %q is closed now", source)
		}
		return r.settled(ctx)
	}
	return 0, refuse("no source %q runs here", source)
}

// Spare is the share of the time that may be spent on reading a source's tables for what can wait, such as comparing:
// it is shed first, as replays are. Why says what takes the rest.
func (e *Engine) Spare(source string) (ratio float64, why string) {
	for _, u := range e.all() {
		if u.spec.Name == source {
			v := u.governor.now()
			return v.Replay, v.Why
		}
	}
	return 1, ""
}

// snapshotting is the share of the time that snapshots may read, and why it is not all.
func (g *governor) snapshotting() (ratio float64, why string) {
	v := g.now()
	if v.Snapshot >= 1 {
		return 1, ""
	}
	return v.Snapshot, fmt.Sprintf("snapshots are held back to %.0f %%: %s; ends when %s", 100*v.Snapshot, v.Why, v.End)
}

// Backfill makes a snapshot job for one subscription durable, and begins it. A *ReplayError says why it cannot be.
func (e *Engine) Backfill(ctx context.Context, r BackfillRequest) (backfill.Status, error) {
	for _, u := range e.all() {
		run := u.find(r.Subscription)
		if run == nil {
			continue
		}
		if u.jobs == nil {
			return backfill.Status{}, refuse("this installation keeps no jobs")
		}
		tables := r.Tables
		if len(tables) == 0 {
			tables = run.spec.Tables
		}
		if len(tables) == 0 {
			tables = []string{"*.*"}
		}
		j, err := u.jobs.Add(ctx, pipeline.Snapshot{Cause: pipeline.CauseBackfill, For: r.Subscription, Tables: tables, Where: r.Where, Owner: r.Owner})
		return backfill.Status{Snapshot: j}, refused(err)
	}
	return backfill.Status{}, refuse("no subscription %q runs here", r.Subscription)
}

// Quarantined returns, by table, the quarantines of a source in force: a backfill of these tables ends them.
func (e *Engine) Quarantined(source string) map[string]pipeline.Notice {
	for _, u := range e.all() {
		if u.spec.Name == source && u.jobs != nil {
			return u.jobs.Quarantined()
		}
	}
	return nil
}

// Snapshots lists the snapshot jobs of all sources, those that ended too, the oldest first.
func (e *Engine) Snapshots(ctx context.Context) ([]backfill.Status, error) {
	store, ok := e.cfg.Store.(backfill.Store)
	if !ok {
		return nil, nil
	}
	all, err := store.Snapshots(ctx, "")
	if err != nil {
		return nil, err
	}
	live := map[string]backfill.Status{}
	for _, u := range e.all() {
		if u.jobs == nil {
			continue
		}
		for _, j := range u.jobs.Status() {
			live[j.ID] = j
		}
	}
	list := make([]backfill.Status, len(all))
	for i, j := range all {
		if now, ok := live[j.ID]; ok && !j.State.Ended() {
			list[i] = now
			continue
		}
		if list[i].Snapshot = j; j.State == pipeline.JobRunning {
			list[i].State, list[i].Reason = pipeline.JobWaiting, "its source does not run here"
			list[i].Ends = "leat.yaml names source " + j.Source + " again"
		}
	}
	return list, nil
}

// changeSnapshot changes a snapshot job; found is false when there is none of that id.
func (e *Engine) changeSnapshot(ctx context.Context, id string, to pipeline.JobState, reason string) (found bool, err error) {
	store, ok := e.cfg.Store.(backfill.Store)
	if !ok {
		return false, nil
	}
	for _, u := range e.all() {
		if u.jobs != nil && u.jobs.Has(id) {
			return true, refused(u.jobs.Change(ctx, id, to, reason))
		}
	}
	all, err := store.Snapshots(ctx, "")
	if err != nil {
		return false, err
	}
	for _, j := range all {
		switch {
		case j.ID != id:
		case j.State.Ended():
			return true, refuse("job %s has ended: it is %s", id, j.State)
		default:
			for _, u := range e.all() {
				if u.jobs != nil && u.spec.Name == j.Source { // its log is not open yet
					return true, refused(u.jobs.Change(ctx, id, to, reason))
				}
			}
			// Its source does not run.
			if j.State, j.Reason = to, reason; to.Ended() {
				j.Ended = time.Now()
			}
			return true, store.PutSnapshot(ctx, j)
		}
	}
	return false, nil
}

func refused(err error) error {
	if r := (*backfill.RefusedError)(nil); errors.As(err, &r) {
		return refuse("%s", r.What)
	}
	return err
}
