package mysql

import (
	"errors"
	"fmt"
	"slices"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

// dummyTable is the id in the empty rows event that only ends a statement.
const dummyTable = 0xffffff

// rows reads a rows event: row images are cut out and copied once, into the batch.
func (r *reader) rows(h event.Header, body []byte) error {
	if r.tx.skip {
		return nil
	}
	id, err := event.RowsTable(body)
	if err != nil {
		return err
	}
	sh := r.tables.of(id)
	if sh == nil {
		if id == dummyTable {
			return nil
		}
		return fmt.Errorf("rows of table id %d, of which there was no table map: %w", id, event.ErrDamaged)
	}
	if !r.tx.open {
		return fmt.Errorf("rows outside of a transaction: %w", event.ErrDamaged)
	}
	if !sh.wanted {
		if len(r.quar.tables) > 0 && r.quar.tables[sh.schema+"."+sh.name] != "" {
			r.leftOut(statement.Name{Schema: sh.schema, Table: sh.name})
		}
		if sh.signal != nil {
			return r.signalled(sh.signal, h, body)
		}
		if sh.ghost {
			if p := r.tables.ddl[sh.schema+"."+sh.name]; p != nil {
				p.Fill()
			}
		}
		return nil
	}
	if n := len(r.tx.touched); n == 0 || r.tx.touched[n-1] != sh && !slices.Contains(r.tx.touched, sh) {
		r.tx.touched = append(r.tx.touched, sh)
	}
	ev, err := event.ReadRows(h.Type, body)
	if err != nil {
		return err
	}
	if ev.Columns != len(sh.table.Columns) {
		r.misfit(sh, fmt.Errorf("a rows event of %d columns, the table map has %d", ev.Columns, len(sh.table.Columns)))
		return nil
	}
	if ev.Compressed {
		if ev.Body, err = r.inflate.Inflate(ev.Body, maxEvent); err != nil {
			return err
		}
	}
	if ev.Kind != event.Write && sh.table.FullBefore && !all(ev.Present, ev.Columns) {
		t := *sh.table
		t.FullBefore = false
		sh.table = &t
		r.src.live.Store(liveKey{sh.schema, sh.name}, sh.table)
	}
	return r.images(sh, &ev)
}

// misfit quarantines a table whose rows do not fit its shape.
func (r *reader) misfit(sh *shape, err error) {
	r.quarantine(sh.schema, sh.name, codeStructure, err.Error(), "upgrade Leat if a newer version knows the form; then "+pipeline.BringRows)
}

// all tells whether a bitmap has its first n bits set.
func all(bitmap []byte, n int) bool {
	for i := range n / 8 {
		if bitmap[i] != 0xff {
			return false
		}
	}
	rest := n % 8
	return rest == 0 || bitmap[n/8]|0xff<<rest == 0xff
}

func none(bitmap []byte, n int) bool {
	for i := range n {
		if bitmap[i/8]&(1<<(i%8)) != 0 {
			return false
		}
	}
	return true
}

// images adds an event for each row.
func (r *reader) images(sh *shape, ev *event.Rows) error {
	present, after := ev.Present, ev.PresentAfter
	if ev.Kind == event.Write && none(present, ev.Columns) {
		r.quarantine(sh.schema, sh.name, codeImage, "rows were inserted whose images have no columns at all", "SET PERSIST binlog_row_image='FULL'; then "+pipeline.BringRows)
		return nil
	}
	if all(present, ev.Columns) {
		present = nil
	}
	if after != nil && all(after, ev.Columns) {
		after = nil
	}
	table, in := uint16(0), (*pipeline.Batch)(nil)
	for body := ev.Body; len(body) > 0; {
		n, err := sh.layout.RowLen(body, present)
		if err == nil && n == 0 {
			err = event.ErrDamaged
		}
		if err != nil {
			r.misfit(sh, err)
			return nil
		}
		first := body[:n]
		body = body[n:]
		var second []byte
		if ev.Kind == event.Update || ev.Kind == event.Partial {
			if second, body, err = r.second(sh, ev, first, after, body); err != nil {
				if errors.Is(err, errQuarantined) {
					return nil
				}
				return err
			}
		}
		if err := r.room(); err != nil {
			return err
		}
		if in != r.b {
			if table, err = r.tableIndex(sh.table); err != nil {
				return err
			}
			in = r.b
		}
		e := pipeline.Event{Table: table, Tx: uint32(len(r.b.Txs) - 1), Before: pipeline.Nowhere, After: pipeline.Nowhere}
		switch ev.Kind {
		case event.Write:
			e.Op = pipeline.OpInsert
			e.After, err = r.image(sh, present, first)
		case event.Delete:
			e.Op = pipeline.OpDelete
			e.Before, err = r.image(sh, present, first)
		default:
			e.Op = pipeline.OpUpdate
			if e.Before, err = r.image(sh, present, first); err == nil {
				e.After, err = r.image(sh, after, second)
			}
		}
		if err != nil {
			r.misfit(sh, err)
			return r.unlist()
		}
		r.b.Events = append(r.b.Events, e)
		r.tx.count++
	}
	return nil
}

// unlist takes a transaction out of the batch that was listed for an event which did not come.
func (r *reader) unlist() error {
	if r.tx.listed && len(r.b.Events) == r.tx.first {
		r.b.Arena, r.b.Txs, r.tx.listed = r.b.Arena[:r.tx.arena], r.b.Txs[:len(r.b.Txs)-1], false
	}
	return nil
}

// errQuarantined ends the reading of an event whose table was quarantined.
var errQuarantined = errors.New("quarantined")

// second cuts the after image of an update behind its before image, which is first. Of a partial update the
// image is made from both; it is valid until the next call.
func (r *reader) second(sh *shape, ev *event.Rows, first, present, body []byte) (image, rest []byte, err error) {
	if ev.Kind == event.Partial {
		return r.partial(sh, ev, first, body)
	}
	n, err := sh.layout.RowLen(body, present)
	if err != nil {
		r.misfit(sh, err)
		return nil, nil, errQuarantined
	}
	return body[:n], body[n:], nil
}

// partial completes the JSON values of which only the changes were sent.
func (r *reader) partial(sh *shape, ev *event.Rows, first, body []byte) (image, rest []byte, err error) {
	size := (ev.Columns + 7) / 8
	r.was = append(append(append(r.was[:0], 1), ev.Present[:size]...), first...)
	var n int
	if r.now, n, err = sh.layout.AppendPartial(r.now[:0], r.was, body, ev.PresentAfter); err != nil {
		r.quarantine(sh.schema, sh.name, codePartial, "an update carries only the changes of a JSON value: "+err.Error(),
			"SET PERSIST binlog_row_value_options='' and reconnect the writers; then "+pipeline.BringRows)
		return nil, nil, errQuarantined
	}
	return r.now[1+size:], body[n:], nil
}

// image copies a row image into the batch, in wire form [schemas.WireBinlog].
func (r *reader) image(sh *shape, present, row []byte) (pipeline.Span, error) {
	b := r.b
	off := len(b.Arena)
	if need := 1 + len(present) + len(row); cap(b.Arena)-off < need {
		b.Room(max(need, off), 0) // append alone grows by a quarter, and copies each time
	}
	switch {
	case sh.trim != nil:
		var err error
		if b.Arena, err = sh.trim.append(b.Arena, present, row); err != nil {
			return pipeline.Nowhere, err
		}
	case present == nil:
		b.Arena = append(append(b.Arena, 0), row...)
	default:
		b.Arena = append(append(append(b.Arena, 1), present...), row...)
	}
	return pipeline.Span{Off: uint32(off), Len: uint32(len(b.Arena) - off)}, nil
}

// trim rewrites row images without the columns that stay out of the log: they become absent, and none of
// their bytes is left.
type trim struct {
	drop []bool
	walk func([]byte, []cell.Ref, int) ([]cell.Ref, error)
	buf  []byte
	refs []cell.Ref
}

func newTrim(t *schemas.Table, drop []bool) *trim {
	return &trim{drop: drop, walk: binlog.Form(t).Walk}
}

func (t *trim) append(dst, present, row []byte) ([]byte, error) {
	n := len(t.drop)
	size := (n + 7) / 8
	if present == nil {
		t.buf = append(append(t.buf[:0], 0), row...)
	} else {
		t.buf = append(append(append(t.buf[:0], 1), present[:size]...), row...)
	}
	var err error
	if t.refs, err = t.walk(t.buf, t.refs[:0], n); err != nil {
		return dst, err
	}
	sent, kept := 0, 0
	for i, ref := range t.refs {
		if !ref.Absent() {
			sent++
			if !t.drop[i] {
				kept++
			}
		}
	}
	at := len(dst) + 1
	dst = append(dst, 1)
	dst = append(dst, make([]byte, size+(kept+7)/8)...)
	nulls := at + size
	// The values stand one behind the other, each from the end of the one before.
	from := len(t.buf) - len(row) + (sent+7)/8
	nth := 0
	for i, ref := range t.refs {
		if ref.Absent() {
			continue
		}
		if !t.drop[i] {
			dst[at+i/8] |= 1 << (i % 8)
			if ref.Null() {
				dst[nulls+nth/8] |= 1 << (nth % 8)
			} else {
				dst = append(dst, t.buf[from:ref.Off+ref.Len]...)
			}
			nth++
		}
		if !ref.Null() {
			from = int(ref.Off + ref.Len)
		}
	}
	return dst, nil
}
