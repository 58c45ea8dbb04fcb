package snapshot

import (
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// mostTouched is how many rows may change within a window.
const mostTouched = 100_000

// batchBytes is the size at which a batch of rows is cut.
const batchBytes = 1 << 20

// What the stream did to a row within a window.
const (
	touchedWhole   = 1 << iota // the event holds all of the row, or its end
	touchedPartial             // the event lacks columns
)

// window is a chunk on its way: what the stream brings of its table from the batch with low to the batch with high
// is newer than what was read. The stream's mutex guards it.
type window struct {
	job    *job
	table  *table
	seg    *segment // what is read, or
	keys   [][]byte // the rows that are
	whole  *whole   // or all
	number uint64
	// low and high are the watermarks' ids.
	low, high string
	opened    bool
	closed    bool
	past      uint64 // history's number when it was opened
	void      string // why the chunk has to be read again
	crowded   bool   // … namely since too much changed
	touched   map[string]byte
	shape     *schemas.Table // of the rows that changed
	chunk     *Chunk
	at        time.Time // when it was read
}

// touch notes a change.
func (w *window) touch(t *schemas.Table, c *change) {
	if !w.opened || w.void != "" {
		return
	}
	w.shape = t
	if w.touched == nil {
		w.touched = map[string]byte{}
	}
	c.into(w.touched)
	w.crowd()
}

// touchAll notes what a transaction did that was open until now.
func (w *window) touchAll(d *doings) {
	if !w.opened || w.void != "" {
		return
	}
	if d.shape != nil { // else known by a mark alone, and the rows' identity is compared all the same
		w.shape = d.shape
	}
	if w.touched == nil {
		w.touched = map[string]byte{}
	}
	for key, how := range d.rows {
		w.touched[key] |= how
	}
	w.crowd()
}

// crowd bounds the rows that changed.
func (w *window) crowd() {
	if len(w.touched) > mostTouched {
		w.void, w.crowded, w.touched = "too many of its rows changed meanwhile", true, nil
	}
}

// voidWindows has the chunks that are on their way read again.
func (t *table) voidWindows(why string) {
	for _, w := range t.windows {
		if w.opened && w.whole == nil {
			w.void = why
		}
	}
}

// register opens a window for the table. The mutex is held.
func (s *stream) register(w *window) {
	s.numbers++
	w.number = s.numbers
	w.low = s.watermark()
	s.windows = append(s.windows, w)
	w.table.windows = append(w.table.windows, w)
	w.table.begun = true
	s.slots--
}

// unregister takes the window away. The mutex is held.
func (s *stream) unregister(w *window) {
	if w.closed {
		return
	}
	w.closed = true
	delete(s.marks, w.low)
	delete(s.marks, w.high)
	same := func(o *window) bool { return o == w }
	s.windows = slices.DeleteFunc(s.windows, same)
	w.table.windows = slices.DeleteFunc(w.table.windows, same)
	s.slots++
	s.change()
}

// closeWindow puts the rows of a chunk into the stream, where its high watermark stands. The mutex is held.
func (s *stream) closeWindow(w *window) {
	s.check(w)
	s.unregister(w)
	switch {
	case w.job.ended || w.table.done():
	case w.void != "":
		s.again(w)
	default:
		w.table.times = 0
		s.emit(w)
	}
	s.giveBack(w.chunk)
	w.chunk = nil
}

// check finds out whether the chunk may be used. The mutex is held.
func (s *stream) check(w *window) {
	s.review()
	switch {
	case w.void != "":
	case !w.opened:
		w.void = "its low watermark did not come"
	case w.shape != nil && w.whole == nil && !sameShape(w.shape, w.chunk.Shape):
		w.void = "the table's shape changed"
	}
}

// again has a window's rows read again, after a while. The mutex is held.
func (s *stream) again(w *window) {
	t := w.table
	t.not = time.Now().Add(t.delay())
	if w.crowded {
		t.sizer.smaller()
	}
	s.putBack(w)
	if t.times == 8 && !w.job.ended { // some 25 seconds
		s.note(w.job, pipeline.JobRunning, t.subject+" is read again: "+w.void)
	}
	s.change()
}

// putBack gives back what the window was to read. The mutex is held.
func (s *stream) putBack(w *window) {
	t := w.table
	if w.seg != nil {
		w.seg.busy = false
	}
	for _, k := range w.keys {
		delete(t.flying, string(k))
		if !t.done() {
			t.again[string(k)] = true
		}
	}
	if w.whole != nil {
		t.reading = false
	}
}

// emit makes batches of the rows that the stream did not overtake. The mutex is held.
func (s *stream) emit(w *window) {
	t, c := w.table, w.chunk
	var b *pipeline.Batch
	for i := range c.Rows {
		image := c.Row(i)
		switch s.overtaken(w, image) {
		case touchedWhole:
			t.progress.Overtaken++
			continue
		case touchedPartial, touchedPartial | touchedWhole:
			if key, err := s.db.Key(c.Shape, image); err == nil {
				t.readAgain(key)
			} else {
				t.restart()
			}
			continue
		}
		if b == nil {
			b = s.rows(w)
		}
		addRow(b, t, image)
		if len(b.Arena) >= s.cfg.batch && i < len(c.Rows)-1 {
			if key, err := s.db.Key(c.Shape, image); err == nil && w.seg != nil {
				w.seg.after = key
			}
			s.hand(b, w)
			b = nil
		}
	}
	if b == nil {
		b = s.rows(w)
	}
	t.open = slices.DeleteFunc(t.open, func(o *segment) bool { return o == w.seg })
	for _, k := range w.keys {
		delete(t.flying, string(k))
	}
	t.settle()
	s.hand(b, w)
}

func (s *stream) overtaken(w *window, image []byte) byte {
	if len(w.touched) == 0 {
		return 0
	}
	key, ok := s.images.row(w.chunk.Shape, image)
	if !ok {
		return touchedPartial
	}
	return w.touched[string(key)]
}

// rows begins a batch of the window's rows.
func (s *stream) rows(w *window) *pipeline.Batch {
	b := pipeline.NewBatch()
	b.Read = time.Now()
	if w.chunk == nil || len(w.chunk.Rows) == 0 {
		return b
	}
	b.Room(min(len(w.chunk.Arena), batchBytes)+64, min(len(w.chunk.Rows), 8192))
	b.Tables = append(b.Tables, w.chunk.Shape)
	b.Txs = append(b.Txs, pipeline.Tx{ID: pipeline.Nowhere, Position: b.PutString(s.position), Time: w.at.UnixMicro(), Ends: true})
	return b
}

func addRow(b *pipeline.Batch, t *table, image []byte) {
	b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpSnapshot, Key: pipeline.Nowhere, Before: pipeline.Nowhere, After: b.Put(image)})
	t.progress.Rows++
	t.progress.Bytes += uint64(len(image))
}

// hand hands out a batch of rows with the job's mark. The mutex is held.
func (s *stream) hand(b *pipeline.Batch, w *window) {
	if len(b.Events) == 0 {
		b.Txs, b.Tables = b.Txs[:0], b.Tables[:0]
	}
	b.Snapshot = w.job.mark(pipeline.JobRunning, "")
	s.out = append(s.out, b)
	s.change()
}

// chunk returns one to read into. The mutex is held.
func (s *stream) takeChunk() *Chunk {
	if n := len(s.free); n > 0 {
		c := s.free[n-1]
		s.free = s.free[:n-1]
		c.Reset()
		return c
	}
	return &Chunk{}
}

// giveBack keeps a chunk's memory for the next one. The mutex is held.
func (s *stream) giveBack(c *Chunk) {
	if c != nil && len(s.free) < 2*s.cfg.Workers && cap(c.Arena) <= 2*chunkBytes {
		s.free = append(s.free, c)
	}
}
