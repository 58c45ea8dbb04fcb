package snapshot

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// mostKept is how much of the stream may wait for a read of a table without a key to find its place.
const mostKept = 64 << 20

// firstRows are read of a table without a key while its place is not found.
const firstRows = 100

// patience is how long the stream stands while the rows that it waits for may not be read.
const patience = time.Minute

var errHeld = errors.New("its job was held for " + patience.String() + " in the middle of its one read, for which the stream waits")

// whole is the read of a table without a key: all of it in one consistent read. Rows of such a table cannot be told
// apart, so that none may be there twice: what the stream brings between the watermarks around the read's beginning is
// kept, the rows are put behind the last transaction that the read saw, and what is kept and the rest of the stream
// wait until all of them are there.
type whole struct {
	w      *window
	opened bool // the stream has brought low
	kept   []kept
	bytes  int
	answer chan bool // whether the place was found
	parts  chan part
	rest   []*pipeline.Batch // what follows the rows
}

// kept is a batch of the stream; touches says of a commit whether its chunks touched the table.
type kept struct {
	b       *pipeline.Batch
	touches bool
}

// part is a piece of the rows. last: there are no more; err, because of this.
type part struct {
	chunk *Chunk
	last  bool
	err   error
}

func newWhole(w *window) *whole {
	return &whole{w: w, answer: make(chan bool, 1), parts: make(chan part)}
}

// keep holds a batch back. The stream's mutex is held.
func (h *whole) keep(b *pipeline.Batch, touches bool) {
	h.kept = append(h.kept, kept{b, touches})
	if h.bytes += b.Size(); h.bytes > mostKept {
		h.w.void = "too much was written meanwhile"
	}
}

// flush hands out what is held back. The stream's mutex is held.
func (h *whole) flush(s *stream) {
	for _, k := range h.kept {
		s.out = append(s.out, k.b)
	}
	h.kept = nil
}

// touches reports whether the commit's chunks touched the table. The mutex is held.
func (s *stream) touches(b *pipeline.Batch, subject string) bool {
	if b.Kind != pipeline.BatchCommit {
		return false
	}
	u := s.opens[b.Open]
	return u == nil || u.tables[subject] != nil
}

// place finds where the rows belong. The stream's mutex is held.
func (h *whole) place(s *stream) {
	w := h.w
	s.check(w)
	at := 0
	if w.void == "" {
		at, w.void = h.where()
	}
	if w.job.ended || w.table.done() || w.void != "" {
		h.flush(s)
		s.whole = nil
		s.unregister(w)
		if !w.job.ended {
			s.again(w)
		}
		h.answer <- false
		return
	}
	for _, k := range h.kept[:at] {
		s.out = append(s.out, k.b)
	}
	for _, k := range h.kept[at:] {
		h.rest = append(h.rest, k.b)
	}
	h.kept = nil
	s.holding = h
	h.answer <- true
}

// where returns how many of the kept batches stand before the rows, or why that is not known.
func (h *whole) where() (at int, why string) {
	const busy = "the table changed all the time"
	subject, unseen := h.w.table.subject, h.w.chunk.Unseen
	if h.w.chunk.Unsure {
		unseen = nil
	}
	at = len(h.kept)
	for i, k := range h.kept {
		for n := range k.b.Txs {
			if !k.touches && !touchesTable(k.b, n, subject) {
				continue
			}
			switch {
			case unseen == nil:
				return 0, busy
			case unseen(k.b.Bytes(k.b.Txs[n].ID)):
				if at == len(h.kept) && n > 0 && someTouch(k.b, n, subject) { // seen and unseen ones in one batch
					return 0, busy
				}
				at = min(at, i)
			case at < len(h.kept):
				return 0, busy
			}
		}
	}
	return at, ""
}

func touchesTable(b *pipeline.Batch, n int, subject string) bool {
	end := len(b.Events)
	if n+1 < len(b.Txs) {
		end = int(b.Txs[n+1].First)
	}
	if b.Kind == pipeline.BatchChunk {
		return false
	}
	for i := int(b.Txs[n].First); i < end; i++ {
		if t := b.TableOf(i); t != nil && t.Subject() == subject {
			return true
		}
	}
	return false
}

// someTouch reports whether one of the first n transactions touches the table.
func someTouch(b *pipeline.Batch, n int, subject string) bool {
	for i := range n {
		if touchesTable(b, i, subject) {
			return true
		}
	}
	return false
}

// held hands out the rows while the stream waits.
func (s *stream) held(ctx context.Context) error {
	h := s.holding
	var p part
	select {
	case p = <-h.parts:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return pipeline.ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w, t := h.w, h.w.table
	if p.chunk != nil && !w.job.ended {
		w.chunk = p.chunk
		var b *pipeline.Batch
		for i := range p.chunk.Rows {
			if b == nil {
				b = s.rows(w)
			}
			addRow(b, t, p.chunk.Row(i))
			if len(b.Arena) >= s.cfg.batch {
				s.hand(b, w)
				b = nil
			}
		}
		if b != nil {
			s.hand(b, w)
		}
		s.giveBack(p.chunk)
		w.chunk = nil
	}
	if !p.last {
		return nil
	}
	s.holding, s.whole = nil, nil
	s.unregister(w)
	switch {
	case w.job.ended:
		s.putBack(w)
	case p.err != nil:
		w.void = p.err.Error()
		s.again(w)
	default:
		t.open = nil
		t.settle()
		s.hand(s.rows(w), w)
	}
	s.out = append(s.out, h.rest...)
	h.rest = nil
	s.deliverNotes()
	return nil
}

// readWhole reads a table without a key.
func (w *worker) readWhole(win *window) error {
	s, ctx, t, h := w.s, win.job.ctx, win.table, win.whole
	if cutter, ok := s.inner.(Cutter); ok {
		cutter.Cut(true)
		defer cutter.Cut(false)
	}
	s.mu.Lock()
	c := s.takeChunk()
	t.progress.Rows, t.progress.Bytes = 0, 0 // an earlier attempt's
	s.mu.Unlock()
	if err := w.low(win); err != nil {
		return err
	}
	q := Query{Table: t.Table, Where: win.job.Where, Limit: min(firstRows, t.sizer.limit), Bytes: chunkBytes}
	if err := w.session.Read(ctx, q, c); err != nil {
		return err
	}
	s.mu.Lock()
	win.chunk, win.at, win.high = c, time.Now(), s.watermark()
	s.marks[win.high] = win
	s.mu.Unlock()
	err := s.db.Mark(ctx, win.high)
	if err == nil {
		select {
		case ok := <-h.answer:
			if !ok {
				return nil
			}
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		return w.abandon(win, err)
	}
	if cutter, ok := s.inner.(Cutter); ok {
		cutter.Cut(false)
	}
	return w.pour(win, q, c)
}

// abandon gives the read up: the watermark may have come all the same, and the stream then waits for rows.
func (w *worker) abandon(win *window, err error) error {
	s := w.s
	s.mu.Lock()
	placed := s.holding == win.whole
	if !placed {
		delete(s.marks, win.high)
	}
	s.mu.Unlock()
	if placed {
		win.whole.send(s, part{last: true, err: err})
	}
	return err
}

// pour hands over all of the rows, beginning with those of c.
func (w *worker) pour(win *window, q Query, c *Chunk) (err error) {
	s, ctx, h := w.s, win.job.ctx, win.whole
	q.Rest = true
	for more := c.More; ; more = c.More {
		if !h.send(s, part{chunk: c, last: !more}) {
			return s.ctx.Err()
		}
		if !more {
			return nil
		}
		s.mu.Lock()
		c = s.takeChunk()
		q.Limit = win.table.sizer.limit
		s.mu.Unlock()
		began := time.Now()
		if err = w.session.Read(ctx, q, c); err != nil {
			h.send(s, part{last: true, err: err})
			return err
		}
		s.mu.Lock()
		win.table.sizer.took(len(c.Rows), time.Since(began), c.More && len(c.Rows) < q.Limit)
		s.mu.Unlock()
		s.pause(ctx, win.job, time.Since(began))
		if err = s.stands(ctx, win.job); err != nil {
			h.send(s, part{last: true, err: err})
			return err
		}
	}
}

// stands waits while the job may not read, but not for long. Another job whose turn it is waits for this one.
func (s *stream) stands(ctx context.Context, j *job) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		s.mu.Lock()
		may := j.ended || slices.ContainsFunc(s.jobs, func(o *job) bool { return o.ratio > 0 })
		changed := s.changed
		s.mu.Unlock()
		if may {
			return nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return errHeld
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send hands a part to Next; false when the stream is closed.
func (h *whole) send(s *stream, p part) bool {
	select {
	case h.parts <- p:
		return true
	case <-s.ctx.Done():
		return false
	}
}
