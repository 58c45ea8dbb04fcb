package ingest

import (
	"bytes"
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/schemas/cell"
)

// rows prepares a batch's events for the log. Not for concurrent use.
type rows struct {
	cfg     Config
	catalog *catalog
	before  []cell.Ref
	after   []cell.Ref
	scratch cell.Scratch
	value   cell.Value
	split   []pipeline.Event // where a batch is rebuilt that gains or loses events
	cuts    []pipeline.Span  // of the arena, to be taken out of it
	tx      int              // the next transaction whose start moves, while rebuilding
	open    *openTx          // the transaction that the chunk at hand is of
}

func newRows(cfg Config) *rows {
	if cfg.MaxEvent <= 0 {
		cfg.MaxEvent = defaultMaxEvent
	}
	return &rows{cfg: cfg, catalog: newCatalog(cfg)}
}

// verdict on one event.
type verdict uint8

const (
	keep verdict = iota
	splitKey
	drop
)

// prepare sets tables, keys and hashes in place; 0 allocations per row unless a row changes its key or
// cannot be read.
func (r *rows) prepare(b *pipeline.Batch) {
	b.Notices = r.catalog.told(b.Notices)
	for _, n := range b.Notices {
		if n.Kind == pipeline.NoticeReleased {
			r.catalog.note(n)
		}
	}
	r.open = r.catalog.opened(b)
	sources := b.Tables
	plans := r.catalog.plans(b)
	large := len(b.Arena) > r.cfg.MaxEvent
	rebuilt := -1 // events before it are final in place
	for i := range b.Events {
		e := &b.Events[i]
		v := keep
		var p *plan // of a message there is none
		if e.Table != pipeline.NoTable {
			p = plans[e.Table]
		}
		switch {
		case large && r.large(b, e, p):
			v = drop
		case p != nil:
			v = r.event(b, e, p)
		default:
			e.Key = pipeline.Nowhere
		}
		if v != keep && rebuilt < 0 {
			rebuilt = i
			r.restart(b, i)
		}
		if rebuilt < 0 {
			continue
		}
		r.shift(b, i)
		switch v {
		case keep:
			r.split = append(r.split, *e)
		case splitKey:
			r.splitEvent(b, *e, p)
		}
	}
	if rebuilt >= 0 {
		r.shift(b, len(b.Events))
		b.Events, r.split = r.split, b.Events
	}
	if len(r.cuts) > 0 {
		r.cut(b)
	}
	clear(sources)
	b.Tables = b.Tables[:0]
	for _, p := range plans {
		b.Tables = append(b.Tables, p.table)
	}
	r.catalog.closed(b.Notices)
	r.catalog.ended(b)
	if b.Kind == pipeline.BatchChunk || b.Kind == pipeline.BatchAbort || b.Kind == pipeline.BatchPrepared { // never seen, or dropped: the next one carries them
		r.catalog.pending = append(r.catalog.pending, b.Notices...)
		clear(b.Notices)
		b.Notices = b.Notices[:0]
		return
	}
	b.Notices = append(b.Notices, r.catalog.takeNotices()...)
}

// shift moves the starts of the transactions that began at event i to where it goes in the rebuilt batch.
func (r *rows) shift(b *pipeline.Batch, i int) {
	for r.tx < len(b.Txs) && b.Txs[r.tx].First <= uint32(i) {
		b.Txs[r.tx].First = uint32(len(r.split))
		r.tx++
	}
}

// restart begins to rebuild the batch at event i: what is before stays as it is.
func (r *rows) restart(b *pipeline.Batch, i int) {
	r.split = append(r.split[:0], b.Events[:i]...)
	for r.tx = 0; r.tx < len(b.Txs) && b.Txs[r.tx].First < uint32(i); r.tx++ {
	}
}

// event sets Key and Hash of one event of a table.
func (r *rows) event(b *pipeline.Batch, e *pipeline.Event, p *plan) verdict {
	if p.quarantined {
		r.open.leaveOut(p)
		return drop
	}
	if r.open != nil && len(r.open.bad) > 0 && r.open.without(p.table.Subject(), partOf(b, e)) {
		return drop
	}
	if !e.Op.Row() {
		e.Key, e.Hash = pipeline.Nowhere, p.space
		return keep
	}
	v, err := r.route(b, e, p)
	if err != nil {
		r.fault(b, e, p, err)
		return drop
	}
	return v
}

func txPosition(b *pipeline.Batch, e *pipeline.Event) string {
	if int(e.Tx) < len(b.Txs) {
		return string(b.Bytes(b.Txs[e.Tx].Position))
	}
	return b.Open
}

func partOf(b *pipeline.Batch, e *pipeline.Event) uint32 {
	if int(e.Tx) < len(b.Txs) {
		return b.Txs[e.Tx].Part
	}
	return 0
}

func (r *rows) route(b *pipeline.Batch, e *pipeline.Event, p *plan) (verdict, error) {
	var err error
	before, after := b.Bytes(e.Before), b.Bytes(e.After)
	image, refs := after, r.after[:0]
	if after != nil {
		if r.after, err = p.form.Walk(after, r.after[:0], p.upTo); err != nil {
			return drop, err
		}
		refs = r.after
	}
	if before != nil {
		if r.before, err = p.form.Walk(before, r.before[:0], p.upTo); err != nil {
			return drop, err
		}
		if after == nil {
			image, refs = before, r.before
		} else if e.Op == pipeline.OpUpdate && changed(p.watched, before, after, r.before, r.after) {
			return splitKey, nil
		}
	}
	return keep, r.key(b, e, p, image, refs, before)
}

// key appends the routing key of the row to the arena. A column that the image lacks is taken from the
// before image (minimal row images carry the key there only).
func (r *rows) key(b *pipeline.Batch, e *pipeline.Event, p *plan, image []byte, refs []cell.Ref, before []byte) error {
	off := len(b.Arena)
	r.scratch.Reset()
	for _, c := range p.table.Routing {
		ref, from := refs[c], image
		if ref.Absent() && before != nil {
			ref, from = r.before[c], before
		}
		v := &r.value
		*v = cell.Value{}
		switch {
		case ref.Absent():
			return fmt.Errorf("routing column %q: %w", p.table.Columns[c].Name, partition.ErrAbsent)
		case ref.Null():
			v.State = cell.Null
		default:
			if err := p.form.Decode[c](v, ref.Of(from), &r.scratch); err != nil {
				return fmt.Errorf("routing column %q: %w", p.table.Columns[c].Name, err)
			}
		}
		var err error
		if b.Arena, err = partition.AppendValue(b.Arena, v, &p.table.Columns[c].Type); err != nil {
			return fmt.Errorf("routing column %q: %w", p.table.Columns[c].Name, err)
		}
	}
	e.Key = pipeline.Span{Off: uint32(off), Len: uint32(len(b.Arena) - off)}
	e.Hash = partition.Hash(p.space, b.Arena[off:])
	return nil
}

// changed tells whether identity or routing key differ between the images, byte by byte: a collation may
// hold two spellings equal, but a subscriber that stores the key must see both.
func changed(columns []int, before, after []byte, b, a []cell.Ref) bool {
	for _, c := range columns {
		if a[c].Absent() || b[c].Absent() {
			continue
		}
		if a[c].Null() != b[c].Null() || !bytes.Equal(a[c].Of(after), b[c].Of(before)) {
			return true
		}
	}
	return false
}

// splitEvent appends delete and insert, linked, for an update that changed its key.
func (r *rows) splitEvent(b *pipeline.Batch, e pipeline.Event, p *plan) {
	before, after := b.Bytes(e.Before), b.Bytes(e.After)
	r.before, _ = p.form.Walk(before, r.before[:0], p.upTo) // walked without error a moment ago
	r.after, _ = p.form.Walk(after, r.after[:0], p.upTo)
	gone, came := e, e
	gone.Op, came.Op = pipeline.OpDelete, pipeline.OpInsert
	gone.Flags |= pipeline.FlagKeyChange
	came.Flags |= pipeline.FlagKeyChange
	err := r.key(b, &gone, p, before, r.before, nil)
	if err == nil {
		// the arena may have moved: images are found again by their spans
		err = r.key(b, &came, p, b.Bytes(e.After), r.after, b.Bytes(e.Before))
	}
	if err != nil {
		r.fault(b, &e, p, err)
		return
	}
	r.split = append(r.split, gone, came)
}

func firstPosition(b *pipeline.Batch) string {
	if len(b.Txs) > 0 {
		return string(b.Bytes(b.Txs[0].Position))
	}
	return b.Open
}
