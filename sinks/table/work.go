package table

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/table/target"
)

// item is what becomes of one row.
type item struct {
	event  int // of the Delivery
	plan   *plan
	key    string
	offset uint64
	gone   bool
	made   bool // the row is new
	// cells by the plan's columns, of a row that is gone the key's alone; nil is NULL.
	cells  [][]byte
	absent []bool // by column; nil: none
}

// work is one Delivery.
type work struct {
	s *Sink
	d *pipeline.Delivery
	// whole: all in one transaction, of each key the last event. Else rows that do not fit are found.
	whole bool

	items  []item
	last   map[string]int         // item of a key
	keyed  map[target.Name]string // the columns of the keys among the items
	out    pipeline.Outcomes
	failed map[string]bool // keys with an event that failed
	slab   [][]byte
	bytes  []byte

	before, after []cell.Ref
	value         cell.Value
	scratch       cell.Scratch
}

// fail notes what became of an event; the first word counts.
func (w *work) fail(event int, o pipeline.Outcome) {
	if w.out == nil {
		w.out = make(pipeline.Outcomes, w.d.Events)
	}
	if w.out[event].Class == pipeline.OK {
		w.out[event] = o
	}
}

// all writes the Delivery.
func (w *work) all(ctx context.Context) error {
	w.last, w.failed, w.keyed = map[string]int{}, map[string]bool{}, map[target.Name]string{}
	err := w.d.Each(func(n int, b *pipeline.Batch, i int, as pipeline.Op) error {
		op := b.Events[i].Op
		if as != pipeline.OpNone {
			op = as
		}
		t := b.TableOf(i)
		if t == nil || !op.Row() && op != pipeline.OpTruncate {
			return nil
		}
		p, err := w.s.plan(ctx, t)
		var ee *encode.EventError
		if errors.As(err, &ee) {
			w.fail(n, pipeline.Outcome{Class: pipeline.Fatal, Reason: ee.Err.Error()})
			return nil
		}
		if err != nil {
			return err
		}
		if op == pipeline.OpTruncate {
			if err := w.flush(ctx); err != nil {
				return err
			}
			return w.empty(ctx, p, uint64(b.Offset(i)))
		}
		// What has another key since may be a row that stands among the items.
		if was, ok := w.keyed[p.name]; ok && was != p.keyed {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
		w.keyed[p.name] = p.keyed
		return w.add(ctx, p, n, b, i, op)
	})
	if err != nil {
		return err
	}
	return w.flush(ctx)
}

// add reads an event.
func (w *work) add(ctx context.Context, p *plan, n int, b *pipeline.Batch, i int, op pipeline.Op) error {
	it := item{event: n, plan: p, offset: uint64(b.Offset(i)), gone: op == pipeline.OpDelete, made: op != pipeline.OpUpdate}
	if err := w.read(&it, b, i); err != nil {
		reason := err.Error()
		var ee *encode.EventError
		if errors.As(err, &ee) {
			reason = ee.Error()
		}
		w.fail(n, pipeline.Outcome{Class: pipeline.Fatal, Reason: reason})
		return nil
	}
	if w.whole {
		if at, ok := w.last[it.key]; ok {
			if w.merge(&w.items[at], it) {
				return nil
			}
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
		w.last[it.key] = len(w.items)
	}
	w.items = append(w.items, it)
	return nil
}

// merge puts a later event of a row in an earlier one's place; false: that cannot be said without the target.
func (w *work) merge(was *item, it item) bool {
	if it.offset < was.offset { // of another routing key
		it, *was = *was, it
	}
	if it.absent != nil && (was.gone || was.plan != it.plan) {
		return false
	}
	it.made = it.made || was.made
	left := false
	for n := range it.absent {
		switch {
		case !it.absent[n]:
		case was.absent == nil || !was.absent[n]:
			it.cells[n], it.absent[n] = was.cells[n], false
		default:
			left = true
		}
	}
	if !left {
		it.absent = nil
	}
	*was = it
	return true
}

// errMissing has a Delivery done again, event by event.
var errMissing = &target.Fault{Kind: target.Unfit, Text: "a row is not there"}

// missing is the outcome of a row that did not come whole and is not there.
func missing(it *item) pipeline.Outcome {
	name := ""
	for n, absent := range it.absent {
		if absent {
			name = it.plan.columns[n].Name
			break
		}
	}
	return pipeline.Outcome{Class: pipeline.Fatal, Reason: fmt.Sprintf("the row is not in %s, and the source did not send its column %s: leat discard lets it go, then leat backfill --table %s brings the row whole", it.plan.name, name, it.plan.table.Subject())}
}

// image is a row image taken apart.
func image(p *plan, b *pipeline.Batch, s pipeline.Span, refs []cell.Ref) (bytes []byte, _ []cell.Ref, err error) {
	if !s.Present() {
		return nil, refs[:0], nil
	}
	bytes = b.Bytes(s)
	refs, err = p.form.Walk(bytes, refs[:0], p.walk)
	return bytes, refs, err
}

// read takes key and columns of an event.
func (w *work) read(it *item, b *pipeline.Batch, i int) (err error) {
	p, ev := it.plan, &b.Events[i]
	var before, after []byte
	if before, w.before, err = image(p, b, ev.Before, w.before); err != nil {
		return fmt.Errorf("read the row: %w", err)
	}
	if after, w.after, err = image(p, b, ev.After, w.after); err != nil {
		return fmt.Errorf("read the row: %w", err)
	}
	// What one image lacks the other has, unless the key changed; a deleted row is found by the old one.
	first, firstRefs, second, secondRefs := after, w.after, before, w.before
	if it.gone && before != nil {
		first, firstRefs, second, secondRefs = before, w.before, after, w.after
	}
	moved := ev.Flags&pipeline.FlagKeyChange != 0
	columns := len(p.columns)
	if it.gone {
		columns = p.keys
	}
	it.cells = w.row(columns)
	for n := range columns {
		c := &p.columns[n]
		ref, from := cell.Ref{Len: cell.LenAbsent}, first
		if c.Index < 0 {
			ref = cell.Ref{}
		} else if c.Index < len(firstRefs) {
			ref = firstRefs[c.Index]
		}
		if ref.Absent() && c.Index < len(secondRefs) && !(moved && it.gone) {
			ref, from = secondRefs[c.Index], second
		}
		switch {
		case ref.Absent() && n < p.keys:
			return &encode.EventError{Column: c.Name, Err: errors.New("the source did not send this key column")}
		case ref.Absent():
			if it.absent == nil {
				it.absent = make([]bool, columns)
			}
			it.absent[n] = true
		case ref.Null():
		default:
			if err := w.cell(it, n, ref.Of(from)); err != nil {
				return &encode.EventError{Column: c.Name, Err: err}
			}
		}
		if n < p.keys && it.cells[n] == nil {
			return &encode.EventError{Column: c.Name, Err: errors.New("a column of the key is NULL")}
		}
	}
	it.key = w.keyOf(p, it.cells)
	return nil
}

// cell makes one cell. Raw ones stay where they are, in the Delivery's memory.
func (w *work) cell(it *item, n int, raw []byte) error {
	p := it.plan
	if p.raw[n] {
		it.cells[n] = raw
		if raw == nil {
			it.cells[n] = []byte{}
		}
		return nil
	}
	w.scratch.Reset()
	w.value = cell.Value{}
	if err := p.columns[n].Decode(&w.value, raw, &w.scratch); err != nil {
		return err
	}
	if w.value.State != cell.Present { // redacted
		return nil
	}
	from := len(w.bytes)
	out, err := w.s.db.Append(w.bytes, &w.value, &p.to[n], &w.scratch)
	if err != nil {
		return err
	}
	w.bytes = out
	it.cells[n] = out[from:len(out):len(out)]
	if cap(w.bytes)-len(w.bytes) < 256 { // what was cut off before keeps the old memory
		w.bytes = make([]byte, 0, 64<<10)
	}
	return nil
}

// row returns n cells.
func (w *work) row(n int) [][]byte {
	if len(w.slab) < n {
		w.slab = make([][]byte, max(4096, n))
	}
	r := w.slab[:n:n]
	w.slab = w.slab[n:]
	return r
}

func (w *work) keyOf(p *plan, cells [][]byte) string {
	k := append([]byte(p.name.Schema), 0)
	k = append(append(k, p.name.Table...), 0)
	k = append(append(k, p.keyed...), 0)
	for _, c := range cells[:p.keys] {
		k = append(binary.AppendUvarint(k, uint64(len(c))), c...)
	}
	return string(k)
}

// flush writes the items.
func (w *work) flush(ctx context.Context) error {
	w.d.HandOver()
	items := w.items
	w.items = w.items[:0]
	clear(w.last)
	if w.whole {
		return w.apply(ctx, items)
	}
	for len(items) > 0 { // runs in which no key stands twice
		n, seen := 0, map[string]bool{}
		for n < len(items) && !seen[items[n].key] {
			seen[items[n].key] = true
			n++
		}
		if err := w.search(ctx, items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// search writes items, without those that do not fit: it halves until they are found.
func (w *work) search(ctx context.Context, items []item) error {
	var left []item
	for _, it := range items {
		if w.failed[it.key] {
			w.fail(it.event, pipeline.Outcome{Class: pipeline.Retry, Reason: "an earlier event of the row failed"})
			continue
		}
		left = append(left, it)
	}
	if len(left) == 0 {
		return nil
	}
	err := w.apply(ctx, left)
	var f *target.Fault
	if !errors.As(err, &f) || f.Kind != target.Unfit && f.Kind != target.Conflict && (f.Kind != target.TooLarge || len(left) == 1) {
		return err
	}
	if n := len(left) / 2; n > 0 {
		if err := w.search(ctx, left[:n]); err != nil {
			return err
		}
		return w.search(ctx, left[n:])
	}
	o := pipeline.Outcome{Class: pipeline.Fatal, Reason: fmt.Sprintf("%s: %s", left[0].plan.name, f.Error())}
	if f.Kind == target.Conflict { // what is in the way may be on its way out
		o.Class = pipeline.Retry
	}
	w.failed[left[0].key] = true
	w.fail(left[0].event, o)
	return nil
}

// apply writes items of different keys in one transaction.
func (w *work) apply(ctx context.Context, items []item) error {
	if len(items) == 0 {
		return nil
	}
	changes := w.changes(items)
	var err error
	for try := 1; ; try++ {
		err = w.s.db.Apply(ctx, changes)
		var f *target.Fault
		if try == mostTries || !errors.As(err, &f) || f.Kind != target.Again {
			break
		}
	}
	if err != nil {
		return err
	}
	for _, c := range changes {
		for i := range c.Rows {
			// One that was changed and is not there was deleted since, as where this comes again; or it never came here.
			if it := &items[c.Rows[i].Item]; c.Rows[i].Missing && it.made {
				if w.whole { // it may stand for several events
					return errMissing
				}
				w.failed[it.key] = true
				w.fail(it.event, missing(it))
			}
		}
	}
	return nil
}

// group is what rows of one Change have in common.
type group struct {
	plan    *plan
	gone    bool
	pattern string
}

// changes sorts items by what one statement can write; deletes first, so that their unique values are free.
func (w *work) changes(items []item) []*target.Change {
	var gone, there []*target.Change
	of := map[group]*target.Change{}
	for n := range items {
		it := &items[n]
		g := group{plan: it.plan, gone: it.gone}
		if it.absent != nil {
			mask := make([]byte, len(it.absent))
			for i, a := range it.absent {
				if a {
					mask[i] = 1
				}
			}
			g.pattern = string(mask)
		}
		c := of[g]
		if c == nil {
			c = it.change(w.s.o.Guard)
			if of[g] = c; it.gone {
				gone = append(gone, c)
			} else {
				there = append(there, c)
			}
		}
		cells := it.cells
		if it.absent != nil {
			cells = make([][]byte, 0, len(c.Columns))
			for i := range it.cells {
				if !it.absent[i] {
					cells = append(cells, it.cells[i])
				}
			}
		}
		c.Rows = append(c.Rows, target.Row{Cells: cells, Offset: it.offset, Item: n})
	}
	return append(gone, there...)
}

// change returns an empty one for rows like this.
func (it *item) change(guard string) *target.Change {
	p := it.plan
	c := &target.Change{Verb: target.Upsert, Name: p.name, Keys: p.keys, Guard: guard, Columns: p.to[:len(it.cells)]}
	switch {
	case it.gone:
		c.Verb = target.Delete
	case it.absent != nil:
		c.Verb, c.Columns = target.Update, nil
		for n := range it.cells {
			if !it.absent[n] {
				c.Columns = append(c.Columns, p.to[n])
			}
		}
	}
	return c
}

// empty removes what a table had before an offset. What takes longer than a Delivery may: it goes on where it was, and
// no attempt is spent.
func (w *work) empty(ctx context.Context, p *plan, offset uint64) error {
	for removed := 0; ; {
		n, err := w.s.db.Empty(ctx, p.name, w.s.o.Guard, offset)
		if err != nil && ctx.Err() != nil && removed > 0 {
			return &pipeline.DeliveryError{Class: pipeline.Unavailable, RetryAfter: time.Millisecond, Reason: fmt.Sprintf("empty %s: %d rows are removed, it goes on", p.name, removed)}
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		removed += n
	}
}
