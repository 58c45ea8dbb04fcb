package disklog

import (
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

// publish shows the synced group to readers and to those who wait for its tickets.
func (w *writer) publish() {
	l := w.l
	var drop []*pipeline.Batch
	l.mu.Lock()
	for i := range w.blocks {
		drop = w.show(&w.blocks[i], drop)
	}
	w.seg.end = w.pos
	w.seg.again += w.again
	w.again = 0
	w.seg.size = max(w.seg.size, w.pos)
	l.mu.synced = pipeline.Synced{Ticket: w.st.ticket, Next: w.st.next, End: w.st.last}
	l.mu.notices, l.mu.ranges, l.mu.marks, l.mu.waiting = w.st.notices, w.st.ranges, w.st.marks, w.st.waiting()
	l.mu.pins = w.pins()
	if l.mu.ring.empty() {
		l.mu.ring.reset(w.address(), w.st.next)
	}
	drop = w.evict(drop)
	if l.mu.prepared == nil && l.mu.want == 0 && w.pos >= w.seg.size/4 {
		l.mu.want = l.nextSize(w.seg.size)
		poke(l.prepare)
	}
	l.wakeAll()
	l.makeRoom()
	l.mu.Unlock()
	release(drop)
	for i := range w.blocks {
		w.blocks[i].it.b = nil
		w.blocks[i].it.release()
	}
	clear(w.blocks)
	if w.batches > 0 {
		w.fresh = false
	}
}

// show makes one block visible. l.mu is held; drop collects batches to release without it.
func (w *writer) show(wr *written, drop []*pipeline.Batch) []*pipeline.Batch {
	l, x := w.l, w.seg.index
	if t := wr.table; t != nil {
		x.schema(t.ID, t.Version, wr.off)
		l.mu.tables[t.ID] = w.st.tables[t.ID] // as of the group's end
		return drop
	}
	l.mu.queued -= wr.it.bytes
	if c := wr.chunk; c != nil {
		l.mu.ring.pending += c.size
		return drop
	}
	b := wr.it.b
	next := place{address: wr.h.Address + uint64(wr.h.Size())}
	switch b.Kind {
	case pipeline.BatchPrepared:
		return append(drop, b)
	case pipeline.BatchAbort:
		drop = w.forget(wr.tx, drop)
		return append(drop, b)
	case pipeline.BatchCommit:
		x.add(&wr.h, wr.off, wr.tx.bytes)
		x.needs(wr.tx.refs())
		for _, t := range b.Tables {
			x.touch(t.ID, &wr.h)
		}
		return w.showCommit(wr, next, drop)
	}
	x.add(&wr.h, wr.off, 0)
	for _, t := range b.Tables {
		x.touch(t.ID, &wr.h)
	}
	if len(b.Events) == 0 && len(b.Notices) == 0 && len(b.Ranges) == 0 {
		return append(drop, b)
	}
	l.mu.ring.push(entry{at: place{address: wr.h.Address}, next: next, base: b.Base, events: len(b.Events), batch: b, size: size(b)})
	return drop
}

// showCommit gives the chunks of a transaction their offsets and makes them visible. The tail goes on
// behind a chunk that memory has lost: readers take that from the disk.
func (w *writer) showCommit(wr *written, next place, drop []*pipeline.Batch) []*pipeline.Batch {
	r := &w.l.mu.ring
	b := wr.it.b
	if wr.h.Events == 0 {
		drop = w.forget(wr.tx, drop)
		if len(b.Notices) == 0 {
			return append(drop, b)
		}
		r.push(entry{at: place{address: wr.h.Address}, next: next, base: b.Base, batch: b, size: size(b)})
		return drop
	}
	c := commit{batch: b, base: wr.h.Base, last: lastChunk(len(wr.tx.chunks), func(i int) uint32 { return wr.tx.chunks[i].Events })}
	for k, ch := range wr.tx.chunks {
		at, after := place{wr.h.Address, k}, place{wr.h.Address, k + 1}
		if k == len(wr.tx.chunks)-1 {
			after = next
		}
		cb := ch.batch
		ch.batch = nil
		switch {
		case cb == nil:
			drop = append(drop, r.clear()...)
			r.low, r.lowBase = after, c.base+pipeline.Offset(c.before+ch.Events)
		case ch.Events == 0:
			r.pending -= ch.size
			drop = append(drop, cb)
		default:
			r.pending -= ch.size
			c.fill(cb, k, ch.Cuts)
			r.push(entry{at: at, next: after, base: cb.Base, events: len(cb.Events), batch: cb, size: size(cb)})
		}
		c.before += ch.Events
	}
	return append(drop, b)
}

// forget drops the chunks of a transaction. l.mu is held.
func (w *writer) forget(tx *openTx, drop []*pipeline.Batch) []*pipeline.Batch {
	for _, c := range tx.chunks {
		if c.batch != nil {
			w.l.mu.ring.pending -= c.size
			drop = append(drop, c.batch)
			c.batch = nil
		}
	}
	return drop
}

// evict keeps the tail within its memory: chunks of open transactions may take half. l.mu is held.
func (w *writer) evict(drop []*pipeline.Batch) []*pipeline.Batch {
	r := &w.l.mu.ring
	gone := 0
	for gone < len(w.memory) && w.memory[gone].batch == nil {
		gone++
	}
	for r.size+r.pending > w.l.opt.Memory {
		if r.pending > 0 && (r.pending > w.l.opt.Memory/2 || r.empty()) && gone < len(w.memory) {
			if c := w.memory[gone]; c.batch != nil {
				r.pending -= c.size
				drop = append(drop, c.batch)
				c.batch = nil
			}
			gone++
			continue
		}
		if r.empty() {
			break
		}
		drop = append(drop, r.pop())
	}
	n := copy(w.memory, w.memory[gone:])
	clear(w.memory[n:])
	w.memory = w.memory[:n]
	return drop
}

// commit turns the chunks of a transaction into what readers see.
type commit struct {
	batch  *pipeline.Batch // of the commit block
	base   pipeline.Offset
	before uint32 // events of earlier chunks
	last   int    // the last chunk that has events
}

// lastChunk is the number of the last chunk with events.
func lastChunk(n int, events func(int) uint32) int {
	for n--; n > 0 && events(n) == 0; n-- {
	}
	return n
}

// room is how much fill adds to a chunk's arena.
func (c *commit) room() int {
	tx := &c.batch.Txs[0]
	return len(c.batch.Bytes(tx.ID)) + len(c.batch.Bytes(tx.Position))
}

// fill makes chunk k, whose events begin behind c.before of the transaction, a visible batch: Kind
// BatchRows, Base, and a Tx with what only the commit knows, without the events of cuts. The last one carries the
// commit's End and notices.
func (c *commit) fill(b *pipeline.Batch, k int, cuts []record.Cut) {
	whole(b, cuts)
	from := &c.batch.Txs[0]
	tx := pipeline.Tx{ID: pipeline.Nowhere, Position: pipeline.Nowhere, Time: from.Time, Before: c.before, Ends: k == c.last}
	if from.ID.Present() {
		tx.ID = b.Put(c.batch.Bytes(from.ID))
	}
	if from.Position.Present() {
		tx.Position = b.Put(c.batch.Bytes(from.Position))
	}
	b.Txs = append(b.Txs[:0], tx)
	b.Kind, b.Open, b.Base = pipeline.BatchRows, "", c.base+pipeline.Offset(c.before)
	if k == c.last {
		b.End = c.batch.End
		b.Notices = append(b.Notices, c.batch.Notices...)
	}
}
