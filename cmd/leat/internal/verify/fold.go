package verify

import (
	"context"
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// step takes one event of a table.
type step func(c *comparison, b *pipeline.Batch, i int, op pipeline.Op) error

// fold reads the log from one offset to another, once for all tables, and hands each event that the subscription gets
// to f.
func (v *run) fold(ctx context.Context, from, to pipeline.Offset, f step) error {
	if from >= to {
		return nil
	}
	r, err := v.o.Log.Read(from)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	defer r.Close()
	var runs []pipeline.Run
	for at := from; at < to; {
		b, err := r.Next(ctx)
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		at = b.Next()
		if v.mine(b) {
			first, last := 0, len(b.Events)
			if b.Base < from {
				first = min(int(from-b.Base), last)
			}
			if b.Next() > to {
				last = max(first, int(to-b.Base))
			}
			runs, err = v.batch(b, first, last, runs[:0], f)
		}
		b.Release()
		v.o.Progress(Progress{Phase: "log", Done: uint64(min(at, to) - from), Rows: uint64(to - from)})
		if err != nil {
			return err
		}
	}
	return nil
}

// mine notes which snapshots the log holds whole; false: the batch is for another subscription.
func (v *run) mine(b *pipeline.Batch) bool {
	m := b.Snapshot
	if m == nil {
		return true
	}
	if m.For != "" && m.For != v.o.Subscription {
		return false
	}
	for _, t := range m.Tables {
		for _, c := range v.tables {
			if t.Table != c.report.Table || c.snapshots == nil {
				continue
			}
			if _, begun := c.snapshots[m.Job]; !begun {
				c.snapshots[m.Job] = v.o.Whole(m.Job) && t.Rows <= uint64(len(b.Events)) // its first rows stand here
			}
			c.whole = c.whole || t.Done && t.Fault == "" && c.snapshots[m.Job]
		}
	}
	return true
}

// of returns the comparison of a table, nil where there is none any more.
func (v *run) of(t *schemas.Table) *comparison {
	if t == nil {
		return nil
	}
	if c := v.named[[2]string{t.Schema, t.Name}]; c != nil && c.report.Error == "" {
		return c
	}
	return nil
}

func (v *run) batch(b *pipeline.Batch, first, last int, runs []pipeline.Run, f step) ([]pipeline.Run, error) {
	found := false
	for _, t := range b.Tables {
		found = found || v.of(t) != nil
	}
	if !found {
		return runs, nil
	}
	runs = v.o.Select(b, first, last, runs)
	var t *schemas.Table
	var c *comparison
	for _, r := range runs {
		for i := int(r.From); i < int(r.To); i++ {
			if is := b.TableOf(i); is != t || c != nil && c.report.Error != "" {
				t, c = is, v.of(is)
			}
			if c == nil {
				continue
			}
			op := b.Events[i].Op
			if r.As != pipeline.OpNone {
				op = r.As
			}
			if err := f(c, b, i, op); err != nil {
				if err = c.fails(fmt.Errorf("event %d: %w", b.Offset(i), err)); err != nil {
					return runs, err
				}
			}
		}
	}
	return runs, nil
}

// event is the line that an event leaves behind; ok is false for what says nothing of a row.
func (c *comparison) event(b *pipeline.Batch, i int, op pipeline.Op) (l line, ok bool, err error) {
	e := &b.Events[i]
	if !e.Op.Row() {
		return l, false, nil
	}
	s, err := c.shape(b.TableOf(i))
	if err != nil {
		return l, false, err
	}
	before, after := b.Bytes(e.Before), b.Bytes(e.After)
	l = line{table: c.number, at: uint64(b.Offset(i)), sums: c.sums, gone: op == pipeline.OpDelete}
	if c.run.o.RangeOf != nil {
		l.span = c.run.o.RangeOf(b, i)
	}
	switch {
	case l.gone && before != nil:
		clear(c.sums)
		l.key, err = c.rows.key(s, before, after)
	case l.gone:
		clear(c.sums)
		l.key, err = c.rows.key(s, after, nil)
	default:
		l.key, err = c.rows.row(s, after, before, c.sums)
	}
	return l, err == nil, err
}

func (c *comparison) shape(t *schemas.Table) (*shape, error) {
	if s := c.shapes[t]; s != nil {
		return s, nil
	}
	s, err := c.layout.shapeOf(t, c.run.o.Form(t))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTable, err)
	}
	c.shapes[t] = s
	return s, nil
}

// keep puts what an event leaves behind into the book of the log.
func (c *comparison) keep(b *pipeline.Batch, i int, op pipeline.Op) error {
	if op == pipeline.OpTruncate {
		return c.run.other.empty(c.number)
	}
	l, ok, err := c.event(b, i, op)
	if err != nil || !ok {
		return err
	}
	if b.Events[i].Flags&pipeline.FlagKeyChange != 0 {
		c.moved(&l)
	}
	return c.run.other.put(l)
}

// moved gives the second half of a key change what it did not bring and the first half's row had.
func (c *comparison) moved(l *line) {
	if l.gone {
		c.left = append(c.left[:0], make([]uint64, len(l.sums))...)
		if n, ok := c.run.other.lines[l.key]; ok {
			copy(c.left, c.run.other.order[n].sums)
		}
		return
	}
	for i := range l.sums {
		if l.sums[i] == unknown && i < len(c.left) {
			l.sums[i] = c.left[i]
		}
	}
	c.left = c.left[:0]
}
