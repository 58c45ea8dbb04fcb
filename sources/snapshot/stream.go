package snapshot

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// happened says why an operation on a whole table has its chunks read again.
var happened = map[pipeline.Op]string{pipeline.OpTruncate: "the table was truncated", pipeline.OpSchema: "the table was altered"}

// stream is a source's stream into which chunks are put. Next owns what is not under the mutex.
type stream struct {
	inner pipeline.Stream
	home  *source // nil in tests
	db    Database
	cfg   Config
	name  string // makes the watermarks of this stream unlike all others
	ctx   context.Context
	end   context.CancelFunc
	join  sync.WaitGroup
	busy  atomic.Bool // there are jobs, or batches kept back for one

	images  images
	watched bool              // a fence was met
	over    []string          // of opens: they ended in batches that may not have been taken yet
	out     []*pipeline.Batch // to be handed out
	// holding is a read whose rows come now, while the stream waits.
	holding *whole
	dropped []*pipeline.Batch // held back by one that failed

	mu       sync.Mutex
	changed  chan struct{} // closed and made anew when workers may find something to do
	started  bool
	jobs     []*job
	opens    map[string]*unfinished // transactions that travel in chunks, by name
	marks    map[string]*window     // by watermark: whose low or high it is
	fences   map[string]*fence      // by watermark
	windows  []*window
	numbers  uint64 // windows so far
	marked   uint64 // watermarks so far
	slots    int    // windows that may still be opened
	history  history
	settled  bool
	notes    []note
	nudged   bool   // a watermark is on its way that brings the notes out
	whole    *whole // a table without a key that is being read
	position string // of the last transaction that was seen
	free     []*Chunk
}

// note is a mark that belongs to no chunk, to be made when it is handed out.
type note struct {
	job    *job
	state  pipeline.JobState
	reason string
}

func newStream(inner pipeline.Stream, db Database, c Config) *stream {
	ctx, end := context.WithCancel(context.Background())
	s := &stream{
		inner: inner, db: db, cfg: c, name: strconv.FormatInt(time.Now().UnixNano(), 36), ctx: ctx, end: end,
		opens: map[string]*unfinished{}, changed: make(chan struct{}), marks: map[string]*window{}, fences: map[string]*fence{}, slots: c.Workers,
	}
	if c.Max {
		s.slots += 2
	}
	return s
}

// Confirm passes on.
func (s *stream) Confirm(p pipeline.Position) { s.inner.Confirm(p) }

// Spill passes on; see pipeline.Spiller.
func (s *stream) Spill(open string) error {
	if inner, ok := s.inner.(pipeline.Spiller); ok {
		return inner.Spill(open)
	}
	return nil
}

// Close ends workers and stream. What is under way is read again by the next one.
func (s *stream) Close() error {
	s.end()
	err := s.inner.Close()
	s.join.Wait()
	if c, ok := s.db.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = append(s.out, s.dropped...)
	for _, h := range []*whole{s.whole, s.holding} {
		if h == nil {
			continue
		}
		h.flush(s)
		s.out = append(s.out, h.rest...)
		h.rest = nil
	}
	for _, b := range s.out {
		b.Release()
	}
	s.out, s.dropped, s.whole, s.holding = nil, nil, nil, nil
	if s.home != nil {
		s.home.keep(s.prepared())
		s.home, s.opens = nil, map[string]*unfinished{}
	}
	return err
}

// change wakes the workers. The mutex is held.
func (s *stream) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Start begins a job; see pipeline.Snapshotter.
func (s *stream) Start(sj pipeline.SnapshotJob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.job(sj.ID) != nil || sj.Mark != nil && sj.Mark.State.Ended() {
		return
	}
	j := &job{SnapshotJob: sj, ratio: 1}
	j.ctx, j.stop = context.WithCancel(s.ctx)
	j.opens = s.opens
	j.resume(func(t Table) *table { return s.newTable(j, t) })
	s.jobs = append(s.jobs, j)
	s.busy.Store(true)
	if !s.started {
		s.started = true
		for range s.cfg.Workers {
			s.join.Go(func() { s.work(s.ctx) })
		}
		s.join.Go(func() { s.errands(s.ctx) })
	}
	s.change()
}

func (s *stream) job(id string) *job {
	for _, j := range s.jobs {
		if j.ID == id {
			return j
		}
	}
	return nil
}

// Stop ends a job; see pipeline.Snapshotter.
func (s *stream) Stop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.job(id); j != nil && !j.ended {
		s.finish(j, pipeline.JobCancelled, "")
	}
}

// finish ends a job before its end. The mutex is held.
func (s *stream) finish(j *job, state pipeline.JobState, reason string) {
	if j.ended {
		return
	}
	s.note(j, state, reason)
	j.ended = true
	j.stop()
	s.change()
}

// note has a mark handed out behind the next batch, and the database be asked for one. The mutex is held.
func (s *stream) note(j *job, state pipeline.JobState, reason string) {
	s.notes = append(s.notes, note{j, state, reason})
	s.change()
}

// Pace sets a job's share of the time; see pipeline.Snapshotter.
func (s *stream) Pace(id string, ratio float64, _ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.job(id); j != nil && j.ratio != ratio {
		j.ratio = ratio
		s.change()
	}
}

// Next returns what comes next: batches of the stream as they are, those of chunks behind the batch that holds their
// high watermark.
func (s *stream) Next(ctx context.Context) (*pipeline.Batch, error) {
	for {
		if len(s.out) > 0 {
			b := s.out[0]
			s.out[0] = nil
			s.out = s.out[1:]
			return b, nil
		}
		if s.holding != nil {
			if err := s.held(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if s.watched {
			s.watched = s.fenced()
		}
		if len(s.over) > 0 {
			s.forget()
		}
		b, err := s.inner.Next(ctx)
		if err != nil {
			return nil, err
		}
		if !s.busy.Load() && len(b.Watermarks) == 0 && b.Kind == pipeline.BatchRows {
			return b, nil
		}
		s.take(b)
	}
}

// take looks at a batch of the stream: windows open before it, and close behind it.
func (s *stream) take(b *pipeline.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	marks := append([]pipeline.Watermark(nil), b.Watermarks...)
	clear(b.Watermarks)
	b.Watermarks = b.Watermarks[:0]
	for _, m := range marks {
		if f := s.fences[m.ID]; f != nil {
			f.met, s.watched = true, true
		}
		if w := s.marks[m.ID]; w != nil && w.low == m.ID && !w.opened {
			w.opened, w.past = true, s.history.next
			if w.whole != nil {
				w.whole.opened = true
			}
		}
	}
	touches := s.whole != nil && s.touches(b, s.whole.w.table.subject)
	s.record(b)
	s.remember()
	for _, m := range marks {
		if m.Position != "" {
			s.position = m.Position
		}
	}
	s.pass(b, touches)
	for _, m := range marks {
		w := s.marks[m.ID]
		delete(s.marks, m.ID)
		if w == nil || w.high != m.ID {
			continue
		}
		if w.whole != nil {
			w.whole.place(s)
		} else {
			s.closeWindow(w)
		}
	}
	s.deliverNotes()
}

// remember puts the marks of jobs whose tables have something more to be read, because of the batch that is to follow,
// before that batch: a crash must not fall between. The mutex is held.
func (s *stream) remember() {
	for _, j := range s.jobs {
		if j.grew && !j.ended {
			b := pipeline.NewBatch()
			b.Read, b.Snapshot = time.Now(), j.mark(pipeline.JobRunning, "")
			s.out = append(s.out, b)
		}
		j.grew = false
	}
}

// pass hands b out, or holds it back for a read that looks for its place. The mutex is held.
func (s *stream) pass(b *pipeline.Batch, touches bool) {
	s.out = append(s.out, s.dropped...)
	s.dropped = nil
	if h := s.whole; h != nil && h.opened && h.w.void == "" && !h.w.job.ended {
		h.keep(b, touches)
		return
	} else if h != nil {
		h.flush(s)
	}
	s.out = append(s.out, b)
}

// deliverNotes hands out the marks that belong to no chunk. The mutex is held.
func (s *stream) deliverNotes() {
	for _, n := range s.notes {
		if n.job.ended && !n.state.Ended() { // a later mark said more
			continue
		}
		b := pipeline.NewBatch()
		b.Read, b.Snapshot = time.Now(), n.job.mark(n.state, n.reason)
		s.out = append(s.out, b)
	}
	s.notes, s.nudged = nil, false
	s.jobs = deleteEnded(s.jobs)
	if len(s.jobs) == 0 && s.whole == nil && len(s.dropped) == 0 { // else newer batches would pass those that are kept
		s.busy.Store(false)
		s.settled = false
		s.history.forget()
	}
}

func deleteEnded(jobs []*job) []*job {
	kept := jobs[:0]
	for _, j := range jobs {
		if j.ended {
			j.stop()
			continue
		}
		kept = append(kept, j)
	}
	clear(jobs[len(kept):])
	return kept
}

// tables of all jobs that are being read under the name. The mutex is held.
func (s *stream) tables(subject string) (list []*table) {
	for _, j := range s.jobs {
		if t := j.named[subject]; t != nil && t.begun && !t.done() && !j.ended {
			list = append(list, t)
		}
	}
	return list
}

// record notes what the batch changes in the tables that are being read. The mutex is held.
func (s *stream) record(b *pipeline.Batch) {
	switch b.Kind {
	case pipeline.BatchAbort:
		s.over = append(s.over, b.Open)
		return
	case pipeline.BatchPrepared:
		s.recordPrepared(b)
		return
	case pipeline.BatchChunk:
		s.recordChunk(b)
		return
	case pipeline.BatchCommit:
		s.recordCommit(b)
		return
	}
	if !s.busy.Load() {
		return
	}
	for n, t := range b.Tables {
		for _, tb := range s.tables(t.Subject()) {
			s.recordTable(b, uint16(n), t, tb)
		}
	}
	if n := len(b.Txs); n > 0 && b.Txs[n-1].Position.Present() {
		s.position = string(b.Bytes(b.Txs[n-1].Position))
	}
	s.history.add(b, nil)
	s.bound()
}

func (s *stream) recordTable(b *pipeline.Batch, n uint16, t *schemas.Table, tb *table) {
	if tb.progress.Whole { // its place is found by whole transactions
		return
	}
	for i := range b.Events {
		e := &b.Events[i]
		if e.Table != n {
			continue
		}
		if !e.Op.Row() {
			tb.voidWindows(happened[e.Op])
			continue
		}
		c, ok := s.images.event(b, e, t)
		if !ok {
			tb.voidWindows("a row that cannot be told apart changed")
			continue
		}
		for _, w := range tb.windows {
			w.touch(t, &c)
		}
		if c.partial && c.base {
			if key, old, err := s.keys(t, &c); err != nil {
				tb.restart()
			} else if tb.lacks(old) {
				tb.readAgain(key)
			}
		}
	}
}

// keys returns the key of a row that changed, and the one that it had before; nil when that is the same or there was none.
func (s *stream) keys(t *schemas.Table, c *change) (key, old []byte, err error) {
	if key, err = s.db.Key(t, c.image); err == nil && c.old != nil {
		old, err = s.db.Key(t, c.from)
	}
	return key, old, err
}
