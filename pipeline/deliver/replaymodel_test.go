package deliver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/leat-cdc/leat/pipeline"
)

// replay is a rewind or fenced replay of a random history.
type replay struct {
	job pipeline.Job
	// since and begun are len(world.log) when it was asked for, and when what was in flight had ended.
	since, begun int
}

func replaying(s *run) bool {
	_, _, ok := s.Replaying()
	return ok
}

// rewind asks for a replay of everything or of some keys, from somewhere.
func (w *world) rewind(sub *run, l pipeline.Log, r *rand.Rand, p plan) error {
	if replaying(sub) {
		return nil
	}
	w.mu.Lock()
	n := len(w.hashes)
	j := pipeline.Job{ID: fmt.Sprint("j", len(w.replays)+1), Subscription: "sub", Log: "log", Kind: pipeline.JobRewind, State: pipeline.JobRunning,
		From: first + pipeline.Offset(r.IntN(n+1))}
	oldest, _ := l.Bounds()
	j.From = max(j.From, oldest)
	if r.IntN(2) == 0 {
		j.Kind = pipeline.JobFenced
	}
	switch {
	case r.IntN(3) == 0 && !p.barriers && p.order == OrderKey:
		for k := range p.keys/2 + 1 {
			j.Scope.Keys = append(j.Scope.Keys, pipeline.Key{Space: table.KeySpace, Encoded: fmt.Appendf(nil, "key-%d", k)})
		}
	case r.IntN(3) == 0:
		j.Scope.Filter = `op == "update"`
	}
	since := len(w.log)
	w.mu.Unlock()
	err := sub.Rewind(context.Background(), j)
	if refused := (*JobError)(nil); errors.As(err, &refused) {
		return nil // it has not come so far
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.replays = append(w.replays, replay{j, since, len(w.log)})
	return nil
}

// meddle pauses, resumes or cancels what runs, now and then.
func (w *world) meddle(sub *run, r *rand.Rand) error {
	to := []pipeline.JobState{pipeline.JobPaused, pipeline.JobRunning, pipeline.JobCancelled}[r.IntN(3)]
	if !replaying(sub) || r.IntN(4) > 0 {
		return nil
	}
	err := sub.ChangeRewind(context.Background(), to, "dice")
	if refused := (*JobError)(nil); errors.As(err, &refused) {
		return nil
	}
	return err
}

func (w *world) resume(sub *run) {
	if replaying(sub) {
		_ = sub.ChangeRewind(context.Background(), pipeline.JobRunning, "")
	}
}

// checkReplays: a replay that was not cancelled has brought all of its window; copies are tagged, and what is new
// is not.
func (w *world) checkReplays(m *memory, p plan) error {
	for _, rp := range w.replays {
		j := m.jobs[rp.job.ID]
		if !j.State.Ended() || j.State == pipeline.JobFailed {
			return fmt.Errorf("job %+v has not ended", j)
		}
		sent, tagged := map[pipeline.Offset]bool{}, map[pipeline.Offset]bool{}
		for n, e := range w.log[rp.since:] {
			half := rp.since+n >= rp.begun && j.Stop == 0 && e.offset > j.From && e.offset < j.Live && w.ops[e.offset-first] == pipeline.OpInsert && j.Scope.Filter == "" && p.order == OrderKey
			if half && !sent[e.offset-1] && m.dead[e.offset-1].ID == "" && w.wants(j, e.offset-1, p) && w.wants(j, e.offset, p) {
				return fmt.Errorf("job %+v: insert %d came again before its delete", j, e.offset)
			}
			sent[e.offset] = sent[e.offset] || e.ok
			tagged[e.offset] = tagged[e.offset] || e.job == j.ID
		}
		for o := j.From; o < j.Live && j.State == pipeline.JobDone; o++ {
			if _, dead := m.dead[o]; !sent[o] && !dead && w.wants(j, o, p) {
				return fmt.Errorf("job %+v is done, but %d was not delivered again", j, o)
			}
		}
		for o := range tagged {
			if tagged[o] && (j.Kind != pipeline.JobFenced || o >= j.Live) {
				return fmt.Errorf("job %+v tagged %d", j, o)
			}
		}
	}
	return nil
}

func (w *world) wants(j pipeline.Job, o pipeline.Offset, p plan) bool {
	if j.Scope.Filter != "" && w.ops[o-first] != pipeline.OpNone {
		return false
	}
	return len(j.Scope.Keys) == 0 || w.hashes[o-first] <= uint64(p.keys/2)
}
