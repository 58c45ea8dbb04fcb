package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/schemas"
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
	for _, n := range b.Notices {
		if n.Kind == pipeline.NoticeReleased {
			r.catalog.note(n)
		}
	}
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
	for _, n := range b.Notices {
		if n.Kind == pipeline.NoticeQuarantined { // the source hands over no row behind its own notice
			r.catalog.note(n)
		}
	}
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
		return drop
	}
	if !e.Op.Row() {
		e.Key, e.Hash = pipeline.Nowhere, p.space
		return keep
	}
	v, err := r.route(b, e, p)
	if err != nil {
		r.catalog.quarantine(p, txPosition(b, e), err)
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
		r.catalog.quarantine(p, txPosition(b, &e), err)
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

// Codes of the quarantines that ingest gives.
const (
	codeRoute     = "route"     // the routing key cannot be had: taken back by itself once it can
	codeStructure = "structure" // a row's bytes do not fit the table's shape
	codeLarge     = "large"     // a row or a message is more than a block of the log holds
)

// plan is what ingest knows of one table version.
type plan struct {
	table       *schemas.Table
	form        *cell.Form
	space       uint64
	upTo        int   // columns to walk
	watched     []int // identity and routing columns
	quarantined bool
}

// catalog maps the source's table versions to the log's.
type catalog struct {
	cfg     Config
	bySrc   map[*schemas.Table]*plan
	newest  map[string]*schemas.Table // by subject
	maxID   uint32
	quarant map[string]string // subject → the notice's code
	pending []pipeline.Notice
	buf     []*plan
}

func newCatalog(cfg Config) *catalog {
	c := &catalog{cfg: cfg, bySrc: map[*schemas.Table]*plan{}, newest: map[string]*schemas.Table{}, quarant: map[string]string{}}
	for _, t := range cfg.Log.Tables() {
		c.newest[t.Subject()] = t
		c.maxID = max(c.maxID, t.ID)
	}
	for _, n := range cfg.Log.Notices() {
		c.note(n)
	}
	return c
}

func (c *catalog) note(n pipeline.Notice) {
	switch n.Kind {
	case pipeline.NoticeQuarantined:
		c.quarant[n.Table] = n.Code
	case pipeline.NoticeReleased:
		delete(c.quarant, n.Table)
	default:
		return
	}
	for _, p := range c.bySrc {
		if p.table.Subject() == n.Table {
			_, p.quarantined = c.quarant[n.Table]
		}
	}
}

func (c *catalog) takeNotices() []pipeline.Notice {
	n := c.pending
	c.pending = nil
	return n
}

// plans returns the plan of each of the batch's tables, by index; valid until the next call.
func (c *catalog) plans(b *pipeline.Batch) []*plan {
	c.buf = c.buf[:0]
	for _, t := range b.Tables {
		p := c.bySrc[t]
		if p == nil {
			p = c.adopt(t, firstPosition(b))
			c.bySrc[t] = p
		}
		c.buf = append(c.buf, p)
	}
	return c.buf
}

// adopt gives the source's table the log's id and version: the newest one when the shape is the same.
func (c *catalog) adopt(src *schemas.Table, position string) *plan {
	t := *src
	p := &plan{table: &t}
	_, p.quarantined = c.quarant[src.Subject()]
	routeErr := c.cfg.Route.apply(&t)
	if old := c.newest[t.Subject()]; old != nil && old.ShapeHash() == t.ShapeHash() {
		p.table = old
	} else {
		t.ID, t.Version = c.maxID+1, 1
		if old != nil {
			t.ID, t.Version = old.ID, old.Version+1
		}
		c.maxID = max(c.maxID, t.ID)
		c.newest[t.Subject()] = t.Seal()
	}
	p.form = c.cfg.Form(p.table)
	p.space = partition.SpaceHash(p.table.KeySpace)
	p.watched = watched(p.table)
	for _, i := range p.watched {
		p.upTo = max(p.upTo, i+1)
	}
	switch {
	case routeErr != nil && !p.quarantined:
		c.quarantine(p, position, routeErr)
	case routeErr == nil && p.quarantined && c.quarant[p.table.Subject()] == codeRoute:
		c.release(p, position)
	}
	return p
}

func watched(t *schemas.Table) []int {
	all := append([]int(nil), t.Identity...)
	for _, r := range t.Routing {
		known := false
		for _, i := range t.Identity {
			known = known || i == r
		}
		if !known {
			all = append(all, r)
		}
	}
	return all
}

// release takes back a quarantine whose cause is cured, and leaves a gap behind.
func (c *catalog) release(p *plan, position string) {
	n := pipeline.Notice{Kind: pipeline.NoticeReleased, Code: codeRoute, Table: p.table.Subject(), Position: position, Time: time.Now().UTC(),
		Reason: "the table can be routed now"}
	c.note(n)
	p.quarantined = false
	gap := n
	gap.Kind, gap.Reason, gap.Cure = pipeline.NoticeGap, "changes before this place did not enter the log, as the table could not be routed", pipeline.BringRows
	c.pending = append(c.pending, n, gap)
}

// quarantine stops reading the table at this place; other tables go on.
func (c *catalog) quarantine(p *plan, position string, err error) {
	n := pipeline.Notice{Kind: pipeline.NoticeQuarantined, Table: p.table.Subject(), Position: position, Reason: err.Error(), Time: time.Now().UTC(), Code: codeStructure,
		Cure: "mend the cause; then " + pipeline.BringRows}
	var re *RouteError
	if errors.As(err, &re) {
		n.Code, n.Cure = codeRoute, re.Cure
	}
	if le := (*LargeError)(nil); errors.As(err, &le) {
		n.Code, n.Cure = codeLarge, "leave the large columns out with columns: or the table with tables:, or keep such values outside of the database; then "+pipeline.BringRows
	}
	c.note(n)
	p.quarantined = true
	c.pending = append(c.pending, n)
}
