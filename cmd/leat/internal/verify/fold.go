package verify

import (
	"context"
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// fold reads the log from one offset to another and hands each event of the table that the subscription gets to f.
func (c *comparison) fold(ctx context.Context, from, to pipeline.Offset, f func(b *pipeline.Batch, i int, op pipeline.Op) error) error {
	if from >= to {
		return nil
	}
	r, err := c.o.Log.Read(from)
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
		if err = c.mine(b); err == nil {
			first, last := 0, len(b.Events)
			if b.Base < from {
				first = min(int(from-b.Base), last)
			}
			if b.Next() > to {
				last = max(first, int(to-b.Base))
			}
			runs, err = c.batch(b, first, last, runs[:0], f)
		}
		b.Release()
		c.o.Progress(Progress{Table: c.report.Table, Phase: "log", Done: uint64(min(at, to) - from), Rows: uint64(to - from)})
		if err != nil && err != errOther {
			return err
		}
	}
	return nil
}

// errOther: a batch that is for another subscription.
var errOther = fmt.Errorf("for another subscription")

// mine notes which snapshots the log holds whole, and refuses the rows of those for others.
func (c *comparison) mine(b *pipeline.Batch) error {
	m := b.Snapshot
	if m == nil {
		return nil
	}
	if m.For != "" && m.For != c.o.Subscription {
		return errOther
	}
	for _, t := range m.Tables {
		if t.Table != c.report.Table {
			continue
		}
		_, begun := c.snapshots[m.Job]
		if !begun {
			c.snapshots[m.Job] = c.o.Whole(m.Job) && t.Rows <= uint64(len(b.Events)) // its first rows stand here
		}
		c.whole = c.whole || t.Done && t.Fault == "" && c.snapshots[m.Job]
	}
	return nil
}

func (c *comparison) batch(b *pipeline.Batch, first, last int, runs []pipeline.Run, f func(*pipeline.Batch, int, pipeline.Op) error) ([]pipeline.Run, error) {
	found := false
	for _, t := range b.Tables {
		found = found || c.is(t)
	}
	if !found {
		return runs, nil
	}
	runs = c.o.Select(b, first, last, runs)
	for _, r := range runs {
		for i := int(r.From); i < int(r.To); i++ {
			if t := b.TableOf(i); t == nil || !c.is(t) {
				continue
			}
			op := b.Events[i].Op
			if r.As != pipeline.OpNone {
				op = r.As
			}
			if err := f(b, i, op); err != nil {
				return runs, fmt.Errorf("event %d: %w", b.Offset(i), err)
			}
		}
	}
	return runs, nil
}

func (c *comparison) is(t *schemas.Table) bool {
	return t.Schema == c.table.Schema && t.Name == c.table.Name
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
	l = line{at: uint64(b.Offset(i)), sums: c.sums, gone: op == pipeline.OpDelete}
	if c.o.RangeOf != nil {
		l.span = c.o.RangeOf(b, i)
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
	s, err := c.layout.shapeOf(t, c.o.Form(t))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTable, err)
	}
	c.shapes[t] = s
	return s, nil
}

// keep puts what an event leaves behind into the book of the log.
func (c *comparison) keep(b *pipeline.Batch, i int, op pipeline.Op) error {
	if op == pipeline.OpTruncate {
		return c.other.forget()
	}
	l, ok, err := c.event(b, i, op)
	if err != nil || !ok {
		return err
	}
	if b.Events[i].Flags&pipeline.FlagKeyChange != 0 {
		c.moved(&l)
	}
	return c.other.put(l)
}

// moved gives the second half of a key change what it did not bring and the first half's row had.
func (c *comparison) moved(l *line) {
	if l.gone {
		c.left = append(c.left[:0], make([]uint64, len(l.sums))...)
		if n, ok := c.other.lines[l.key]; ok {
			copy(c.left, c.other.order[n].sums)
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
