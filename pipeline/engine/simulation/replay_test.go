package simulation

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/engine"
)

// commanded is the subscription that a command is about, in its context.
type commanded struct{}

// asker names who asks for jobs: several may want the same at a time. loop tells whether a subscription's loop waits.
func asker() (who string, loop bool) {
	var pcs [48]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		switch {
		case strings.HasSuffix(f.Function, ".(*asideCursor).Save"):
			return "aside", false
		case strings.Contains(f.Function, ".(*saving).begin"):
			return "saver", false
		case strings.HasSuffix(f.Function, ".(*replays).run"):
			return "replays", false
		case strings.Contains(f.Function, ".(*process).run"):
			return "command", false
		case !more:
			return "loop", true
		}
	}
}

func (a access) jobCall(ctx context.Context, sub, what string, apply func() error) error {
	if s, ok := ctx.Value(commanded{}).(string); ok {
		sub = s
	}
	who, loop := asker()
	x := &call{kind: callJobs, name: fmt.Sprintf("%s jobs of %s: %s", sub, who, what), life: a.p.life, sub: a.p.w.sub(sub), loop: loop, apply: apply}
	return a.p.w.calls.ask(ctx, x)
}

// PutJob implements deliver.JobStore.
func (a access) PutJob(ctx context.Context, j pipeline.Job) error {
	w := a.p.w
	j.Pending = slices.Clone(j.Pending)
	return a.jobCall(ctx, j.Subscription, fmt.Sprintf("put %s, %s at %d", j.ID, j.State, j.At), func() error {
		all := w.store.jobs
		i := slices.IndexFunc(all, func(o pipeline.Job) bool { return o.ID == j.ID })
		if f := w.plant.put; f != nil {
			f(w, &j)
		}
		if i < 0 {
			w.store.jobs = append(all, j)
			return nil
		}
		if all[i].State.Ended() && all[i].State != j.State {
			return fmt.Errorf("job %s is %s, and is kept again as %s", j.ID, all[i].State, j.State)
		}
		all[i] = j
		return nil
	})
}

// Jobs implements deliver.JobStore.
func (a access) Jobs(ctx context.Context, sub string) (all []pipeline.Job, err error) {
	err = a.jobCall(ctx, sub, "read", func() error {
		all = a.p.w.store.jobsOf(sub)
		for i := range all {
			if f := a.p.w.plant.job; f != nil {
				f(&all[i])
			}
		}
		return nil
	})
	return all, err
}

func (s *store) jobsOf(sub string) []pipeline.Job {
	return slices.DeleteFunc(slices.Clone(s.jobs), func(j pipeline.Job) bool { return sub != "" && j.Subscription != sub })
}

// replay asks for one, or changes one.
func (w *world) replay(s *subscriber) string {
	p, r, ctx := w.p, w.rng, context.WithValue(context.Background(), commanded{}, s.name)
	open := slices.DeleteFunc(w.store.jobsOf(s.name), func(j pipeline.Job) bool { return j.State.Ended() })
	var name string
	var f func() error
	if r.IntN(6) == 0 {
		name, f = "list jobs", func() error { _, err := p.engine.Jobs(ctx, s.name); return err }
	} else if len(open) > 0 && r.IntN(2) == 0 {
		j := open[r.IntN(len(open))]
		switch n := r.IntN(5); {
		case n == 0:
			name, f = "cancel job", func() error { return p.engine.CancelJob(ctx, j.ID, "the seed") }
		case n < 3:
			name, f = "pause job", func() error { return p.engine.PauseJob(ctx, j.ID, "the seed says so") }
		default:
			name, f = "resume job", func() error { return p.engine.ResumeJob(ctx, j.ID) }
		}
	} else {
		from := r.IntN(len(w.db.history) + 1)
		to := from + r.IntN(len(w.db.history)+2-from)
		q := engine.ReplayRequest{Subscription: s.name, Kind: pipeline.JobAside, From: engine.Point{Offset: w.first + pipeline.Offset(from)},
			To: engine.Point{Offset: w.first + pipeline.Offset(to)}, Owner: "the seed"}
		if n := r.IntN(4); n < 2 {
			q.Kind, q.To = []pipeline.JobKind{pipeline.JobRewind, pipeline.JobFenced}[n], engine.Point{}
			if len(w.db.history) > 0 && r.IntN(2) == 0 {
				space, key, _ := strings.Cut(w.db.history[r.IntN(len(w.db.history))].key, "/")
				q.Scope.Keys = []pipeline.Key{{Space: space, Encoded: []byte(key)}}
			}
		}
		name, f = fmt.Sprintf("%s %d to %d of %v", q.Kind, from, to, q.Scope), func() error { _, _, err := p.engine.StartReplay(ctx, q); return err }
	}
	if !p.run(s.name+" jobs", name, f) {
		return ""
	}
	return s.name + ": " + name
}

// copies checks a Delivery of a replay: its window and its order within the job (8); what it acknowledges moves no
// cursor, as the oracles of cursors know nothing of it.
func (w *world) copies(f *flight) {
	s := f.sub
	f.revoked = map[string]int{}
	list := w.store.jobsOf(s.name)
	n := slices.IndexFunc(list, func(j pipeline.Job) bool { return j.ID == f.job })
	if n < 0 {
		w.breaks("%s got copies of job %s, which nobody asked for", s.name, f.job)
		return
	}
	j := list[n]
	if f.reason != pipeline.ReasonReplay && f.attempt == 1 {
		w.breaks("%s got copies of job %s as %s", s.name, f.job, f.reason)
	}
	c := s.copied[f.job]
	if c == nil {
		c = &copied{newest: map[string]int{}, sent: map[int]bool{}, acked: map[int]bool{}}
		s.copied[f.job] = c
	}
	for _, came := range f.events {
		i, e := w.identify(s, came)
		if e == nil {
			return
		}
		if came.offset < j.From || came.offset >= j.To {
			w.breaks("%s got event %d of job %s, whose window is %d to %d", s.name, i, f.job, w.index(j.From), w.index(j.To))
		}
		f.at = append(f.at, i)
		k := s.key(e, i)
		if newest, ok := c.newest[k]; ok && i < newest && !c.sent[i] && s.cfg.Order != deliver.OrderNone {
			w.breaks("%s got event %d of a key in job %s for the first time, after %d", s.name, i, f.job, newest)
		}
		c.newest[k], c.sent[i] = max(c.newest[k], i), true
	}
}

// replayed: held by a rewind or a fenced replay, durably: it comes behind what is delivered again.
func (w *world) replayed(s *subscriber, i int) bool {
	e := &w.db.history[i]
	for _, j := range w.store.jobsOf(s.name) {
		if j.Kind == pipeline.JobAside || j.Live == 0 || j.State.Ended() || w.first+pipeline.Offset(i) < j.Live {
			continue
		}
		if s.cfg.Order == deliver.OrderSource || s.cfg.Order == deliver.OrderKey && scoped(&j, e) {
			return true
		}
	}
	return false
}

// scoped: the job means events of its key.
func scoped(j *pipeline.Job, e *event) bool {
	return len(j.Scope.Keys) == 0 || slices.ContainsFunc(j.Scope.Keys, func(k pipeline.Key) bool { return e.is(k.Space, k.Encoded) })
}

// brings notes what was acknowledged since a rewind or a fenced replay took it back.
func (w *world) brings(s *subscriber, i int) {
	for _, j := range w.store.jobs {
		if j.Subscription != s.name || j.Kind == pipeline.JobAside || j.Live == 0 || i < w.index(j.From) || i >= w.index(j.Live) {
			continue
		}
		if s.brought[j.ID] == nil {
			s.brought[j.ID] = map[int]bool{}
		}
		s.brought[j.ID][i] = true
	}
}

// missing returns an event that a rewind or a fenced replay was to bring again, of the key (empty: of any),
// and has not; -1: there is none.
func (w *world) missing(s *subscriber, j *pipeline.Job, key string, here []int) int {
	if j.Kind == pipeline.JobAside || j.Live == 0 || j.Stop > 0 || j.State == pipeline.JobFailed || j.State == pipeline.JobCancelled {
		return -1
	}
	for i := max(0, w.index(j.From)); i < w.index(j.Live); i++ {
		e := &w.db.history[i]
		if (key == "" || s.key(e, i) == key) && scoped(j, e) && !s.brought[j.ID][i] && !w.excused(s, i) && !s.sought(j, i, w) && !slices.Contains(here, i) {
			return i
		}
	}
	return -1
}

// seek is one that was asked for.
type seek struct {
	at time.Time
	to pipeline.Offset
}

// sought reports whether a seek may have left an event out of a job: one that was asked for since the job was, or the
// last one before, which may have been obeyed behind it.
func (s *subscriber) sought(j *pipeline.Job, i int, w *world) bool {
	for n, k := range s.seeks {
		if i < w.index(k.to) && (n == len(s.seeks)-1 || !s.seeks[n+1].at.Before(j.Created)) {
			return true
		}
	}
	return false
}

// outruns checks that what is live of a key comes behind all that was taken back of it (8).
func (w *world) outruns(f *flight, i int) {
	s := f.sub
	if s.ordered || s.cfg.Order == deliver.OrderNone {
		return
	}
	for _, j := range w.store.jobs {
		if j.Subscription != s.name || j.Live == 0 || i < w.index(j.Live) {
			continue
		}
		if m := w.missing(s, &j, s.key(&w.db.history[i], i), f.at); m >= 0 {
			w.breaks("%s got event %d of a key, but %d, which job %s took back, was not brought again", s.name, i, m, j.ID)
		}
	}
}

// rewound: something was delivered again of some keys only. In the order of the source that leaves out others.
func (w *world) rewound(s *subscriber) bool {
	return slices.ContainsFunc(w.store.jobsOf(s.name), func(j pipeline.Job) bool { return j.Kind != pipeline.JobAside && len(j.Scope.Keys) > 0 })
}

// copied is what a replay delivered.
type copied struct {
	newest      map[string]int // by key
	sent, acked map[int]bool
}

// checkJobs: a replay that is done delivered all of its window but what live has not (it was parked) or gave up.
func (w *world) checkJobs() {
	for _, j := range w.store.jobsOf("") {
		s := w.sub(j.Subscription)
		if m := w.missing(s, &j, "", nil); j.State == pipeline.JobDone && m >= 0 {
			w.breaks("job %s of %s is done, but event %d, which it took back, was not brought again", j.ID, s.name, m)
			return
		}
		c := s.copied[j.ID]
		for i := w.index(j.From); i < w.index(j.To) && j.State == pipeline.JobDone && j.Kind == pipeline.JobAside; i++ {
			if e := &w.db.history[i]; (c == nil || !c.acked[i]) && !w.excused(s, i) && !w.buried(s, i) && !s.everParked[e.key] && !s.buried[i] {
				w.breaks("job %s of %s is done, but event %d of its window %d to %d was not delivered", j.ID, s.name, i, w.index(j.From), w.index(j.To))
				return
			}
		}
	}
}

// buried: it is among the dead letters now.
func (w *world) buried(s *subscriber, i int) bool {
	_, dead := w.store.dead[s.name][w.first+pipeline.Offset(i)]
	return dead
}

// openJobs names what is not finished.
func (w *world) openJobs() string {
	var all []string
	for _, j := range w.store.jobsOf("") {
		if !j.State.Ended() {
			all = append(all, fmt.Sprintf("%s: %+v", j.ID, j))
		}
	}
	return strings.Join(all, "; ")
}

// assistJobs resumes what is paused.
func (w *world) assistJobs() (acted bool) {
	for _, j := range w.store.jobsOf("") {
		if j.State == pipeline.JobPaused {
			resume := func() error {
				return w.p.engine.ResumeJob(context.WithValue(context.Background(), commanded{}, j.Subscription), j.ID)
			}
			acted = w.p.run(j.Subscription+" jobs", "resume job", resume) || acted
		}
	}
	return acted
}

// Copies of what parks hold: implements deliver.Copies.

func (a access) copyCall(ctx context.Context, sub, what string, apply func() error) error {
	x := &call{kind: callCopies, name: sub + " copies " + what, life: a.p.life, sub: a.p.w.sub(sub), apply: apply}
	return a.p.w.calls.ask(ctx, x)
}

// PutHeld implements deliver.Copies.
func (a access) PutHeld(ctx context.Context, held []pipeline.Held, tables []pipeline.HeldTable) error {
	s, sub := a.p.w.store, held[0].Subscription
	held, tables = slices.Clone(held), slices.Clone(tables)
	return a.copyCall(ctx, sub, fmt.Sprintf("put %d from %d", len(held), held[0].Offset), func() error {
		s.tablesMu.Lock()
		for _, t := range tables {
			s.tables[[2]uint32{t.ID, t.Version}] = t
		}
		s.tablesMu.Unlock()
		for _, h := range held {
			if _, ok := s.parks[sub][h.Park]; ok {
				s.keep(h)
			}
		}
		return nil
	})
}

// keep puts a copy in its place.
func (s *store) keep(h pipeline.Held) {
	all := s.held[h.Subscription]
	i, ok := slices.BinarySearchFunc(all, h.Offset, func(h pipeline.Held, o pipeline.Offset) int { return int(int64(h.Offset) - int64(o)) })
	if ok {
		all[i] = h
		return
	}
	s.held[h.Subscription] = slices.Insert(all, i, h)
}

// PutCopied implements deliver.Copies.
func (a access) PutCopied(ctx context.Context, parks []pipeline.Park) error {
	s, sub := a.p.w.store, parks[0].Subscription
	parks = slices.Clone(parks)
	return a.copyCall(ctx, sub, "done "+ids(parks), func() error {
		for _, p := range parks {
			if k, ok := s.parks[sub][p.ID()]; ok && k.From == p.From {
				k.Copied = max(k.Copied, p.Copied)
				s.parks[sub][p.ID()] = k
			}
		}
		return nil
	})
}

// Held implements deliver.Copies.
func (a access) Held(ctx context.Context, sub, _ string, from, to pipeline.Offset, limit int) (out []pipeline.Held, err error) {
	err = a.copyCall(ctx, sub, fmt.Sprintf("from %d", from), func() error {
		for _, h := range a.p.w.store.held[sub] {
			if h.Offset >= from && h.Offset < to && len(out) < limit {
				out = append(out, h)
			}
		}
		return nil
	})
	return out, err
}

// HeldTable implements deliver.Copies.
func (a access) HeldTable(_ context.Context, _ string, id, version uint32) (t pipeline.HeldTable, ok bool, err error) {
	if !a.p.alive() {
		return t, false, errCrashed
	}
	s := a.p.w.store
	s.tablesMu.Lock()
	defer s.tablesMu.Unlock()
	t, ok = s.tables[[2]uint32{id, version}]
	return t, ok, nil
}

// HeldBytes implements deliver.Copies.
func (a access) HeldBytes(ctx context.Context, sub string) (bytes int64, events uint64, err error) {
	err = a.copyCall(ctx, sub, "bytes", func() error {
		for _, h := range a.p.w.store.held[sub] {
			bytes += int64(len(h.Block))
			events++
		}
		return nil
	})
	return bytes, events, err
}
