package pgoutput

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// Transactions that the server sends while they run (protocol 2, streaming): in blocks, between which others
// commit. Each block leaves as chunks; each run of rows of one subtransaction is a Part. What was rolled back to a
// savepoint is named by the commit. What a transaction says about tables is its own until it commits.
//
// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html

// running is a streamed transaction that has not ended.
type running struct {
	xid       uint32
	chunks    int
	before    uint32
	gone      []uint32 // subtransactions that were rolled back
	relations map[uint32]*relation
	known     map[string]shapeOf
	marks     []string // watermarks
}

// shapeOf is the shape that a table has in a running transaction, and the subtransaction and the Relation message
// that brought it.
type shapeOf struct {
	table *schemas.Table
	part  uint32
	heard uint64
}

// Unsettled says that the catalogue does not yet show what a running transaction has made of a table: it has to be
// read when it has committed, that is without streaming.
type Unsettled struct {
	XID    uint32
	Reason string
}

// Error names the transaction and the reason.
func (e *Unsettled) Error() string {
	return fmt.Sprintf("transaction %d cannot be read before it ends: %s", e.XID, e.Reason)
}

// streamed takes the messages that only a stream of running transactions has.
func (d *Decoder) streamed(kind byte, p []byte, sent int64) error {
	r := reader{p: p}
	switch kind {
	case 'S':
		xid := r.u32()
		r.u8() // first block or not
		return d.startBlock(xid, sent, r.bad)
	case 'E':
		return d.endBlock()
	case 'c':
		xid := r.u32()
		r.u8()
		at, end, when := LSN(r.u64()), LSN(r.u64()), int64(r.u64())
		if r.bad {
			return fmt.Errorf("stream commit message: %w", errShort)
		}
		return d.streamCommit(xid, at, end, when+EpochMicros)
	default: // 'A'; with streaming 'parallel' place and time follow
		xid, part := r.u32(), r.u32()
		if r.bad {
			return fmt.Errorf("stream abort message: %w", errShort)
		}
		if err := d.streamAbort(xid, part); err != nil || len(r.p) < 16 {
			return err
		}
		d.Advance(LSN(r.u64()))
		return nil
	}
}

func (d *Decoder) startBlock(xid uint32, sent int64, short bool) error {
	switch {
	case short:
		return fmt.Errorf("stream start message: %w", errShort)
	case d.tx.open:
		return errors.New("a block of a transaction begins inside of another")
	}
	d.Flush() // cur is empty now
	run := d.running[xid]
	if run == nil {
		run = &running{xid: xid, relations: map[uint32]*relation{}, known: map[string]shapeOf{}}
		d.running[xid] = run
	}
	d.block, d.last = run, nil
	d.tx = transaction{open: true, id: xid, time: sent, chunks: run.chunks, before: run.before}
	return nil
}

func (d *Decoder) endBlock() error {
	run := d.block
	if run == nil {
		return errors.New("a block of a transaction ends that did not begin")
	}
	if len(d.cur.Events) > 0 {
		d.chunk()
	}
	d.block, d.last = nil, nil
	run.chunks, run.before, run.marks = d.tx.chunks, d.tx.before, append(run.marks, d.tx.marks...)
	d.tx = transaction{}
	return nil
}

// inBlock takes the number of the subtransaction off a message of a block; elsewhere there is none.
func (d *Decoder) inBlock(p []byte) ([]byte, error) {
	if d.block == nil {
		return p, nil
	}
	if len(p) < 4 {
		return nil, errShort
	}
	if d.part = binary.BigEndian.Uint32(p); d.part == d.block.xid {
		d.part = 0
	}
	return p[4:], nil
}

func (d *Decoder) streamCommit(xid uint32, at, end LSN, when int64) error {
	if d.tx.open {
		return errors.New("a streamed transaction commits inside of another")
	}
	run := d.running[xid]
	delete(d.running, xid)
	d.committed = when
	d.Flush()
	if run == nil { // nothing of it was wanted
		d.pos = max(d.pos, end)
		return nil
	}
	logged := at < d.o.After
	d.adopt(run, logged)
	if logged {
		if run.chunks > 0 {
			d.ready = append(d.ready, d.abort(run))
		}
		return nil
	}
	d.pos = max(d.pos, end)
	if run.chunks == 0 {
		d.watermarks(run.marks, end)
		return nil
	}
	d.mark(run.marks, end)
	b := d.cur
	b.Kind, b.Open, b.Without = pipeline.BatchCommit, d.openName(xid), append(b.Without, run.gone...)
	b.Txs = append(b.Txs, pipeline.Tx{ID: b.Put(d.decimal(xid)), Position: b.Put(d.lsn(end)), Time: when, Before: run.before, Ends: true})
	d.hand()
	return nil
}

// adopt makes what a committed transaction said of tables true for all that follow, but for what others have said
// since: the server does not repeat that.
func (d *Decoder) adopt(run *running, logged bool) {
	for oid, rel := range run.relations {
		if logged { // its next row is compared with what the log has
			rel.ready = false
		}
		was := d.relations[oid]
		if was != nil && was.heard > rel.heard {
			was, rel = rel, was
		}
		if was != nil && was.refused && !rel.refused { // rows were left out, which the next one tells
			rel.refused, rel.refreshed, rel.ready = true, rel.refreshed || rel.ready, false
		}
		d.relations[oid] = rel
	}
	d.last = nil
	if logged {
		return
	}
	for subject, shape := range run.known {
		t := shape.table
		if shape.heard >= d.from[subject] {
			d.o.Known[subject], d.from[subject] = t, shape.heard
		}
		if last := d.numbered[t.Number]; t.Number != 0 && (last == nil || shape.heard >= d.from[last.Subject()]) {
			d.numbered[t.Number] = t
		}
	}
}

func (d *Decoder) streamAbort(xid, part uint32) error {
	if d.tx.open {
		return errors.New("a streamed transaction ends inside of another")
	}
	run := d.running[xid]
	if run == nil {
		return nil
	}
	if part != xid {
		run.gone = append(run.gone, part)
		for subject, shape := range run.known {
			if shape.part == part {
				delete(run.known, subject)
			}
		}
		for _, rel := range run.relations {
			rel.ready = false
		}
		return nil
	}
	delete(d.running, xid)
	if run.chunks > 0 {
		d.ready = append(d.ready, d.abort(run))
	}
	return nil
}

func (d *Decoder) abort(run *running) *pipeline.Batch {
	b := pipeline.NewBatch()
	b.Kind, b.Open = pipeline.BatchAbort, d.openName(run.xid)
	return b
}

// Runs returns the number of an open transaction by its Batch.Open.
func (d *Decoder) Runs(open string) (xid uint32, ok bool) {
	for xid, run := range d.running {
		if run.chunks > 0 && d.openName(xid) == open {
			return xid, true
		}
	}
	return 0, false
}

// Running is how many transactions are open of which something was sent.
func (d *Decoder) Running() int { return len(d.running) }

// shapeKnown returns the last shape of a table, as the transaction that is being read sees it.
func (d *Decoder) shapeKnown(subject string) *schemas.Table {
	if d.block != nil {
		if shape, ok := d.block.known[subject]; ok {
			return shape.table
		}
	}
	return d.o.Known[subject]
}

// learn notes the shape that the Relation message numbered heard has brought.
func (d *Decoder) learn(t *schemas.Table, heard uint64) {
	subject := t.Subject()
	if d.block != nil {
		d.block.known[subject] = shapeOf{t, d.part, heard}
		return
	}
	d.o.Known[subject], d.from[subject] = t, heard
	if t.Number != 0 {
		d.numbered[t.Number] = t
	}
}

// lastOf is the last shape of the table that has the number, under whatever name; nil when none is known.
func (d *Decoder) lastOf(number uint32) *schemas.Table {
	if number == 0 {
		return nil
	}
	if d.block != nil {
		for _, shape := range d.block.known {
			if shape.table.Number == number {
				return shape.table
			}
		}
	}
	return d.numbered[number]
}

// described is what a Relation message said of a table last, in the transaction that is being read or before.
func (d *Decoder) described(oid uint32) *relation {
	if d.block != nil {
		if rel := d.block.relations[oid]; rel != nil {
			return rel
		}
	}
	return d.relations[oid]
}

func (d *Decoder) describe(rel *Relation) {
	was := d.described(rel.OID)
	in := d.relations
	if d.block != nil {
		in = d.block.relations
	}
	d.heard++
	in[rel.OID] = &relation{Relation: *rel, heard: d.heard, refused: was != nil && was.refused}
	d.last = nil
}
