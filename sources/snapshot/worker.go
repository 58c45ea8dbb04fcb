package snapshot

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// mostKeys is how many single rows are read at once.
const mostKeys = 500

// worker reads, one thing after the other, over a connection of its own.
type worker struct {
	s       *stream
	session Session
}

func (s *stream) work(ctx context.Context) {
	w := &worker{s: s}
	defer w.leave()
	for {
		j, win := s.task(ctx)
		if j == nil {
			return
		}
		began := time.Now()
		var err error
		switch {
		case win == nil:
			err = w.load(j)
		case win.whole != nil:
			err = w.readWhole(win)
		default:
			err = w.read(win)
		}
		if err != nil {
			s.failed(j, win, err)
			var te *TableError
			if !errors.As(err, &te) {
				w.leave()
			}
			continue
		}
		s.pause(ctx, j, time.Since(began))
	}
}

// leave ends the connection: another is made when there is something to read.
func (w *worker) leave() {
	if w.session != nil {
		_ = w.session.Close() // of no more use, whatever it says
		w.session = nil
	}
}

// task waits for something to do: a job whose tables are to be listed (window nil), or a window. It is nil when ctx
// has ended.
func (s *stream) task(ctx context.Context) (*job, *window) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		s.mu.Lock()
		now := time.Now()
		soon := now.Add(time.Hour)
		for _, j := range s.jobs {
			if j.ended || j.ratio <= 0 || j.busy || later(j.not, now, &soon) {
				continue
			}
			if !j.loaded {
				j.busy = true
				s.mu.Unlock()
				return j, nil
			}
			if s.slots <= 0 || s.whole != nil {
				continue
			}
			w, alone := s.windowOf(j, now, &soon)
			if alone { // when the others have closed
				break
			}
			if w != nil {
				s.register(w)
				// The next task is another job's, if it has one.
				s.jobs = append(slices.DeleteFunc(s.jobs, func(o *job) bool { return o == j }), j)
				s.mu.Unlock()
				return j, w
			}
		}
		changed := s.changed
		s.mu.Unlock()
		timer.Reset(time.Until(soon))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
	}
	return nil, nil
}

// later reports whether at is still to come, and then is the next to be looked at.
func later(at, now time.Time, soon *time.Time) bool {
	if !at.After(now) {
		return false
	}
	if at.Before(*soon) {
		*soon = at
	}
	return true
}

// windowOf finds something of the job to read; alone says that there is something which bears no other window beside
// it: what that holds back of the stream, rows of chunks must not overtake. The mutex is held.
func (s *stream) windowOf(j *job, now time.Time, soon *time.Time) (w *window, alone bool) {
	for _, t := range j.tables {
		if t.done() || later(t.not, now, soon) {
			continue
		}
		if t.progress.Whole {
			if len(s.windows) > 0 {
				return nil, true
			}
			t.reading = true
			w := &window{job: j, table: t}
			w.whole = newWhole(w)
			s.whole = w.whole
			return w, false
		}
		if w := t.window(); w != nil {
			return w, false
		}
	}
	return nil, false
}

// window takes single rows and pieces in turn: one must not keep the other from its end.
func (t *table) window() *window {
	seg := slices.IndexFunc(t.open, func(g *segment) bool { return !g.busy })
	if seg >= 0 && (t.turn || len(t.again) == 0) {
		t.turn, t.open[seg].busy = false, true
		return &window{job: t.job, table: t, seg: t.open[seg]}
	}
	if len(t.again) == 0 {
		return nil
	}
	t.turn = true
	w := &window{job: t.job, table: t}
	for k := range t.again {
		if len(w.keys) == mostKeys {
			break
		}
		w.keys = append(w.keys, []byte(k))
		delete(t.again, k)
		t.flying[k] = true
	}
	return w
}

// load lists the job's tables.
func (w *worker) load(j *job) error {
	s := w.s
	all, err := s.db.Tables(j.ctx, j.Tables)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j.busy, j.times = false, 0
	j.load(all, func(t Table) *table { return s.newTable(j, t) })
	if len(j.tables) == 0 {
		s.finish(j, pipeline.JobFailed, "no table of the source is named so: "+list(j.Tables))
		return nil
	}
	s.note(j, pipeline.JobRunning, "") // all may be done
	return nil
}

func list(names []string) string {
	text := ""
	for i, n := range names {
		if i > 0 {
			text += ", "
		}
		text += n
	}
	return text
}

func (s *stream) newTable(j *job, t Table) *table {
	return &table{
		Table: t, job: j, subject: schemas.Subject(t.Schema, t.Name), open: []*segment{{}}, again: map[string]bool{}, flying: map[string]bool{}, turn: true,
		sizer:    newSizer(&s.cfg, t.Width),
		progress: pipeline.TableProgress{Table: schemas.Subject(t.Schema, t.Name), Estimate: t.Estimate, Whole: len(t.Key) == 0},
	}
}

// watermark returns the id of a new one. The mutex is held.
func (s *stream) watermark() string {
	s.marked++
	return s.name + "." + strconv.FormatUint(s.marked, 10)
}

// open makes sure of the connection and of what stood in the log before the history began.
func (w *worker) open(ctx context.Context) (err error) {
	s := w.s
	if w.session == nil {
		if w.session, err = s.db.Session(ctx); err != nil {
			w.session = nil
			return err
		}
	}
	s.mu.Lock()
	if s.history.lost {
		s.history.forget()
		s.settled = false
		for _, o := range s.windows {
			o.void = "more happened meanwhile than is remembered"
		}
	}
	settled := s.settled
	s.mu.Unlock()
	if settled {
		return nil
	}
	if d, ok := s.db.(Settler); ok {
		if err := d.Settle(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.settled = !s.history.lost
	s.mu.Unlock()
	return nil
}

// low writes the window's low watermark.
func (w *worker) low(win *window) error {
	if err := w.open(win.job.ctx); err != nil {
		return err
	}
	w.s.mu.Lock()
	w.s.marks[win.low] = win
	w.s.mu.Unlock()
	if h, ok := w.s.db.(Hurrier); ok {
		return h.MarkSoon(win.job.ctx, win.low)
	}
	return w.s.db.Mark(win.job.ctx, win.low)
}

// read reads a chunk between two watermarks. What becomes of it is seen when the second one comes in the stream.
func (w *worker) read(win *window) error {
	s, ctx, t := w.s, win.job.ctx, win.table
	s.mu.Lock()
	c := s.takeChunk()
	q := Query{Table: t.Table, Where: win.job.Where, Limit: t.sizer.limit, Bytes: chunkBytes, Keys: win.keys}
	if win.seg != nil {
		q.After, q.Until = win.seg.after, win.seg.until
	}
	s.mu.Unlock()
	if win.seg != nil && win.seg.until == nil && s.cfg.Workers > 1 {
		if err := w.scout(win, q, c); err != nil {
			return err
		}
		q.Until = win.seg.until
		c.Reset()
	}
	if win.keys != nil {
		q.Limit = len(win.keys)
	}
	if err := w.low(win); err != nil {
		return err
	}
	began := time.Now()
	if err := w.session.Read(ctx, q, c); err != nil {
		return err
	}
	took := time.Since(began)
	read, err := w.cutKeys(win, c)
	if err != nil {
		return err
	}
	var last []byte
	if c.More && len(c.Rows) > 0 {
		if last, err = s.db.Key(c.Shape, c.Row(len(c.Rows)-1)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	if win.seg != nil {
		t.sizer.took(len(c.Rows), took, c.More && len(c.Rows) < q.Limit)
		if last != nil {
			t.split(win.seg, last)
			s.change()
		}
	} else {
		win.keys = t.cut(win.keys, read)
	}
	win.chunk, win.at, win.high = c, began, s.watermark()
	s.marks[win.high] = win
	s.mu.Unlock()
	return s.db.Mark(ctx, win.high)
}

// cutKeys returns which of the window's single rows were read before their bytes ended the reading; nil: all.
func (w *worker) cutKeys(win *window, c *Chunk) (map[string]bool, error) {
	if !c.More || len(c.Rows) >= len(win.keys) {
		return nil, nil
	}
	read := make(map[string]bool, len(c.Rows))
	for i := range c.Rows {
		key, err := w.s.db.Key(c.Shape, c.Row(i))
		if err != nil {
			return nil, err
		}
		read[string(key)] = true
	}
	return read, nil
}

// cut returns those of keys that were read, all if read is nil; the others wait again.
func (t *table) cut(keys [][]byte, read map[string]bool) [][]byte {
	if read == nil {
		return keys
	}
	kept := keys[:0]
	for _, k := range keys {
		if read[string(k)] {
			kept = append(kept, k)
			continue
		}
		delete(t.flying, string(k))
		if !t.done() {
			t.again[string(k)] = true
		}
	}
	return kept
}

// scout ends the window's piece where its rows will end, so that others go on behind it at once.
func (w *worker) scout(win *window, q Query, c *Chunk) error {
	if err := w.open(win.job.ctx); err != nil {
		return err
	}
	q.Scout = true
	if err := w.session.Read(win.job.ctx, q, c); err != nil {
		return err
	}
	if len(c.Rows) == 0 {
		return nil
	}
	key, err := w.s.db.Key(c.Shape, c.Row(0))
	if err != nil {
		return err
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	win.table.split(win.seg, key)
	w.s.change()
	return nil
}

// split ends a piece at key; what is behind it is for whoever comes.
func (t *table) split(seg *segment, key []byte) {
	i := slices.Index(t.open, seg)
	if i < 0 { // the table was begun anew
		return
	}
	t.open = slices.Insert(t.open, i+1, &segment{after: key, until: seg.until})
	seg.until = key
}

// failed says what an error means for the table or the job.
func (s *stream) failed(j *job, win *window, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.busy = false
	var te *TableError
	var se *pipeline.SourceError
	table := errors.As(err, &te)
	if win != nil && win.closed && !table { // nobody waits for it, or the stream has seen to it
		return
	}
	if win != nil && !win.closed {
		s.unregister(win)
		s.putBack(win)
		if s.whole == win.whole && win.whole != nil {
			s.whole = nil
			for _, k := range win.whole.kept {
				s.dropped = append(s.dropped, k.b)
			}
			win.whole.kept = nil
			s.change()
		}
	}
	if j.ctx.Err() != nil || j.ended {
		return
	}
	switch {
	case win != nil && table:
		win.table.fault(te)
		s.note(j, pipeline.JobRunning, "")
	case errors.As(err, &se) && se.Class == pipeline.Stopped || table:
		s.finish(j, pipeline.JobFailed, err.Error())
	default:
		j.not = time.Now().Add(j.delay())
		if j.times == 3 {
			s.note(j, pipeline.JobRunning, err.Error())
		}
		s.change()
	}
}

// pause rests after a chunk that took d, as long as the job's pace asks for.
func (s *stream) pause(ctx context.Context, j *job, d time.Duration) {
	from := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.mu.Lock()
		j.times = 0
		ratio := j.ratio
		if !s.cfg.Max {
			ratio *= gentle
		}
		changed, ended := s.changed, j.ended
		s.mu.Unlock()
		left := time.Until(from.Add(rest(d, ratio)))
		if left <= 0 || ended {
			return
		}
		timer.Reset(left)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-changed:
		}
	}
}

// errands writes watermarks when marks wait for a batch to stand behind.
func (s *stream) errands(ctx context.Context) {
	for tries := (trouble{}); ; {
		s.mu.Lock()
		changed, id := s.changed, ""
		if len(s.notes)+len(s.dropped) > 0 && !s.nudged {
			s.nudged, id = true, s.watermark()
		}
		s.mu.Unlock()
		var wait <-chan time.Time
		if id != "" {
			if err := s.db.Mark(ctx, id); err != nil {
				s.mu.Lock()
				s.nudged = false
				s.mu.Unlock()
				wait, changed = time.After(tries.delay()), nil
			} else {
				tries = trouble{}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-wait:
		}
	}
}
