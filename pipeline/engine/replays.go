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
)

// replays are the jobs of one subscription: one runs at a time, in the order in which they were asked for.
type replays struct {
	name    string
	store   JobStore // nil: there are none
	again   time.Duration
	obs     pipeline.Observer
	allowed func() (ratio float64, why string)
	wake    chan struct{}
	ids     *ids

	// turn has its one place taken while a job is chosen, and while one that does not run is changed: the store is
	// asked meanwhile, so that who waits for it waits no longer than its context.
	turn chan struct{}

	mu      sync.Mutex
	jobs    []pipeline.Job // not ended, the oldest first, as they were last read
	known   bool
	current *current
	sub     *deliver.Subscription // while it runs
	rate    backfill.Meter        // of a rewind
}

// current is the aside that runs.
type current struct {
	id     string
	aside  *deliver.Aside
	cancel context.CancelFunc
	done   chan struct{}
	// to is what it is to become once it stands.
	to     pipeline.JobState
	reason string
	rate   backfill.Meter
}

// soon is when is looked again whether the subscription runs by now.
const soon = 20 * time.Millisecond

func newReplays(cfg Config, name string, allowed func() (float64, string)) *replays {
	r := &replays{name: name, again: cfg.Again, ids: cfg.ids, obs: cfg.Observer, allowed: allowed, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	r.store, _ = cfg.Store.(JobStore)
	return r
}

// take takes the turn; give gives it back.
func (r *replays) take(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *replays) give() { <-r.turn }

func (r *replays) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run runs the jobs beside the subscription, which runs all the while, until ctx ends.
func (r *replays) run(ctx context.Context, sub *deliver.Subscription) {
	if r.store == nil {
		return
	}
	r.mu.Lock()
	r.sub = sub
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.sub = nil
		r.mu.Unlock()
	}()
	for ctx.Err() == nil {
		c, jobCtx, err := r.next(ctx, sub)
		switch {
		case errors.Is(err, deliver.ErrNotRunning): // not yet
			r.rest(ctx, soon, nil)
		case err != nil:
			r.warn(err)
			r.rest(ctx, r.again, nil)
		case c == nil: // also when none was begun: it may have ended meanwhile
			r.rest(ctx, 0, sub.Replayed())
		default:
			r.aside(jobCtx, c)
		}
	}
}

// rest waits for a wake or the end of a rewind, at most for d unless that is 0.
func (r *replays) rest(ctx context.Context, d time.Duration, ended <-chan struct{}) {
	var due <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-r.wake:
	case <-ended:
	case <-due:
	case <-ctx.Done():
	}
}

func (r *replays) warn(err error) {
	r.obs.Warned("subscription "+r.name, err.Error()+"; tried again in "+r.again.String(), "see that the data folder has space and can be written")
}

// read reads the jobs that have not ended.
func (r *replays) read(ctx context.Context) ([]pipeline.Job, error) {
	all, err := r.store.Jobs(ctx, r.name)
	if err != nil {
		return nil, fmt.Errorf("read the jobs: %w", err)
	}
	all = slices.DeleteFunc(all, func(j pipeline.Job) bool { return j.State.Ended() })
	r.mu.Lock()
	r.jobs, r.known = all, true
	r.mu.Unlock()
	return all, nil
}

// next makes the job whose turn it is the current one; nil: there is none.
func (r *replays) next(ctx context.Context, sub *deliver.Subscription) (*current, context.Context, error) {
	if err := r.take(ctx); err != nil {
		return nil, nil, err
	}
	defer r.give()
	jobs, err := r.read(ctx)
	if err != nil {
		return nil, nil, err
	}
	held, _, holding := sub.Replaying()
	for _, j := range jobs {
		if j.ID == held.ID && j.State != held.State && !held.State.Ended() { // changed while the subscription was being started
			if err := sub.ChangeRewind(ctx, j.State, j.Reason); err != nil {
				return nil, nil, err
			}
		}
		if j.State == pipeline.JobPaused || holding && j.Kind != pipeline.JobAside && j.ID != held.ID {
			continue
		}
		if j.Kind != pipeline.JobAside {
			return nil, nil, r.rewind(ctx, sub, j, holding)
		}
		a, err := sub.NewAside(j)
		if err != nil {
			return nil, nil, r.end(ctx, j, pipeline.JobFailed, err.Error())
		}
		c := &current{id: j.ID, aside: a, done: make(chan struct{})}
		ctx, c.cancel = context.WithCancel(ctx)
		r.mu.Lock()
		r.current = c
		r.mu.Unlock()
		return c, ctx, nil
	}
	return nil, nil, nil
}

// rewind begins a rewind or fenced replay, unless it has begun: then the subscription goes on with it by itself.
func (r *replays) rewind(ctx context.Context, sub *deliver.Subscription, j pipeline.Job, begun bool) error {
	if begun {
		return nil
	}
	err := sub.Rewind(ctx, j)
	var failed *deliver.JobError
	switch {
	case errors.As(err, &failed):
		return r.end(ctx, j, pipeline.JobFailed, failed.What)
	case err != nil:
		return fmt.Errorf("begin job %s: %w", j.ID, err)
	}
	_, err = r.read(ctx)
	return err
}

// end makes the end of a job that does not run durable. It is r's turn.
func (r *replays) end(ctx context.Context, j pipeline.Job, state pipeline.JobState, reason string) error {
	if j.State, j.Reason = state, reason; state.Ended() {
		j.Ended = time.Now()
	}
	defer r.poke() // when that failed too: it may have been done
	if err := r.store.PutJob(ctx, j); err != nil {
		return err
	}
	_, err := r.read(ctx)
	return err
}

// aside runs the current job until it ends, or somebody ends it.
func (r *replays) aside(ctx context.Context, c *current) {
	defer c.cancel()
	done, err := c.aside.Run(ctx, r.allowed)
	var failed *deliver.JobError
	r.mu.Lock()
	to, reason := c.to, c.reason
	r.mu.Unlock()
	switch {
	case done:
		to, reason = pipeline.JobDone, ""
	case errors.As(err, &failed):
		to, reason = pipeline.JobFailed, failed.What
	case to != "":
		err = nil
	}
	keep := context.WithoutCancel(ctx)
	if to != "" {
		if failed := c.aside.End(keep, to, reason); failed != nil {
			err = fmt.Errorf("job %s is %s: %w", c.id, to, failed)
		} else {
			err = nil
		}
	}
	_ = r.take(keep) // it does not end
	_, unread := r.read(keep)
	r.mu.Lock()
	r.current = nil
	r.mu.Unlock()
	r.give()
	close(c.done)
	if err = errors.Join(err, unread); err != nil && ctx.Err() == nil {
		r.warn(fmt.Errorf("job %s: %w", c.id, err))
		r.rest(ctx, r.again, nil)
	}
}

// change pauses, resumes or ends a job. It returns when that is durable.
func (r *replays) change(ctx context.Context, id string, to pipeline.JobState, reason string) error {
	if err := r.take(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	if c := r.current; c != nil && c.id == id {
		if c.to != pipeline.JobCancelled { // a pause does not undo it
			c.to, c.reason = to, reason
		}
		if to == pipeline.JobRunning {
			c.to = ""
		} else {
			c.cancel()
		}
		r.mu.Unlock()
		r.give()
		if to == pipeline.JobRunning {
			return nil
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		return r.became(ctx, id, to)
	}
	r.mu.Unlock()
	defer r.give()
	jobs, err := r.read(ctx)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		switch {
		case j.ID != id:
		case j.Live > 0:
			return r.changeHeld(ctx, j, to, reason)
		default:
			return r.end(ctx, j, to, reason)
		}
	}
	if err := r.became(ctx, id, to); err != nil {
		return err
	}
	return refuse("job %s has ended", id)
}

// changeHeld changes a rewind or fenced replay that has begun. It is r's turn.
func (r *replays) changeHeld(ctx context.Context, j pipeline.Job, to pipeline.JobState, reason string) error {
	r.mu.Lock()
	sub := r.sub
	r.mu.Unlock()
	err := deliver.ErrNotRunning
	if sub != nil {
		err = sub.ChangeRewind(ctx, to, reason)
	}
	var ended *deliver.JobError
	switch {
	case errors.As(err, &ended):
		if as := (*ReplayError)(nil); errors.As(r.became(ctx, j.ID, to), &as) { // it ended just now: say how
			return as
		}
		return refuse("job %s: %s", j.ID, ended.What)
	case errors.Is(err, deliver.ErrNotRunning) && to == pipeline.JobCancelled:
		return refuse("job %s has taken keys back, which are brought up to live before it ends: cancel it while its subscription runs", j.ID)
	case errors.Is(err, deliver.ErrNotRunning):
		return r.end(ctx, j, to, reason)
	case err != nil:
		return err
	}
	_, err = r.read(ctx)
	r.poke()
	return err
}

// became says whether a job that ran is now what was asked for: it may have ended first.
func (r *replays) became(ctx context.Context, id string, to pipeline.JobState) error {
	all, err := r.store.Jobs(ctx, r.name)
	if err != nil {
		return err
	}
	for _, j := range all {
		switch {
		case j.ID != id || j.State == to:
		case j.State.Ended():
			return refuse("job %s has ended: it is %s", id, j.State)
		default:
			return fmt.Errorf("job %s could not be made %s: its state cannot be written", id, to)
		}
	}
	return nil
}

// wanted is the lowest offset that a job needs, asides left out unless there is room for them; known is false until
// they were read.
func (r *replays) wanted(asides bool) (o pipeline.Offset, any, known bool) {
	if r.store == nil {
		return 0, false, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jobs {
		if j.Kind == pipeline.JobAside && !asides {
			continue
		}
		at := j.At
		if r.sub != nil {
			if h, wanted, ok := r.sub.Replaying(); ok && h.ID == j.ID {
				at = wanted
			}
		} else if j.Live > 0 {
			at = min(at, j.From) // what it follows is found anew
		}
		if c := r.current; c != nil && c.id == j.ID {
			at = c.aside.Wanted()
		}
		if !any || at < o {
			o, any = at, true
		}
	}
	return o, any, r.known
}

// status overlays what is known of a job that runs or waits its turn.
func (r *replays) status(j pipeline.Job, now time.Time) JobStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := JobStatus{Job: j}
	if j.State.Ended() || j.State == pipeline.JobPaused {
		return s
	}
	c := r.current
	var held pipeline.Job
	if r.sub != nil {
		held, _, _ = r.sub.Replaying()
	}
	switch {
	case c != nil && c.id == j.ID:
		s.Job = c.aside.Job()
		s.measure(&c.rate, now)
	case held.ID == j.ID:
		s.Job = held
		s.measure(&r.rate, now)
		if why, _ := r.sub.Stands(); why != "" && s.State == pipeline.JobRunning {
			s.State, s.Reason = pipeline.JobWaiting, why
		}
	case c != nil:
		s.State, s.Reason, s.Ends = pipeline.JobWaiting, "job "+c.id+" runs first", "that job has ended"
	case held.State == pipeline.JobPaused:
		s.State, s.Reason, s.Ends = pipeline.JobWaiting, "job "+held.ID+", which is paused, holds keys", "leat jobs resume "+held.ID+", and that job has ended"
	case held.ID != "":
		s.State, s.Reason, s.Ends = pipeline.JobWaiting, "job "+held.ID+" runs first", "that job has ended"
	case r.sub != nil:
		s.State, s.Reason = pipeline.JobWaiting, "it begins"
	default:
		s.State, s.Reason = pipeline.JobWaiting, "the subscription does not run"
	}
	if s.State == pipeline.JobWaiting && r.sub != nil && s.Ends == "" {
		if _, paused := r.sub.Stands(); paused {
			s.Ends = "leat resume " + j.Subscription
		}
	}
	return s
}

// measure notes how fast the job gets on.
func (s *JobStatus) measure(m *backfill.Meter, now time.Time) {
	s.Rate = m.Measure(now, s.Done)
	if s.Rate > 0 && s.Total > s.Done {
		s.Left = time.Duration(float64(s.Total-s.Done) / s.Rate * float64(time.Second))
	}
}

// add makes a job durable; it runs when it is its turn.
func (r *replays) add(ctx context.Context, j pipeline.Job) (pipeline.Job, error) {
	if err := r.take(ctx); err != nil {
		return j, err
	}
	defer r.give()
	var err error
	j.Created = time.Now()
	if j.ID, err = r.ids.next(ctx, j.Created); err != nil {
		return j, err
	}
	defer r.poke() // when that failed too: it may have been done
	if err := r.store.PutJob(ctx, j); err != nil {
		return j, err
	}
	_, err = r.read(ctx)
	return j, err
}
