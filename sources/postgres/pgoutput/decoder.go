package pgoutput

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// Options of a Decoder.
type Options struct {
	// After is where the log stands: transactions whose commit began below are dropped (the slot may
	// stand behind the log).
	After LSN
	// Counter is the counter of the position at After; positions handed out go on from it.
	Counter uint64
	// Token makes the resume token of a position.
	Token func(LSN) string
	// Resolve says how rows of a relation are read. It is called for each Relation message when its first
	// row comes, and may block. A *Refused quarantines the table, another error ends the stream.
	Resolve func(*Relation) (Shape, error)
	// Settled says why what the catalogue tells of a relation may not be what it will tell once the transactions that
	// run now have ended, "" when it is. It is asked, and may block, before Resolve for a transaction that is sent
	// while it runs; nil: it always is. A reason ends the stream with an *Unsettled.
	Settled func(xid uint32, rel *Relation) (string, error)
	// Known are the last shapes by subject that the log has at After; the decoder goes on to update it.
	Known map[string]*schemas.Table
	// BatchBytes and BatchEvents are the sizes at which a batch is cut.
	BatchBytes, BatchEvents int
	// Stream makes the names of open transactions unique among the streams of one log.
	Stream string
}

// relation is a Relation message and what became of it.
type relation struct {
	Relation
	heard uint64 // the message's number on the connection
	ready bool   // resolved since the message came
	// refreshed: it was resolved before, for the same message.
	refreshed bool
	shape     Shape
	refused   bool
	// index of shape.Table in the batch numbered batch
	batch uint64
	index uint16
}

// Decoder builds batches from messages. Not for concurrent use.
type Decoder struct {
	o         Options
	relations map[uint32]*relation
	heard     uint64                    // Relation messages so far
	from      map[string]uint64         // subject: the one that brought the last shape; not for those that the log had
	numbered  map[uint32]*schemas.Table // the last shape of a table, by its number
	last      *relation                 // the one that the last row was of
	running   map[uint32]*running
	block     *running // the one of which a block is being read
	part      uint32   // its subtransaction that the message is of
	cur       *pipeline.Batch
	curNumber uint64
	ready     []*pipeline.Batch
	tx        transaction
	// pos is the last boundary between transactions that was seen, out the last one that was handed out.
	pos, out LSN
	counter  uint64
	notices  []pipeline.Notice
	num      [32]byte

	committed int64 // see Committed
	cut       atomic.Bool
}

// transaction is the one between Begin and Commit.
type transaction struct {
	open, skip bool
	begun      bool // has an entry in cur.Txs
	id         uint32
	time       int64
	marks      []string // watermarks in it
	chunks     int      // handed out so far
	before     uint32   // events in them
	// Where it begins in cur.
	events, txs, arena, tables int
}

// NewDecoder returns a decoder that stands at o.After.
func NewDecoder(o Options) *Decoder {
	if o.Known == nil {
		o.Known = map[string]*schemas.Table{}
	}
	d := &Decoder{o: o, relations: map[uint32]*relation{}, running: map[uint32]*running{}, pos: o.After, out: o.After, counter: o.Counter}
	d.numbered, d.from = map[uint32]*schemas.Table{}, map[string]uint64{}
	for _, t := range o.Known {
		if t.Number != 0 {
			d.numbered[t.Number] = t
		}
	}
	d.fresh()
	return d
}

// fresh begins a batch, with room for as much as the one before holds: the log's tail, not the pool, has the memory
// of earlier ones, and growing by steps copied each row several times.
func (d *Decoder) fresh() {
	bytes, events := 0, 0
	if d.cur != nil {
		bytes, events = len(d.cur.Arena), len(d.cur.Events)
	}
	d.cur = pipeline.NewBatch()
	d.cur.Room(bytes, events)
	d.curNumber++
}

// Take returns the next batch that is ready, nil when there is none. It belongs to the caller.
func (d *Decoder) Take() *pipeline.Batch {
	if len(d.ready) == 0 {
		return nil
	}
	b := d.ready[0]
	d.ready = slices.Delete(d.ready, 0, 1)
	return b
}

// Ready reports whether Take has something.
func (d *Decoder) Ready() bool { return len(d.ready) > 0 }

// Position is the last boundary between transactions that was seen.
func (d *Decoder) Position() LSN { return d.pos }

// Behind reports whether there is progress or a notice that no batch has carried yet.
func (d *Decoder) Behind() bool { return d.pos > d.out || len(d.notices) > 0 }

// Notices reports whether notices wait to be carried.
func (d *Decoder) Notices() bool { return len(d.notices) > 0 }

// Notice adds a notice to the next batch that is not part of an open transaction.
func (d *Decoder) Notice(n pipeline.Notice) {
	n.Position = d.pos.String()
	d.notices = append(d.notices, n)
}

// Refresh has Resolve called again for each relation when its next row comes.
func (d *Decoder) Refresh() {
	for _, rel := range d.relations {
		rel.ready, rel.refreshed = false, true
	}
	for _, run := range d.running {
		for _, rel := range run.relations {
			rel.ready, rel.refreshed = false, true
		}
	}
}

// Close gives back what was not handed out.
func (d *Decoder) Close() {
	for _, b := range d.ready {
		b.Release()
	}
	if d.cur != nil {
		d.cur.Release()
	}
	d.ready, d.cur = nil, nil
}

// Committed is when the last transaction that began was committed, by the server's clock in microseconds since 1970; 0 before the
// first. A message outside of transactions counts as committed when it was sent.
func (d *Decoder) Committed() int64 { return d.committed }

// Advance says that the server has sent everything that was committed up to lsn (a keepalive). It counts
// only between transactions.
func (d *Decoder) Advance(lsn LSN) {
	if !d.tx.open && lsn > d.pos {
		d.pos = lsn
	}
}

// Message takes one message: sent is when the server sent it, in microseconds since 1970. An error means
// that the stream cannot go on.
func (d *Decoder) Message(p []byte, sent int64) error {
	if len(p) == 0 {
		return errShort
	}
	body := p[1:]
	switch p[0] {
	case 'I', 'U', 'D', 'R', 'T', 'M', 'Y':
		var err error
		if body, err = d.inBlock(body); err != nil {
			return err
		}
	}
	switch p[0] {
	case 'I', 'U', 'D':
		return d.row(p[0], body)
	case 'B':
		return d.begin(body)
	case 'C':
		return d.commit(body)
	case 'R':
		rel, err := ParseRelation(body)
		if err != nil {
			return err
		}
		d.describe(rel)
		return nil
	case 'T':
		return d.truncate(body)
	case 'M':
		return d.logical(body, sent)
	case 'S', 'E', 'c', 'A':
		return d.streamed(p[0], body, sent)
	case 'O', 'Y': // origin and type: nothing that the catalogue does not say better
		return nil
	}
	return fmt.Errorf("message of unknown type 0x%02x (a newer protocol?)", p[0])
}

func (d *Decoder) begin(p []byte) error {
	r := reader{p: p}
	final, at, xid := LSN(r.u64()), int64(r.u64()), r.u32()
	if r.bad {
		return fmt.Errorf("begin message: %w", errShort)
	}
	if d.tx.open {
		return errors.New("a transaction begins inside of another")
	}
	// final is where the commit record begins. Positions are ends of records, so it lies below our
	// position exactly if the commit's end does not lie above.
	d.tx = transaction{open: true, skip: final < d.o.After, id: xid, time: at + EpochMicros}
	d.committed = d.tx.time
	return nil
}

func (d *Decoder) commit(p []byte) error {
	r := reader{p: p}
	r.u8()
	r.u64()
	end := LSN(r.u64())
	at := int64(r.u64())
	if r.bad {
		return fmt.Errorf("commit message: %w", errShort)
	}
	if !d.tx.open || d.block != nil {
		return errors.New("a commit without a transaction")
	}
	d.pos = max(d.pos, end)
	marks := d.tx.marks
	if !d.tx.begun {
		d.tx = transaction{}
		d.watermarks(marks, end)
		return nil
	}
	t := &d.cur.Txs[len(d.cur.Txs)-1]
	t.Position = d.cur.Put(d.lsn(end))
	t.Ends, t.Time = true, at+EpochMicros
	if d.tx.chunks == 0 {
		d.tx = transaction{}
		d.watermarks(marks, end)
		return nil
	}
	d.chunk()
	d.watermarks(marks, end)
	b := d.cur
	b.Kind, b.Open = pipeline.BatchCommit, d.openName(d.tx.id)
	b.Txs = append(b.Txs, pipeline.Tx{
		ID: b.Put(d.decimal(d.tx.id)), Position: b.Put(d.lsn(end)), Time: at + EpochMicros, Before: d.tx.before, Ends: true,
	})
	d.tx = transaction{}
	d.hand()
	return nil
}

// watermarks puts those of a transaction behind it, and cuts the batch there when that was asked for.
func (d *Decoder) watermarks(ids []string, end LSN) {
	d.mark(ids, end)
	if !d.tx.open && d.cut.Load() {
		d.Flush()
	}
}

func (d *Decoder) mark(ids []string, end LSN) {
	for _, id := range ids {
		d.cur.Watermarks = append(d.cur.Watermarks, pipeline.Watermark{ID: id, Event: uint32(len(d.cur.Events)), Position: string(d.lsn(end))})
	}
}

// Cut has every batch end behind each transaction, or not. May be called by another goroutine.
func (d *Decoder) Cut(on bool) { d.cut.Store(on) }

func (d *Decoder) decimal(n uint32) []byte { return strconv.AppendUint(d.num[:0], uint64(n), 10) }

func (d *Decoder) lsn(l LSN) []byte {
	b := strconv.AppendUint(d.num[:0], uint64(l)>>32, 16)
	b = append(b, '/')
	b = strconv.AppendUint(b, uint64(uint32(l)), 16)
	for i, c := range b {
		if c >= 'a' && c <= 'f' {
			b[i] = c - 'a' + 'A'
		}
	}
	return b
}

func (d *Decoder) openName(xid uint32) string {
	return d.o.Stream + "." + strconv.FormatUint(uint64(xid), 10)
}

// room makes sure that one more event of the open transaction may be added, cutting the batch if need be,
// and opens the transaction's entry.
func (d *Decoder) room() {
	if len(d.cur.Events) >= d.o.BatchEvents || len(d.cur.Arena) >= d.o.BatchBytes || len(d.cur.Tables) >= pipeline.MaxTables-1 {
		switch {
		case d.block != nil:
			d.chunk()
		case !d.tx.begun:
			d.hand()
		case d.tx.txs > 0:
			d.split()
		default:
			d.chunk()
		}
	}
	if !d.tx.begun {
		d.begun(d.tx.before)
	}
}

// begun enters the open transaction into cur.
func (d *Decoder) begun(before uint32) {
	b, t := d.cur, &d.tx
	t.begun = true
	t.events, t.txs, t.arena, t.tables = len(b.Events), len(b.Txs), len(b.Arena), len(b.Tables)
	b.Txs = append(b.Txs, pipeline.Tx{
		ID: b.Put(d.decimal(t.id)), Position: pipeline.Nowhere,
		Time: t.time, First: uint32(len(b.Events)), Before: before, Part: d.partHere(),
	})
}

// chunk hands out cur, which holds nothing but a part of the open transaction.
func (d *Decoder) chunk() {
	b := d.cur
	d.tx.chunks++
	d.tx.before += uint32(len(b.Events))
	b.Kind, b.Open = pipeline.BatchChunk, d.openName(d.tx.id)
	if d.block != nil {
		d.tx.begun = false
		d.ready = append(d.ready, b)
		d.fresh()
		return
	}
	ends := b.Txs[0].Ends
	d.ready = append(d.ready, b)
	d.fresh()
	if !ends {
		d.begun(d.tx.before)
	}
}

// split moves the open transaction's part of cur to a batch of its own and hands the whole ones out.
func (d *Decoder) split() {
	whole, t := d.cur, &d.tx
	from := *t
	d.fresh()
	next := d.cur
	d.begun(0)
	shift := uint32(from.arena)
	next.Arena = append(next.Arena[:0], whole.Arena[from.arena:]...) // the id that begun wrote comes along
	move := func(s pipeline.Span) pipeline.Span {
		if s.Present() {
			s.Off -= shift
		}
		return s
	}
	next.Txs[0] = whole.Txs[from.txs]
	next.Txs[0].First, next.Txs[0].ID = 0, move(next.Txs[0].ID)
	var lastIn, lastOut uint16 = pipeline.NoTable, pipeline.NoTable
	for _, e := range whole.Events[from.events:] {
		e.Tx, e.Before, e.After = 0, move(e.Before), move(e.After)
		if e.Table != lastIn {
			lastIn, lastOut = e.Table, e.Table
			if e.Table != pipeline.NoTable {
				lastOut, _ = next.TableIndex(whole.Tables[e.Table]) // never more than there were
			}
		}
		e.Table = lastOut
		next.Events = append(next.Events, e)
	}
	next.Read = whole.Read
	clear(whole.Tables[from.tables:])
	whole.Events, whole.Txs = whole.Events[:from.events], whole.Txs[:from.txs]
	whole.Arena, whole.Tables = whole.Arena[:from.arena], whole.Tables[:from.tables]
	d.end(whole)
	d.ready = append(d.ready, whole)
}

// hand hands out cur, which holds no part of an open transaction.
func (d *Decoder) hand() {
	d.end(d.cur)
	d.ready = append(d.ready, d.cur)
	d.fresh()
}

// end gives b the position that the decoder stands at, and the notices.
func (d *Decoder) end(b *pipeline.Batch) {
	d.counter++
	d.out = d.pos
	b.End = pipeline.Position{Counter: d.counter, Token: d.o.Token(d.pos)}
	b.Notices = append(b.Notices, d.notices...)
	d.notices = nil
}

func (d *Decoder) partHere() uint32 {
	if d.block == nil {
		return 0
	}
	return d.part
}

// Inside reports whether the last message was not the end of a transaction or block.
func (d *Decoder) Inside() bool { return d.tx.open }

// Flush makes the whole transactions that were seen ready.
func (d *Decoder) Flush() {
	switch {
	case len(d.cur.Txs) == 0 && len(d.cur.Watermarks) == 0:
	case !d.tx.begun:
		d.hand()
	case d.tx.txs > 0:
		d.split()
	}
}

// Progress makes a batch ready that holds nothing but position and notices. Call Flush before.
func (d *Decoder) Progress() {
	b := pipeline.NewBatch()
	d.end(b)
	d.ready = append(d.ready, b)
}

// Stamp notes when the bytes of the current batch arrived, if that is not noted yet.
func (d *Decoder) Stamp(t time.Time) {
	if d.cur.Read.IsZero() {
		d.cur.Read = t
	}
}

// add appends an event of the open transaction.
func (d *Decoder) add(op pipeline.Op, table uint16, before, after pipeline.Span) {
	b := d.cur
	if d.block != nil && b.Txs[len(b.Txs)-1].Part != d.part {
		b.Txs = append(b.Txs, pipeline.Tx{ID: b.Txs[0].ID, Position: pipeline.Nowhere, Time: d.tx.time, First: uint32(len(b.Events)), Part: d.part})
	}
	b.Events = append(b.Events, pipeline.Event{
		Op: op, Table: table, Tx: uint32(len(b.Txs) - 1), Key: pipeline.Nowhere, Before: before, After: after,
	})
}

// table returns the index of rel's table in cur.
func (d *Decoder) table(rel *relation) (uint16, error) {
	if rel.batch == d.curNumber {
		return rel.index, nil
	}
	i, err := d.cur.TableIndex(rel.shape.Table)
	if err != nil {
		return 0, err
	}
	rel.batch, rel.index = d.curNumber, i
	return i, nil
}
