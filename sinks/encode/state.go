package encode

import (
	"errors"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// state is the scratch memory of one goroutine's encoding, and what it knows of the last event.
type state struct {
	e     *Encoder
	batch *pipeline.Batch
	tx    int // index into batch.Txs of what frags hold
	table *schemas.Table
	plan  *plan

	before, after image
	value         cell.Value
	scratch       cell.Scratch
	nest          []uint64

	// keys holds the encoded values of plan.keys; ends[i] is where the i-th ends.
	keys []byte
	ends []int
	from [maxKeys]uint8 // which image each came from: 0 before, 1 after
	more []uint8        // the same beyond maxKeys
	// frags holds what is the same for the whole transaction.
	frags      []byte
	time, txid span
	position   span
	column     int // of the value in work, for errors
	// keyed: the key goes before the event; keyLen is its length, -1 for none.
	keyed  bool
	keyLen int
}

// maxKeys is how many key columns are remembered without a slice of their own.
const maxKeys = 16

type span struct{ from, to int }

// image is a row image taken apart.
type image struct {
	there bool
	bytes []byte
	refs  []cell.Ref
}

// ref returns the cell of a column; columns that the walk did not reach are absent.
func (m *image) ref(i int) *cell.Ref {
	if !m.there || i >= len(m.refs) {
		return &absent
	}
	if i < 0 {
		return &noBytes
	}
	return &m.refs[i]
}

var (
	absent  = cell.Ref{Len: cell.LenAbsent}
	noBytes cell.Ref // of a constant: it is in every image
)

var (
	errNoRow     = errors.New("the event has no row image")
	errKeyAbsent = errors.New("the source did not send this key column")
	errUTF8      = errors.New("text is not valid UTF-8")
	errBadOp     = errors.New("the operation is not known to this version")
)

// append appends event i. On error dst is as it was.
func (st *state) append(dst []byte, b *pipeline.Batch, i int, as pipeline.Op) ([]byte, error) {
	ev := &b.Events[i]
	op := ev.Op
	if as != pipeline.OpNone {
		op = as
	}
	st.column = -1
	start := len(dst)
	out, err := st.event(dst, b, i, ev, op)
	if err == nil {
		return out, nil
	}
	ee := &EventError{Event: i, Err: err}
	if st.plan != nil && st.plan.table != nil && st.column >= 0 && st.column < len(st.plan.table.Columns) {
		ee.Column = st.plan.table.Columns[st.column].Name
	}
	return out[:start], ee
}

func (st *state) event(dst []byte, b *pipeline.Batch, i int, ev *pipeline.Event, op pipeline.Op) ([]byte, error) {
	if op == pipeline.OpNone || op > pipeline.OpMessage {
		return dst, errBadOp
	}
	if err := st.prepare(b, ev); err != nil {
		return dst, err
	}
	if op.Row() {
		if err := st.rows(b, ev, op); err != nil {
			return dst, err
		}
		if st.keyed && len(st.plan.identity) > 0 {
			start := len(dst)
			dst = st.jsonKey(dst)
			st.keyLen = len(dst) - start
		}
	}
	if st.e.json {
		return st.jsonEvent(dst, b, i, ev, op)
	}
	return st.protoEvent(dst, b, i, ev, op)
}

// prepare finds the plan and formats what belongs to the transaction.
func (st *state) prepare(b *pipeline.Batch, ev *pipeline.Event) error {
	if ev.Table == pipeline.NoTable {
		st.plan, st.table = st.e.plain, nil
	} else if t := b.Tables[ev.Table]; t != st.table || st.plan == nil {
		p, err := st.e.planOf(t)
		if err != nil {
			st.plan, st.table = nil, nil
			return err
		}
		st.plan, st.table = p, t
	}
	if st.batch == b && st.tx == int(ev.Tx) {
		return nil
	}
	st.batch, st.tx = nil, int(ev.Tx)
	var err error
	if st.e.json {
		err = st.jsonTx(b, &b.Txs[ev.Tx])
	} else {
		err = st.protoTx(b, &b.Txs[ev.Tx])
	}
	if err == nil {
		st.batch = b
	}
	return err
}

// rows takes the images apart and encodes the key.
func (st *state) rows(b *pipeline.Batch, ev *pipeline.Event, op pipeline.Op) error {
	if st.plan.table == nil {
		return errNoRow
	}
	if err := st.walk(&st.before, b, ev.Before); err != nil {
		return err
	}
	if err := st.walk(&st.after, b, ev.After); err != nil {
		return err
	}
	if !st.before.there && !st.after.there {
		return errNoRow
	}
	return st.encodeKeys(op != pipeline.OpDelete)
}

func (st *state) walk(m *image, b *pipeline.Batch, s pipeline.Span) error {
	m.there = s.Present()
	if !m.there {
		return nil
	}
	m.bytes = b.Bytes(s)
	var err error
	m.refs, err = st.plan.form.Walk(m.bytes, m.refs[:0], st.plan.walk)
	return err
}

// encodeKeys fills keys from the after image (else the before image) or the other way round.
func (st *state) encodeKeys(fromAfter bool) error {
	p := st.plan
	st.keys, st.ends, st.more = st.keys[:0], st.ends[:0], st.more[:0]
	first, second, which := &st.before, &st.after, uint8(0)
	if fromAfter {
		first, second, which = second, first, 1
	}
	for k := range p.keys {
		c := &p.keys[k]
		st.column = c.index
		m, w := first, which
		ref := m.ref(c.index)
		if ref.Absent() {
			m, w = second, 1-which
			if ref = m.ref(c.index); ref.Absent() {
				return errKeyAbsent
			}
		}
		var err error
		if st.keys, err = st.cell(st.keys, &c.wire, m.bytes, ref); err != nil {
			return err
		}
		st.ends = append(st.ends, len(st.keys))
		if k < maxKeys {
			st.from[k] = w
		} else {
			st.more = append(st.more, w)
		}
	}
	st.column = -1
	return nil
}

// key returns the k-th encoded key value.
func (st *state) key(k int) []byte {
	if k == 0 {
		return st.keys[:st.ends[0]]
	}
	return st.keys[st.ends[k-1]:st.ends[k]]
}

// keyFrom tells which image the k-th key value came from: 0 before, 1 after.
func (st *state) keyFrom(k int) uint8 {
	if k < maxKeys {
		return st.from[k]
	}
	return st.more[k-maxKeys]
}

// cell decodes and encodes one cell that is not absent. ref is not copied: it was written in two halves a moment ago, and
// the processor waits where both are read as one.
func (st *state) cell(dst []byte, w *wire, row []byte, ref *cell.Ref) ([]byte, error) {
	v := &st.value
	if ref.Len == cell.LenNull {
		*v = cell.Value{State: cell.Null}
	} else {
		raw := row[ref.Off : ref.Off+ref.Len : ref.Off+ref.Len]
		if w.plain != cell.PlainNone {
			out, ok := dst, false
			if st.e.json {
				out, ok = jsonPlain(dst, w.plain, raw)
			} else {
				out, ok = protoPlain(dst, w.plain, raw)
			}
			if ok {
				return out, nil
			} // else Decode says what is wrong
		}
		st.scratch.Reset()
		*v = cell.Value{}
		if err := w.decode(v, raw, &st.scratch); err != nil {
			return dst, err
		}
	}
	if st.e.json {
		return st.jsonValue(dst, v, 0)
	}
	return st.protoValue(dst, v, 0)
}

// jsonPlain encodes a cell whose bytes are its value; not ok: it has to be decoded, as numbers have, of which the
// type's width counts.
func jsonPlain(dst []byte, p cell.Plain, raw []byte) (_ []byte, ok bool) {
	if p != cell.PlainText && (p != cell.PlainASCII || !p.Sound(raw)) {
		return dst, false
	}
	out, ok := appendEscaped(append(dst, '"'), raw)
	return append(out, '"'), ok
}

// maxDepth bounds the nesting of arrays; PostgreSQL's own limit is 6.
const maxDepth = 64
