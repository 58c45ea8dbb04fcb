package disklog

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
	"github.com/leat-cdc/leat/schemas"
)

// writer owns the active segment: it writes and syncs groups and shows them to readers. Its fields belong
// to its goroutine (before that, to Open).
type writer struct {
	l  *Log
	st *state // as of the last block in the group

	seg    *segment
	pos    int64  // where the next group begins
	proven uint64 // everything below is synced
	epoch  uint64
	fresh  bool // the segment holds nothing but its catalog

	// The group that is being put together.
	pieces   [][]byte
	blocks   []written
	bytes    int64
	again    int64 // bytes of moved chunks in it
	slack    int64 // what the group may add to the footer
	batches  int
	has      map[versionKey]bool // schemas in the segment, the group's too
	relogged bool                // an item of schemas to be written again is in it

	memory []*chunk // chunks of open transactions that are still in memory, oldest first
	torn   bool     // a transaction began in an earlier segment: see untangle
}

// written is a block of the group, to be shown when it is synced.
type written struct {
	h   record.Header
	off int64
	it  item
	// table is set for schema blocks, tx for commits.
	table *schemas.Table
	tx    *openTx
	chunk *chunk
}

// nothing is no heap: what a program has there before it begins counts towards its first collection.
var nothing [1<<20 + diskfs.Page]byte

// zeros begin where a page does.
var zeros = nothing[-uintptr(unsafe.Pointer(&nothing))%diskfs.Page:][:1<<20]

func (w *writer) address() uint64 { return address(w.seg.seq, w.pos) }

// run takes what is queued, over and over, until the log is closed or fails.
func (w *writer) run() {
	defer close(w.l.writerDone)
	for {
		items, drain := w.take()
		if len(items) == 0 && drain {
			w.finish()
			return
		}
		if len(items) == 0 {
			<-w.l.work
			continue
		}
		if err := w.write(items); err != nil {
			w.l.fail(err)
			w.drop(items)
			return
		}
	}
}

func (w *writer) take() (items []item, drain bool) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	items, w.l.mu.queue = w.l.mu.queue, nil
	return items, w.l.mu.drain
}

// finish leaves a proof behind, so that damage to the last group is told from a torn tail.
func (w *writer) finish() {
	h := w.header(record.KindProof)
	w.pieces = append(w.pieces, record.AppendBlock(nil, nil, &h))
	w.bytes += int64(h.Size())
	if err := w.flush(); err != nil {
		w.l.fail(err)
	}
	w.drop(nil)
}

// drop gives back what the writer holds of batches that never become visible.
func (w *writer) drop(items []item) {
	for i := range w.blocks {
		w.blocks[i].it.release()
	}
	for _, c := range w.memory {
		if c.batch != nil {
			c.batch.Release()
			c.batch = nil
		}
	}
	for i := range items {
		items[i].release()
	}
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.l.mu.queued = 0
	w.l.makeRoom()
}

// write makes items durable, in one group where they fit one segment.
func (w *writer) write(items []item) error {
	for i := range items {
		if items[i].move > 0 {
			if err := w.move(items[i].move); err != nil {
				return err
			}
			continue
		}
		if err := w.untangle(); err != nil {
			return err
		}
		if b := items[i].b; b != nil && b.Kind == pipeline.BatchCommit {
			if err := w.gather(b.Open); err != nil {
				return err
			}
		}
		for {
			ok, err := w.add(&items[i])
			if err != nil {
				return err
			}
			if ok {
				break
			}
			if err := w.roll(); err != nil {
				return err
			}
		}
	}
	return w.flush()
}

func (w *writer) header(k record.Kind) record.Header {
	return record.Header{Kind: k, Epoch: w.epoch, Address: address(w.seg.seq, w.pos+w.bytes), Synced: w.proven, Base: w.st.next}
}

// add puts one item into the group; false when the segment has no room for it.
func (w *writer) add(it *item) (bool, error) {
	if it.b == nil {
		return w.addRelog(it)
	}
	b := it.b
	var tx *openTx
	ends := b.Kind == pipeline.BatchCommit || b.Kind == pipeline.BatchAbort
	if ends || b.Kind == pipeline.BatchPrepared {
		tx = w.st.ending(b.Open)
	}
	if it.head == nil {
		it.head = heads.Get().(*[]byte)
		if tx != nil && b.Kind != pipeline.BatchAbort {
			tx.leaveOut(it.cuts)
			tx.speaksOf(b)
		}
		var err error
		if *it.head, it.crc, it.payload, it.newest, err = record.AppendHead((*it.head)[:0], b, tx.refs()); err != nil {
			return false, err
		}
	}
	shapes, need, err := w.missing(b.Tables)
	if err != nil {
		return false, err
	}
	block := int64(record.Padded(record.HeaderSize + it.payload))
	slack := 2*20 + int64(len(b.Tables))*32 + (block+need)/indexStep*20
	if !w.fits(need+block, slack) {
		return false, nil
	}
	w.slack += slack
	for _, sh := range shapes {
		w.addSchema(sh.payload, sh.table)
	}
	w.addBatch(it, tx)
	return true, nil
}

// fits reports whether the group may grow by n bytes of blocks; an empty segment takes anything.
func (w *writer) fits(n, slack int64) bool {
	if w.fresh && w.bytes == 0 {
		return true
	}
	footer := int64(w.seg.index.footerSize()) + w.slack + slack
	return w.pos+w.bytes+n+footer <= w.seg.size
}

// shape is a schema that has to be written.
type shape struct {
	table   *schemas.Table
	payload []byte
}

// missing encodes the schemas among tables that the segment lacks; need is the size of their blocks.
func (w *writer) missing(tables []*schemas.Table) (shapes []shape, need int64, err error) {
	for i, t := range tables {
		if w.has[versionKey{t.ID, t.Version}] || repeated(tables, i) {
			continue
		}
		p, err := record.AppendSchema(nil, t)
		if err != nil {
			return nil, 0, err
		}
		shapes = append(shapes, shape{t, p})
		need += int64(record.Padded(record.HeaderSize + len(p)))
	}
	return shapes, need, nil
}

// repeated reports whether an earlier entry is the same version by another pointer.
func repeated(tables []*schemas.Table, i int) bool {
	for _, t := range tables[:i] {
		if t.ID == tables[i].ID && t.Version == tables[i].Version {
			return true
		}
	}
	return false
}

func (w *writer) addSchema(payload []byte, t *schemas.Table) {
	t = w.l.tables.intern(t)
	h := w.header(record.KindSchema)
	w.pieces = append(w.pieces, record.AppendBlock(nil, payload, &h))
	w.blocks = append(w.blocks, written{h: h, off: w.pos + w.bytes, table: t})
	w.has[versionKey{t.ID, t.Version}] = true
	w.st.schema(t, h.Address)
	w.bytes += int64(h.Size())
}

func (w *writer) addBatch(it *item, tx *openTx) {
	b := it.b
	h := w.header(record.KindOf(b))
	h.Events, h.Ticket, h.Time, h.Version = it.events, it.ticket, it.newest, record.FormatOf(b, nil)
	if len(it.cuts) > 0 {
		h.Version = record.FormatOf(b, tx.refs())
	}
	if b.Kind != pipeline.BatchChunk {
		h.Base = it.base
	}
	record.Finish(*it.head, &h, it.crc, it.payload)
	w.pieces = append(w.pieces, *it.head)
	if len(b.Arena) > 0 {
		w.pieces = append(w.pieces, b.Arena)
	}
	if pad := h.Size() - h.Length - h.Payload; pad > 0 {
		w.pieces = append(w.pieces, zeros[:pad])
	}
	wr := written{h: h, off: w.pos + w.bytes, it: *it, tx: tx}
	w.st.ticket = it.ticket
	if b.Kind == pipeline.BatchChunk {
		wr.chunk = &chunk{Chunk: record.Chunk{Address: h.Address, Events: h.Events}, tables: append([]*schemas.Table(nil), b.Tables...), batch: b, size: size(b)}
		w.st.tx(b.Open).add(wr.chunk, int64(h.Size()))
		wr.it.b = nil // the chunk's now
		w.memory = append(w.memory, wr.chunk)
	} else {
		if tx != nil && b.Kind != pipeline.BatchPrepared && tx.first > 0 && tx.first < w.seg.seq {
			w.torn = true
		}
		if b.Kind == pipeline.BatchPrepared {
			tx.first = tx.lowest()
		}
		w.st.close(b.Kind, b.Open, tx)
		w.st.next = it.base + pipeline.Offset(it.events)
		if !b.End.Zero() {
			w.st.last = b.End
		}
		for _, n := range b.Notices {
			w.st.notice(n)
		}
		w.st.change(it.base, b.Ranges)
		w.st.mark(b)
	}
	w.blocks = append(w.blocks, wr)
	w.bytes += int64(h.Size())
	w.batches++
	it.b, it.head = nil, nil
}

// size is what a batch weighs in the ring.
func size(b *pipeline.Batch) int64 { return int64(b.Size()) + 512 }

// addRelog writes schemas again whose last copy is about to go.
func (w *writer) addRelog(it *item) (bool, error) {
	for len(it.relog) > 0 {
		t := w.st.tables[it.relog[0]].table
		k := versionKey{t.ID, t.Version}
		if seq, _ := split(w.st.tables[t.ID].address); seq != w.seg.seq {
			p, err := record.AppendSchema(nil, t)
			if err != nil {
				return false, err
			}
			if !w.fits(int64(record.Padded(record.HeaderSize+len(p))), 12) {
				return false, nil
			}
			w.slack += 12
			delete(w.has, k)
			w.addSchema(p, t)
		}
		it.relog = it.relog[1:]
	}
	w.relogged = true
	return true, nil
}

// flush writes and syncs the group and shows it.
func (w *writer) flush() error {
	if w.bytes > 0 {
		begun := time.Now()
		// With the rest of its last page the group needs nothing that is there: else the system reads that first.
		end := w.pos + w.bytes
		if pad := -end & (diskfs.Page - 1); pad > 0 && end+pad <= w.seg.size {
			w.pieces = append(w.pieces, zeros[:pad])
		}
		if err := w.put(w.pieces, w.pos); err != nil {
			return err
		}
		if err := w.seg.file.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w; nothing in it is trusted beyond what was synced before: the log has to be opened again", w.seg.name, err)
		}
		w.pos += w.bytes
		w.proven = w.address()
		n, bytes := w.batches, int(w.bytes)
		w.publish()
		if n > 0 {
			w.l.opt.Observer.Synced(w.l.opt.Source, n, bytes, time.Since(begun))
		}
	}
	if w.relogged {
		w.relogged = false
		w.l.mu.Lock()
		w.l.mu.relogging = false
		w.l.mu.Unlock()
		poke(w.l.prepare)
	}
	clear(w.pieces)
	w.pieces, w.blocks = w.pieces[:0], w.blocks[:0]
	w.bytes, w.slack, w.batches = 0, 0, 0
	return nil
}

const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// put writes, and while the disk is full tries again until there is space or the log is closed. Writing
// the same bytes to the same place again is harmless: nobody was shown them.
func (w *writer) put(pieces [][]byte, off int64) error {
	full := false
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := w.seg.file.WriteVec(pieces, off)
		if err == nil {
			break
		}
		if !diskfs.NoSpace(err) {
			return fmt.Errorf("write %s: %w", w.seg.name, err)
		}
		if !full {
			full = true
			w.l.opt.Observer.LogFull(w.l.opt.Source, true)
		}
		if !w.l.pause(pause) {
			return errors.Join(errDropped, err)
		}
	}
	if full {
		w.l.opt.Observer.LogFull(w.l.opt.Source, false)
	}
	return nil
}

// pause waits; false when the log is being closed.
func (l *Log) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.stop.Done():
		return false
	}
}
