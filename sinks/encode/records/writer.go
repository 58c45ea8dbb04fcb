package records

import (
	"context"
	"errors"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/sinks/encode"
)

var (
	errNoRow     = errors.New("the event has no row image")
	errKeyAbsent = errors.New("the source did not send this key column")
	errUTF8      = errors.New("text is not valid UTF-8")
	errBadOp     = errors.New("the operation is not known to this version")
	errNullKey   = errors.New("a key column that is NOT NULL holds NULL")
)

// Writer is one goroutine's memory for encoding.
type Writer struct {
	e *Encoder
	// ctx ends what a first event of a table version waits for.
	ctx    context.Context
	replay string

	topic *Topic
	table *schemas.Table
	plan  *plan

	// batch and tx say what frags hold: what is the same for a transaction.
	batch *pipeline.Batch
	tx    int
	frags []byte
	ends  [2]int

	before, after image
	value         cell.Value
	scratch       cell.Scratch
	number        decimal
	column        int // into the plan's columns, for errors; -1: none
}

// image is a row image taken apart.
type image struct {
	there bool
	bytes []byte
	refs  []cell.Ref
}

// ref returns the cell of a column; columns that the walk did not reach are absent.
func (m *image) ref(i int) cell.Ref {
	if i >= len(m.refs) {
		return cell.Ref{Len: cell.LenAbsent}
	}
	if i < 0 { // a constant: in every image, of no bytes
		return cell.Ref{}
	}
	return m.refs[i]
}

// Writer returns a writer for one Delivery: ctx is the Delivery's, and replay its job, or empty. Not safe for
// concurrent use; end it with Close.
func (e *Encoder) Writer(ctx context.Context, replay string) *Writer {
	w := e.writers.Get().(*Writer)
	w.ctx, w.replay = ctx, replay
	return w
}

// Close gives the writer's memory back.
func (w *Writer) Close() {
	w.ctx, w.batch, w.topic, w.plan, w.table = nil, nil, nil, nil, nil
	w.e.writers.Put(w)
}

// Append appends key and value of event i of b to dst; as, when not OpNone, is the op it is sent as.
//
// The first event of a table version may wait for a schema registry. An error is an [*encode.EventError] when this
// event can never be encoded (it is fatal, others go on), else a [*pipeline.DeliveryError] that holds for the whole
// Delivery (a registry that is down, a schema that it refuses). Then dst is returned as it was.
func (w *Writer) Append(dst []byte, t *Topic, b *pipeline.Batch, i int, as pipeline.Op) ([]byte, Record, error) {
	start := len(dst)
	if w.e.schemas == nil {
		out, key, err := w.e.json.AppendRecord(dst, b, i, as)
		if err != nil {
			return out, none, err
		}
		return out, Record{key, len(out) - start - max(key, 0)}, nil
	}
	ev := &b.Events[i]
	op := ev.Op
	if as != pipeline.OpNone {
		op = as
	}
	w.column = -1
	out, key, err := w.event(dst, t, b, i, ev, op)
	if err == nil {
		return out, Record{key, len(out) - start - max(key, 0)}, nil
	}
	var whole *pipeline.DeliveryError
	if errors.As(err, &whole) {
		return out[:start], none, whole
	}
	ee := &encode.EventError{}
	if !errors.As(err, &ee) {
		ee = &encode.EventError{Err: err}
	}
	ee = &encode.EventError{Event: i, Column: ee.Column, Err: ee.Err}
	if w.plan != nil && w.column >= 0 {
		ee.Column = w.plan.cols[w.column].Name
	}
	return out[:start], none, ee
}

var none = Record{-1, -1}

func (w *Writer) event(dst []byte, t *Topic, b *pipeline.Batch, i int, ev *pipeline.Event, op pipeline.Op) ([]byte, int, error) {
	if op == pipeline.OpNone || op > pipeline.OpMessage {
		return dst, -1, errBadOp
	}
	if table := b.TableOf(i); w.plan == nil || table != w.table || t != w.topic {
		p, err := t.planOf(w.ctx, table)
		if err != nil {
			w.plan = nil
			return dst, -1, err
		}
		w.plan, w.table, w.topic = p, table, t
	}
	if w.e.json != nil {
		return w.framed(dst, b, i, ev, op)
	}
	if w.batch != b || w.tx != int(ev.Tx) {
		w.batch = nil
		if err := w.e.codec.transaction(w, b, &b.Txs[ev.Tx]); err != nil {
			return dst, -1, err
		}
		w.batch, w.tx = b, int(ev.Tx)
	}
	key := -1
	if op.Row() {
		if w.plan.table == nil {
			return dst, -1, errNoRow
		}
		if err := errors.Join(w.walk(&w.before, b, ev.Before), w.walk(&w.after, b, ev.After)); err != nil {
			return dst, -1, err
		}
		if !w.before.there && !w.after.there {
			return dst, -1, errNoRow
		}
		if len(w.plan.keys) > 0 {
			start := len(dst)
			var err error
			if dst, err = w.e.codec.key(w, dst, op); err != nil {
				return dst, -1, err
			}
			key = len(dst) - start
		}
	}
	dst, err := w.e.codec.value(w, dst, b, i, ev, op)
	return dst, key, err
}

func (w *Writer) walk(m *image, b *pipeline.Batch, s pipeline.Span) error {
	m.there, m.refs = s.Present(), m.refs[:0]
	if !m.there {
		return nil
	}
	m.bytes = b.Bytes(s)
	var err error
	m.refs, err = w.plan.form.Walk(m.bytes, m.refs, w.plan.walk)
	return err
}

// images returns the image that the event is about, and the other.
func (w *Writer) images(op pipeline.Op) (of, other *image) {
	if op == pipeline.OpDelete {
		return &w.before, &w.after
	}
	return &w.after, &w.before
}

// find returns a cell of m and its image; that of a key may stand in the other one.
func find(c *column, m, other *image) (*image, cell.Ref) {
	ref := m.ref(c.Index)
	if ref.Absent() && c.key {
		return other, other.ref(c.Index)
	}
	return m, ref
}
