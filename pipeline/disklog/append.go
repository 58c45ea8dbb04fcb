package disklog

import (
	"context"
	"fmt"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

// item is one entry of the writer's queue.
type item struct {
	b      *pipeline.Batch
	ticket uint64
	base   pipeline.Offset
	// events is how many offsets it gives out.
	events uint32
	// head, crc, payload, newest: the encoded block without its header and arena; commits are encoded by
	// the writer, which knows the addresses of the chunks.
	head    *[]byte
	crc     uint32
	payload int
	newest  int64
	bytes   int64
	// cuts are what a commit leaves out, by the number of the chunk.
	cuts map[int][]record.Cut
	// relog asks, without a batch, for the schemas of tables again, before the segment with their last
	// copy goes.
	relog []uint32
	// move asks, without a batch, for the chunks of open transactions before that segment again.
	move uint64
}

var heads = sync.Pool{New: func() any { return new([]byte) }}

// Append gives the batch its Base, encodes it and queues it. The caller's reference is taken over also
// when there is an error. An error about the batch itself (*record.InvalidError in its chain) leaves the
// log as it was.
func (l *Log) Append(ctx context.Context, b *pipeline.Batch) (uint64, error) {
	if b.Kind == pipeline.BatchChunk && len(b.Txs) == 0 {
		b.Txs = append(b.Txs, pipeline.Tx{ID: pipeline.Nowhere, Position: pipeline.Nowhere})
	}
	it := item{b: b}
	if err := l.encode(&it); err != nil {
		b.Release()
		return 0, fmt.Errorf("append: %w", err)
	}
	it.bytes = int64(len(b.Arena)) + int64(it.payload)
	for {
		l.mu.Lock()
		if err := l.refuses(); err != nil {
			l.mu.Unlock()
			it.release()
			return 0, err
		}
		if len(b.Events) == 0 || l.mu.queued == 0 || l.mu.queued+it.bytes <= l.opt.Queue {
			break
		}
		room := l.mu.room
		l.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			it.release()
			return 0, ctx.Err()
		}
	}
	defer l.mu.Unlock()
	return l.enqueue(it)
}

// enqueue gives the item its offsets and ticket and hands it to the writer. l.mu is held.
func (l *Log) enqueue(it item) (uint64, error) {
	if err := l.place(&it); err != nil {
		it.release()
		return 0, err
	}
	l.mu.ticket++
	it.ticket = l.mu.ticket
	l.mu.queued += it.bytes
	l.mu.queue = append(l.mu.queue, it)
	poke(l.work)
	return it.ticket, nil
}

// refuses says why nothing more is taken. l.mu is held.
func (l *Log) refuses() error {
	switch {
	case l.mu.failed != nil:
		return l.mu.failed
	case l.mu.drain:
		return pipeline.ErrClosed
	}
	return nil
}

// encode makes the block's bytes but for the header, in the caller's goroutine: while the group before
// is being synced.
func (l *Log) encode(it *item) error {
	b := it.b
	switch b.Kind {
	case pipeline.BatchRows:
	case pipeline.BatchChunk:
		if b.Open == "" || !b.End.Zero() || len(b.Notices) > 0 {
			return &record.InvalidError{What: "a chunk has a transaction's name, no End and no notices"}
		}
	case pipeline.BatchPrepared:
		if b.Open == "" || b.End.Zero() || len(b.Txs)+len(b.Events)+len(b.Notices) > 0 {
			return &record.InvalidError{What: "what is prepared has a transaction's name, an End and nothing else"}
		}
	case pipeline.BatchCommit, pipeline.BatchAbort:
		if b.Open == "" || len(b.Events) > 0 || b.Kind == pipeline.BatchCommit && len(b.Txs) != 1 {
			return &record.InvalidError{What: "a commit has a transaction's name, one Tx and no events"}
		}
	}
	for _, t := range b.Tables {
		if t == nil || t.ID == 0 || t.Version == 0 {
			return &record.InvalidError{What: "a table without id or version"}
		}
		if o := l.tables.get(t.ID, t.Version); o != nil && o != t && o.ShapeHash() != t.ShapeHash() {
			return &record.InvalidError{What: fmt.Sprintf("table %s version %d has another shape in the log", t.Subject(), t.Version)}
		}
	}
	if len(b.Ranges) > 0 {
		if n := len(l.Ranges()); n+len(b.Ranges) > pipeline.MaxRangeChanges {
			return &record.InvalidError{What: fmt.Sprintf("the log keeps %d changes of ranges already, at most %d", n, pipeline.MaxRangeChanges)}
		}
	}
	if b.Kind == pipeline.BatchCommit || b.Kind == pipeline.BatchPrepared {
		return nil
	}
	it.head = heads.Get().(*[]byte)
	var err error
	*it.head, it.crc, it.payload, it.newest, err = record.AppendHead((*it.head)[:0], b, nil)
	return err
}

// place gives the batch its offsets. l.mu is held.
func (l *Log) place(it *item) error {
	b := it.b
	it.base = l.mu.next
	b.Base = l.mu.next
	switch b.Kind {
	case pipeline.BatchRows:
		it.events = uint32(len(b.Events))
	case pipeline.BatchChunk:
		it.events = uint32(len(b.Events))
		tx := l.mu.open[b.Open]
		if tx == nil {
			tx = new(unfinished)
			l.mu.open[b.Open] = tx
		}
		tx.chunk(b)
		return nil
	case pipeline.BatchCommit:
		n := uint64(0)
		if tx := l.mu.open[b.Open]; tx != nil {
			n, it.cuts = tx.left(b.Without)
		}
		if n > 1<<32-1 {
			return fmt.Errorf("append: transaction %s has %d events, more than a commit holds", b.Open, n)
		}
		it.events = uint32(n)
		delete(l.mu.open, b.Open)
	case pipeline.BatchAbort:
		delete(l.mu.open, b.Open)
	}
	l.mu.next += pipeline.Offset(it.events)
	return nil
}

func (it *item) release() {
	if it.head != nil {
		heads.Put(it.head)
		it.head = nil
	}
	if it.b != nil {
		it.b.Release()
		it.b = nil
	}
}

// dropQueue lets go of what will not be written. l.mu is held.
func (l *Log) dropQueue() {
	for i := range l.mu.queue {
		l.mu.queued -= l.mu.queue[i].bytes
		l.mu.queue[i].release()
	}
	l.mu.queue = nil
}

// makeRoom wakes Appends that wait for room. l.mu is held.
func (l *Log) makeRoom() {
	close(l.mu.room)
	l.mu.room = make(chan struct{})
}
