package backfill

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

const (
	// lookEvery is how often marks and pace are looked at while there are jobs.
	lookEvery = 250 * time.Millisecond
	// lookSoon is the shortest time between two looks while rows come.
	lookSoon = 10 * time.Millisecond
	// storeEvery is how often the store is looked at: who drops a subscription drops its jobs there.
	storeEvery = 2 * time.Second
)

// Opened takes a stream of the source that was opened; what it returns is called when that is about to be closed.
func (s *Jobs) Opened(ctx context.Context, stream pipeline.Stream) (closing func()) {
	s.sweep(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream, _ = stream.(pipeline.Snapshotter)
	s.unable = s.stream == nil
	for _, j := range s.active {
		j.started = false
		s.start(j)
	}
	s.pace()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stream = nil
	}
}

// Fence blocks until everything that was committed in the source before the call was handed to the log.
func (s *Jobs) Fence(ctx context.Context) error {
	s.mu.Lock()
	f, ok := s.stream.(pipeline.Fencer)
	streams := s.stream != nil
	s.mu.Unlock()
	switch {
	case ok:
		return f.Fence(ctx)
	case streams:
		return refuse("source %s cannot say where its log is now", s.cfg.Source)
	}
	return refuse("source %s is not being read now: see leat status", s.cfg.Source)
}

// start hands a job to the stream that is open: a paused one waits. s.mu is held.
func (s *Jobs) start(j *job) {
	if s.stream == nil || j.started || j.State == pipeline.JobPaused {
		return
	}
	j.started, j.ratio, j.why = true, -1, ""
	order := pipeline.SnapshotJob{ID: j.ID, Tables: j.Tables, For: j.For, Where: j.Where}
	for _, m := range s.log.Snapshots() {
		if m.Job == j.ID {
			order.Mark = &m
		}
	}
	if order.Mark != nil && order.Mark.State.Ended() {
		return // the next look notes that
	}
	s.stream.Start(order)
	r, why := s.ratio(j)
	s.stream.Pace(j.ID, r, why)
}

// Appended says that rows of a job went to the log: how much is undelivered is looked at soon. Never blocks.
func (s *Jobs) Appended() { s.poke() }

// Run looks after the jobs until ctx ends.
func (s *Jobs) Run(ctx context.Context) {
	t, soon := time.NewTimer(0), time.NewTimer(0)
	defer t.Stop()
	defer soon.Stop()
	var asked time.Time // of the store
	for {
		select { // not at each batch
		case <-soon.C:
		case <-ctx.Done():
			return
		}
		select {
		case <-t.C:
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		soon.Reset(lookSoon)
		if len(s.list()) == 0 {
			t.Stop()
			continue
		}
		store := time.Since(asked) > storeEvery
		if store {
			asked = time.Now()
		}
		if err := s.step(ctx, store); err != nil && ctx.Err() == nil {
			s.cfg.Observer.Warned("source "+s.cfg.Source, err.Error()+"; tried again", "see that the data folder has space and can be written")
			soon.Reset(lookEvery)
		}
		t.Reset(lookEvery)
	}
}

// step notes what the log made durable, and sets the pace.
func (s *Jobs) step(ctx context.Context, store bool) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	if store {
		if err := s.dropped(ctx); err != nil {
			return err
		}
	}
	for _, m := range s.marked() {
		if err := s.end(ctx, m.Job, m.State, m.Reason); err != nil {
			return err
		}
		if m.State == pipeline.JobDone {
			if err := s.fill(ctx); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.active {
		s.start(j)
	}
	s.pace()
	return nil
}

// marked takes the jobs' progress from the log, and returns the marks of those that ended.
func (s *Jobs) marked() (ended []pipeline.SnapshotMark) {
	s.mu.Lock()
	marks := s.log.Snapshots()
	var faults []pipeline.TableProgress
	for _, m := range marks {
		j := s.find(m.Job)
		if j == nil {
			continue
		}
		m.Tables = faulted(m.Tables, quarantined(s.log), m.State.Ended())
		j.Progress, j.held = m.Tables, m.Reason
		done, _ := j.Rows()
		j.rate.Measure(time.Now(), done)
		for _, t := range m.Tables {
			if t.Fault != "" && !j.warned[t.Table] {
				j.warned[t.Table] = true
				faults = append(faults, t)
			}
		}
		if m.State == pipeline.JobDone && len(m.Tables) > 0 && !slices.ContainsFunc(m.Tables, func(t pipeline.TableProgress) bool { return t.Fault == "" }) {
			m.State, m.Reason = pipeline.JobFailed, "none of its tables could be read"
		}
		if m.State.Ended() {
			ended = append(ended, m)
		}
	}
	s.mu.Unlock()
	for _, t := range faults {
		s.cfg.Observer.Warned("source "+s.cfg.Source+", table "+t.Table, "its snapshot ended: "+t.Fault, t.Cure)
	}
	return ended
}

// dropped forgets the jobs that the store has not any more.
func (s *Jobs) dropped(ctx context.Context) error {
	all, err := s.cfg.Store.Snapshots(ctx, s.cfg.Source)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active = slices.DeleteFunc(s.active, func(j *job) bool {
		gone := !slices.ContainsFunc(all, func(o pipeline.Snapshot) bool { return o.ID == j.ID })
		if gone && s.stream != nil {
			s.stream.Stop(j.ID)
		}
		return gone
	})
	return nil
}

// pace tells the stream each job's pace where it changed. s.mu is held.
func (s *Jobs) pace() {
	for _, j := range s.active {
		r, why := s.ratio(j)
		if s.stream != nil && j.started && (r != j.ratio || why != j.why) {
			s.stream.Pace(j.ID, r, why)
		}
		j.ratio, j.why = r, why
	}
}

// ratio decides on a job's pace. One job reads at a time, the oldest that can. s.mu is held.
func (s *Jobs) ratio(j *job) (float64, string) {
	if j.State == pipeline.JobPaused {
		return 0, j.Reason
	}
	bytes, who, ok := s.cfg.Undelivered(j.For)
	if !ok && j.For != "" {
		return 0, "subscription " + j.For + " does not run here"
	}
	// What a job brought is no more than it brought, however far the subscription is behind.
	if n, bound := min(bytes, int64(j.Bytes())), s.cfg.Bound(); n > bound {
		return 0, fmt.Sprintf("subscription %s has %d MiB of the log to be delivered, and of a snapshot there are %d MiB at most: it goes on as they are delivered", who, bytes>>20, max(1, bound>>20))
	}
	for _, o := range s.active {
		if o == j {
			break
		}
		if o.ratio > 0 && o.started {
			return 0, "job " + o.ID + " runs first"
		}
	}
	return s.cfg.Allowed()
}

// fill takes back the gaps that snapshots have brought to all who take the table.
func (s *Jobs) fill(ctx context.Context) error {
	s.mu.Lock()
	log := s.log
	s.mu.Unlock()
	notices := log.Notices()
	if !slices.ContainsFunc(notices, func(n pipeline.Notice) bool { return n.Kind == pipeline.NoticeGap }) {
		return nil
	}
	all, err := s.cfg.Store.Snapshots(ctx, s.cfg.Source)
	if err != nil {
		return err
	}
	b := pipeline.NewBatch()
	quar := quarantined(log)
	for _, n := range notices {
		if _, out := quar[n.Table]; out || n.Kind != pipeline.NoticeGap {
			continue
		}
		if takers := s.cfg.Takers(n.Table); len(takers) > 0 && len(lacking(all, n, takers)) == 0 {
			b.Notices = append(b.Notices, pipeline.Notice{Kind: pipeline.NoticeFilled, Table: n.Table, Code: n.Code, Time: time.Now().UTC(),
				Reason: "a snapshot brought the rows to all who take them"})
		}
	}
	if len(b.Notices) == 0 {
		b.Release()
		return nil
	}
	for _, n := range b.Notices {
		s.cfg.Observer.Noticed(s.cfg.Source, n)
	}
	return s.cfg.Append(ctx, b)
}

// brought reports whether a job brought a gap's table, whole, to a subscription.
func brought(j *pipeline.Snapshot, n pipeline.Notice, name string) bool {
	if j.State != pipeline.JobDone || j.Where != "" || j.For != "" && j.For != name || j.Created.Before(n.Time) {
		return false
	}
	return slices.ContainsFunc(j.Progress, func(t pipeline.TableProgress) bool { return t.Table == n.Table && t.Done && t.Fault == "" })
}
