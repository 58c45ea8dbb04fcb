package mysql

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
	"github.com/leat-cdc/leat/sources/mysql/internal/gtid"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

// transaction is the open one.
type transaction struct {
	open bool
	// body: it goes on until XID or COMMIT; else one statement is all of it.
	body bool
	my   event.Transaction
	ma   gtid.Maria
	time int64 // microseconds
	from uint64
	// listed: it has a Tx in the batch, which begins at first and, in the arena, at arena.
	listed       bool
	first, arena int
	count        uint32 // events up to now
	chunks       int
	name         string // of its chunks
	touched      []*shape
	left         []statement.Name // tables of which rows were left out, as they are quarantined
	notices      []pipeline.Notice
	marks        []string // watermarks
	// poison: its rows cannot be told apart by what happened to them; why.
	poison string
	skip   bool
}

// chunkNames makes the names of open transactions unlike those of an earlier connection, whose chunks may
// still stand in the log.
var chunkNames atomic.Uint64

// processStart tells the chunk names of one process from another's.
var processStart = time.Now().UnixNano()

// begin reads the event that begins a transaction.
func (r *reader) begin(h event.Header, body []byte) error {
	if r.tx.open {
		// A group without an end of its own; nothing but a statement can be one.
		if len(r.tx.touched) > 0 {
			return fmt.Errorf("a transaction begins inside of another: %w", event.ErrDamaged)
		}
		if err := r.commit(); err != nil {
			return err
		}
	}
	r.startTx(h)
	var err error
	switch h.Type {
	case event.MariaGTID:
		var flags uint8
		r.tx.ma, flags, err = event.ReadMariaGTID(h, body)
		r.tx.body = flags&event.MariaStandalone == 0
	case event.TaggedGTID:
		r.tx.my, err = event.ReadTaggedGTID(body, r.tag)
	default:
		r.tx.my, err = event.ReadGTID(body)
		if h.Type == event.AnonymousGTID {
			r.tx.my.GNO = 0
		}
	}
	if r.tx.my.Committed > 0 {
		r.tx.time = r.tx.my.Committed
	}
	return err
}

func (r *reader) startTx(h event.Header) {
	before := r.pos - uint64(h.Size)
	if r.scan && before >= r.until {
		r.scan = false
	}
	t := &r.tx
	*t = transaction{open: true, time: int64(h.Time) * 1e6, from: before, skip: r.scan, touched: t.touched[:0], left: t.left[:0], notices: t.notices[:0], marks: t.marks[:0]}
}

func (r *reader) tag(b []byte) string {
	s, ok := r.tags[string(b)]
	if !ok {
		if len(r.tags) > 1000 {
			clear(r.tags)
		}
		s = string(b)
		r.tags[s] = s
	}
	return s
}

// appendID appends the transaction's name: its GTID, or where it ends.
func (r *reader) appendID(dst []byte) []byte {
	switch {
	case r.at.byGTID && r.at.mariadb:
		return r.tx.ma.Append(dst)
	case r.at.byGTID && r.tx.my.GNO > 0:
		dst = append(r.tx.my.SID.AppendText(dst), ':')
		return strconv.AppendInt(dst, r.tx.my.GNO, 10)
	}
	return filePos(dst, r.file, r.pos)
}

// room makes room for one more event of the open transaction in the batch.
func (r *reader) room() error {
	if len(r.b.Events) >= r.src.cfg.BatchEvents || len(r.b.Arena) >= r.src.cfg.BatchBytes {
		if err := r.cut(); err != nil {
			return err
		}
	}
	if r.tx.listed {
		return nil
	}
	b, t := r.b, &r.tx
	t.listed, t.first, t.arena = true, len(b.Events), len(b.Arena)
	tx := pipeline.Tx{Time: t.time, First: uint32(len(b.Events)), Before: t.count}
	if r.at.byGTID { // by file, the name is where it ends
		b.Arena = r.appendID(b.Arena)
		tx.ID = pipeline.Span{Off: uint32(t.arena), Len: uint32(len(b.Arena) - t.arena)}
		tx.Position = tx.ID
	}
	b.Txs = append(b.Txs, tx)
	return nil
}

// cut hands over a batch that is full in the middle of a transaction: whole transactions before it alone,
// else what there is of this one, as a chunk.
func (r *reader) cut() error {
	if !r.tx.listed { // nothing of the open transaction is in it
		r.b.End = r.end()
		return r.give()
	}
	if r.tx.first > 0 || len(r.b.Watermarks) > 0 {
		return r.split()
	}
	return r.chunkOut(false)
}

// chunkOut hands the batch over as a chunk of the open transaction.
func (r *reader) chunkOut(last bool) error {
	t := &r.tx
	if t.name == "" {
		id := strings.ReplaceAll(string(r.appendID(nil)), " ", "_") // a position separates by it
		t.name = fmt.Sprintf("%s#%x-%d", id, processStart, chunkNames.Add(1))
	}
	r.b.Kind, r.b.Open = pipeline.BatchChunk, t.name
	r.b.Txs[0].Ends = last
	t.chunks++
	t.listed = false
	return r.give()
}

// split hands over the whole transactions before the open one and keeps that in a new batch.
func (r *reader) split() error {
	whole, t := r.b, &r.tx
	r.measure()
	open := r.roomy() // a backlog leaves through here: without room each batch grew anew
	open.Read = r.read
	base := uint32(t.arena)
	open.Arena = append(open.Arena, whole.Arena[base:]...)
	move := func(s pipeline.Span) pipeline.Span {
		if s.Present() && s.Off >= base {
			s.Off -= base
		}
		return s
	}
	n := len(whole.Txs) - 1
	tx := whole.Txs[n]
	tx.First, tx.ID, tx.Position = 0, move(tx.ID), move(tx.Position)
	open.Txs = append(open.Txs, tx)
	for _, e := range whole.Events[t.first:] {
		i, err := open.TableIndex(whole.Tables[e.Table])
		if err != nil {
			open.Release()
			return err
		}
		e.Table, e.Tx, e.Before, e.After = i, 0, move(e.Before), move(e.After)
		open.Events = append(open.Events, e)
	}
	whole.Events, whole.Txs, whole.Arena = whole.Events[:t.first], whole.Txs[:n], whole.Arena[:base]
	whole.End = r.end()
	r.sent = whole.End.Token
	r.b, t.first, t.arena = open, 0, 0
	return r.emit(whole)
}

// commit ends the open transaction: what it changed is true.
func (r *reader) commit() error {
	t := &r.tx
	if !t.open {
		return nil
	}
	if t.poison != "" {
		return r.poisoned()
	}
	switch {
	case t.skip:
		if r.pos > r.until && r.until > 4 {
			return stopped("position_missing", fmt.Sprintf("%s:%d lies inside of a transaction", r.file, r.until), "give the offset where a transaction ends (mysqlbinlog shows them)", nil)
		}
	case t.chunks > 0:
		if err := r.commitChunks(); err != nil {
			return err
		}
	case t.listed:
		tx := &r.b.Txs[len(r.b.Txs)-1]
		tx.Ends = true
		if !r.at.byGTID {
			r.nameTx(r.b, tx)
		}
		r.executed()
	default:
		r.executed()
	}
	if t.skip {
		r.executed()
	}
	r.closeTx()
	return nil
}

// nameTx sets the name of a transaction that is only known at its end.
func (r *reader) nameTx(b *pipeline.Batch, tx *pipeline.Tx) {
	off := len(b.Arena)
	b.Arena = r.appendID(b.Arena)
	tx.ID = pipeline.Span{Off: uint32(off), Len: uint32(len(b.Arena) - off)}
	tx.Position = tx.ID
}

// commitChunks hands over the last chunk and the commit.
func (r *reader) commitChunks() error {
	tx := pipeline.Tx{Time: r.tx.time, Ends: true}
	if r.tx.listed {
		if !r.at.byGTID {
			r.nameTx(r.b, &r.b.Txs[0])
		}
		if err := r.chunkOut(true); err != nil {
			return err
		}
	}
	r.executed()
	b := r.told()
	b.Kind, b.Open = pipeline.BatchCommit, r.tx.name
	r.nameTx(b, &tx)
	b.Txs = append(b.Txs, tx)
	b.End = r.end()
	return r.give()
}

// executed makes the transaction part of the place where we stand.
func (r *reader) executed() {
	switch {
	case !r.at.byGTID:
		r.at.file, r.at.pos = r.file, r.pos
	case r.at.mariadb:
		if r.tx.ma.Seq > 0 {
			r.at.last.Set(r.tx.ma)
		}
	case r.tx.my.GNO > 0:
		r.at.set.Add(r.tx.my.SID, r.tx.my.GNO)
	}
}

// told puts what is to be said of the open transaction into the batch that ends it: in the one behind, the end of a stream
// between the two would take it away for good. It returns the batch.
func (r *reader) told() *pipeline.Batch {
	r.b.Notices = append(r.b.Notices, r.tx.notices...)
	r.tx.notices = r.tx.notices[:0]
	return r.b
}

// leftOut notes that the open transaction has rows of a table that is quarantined.
func (r *reader) leftOut(n statement.Name) {
	if !slices.Contains(r.tx.left, n) {
		r.tx.left = append(r.tx.left, n)
	}
}

func (r *reader) closeTx() {
	t := &r.tx
	r.told()
	for _, id := range t.marks {
		r.marked(id)
	}
	t.open, t.listed, t.notices, t.touched, t.marks = false, false, t.notices[:0], t.touched[:0], t.marks[:0]
	r.reached()
}

// drop takes the open transaction's events back; what else happened (its GTID is spent) stays.
func (r *reader) drop() error {
	t, b := &r.tx, r.b
	t.marks = t.marks[:0]
	if t.listed {
		b.Events, b.Arena, b.Txs = b.Events[:t.first], b.Arena[:t.arena], b.Txs[:len(b.Txs)-1]
	}
	if t.chunks > 0 {
		b.Kind, b.Open = pipeline.BatchAbort, t.name
		if err := r.give(); err != nil {
			return err
		}
	}
	r.executed()
	r.closeTx()
	return nil
}

// poisoned drops a transaction of which the binlog does not say which rows stayed.
func (r *reader) poisoned() error {
	for _, sh := range slices.Clone(r.tx.touched) {
		r.quarantine(sh.schema, sh.name, codeRollback, r.tx.poison, "use tables of one transactional engine, without savepoints around temporary tables; then "+pipeline.BringRows)
	}
	return r.drop()
}

// rollback ends a transaction whose rows of transactional tables did not happen, while those of others
// did; the binlog does not say which are which.
func (r *reader) rollback() error {
	if !r.tx.open {
		return nil
	}
	if len(r.tx.touched) == 0 {
		return r.commit()
	}
	r.tx.poison = "a transaction with rows of tables without transactions was rolled back: the binlog does not say which of its rows stayed"
	return r.poisoned()
}
