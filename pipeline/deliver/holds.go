package deliver

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Rewind begins a job of the kind rewind or fenced. It returns once that is durable; it does not wait for the
// deliveries. One runs at a time: see Replaying. ErrNotRunning outside Run.
func (s *Subscription) Rewind(ctx context.Context, j pipeline.Job) error {
	return s.command(ctx, command{kind: cmdRewind, job: j})
}

// ChangeRewind pauses, resumes or cancels the job that Rewind began. While it is paused its keys stay held and no
// parks are redriven. When it is cancelled, keys that it took back are brought up to live before it ends.
// ErrNotRunning outside Run.
func (s *Subscription) ChangeRewind(ctx context.Context, to pipeline.JobState, reason string) error {
	return s.command(ctx, command{kind: cmdChange, job: pipeline.Job{State: to}, reason: reason})
}

// Replaying returns the job that Rewind began, as it stands, and the offset from which it needs the log; ok is false
// when there is none.
func (s *Subscription) Replaying() (j pipeline.Job, wanted pipeline.Offset, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold == nil {
		return j, 0, false
	}
	wanted = min(s.hold.stored, s.hold.from())
	return s.hold.job, wanted, true
}

// Stands says why nothing is delivered, replays neither; empty: something is. Paused: Resume ends it.
func (s *Subscription) Stands() (why string, paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.status.State {
	case StateRunning, StateRetrying:
		return "", false
	}
	why, paused = "the subscription is "+s.status.State, s.status.State == StatePaused
	if s.status.Reason != "" {
		why += ": " + s.status.Reason
	}
	return why, paused
}

// Replayed tells when the job that Rewind began has ended.
func (s *Subscription) Replayed() <-chan struct{} { return s.holdEnded }

// loadHold reads whether keys are held for a job. One of another log holds nothing of this one.
func (s *Subscription) loadHold(ctx context.Context) error {
	s.setHold(nil)
	if s.cfg.Jobs == nil {
		return nil
	}
	all, err := s.cfg.Jobs.Jobs(ctx, s.cfg.Name)
	if err != nil {
		return fmt.Errorf("read the jobs: %w", err)
	}
	for _, j := range all {
		if j.Kind == pipeline.JobAside || j.Live == 0 || j.State.Ended() || j.Log != s.cfg.Log.ID() {
			continue
		}
		h, err := newHold(&s.cfg, j)
		if err != nil {
			return err
		}
		s.setHold(h)
		return nil
	}
	return nil
}

// rewind begins to hold the keys of a job from where the cursor stands.
func (s *Subscription) rewind(ctx context.Context, cur pipeline.Cursor, j pipeline.Job) error {
	if s.hold != nil {
		return fmt.Errorf("job %s of subscription %q holds keys already: one at a time", s.hold.job.ID, s.cfg.Name)
	}
	if cur.Log != j.Log {
		return &JobError{fmt.Sprintf("its window is one of log %s, but the cursor of subscription %q is one of %s", j.Log, s.cfg.Name, cur.Log)}
	}
	if j.From >= max(cur.Low, cur.High) {
		return &JobError{fmt.Sprintf("there is nothing to deliver again from offset %d on: subscription %q has read up to %d", j.From, s.cfg.Name, max(cur.Low, cur.High))}
	}
	j.Live, j.To = cur.Low, max(cur.Low, cur.High)
	j.At = min(j.From, j.Live)
	j.High = j.At
	h, err := newHold(&s.cfg, j)
	if err != nil {
		return &JobError{err.Error()}
	}
	h.given = j.At
	if err := s.cfg.Jobs.PutJob(ctx, j); err != nil {
		return fmt.Errorf("begin job %s: %w", j.ID, err)
	}
	s.setHold(h)
	return nil
}

// seekHold lets a seek hold for keys that are held too: what the pass has not brought below at is left out, and listed
// as skipped up to where the live session stands (read). That was delivered before, in part, but a key that was taken
// back may have been left at an older event since.
func (s *Subscription) seekHold(ctx context.Context, at, read pipeline.Offset, reason string) error {
	if s.hold == nil || s.hold.job.State.Ended() || s.hold.job.At >= at {
		return nil
	}
	j := s.hold.job
	if passed := (pipeline.OffsetRange{From: s.hold.job.At, To: min(at, read)}); passed.From < passed.To {
		skip := Skip{Subscription: s.cfg.Name, Ranges: []pipeline.OffsetRange{passed}, Time: time.Now(),
			Reason: strings.TrimPrefix(reason+": only the events of the keys that job "+j.ID+" held", ": ")}
		if err := s.cfg.Store.PutSkip(ctx, skip); err != nil {
			return fmt.Errorf("list what is skipped: %w", err)
		}
	}
	j.At, j.High = at, max(j.High, at)
	h, err := newHold(&s.cfg, j)
	if err != nil {
		return err
	}
	if s.hold.given > 0 {
		h.given = max(s.hold.given, at)
	}
	if err := s.cfg.Jobs.PutJob(ctx, j); err != nil {
		return fmt.Errorf("move job %s: %w", j.ID, err)
	}
	s.setHold(h)
	return nil
}

// changeHold pauses, resumes or cancels.
func (s *Subscription) changeHold(ctx context.Context, to pipeline.JobState, reason string) error {
	if s.hold == nil || s.hold.job.State.Ended() {
		return &JobError{"it has ended"}
	}
	j := s.hold.job
	switch {
	case to == pipeline.JobCancelled:
		if j.Stop == 0 {
			given := s.hold.given
			if given == 0 {
				given = j.High
			}
			j.Stop = max(j.From, min(given, j.Live))                                   // nothing is meant below From
			if oldest, _ := s.cfg.Log.Bounds(); oldest > j.From && !s.hold.follows() { // by what is gone keys may have been taken back
				j.Stop = j.Live
			}
		}
		j.State, j.Reason = pipeline.JobRunning, reason
	case j.Stop > 0 && to == pipeline.JobPaused:
		return &JobError{"it is being cancelled: keys that it took back are brought up to live first"}
	default:
		j.State, j.Reason = to, reason
	}
	h, err := newHold(&s.cfg, j)
	if err != nil {
		return err
	}
	h.given = s.hold.given
	if err := s.cfg.Jobs.PutJob(ctx, j); err != nil {
		return fmt.Errorf("change job %s: %w", j.ID, err)
	}
	s.setHold(h)
	return nil
}
