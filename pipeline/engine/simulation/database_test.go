package simulation

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/ingest"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// tableNames are the source's tables; their rows are (id, number of the event, filler).
var tableNames = [...]string{"files", "dirs"}

// event is one change as the log is to hold it: its place in the history is its offset.
type event struct {
	op            pipeline.Op
	table, id     int
	key           string // key space and encoded key: what keeps its order
	before, after string // images
	pair          bool   // the insert half of a key change: the delete stands right before
	nth           int    // of its key, from 0
}

func (e event) String() string {
	return fmt.Sprintf("%s %s %d", e.op, tableNames[e.table], e.id)
}

// transaction of the source.
type transaction struct {
	changes []pipetest.Change
	at      time.Time
	// chunks, when not 0, is how many pieces it travels in; aborted ones come before it.
	chunks, aborted int
}

// database is the source: what was committed, and the events that this makes.
type database struct {
	tables  [len(tableNames)]*schemas.Table
	spaces  [len(tableNames)]string
	rows    [len(tableNames)]map[int]pipetest.Row
	txs     []transaction
	history []event
	ofKey   map[string]int // events so far
	routes  ingest.Routes
}

func newDatabase(sharedSpace bool) *database {
	d := &database{ofKey: map[string]int{}}
	for i, name := range tableNames {
		t := pipetest.FilesTable(name)
		d.spaces[i] = t.KeySpace
		t.ID, t.Version, t.Routing, t.KeySpace = 0, 0, nil, ""
		d.tables[i], d.rows[i] = t, map[int]pipetest.Row{}
		if sharedSpace {
			d.spaces[i] = "tree"
		}
	}
	if sharedSpace {
		d.routes.Spaces = []ingest.SpaceRoute{{Table: "public.*", Space: "tree"}}
	}
	return d
}

// encoded is a routing key's bytes in the log.
func (d *database) encoded(id int) []byte {
	p, err := partition.AppendValue(nil, &cell.Value{Kind: schemas.KindInt, Bits: 64, N: uint64(id)}, &d.tables[0].Columns[0].Type)
	if err != nil {
		panic(err)
	}
	return p
}

func tuple(r pipetest.Row) string {
	if r == nil {
		return ""
	}
	return string(pipetest.AppendTuple(nil, r))
}

func (d *database) note(e event, encoded []byte) {
	e.key = d.spaces[e.table] + "/" + string(encoded)
	e.nth = d.ofKey[e.key]
	d.ofKey[e.key]++
	d.history = append(d.history, e)
}

// row makes an image whose content no other event has.
func (d *database) row(r *rand.Rand, id int) pipetest.Row {
	n := len(d.history)
	size := r.IntN(40)
	if r.IntN(12) == 0 {
		size = r.IntN(3000)
	}
	return pipetest.Row{strconv.Itoa(id), strconv.Itoa(n), strings.Repeat("x", size)}
}

// commit makes a transaction of n changes of rows with ids below keys.
func (d *database) commit(r *rand.Rand, n, keys int, truncates, moves bool, at time.Time) {
	tx := transaction{at: at}
	for range n {
		tx.changes = append(tx.changes, d.change(r, keys, truncates, moves))
	}
	if r.IntN(10) == 0 {
		tx.chunks = 1 + r.IntN(3)
		if r.IntN(3) == 0 {
			tx.aborted = 1 + r.IntN(2)
		}
	}
	d.txs = append(d.txs, tx)
}

func (d *database) change(r *rand.Rand, keys int, truncates, moves bool) pipetest.Change {
	table, id := r.IntN(len(d.tables)), 1+r.IntN(keys)
	t, rows := d.tables[table], d.rows[table]
	if truncates && r.IntN(40) == 0 {
		clear(rows)
		d.note(event{op: pipeline.OpTruncate, table: table}, nil)
		return pipetest.Change{Op: pipeline.OpTruncate, Table: t}
	}
	old := rows[id]
	if old == nil {
		rows[id] = d.row(r, id)
		d.note(event{op: pipeline.OpInsert, table: table, id: id, after: tuple(rows[id])}, d.encoded(id))
		return pipetest.Change{Op: pipeline.OpInsert, Table: t, After: rows[id]}
	}
	if r.IntN(6) == 0 {
		delete(rows, id)
		d.note(event{op: pipeline.OpDelete, table: table, id: id, before: tuple(old)}, d.encoded(id))
		return pipetest.Change{Op: pipeline.OpDelete, Table: t, Before: old}
	}
	if to := 1 + r.IntN(keys); moves && r.IntN(5) == 0 && rows[to] == nil {
		delete(rows, id)
		rows[to] = d.row(r, to)
		b, a := tuple(old), tuple(rows[to])
		d.note(event{op: pipeline.OpDelete, table: table, id: id, before: b, after: a}, d.encoded(id))
		d.note(event{op: pipeline.OpInsert, table: table, id: to, before: b, after: a, pair: true}, d.encoded(to))
		return pipetest.Change{Op: pipeline.OpUpdate, Table: t, Before: old, After: rows[to]}
	}
	rows[id] = d.row(r, id)
	d.note(event{op: pipeline.OpUpdate, table: table, id: id, before: tuple(old), after: tuple(rows[id])}, d.encoded(id))
	return pipetest.Change{Op: pipeline.OpUpdate, Table: t, Before: old, After: rows[id]}
}

// content of a table, by id.
func (d *database) content(table int) map[int]string {
	all := map[int]string{}
	for id, r := range d.rows[table] {
		all[id] = tuple(r)
	}
	return all
}

// spaceNames lists the key spaces.
func (d *database) spaceNames() []string {
	names := map[string]bool{}
	for _, s := range d.spaces {
		names[s] = true
	}
	return slices.Sorted(maps.Keys(names))
}

func position(n int) pipeline.Position {
	if n == 0 {
		return pipeline.Position{}
	}
	return pipeline.Position{Counter: uint64(n), Token: "p" + strconv.Itoa(n)}
}

// feed is the source as a process sees it.
type feed struct{ p *process }

// stream hands over transactions from at on; part is how many pieces of that one were handed over.
type stream struct {
	feed
	at, part int
}

// handing is a Next that waits: the driver puts the batch in.
type handing struct {
	stream *stream
	batch  *pipeline.Batch
}

// Open implements pipeline.Source.
func (f feed) Open(ctx context.Context, after pipeline.Position) (pipeline.Stream, error) {
	w := f.p.w
	if err := w.calls.ask(ctx, &call{kind: callOpenSource, name: "source open", life: f.p.life}); err != nil {
		return nil, err
	}
	w.mu.Lock()
	confirmed := w.confirmed
	w.mu.Unlock()
	if after.Counter < confirmed {
		w.breaks("the source was told that %d transactions are durable, and is asked to go on behind %d", confirmed, after.Counter)
	}
	at := int(after.Counter)
	if w.plant.rewinds && at > 0 {
		at--
	}
	return &stream{feed: f, at: at}, nil
}

// Next implements pipeline.Stream.
func (s *stream) Next(ctx context.Context) (*pipeline.Batch, error) {
	h := &handing{stream: s}
	if err := s.p.w.calls.ask(ctx, &call{kind: callNext, name: "source next", life: s.p.life, next: h}); err != nil {
		return nil, err
	}
	return h.batch, nil
}

// Confirm implements pipeline.Stream.
func (s *stream) Confirm(p pipeline.Position) {
	w := s.p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.confirmed = max(w.confirmed, p.Counter)
}

// Close implements pipeline.Stream.
func (s *stream) Close() error { return nil }

// ready: the stream has something to hand over.
func (h *handing) ready(d *database) bool { return h.stream.at < len(d.txs) }

// fill makes the next batch: up to most transactions, or a piece of a large one.
func (h *handing) fill(d *database, most int, at time.Time) string {
	s := h.stream
	if !h.ready(d) {
		h.batch = pipetest.Build(position(s.at), at)
		return "position"
	}
	tx := &d.txs[s.at]
	if tx.chunks > 0 {
		return h.piece(tx)
	}
	var txs [][]pipetest.Change
	for s.at < len(d.txs) && len(txs) < most && d.txs[s.at].chunks == 0 {
		txs = append(txs, d.txs[s.at].changes)
		s.at++
	}
	h.batch = pipetest.Build(position(s.at), tx.at, txs...)
	return fmt.Sprintf("%d transactions up to %d", len(txs), s.at)
}

// piece hands over the next chunk of a large transaction, its commit, or pieces of one that is rolled back.
func (h *handing) piece(tx *transaction) string {
	s := h.stream
	open := fmt.Sprintf("t%d", s.at)
	n := s.part
	s.part++
	if n < tx.aborted { // all but the last abort carry what is never to be seen
		if n < tx.aborted-1 {
			h.batch = pipetest.Build(pipeline.Position{}, tx.at, tx.changes)
			h.batch.Kind, h.batch.Open = pipeline.BatchChunk, open+"x"
			return "chunk of an abort"
		}
		h.batch = pipeline.NewBatch()
		h.batch.Kind, h.batch.Open = pipeline.BatchAbort, open+"x"
		return "abort"
	}
	n -= tx.aborted
	if n == tx.chunks {
		s.at++
		s.part = 0
		h.batch = pipetest.Build(position(s.at), tx.at, []pipetest.Change{})
		h.batch.Kind, h.batch.Open = pipeline.BatchCommit, open
		return fmt.Sprintf("commit of %d", s.at)
	}
	from, to := len(tx.changes)*n/tx.chunks, len(tx.changes)*(n+1)/tx.chunks
	h.batch = pipetest.Build(pipeline.Position{}, tx.at, tx.changes[from:to])
	h.batch.Kind, h.batch.Open = pipeline.BatchChunk, open
	return fmt.Sprintf("chunk %d of %d", n+1, tx.chunks)
}

// is tells whether an encoded key and space are those of the event.
func (e *event) is(space string, key []byte) bool {
	return len(e.key) == len(space)+1+len(key) && strings.HasPrefix(e.key, space) && bytes.HasSuffix([]byte(e.key), key)
}
