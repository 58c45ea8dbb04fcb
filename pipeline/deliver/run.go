package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// pauseError ends a session: the subscription is paused until Resume.
type pauseError struct{ reason string }

func (e *pauseError) Error() string { return e.reason }

// refusal is why a subscription cannot run; a seek may cure it.
type refusal struct{ what string }

func (e *refusal) Error() string { return e.what }

// Run delivers until ctx ends, then stops in two steps: it takes nothing new and gives the Deliveries in
// flight Config.Grace to end, then cancels them; it saves the cursor and has joined all it started when
// it returns. It returns nil after ctx ended, and an error when state cannot be read or written; then
// it may be run again. It does not close the sink. Only one Run at a time.
func (s *Subscription) Run(ctx context.Context) error {
	if !s.running.CompareAndSwap(false, true) {
		return fmt.Errorf("subscription %q: already running", s.cfg.Name)
	}
	done := make(chan struct{})
	s.mu.Lock()
	s.done = done
	s.mu.Unlock()
	r := &runner{s: s}
	err := r.run(ctx)
	close(done)
	s.running.Store(false)
	if err != nil && ctx.Err() == nil {
		s.setState(StateStopped, err.Error(), time.Time{})
		return fmt.Errorf("subscription %q: %w", s.cfg.Name, err)
	}
	s.setState(StateClosed, "", time.Time{})
	if err != nil {
		return fmt.Errorf("stop subscription %q: %w", s.cfg.Name, err)
	}
	return nil
}

// runner is what Run's goroutine owns between sessions.
type runner struct {
	s       *Subscription
	cur     pipeline.Cursor
	paused  bool
	reason  string
	refused *refusal
}

func (r *runner) run(ctx context.Context) error {
	s := r.s
	var err error
	if r.paused, r.reason, err = s.cfg.Store.Paused(ctx, s.cfg.Name); err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	s.unsure = true
	for ctx.Err() == nil {
		if s.unsure {
			if err := r.read(ctx); err != nil {
				return err
			}
		}
		if s.cfg.window != nil && r.refused != nil {
			return &JobError{r.refused.what}
		}
		if s.cfg.window != nil && r.paused {
			return errors.New(r.reason) // which paused the subscription
		}
		if r.refused == nil && !r.paused {
			if err := r.session(ctx); err != nil {
				return err
			}
			continue
		}
		if r.refused != nil {
			s.setState(StateStopped, r.refused.what, time.Time{})
		} else {
			s.setState(StatePaused, r.reason, time.Time{})
		}
		select {
		case <-ctx.Done():
		case l := <-s.looks:
			l.reply <- nil
		case cmd := <-s.commands:
			cmd.reply <- r.obey(ctx, cmd)
		}
	}
	return nil
}

// read reads what is on disk. The cursor is read even when paused: retention must know what is still wanted.
func (r *runner) read(ctx context.Context) (err error) {
	if err := r.s.loadParks(ctx); err != nil {
		return err
	}
	if err := r.s.loadHold(ctx); err != nil {
		return err
	}
	r.refused = nil
	if r.cur, err = r.s.open(ctx); err != nil && !errors.As(err, &r.refused) {
		return err
	}
	r.s.unsure = false
	return nil
}

// session runs one session and deals with why it ended.
func (r *runner) session(ctx context.Context) error {
	cur, cmd, err := newSession(r.s, r.cur).run(ctx)
	r.cur = cur
	var pause *pauseError
	switch {
	case errors.As(err, &pause):
		r.paused, r.reason = true, pause.reason
		r.s.unsure = true // the last save may have failed beside it: what stands on disk counts
		if err := r.s.cfg.Store.SetPaused(context.WithoutCancel(ctx), r.s.cfg.Name, true, r.reason); err != nil {
			err = fmt.Errorf("save the pause: %w", err)
			if cmd != nil {
				cmd.reply <- err
			}
			return err
		}
		err = nil
	case errors.As(err, &r.refused), errors.Is(err, errUndone):
		err = nil
	}
	if cmd != nil {
		if err != nil {
			cmd.reply <- err
		} else {
			cmd.reply <- r.obey(ctx, *cmd)
		}
	}
	return err
}

func (r *runner) obey(ctx context.Context, c command) error {
	s := r.s
	switch c.kind {
	case cmdPause, cmdResume:
		pause := c.kind == cmdPause
		if err := s.cfg.Store.SetPaused(ctx, s.cfg.Name, pause, c.reason); err != nil {
			return fmt.Errorf("save the state: %w", err)
		}
		r.paused, r.reason = pause, c.reason
		if !pause {
			s.outage.Hurry()
		}
		if pause && r.refused == nil {
			s.setState(StatePaused, c.reason, time.Time{})
		}
		return nil
	case cmdRedrive:
		n, err := s.redrive(ctx, c.keys)
		*c.n, s.unsure = n, s.unsure || err != nil
		return err
	case cmdDiscard:
		n, err := s.discard(ctx, r.cur, c.keys, c.reason)
		*c.n, s.unsure = n, s.unsure || err != nil
		return err
	case cmdRewind, cmdChange:
		var err error
		if c.kind == cmdRewind {
			err = s.rewind(ctx, r.cur, c.job)
		} else {
			err = s.changeHold(ctx, c.job.State, c.reason)
		}
		var refused *JobError
		s.unsure = s.unsure || err != nil && !errors.As(err, &refused)
		return err
	default:
		cur, err := s.seek(ctx, r.cur, c.to, c.reason)
		if s.unsure = s.unsure || err != nil; err == nil {
			r.cur, r.refused = cur, nil
		}
		return err
	}
}

type commandKind uint8

const (
	cmdPause commandKind = iota
	cmdResume
	cmdSeek
	cmdRedrive
	cmdDiscard
	cmdRewind
	cmdChange
)

type command struct {
	kind   commandKind
	reason string
	to     Start
	keys   []ParkKey
	job    pipeline.Job
	n      *int
	reply  chan error
}

func (s *Subscription) command(ctx context.Context, c command) error {
	s.mu.Lock()
	done := s.done
	s.mu.Unlock()
	if done == nil {
		return ErrNotRunning
	}
	c.reply = make(chan error, 1)
	select {
	case s.commands <- c:
	case <-done:
		return ErrNotRunning
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.reply:
		return err
	case <-done:
		select {
		case err := <-c.reply:
			return err
		default:
			return ErrNotRunning
		}
	}
}

// Pause stops delivering until Resume, also over restarts. What is in flight gets Config.Grace to end.
// Buffers are dropped: a paused subscription holds no memory. Idempotent. ErrNotRunning outside Run.
func (s *Subscription) Pause(ctx context.Context, reason string) error {
	return s.command(ctx, command{kind: cmdPause, reason: reason})
}

// Resume ends a pause. Idempotent. ErrNotRunning outside Run.
func (s *Subscription) Resume(ctx context.Context) error {
	return s.command(ctx, command{kind: cmdResume})
}

// Seek moves the cursor forward to `to`; what was not done below is listed as skipped, with reason. Going
// back is refused (that is a replay), save for a cursor that belongs to another log. ErrNotRunning
// outside Run.
func (s *Subscription) Seek(ctx context.Context, to Start, reason string) error {
	return s.command(ctx, command{kind: cmdSeek, to: to, reason: reason})
}

const seekCure = "move it with `leat seek %s --to latest|OFFSET|TIME` (what is left out is listed as skipped)"

// open loads the cursor, or makes the first one from Config.From.
func (s *Subscription) open(ctx context.Context) (pipeline.Cursor, error) {
	c := &s.cfg
	cur, ok, err := c.Cursors.Load(ctx, c.Name)
	if err != nil {
		return cur, fmt.Errorf("load the cursor: %w", err)
	}
	if !ok {
		return s.first(ctx)
	}
	if cur.Worked.After(s.worked) {
		s.worked = cur.Worked
	}
	_, next := c.Log.Bounds()
	if cur.Log != c.Log.ID() {
		return cur, &refusal{fmt.Sprintf("its cursor (offset %d) belongs to log %s, but the log of source %q is %s: the data folder was replaced or restored without its state; "+
			seekCure, cur.Low, cur.Log, c.Source, c.Log.ID(), c.Name)}
	}
	if cur.Low > next || cur.High > next {
		return cur, beyond(c, max(cur.Low, cur.High), next)
	}
	s.setCursor(cur)
	return cur, nil
}

func beyond(c *Config, at, next pipeline.Offset) error {
	return &refusal{fmt.Sprintf("its cursor (offset %d) lies beyond the end of the log of source %q (offset %d): the log was restored from an older copy; "+
		seekCure, at, c.Source, next, c.Name)}
}

func (s *Subscription) setCursor(cur pipeline.Cursor) {
	s.persisted.Store(uint64(cur.Low))
	s.hasCursor.Store(true)
	s.mu.Lock()
	s.status.Low, s.status.Read, s.status.Resolved = cur.Low, max(cur.Low, cur.High), cur.Resolved
	s.mu.Unlock()
}

func (s *Subscription) first(ctx context.Context) (pipeline.Cursor, error) {
	at, err := s.locate(ctx, s.cfg.From)
	if s.cfg.From.Snapshot {
		oldest, next := s.cfg.Log.Bounds()
		at, err = s.cfg.Snapshot(ctx, WhyNew, oldest, next)
	}
	if err != nil {
		return pipeline.Cursor{}, err
	}
	cur := pipeline.Cursor{Log: s.cfg.Log.ID(), Low: at, High: at}
	if err := s.cfg.Cursors.Save(ctx, s.cfg.Name, cur); err != nil {
		return cur, fmt.Errorf("save the first cursor: %w", err)
	}
	s.setCursor(cur)
	return cur, nil
}

// Reasons for which a subscription asks for a snapshot.
const (
	// WhyNew: it is new, and begins with one.
	WhyNew = "new"
	// WhyLaggard: retention removed what it had not read.
	WhyLaggard = "laggard"
)

// locate turns a Start into an offset that the log has given out or gives out next.
func (s *Subscription) locate(ctx context.Context, at Start) (pipeline.Offset, error) {
	oldest, next := s.cfg.Log.Bounds()
	switch {
	case at.Latest:
		return next, nil
	case !at.Time.IsZero():
		o, err := s.cfg.Log.At(ctx, at.Time)
		if err != nil {
			return 0, fmt.Errorf("find the offset of %s: %w", at.Time.Format(time.RFC3339), err)
		}
		return o, nil
	case at.Offset == 0:
		return oldest, nil
	case at.Offset > next:
		return 0, &refusal{fmt.Sprintf("offset %d lies beyond the end of the log of source %q (offset %d): give one up to that, or latest", at.Offset, s.cfg.Source, next)}
	}
	return at.Offset, nil
}

func (s *Subscription) seek(ctx context.Context, cur pipeline.Cursor, to Start, reason string) (pipeline.Cursor, error) {
	at, err := s.locate(ctx, to)
	if err != nil {
		return cur, fmt.Errorf("seek: %w", err)
	}
	next := pipeline.Cursor{Log: s.cfg.Log.ID(), Low: at, High: at, Worked: s.worked}
	oldest, end := s.cfg.Log.Bounds()
	from := oldest
	var out []pipeline.OffsetRange
	beyond := cur.Low > end || cur.High > end
	foreign := cur.Log != next.Log || beyond
	if foreign {
		if err := s.forgetParks(ctx); err != nil {
			return cur, fmt.Errorf("seek: %w", err)
		}
	} else {
		if at < cur.Low {
			return cur, fmt.Errorf("seek: offset %d lies before the cursor (%d): a seek only goes forward; to deliver again is a replay", at, cur.Low)
		}
		next.Resolved = cur.Resolved
		from = max(cur.Low, cur.High)
		out = clip(cur.Pending, 0, at)
	}
	if from < at {
		out = append(out, pipeline.OffsetRange{From: from, To: at})
	} else {
		// What lies above the target and is done stays done.
		next.High, next.Pending = from, clip(cur.Pending, at, from)
	}
	if len(out) > 0 {
		skip := Skip{Subscription: s.cfg.Name, Ranges: out, Reason: reason, Time: time.Now()}
		if err := s.cfg.Store.PutSkip(ctx, skip); err != nil {
			return cur, fmt.Errorf("seek: list what is skipped: %w", err)
		}
	}
	if !foreign {
		if err := s.seekHold(ctx, at, from, reason); err != nil {
			return cur, fmt.Errorf("seek: %w", err)
		}
	}
	if beyond && cur.Log == next.Log {
		// No cursor of one log goes back, but this one is of offsets that the log does not know: it is
		// made one of no log first.
		if err := s.cfg.Cursors.Save(ctx, s.cfg.Name, pipeline.Cursor{Low: at, High: at}); err != nil {
			return cur, fmt.Errorf("seek: save the cursor: %w", err)
		}
	}
	if err := s.cfg.Cursors.Save(ctx, s.cfg.Name, next); err != nil {
		return cur, fmt.Errorf("seek: save the cursor: %w", err)
	}
	s.setCursor(next)
	return next, nil
}

// clip returns the parts of ranges that lie in [from, to).
func clip(ranges []pipeline.OffsetRange, from, to pipeline.Offset) []pipeline.OffsetRange {
	var out []pipeline.OffsetRange
	for _, r := range ranges {
		if r.From, r.To = max(r.From, from), min(r.To, to); r.From < r.To {
			out = append(out, r)
		}
	}
	return out
}
