package encode

import (
	"github.com/leat-cdc/leat/pipeline"
)

// Row is what AppendRow found.
type Row struct {
	// Key is the row's identity as a JSON object; Values are the values in it, each as JSON. Both are the caller's.
	Key    string
	Values []string
	// Absent are the columns that the source did not send, as JSON strings.
	Absent []string
	// Gone: the row was deleted; nothing was appended.
	Gone bool
}

// AppendRow appends the row as it is after event i as a JSON object of its columns, without what else is told of the
// event. as, when not OpNone, is the op it is sent as. The event is one of a row; the error is an *EventError, then dst
// is returned as it was. JSON only.
func (e *Encoder) AppendRow(dst []byte, b *pipeline.Batch, i int, as pipeline.Op) (out []byte, r Row, err error) {
	st := e.state()
	defer e.release(st)
	ev := &b.Events[i]
	op := ev.Op
	if as != pipeline.OpNone {
		op = as
	}
	st.column = -1
	start := len(dst)
	if out, err = st.document(dst, b, ev, op, &r); err != nil {
		ee := &EventError{Event: i, Err: err}
		if st.plan != nil && st.plan.table != nil && st.column >= 0 && st.column < len(st.plan.table.Columns) {
			ee.Column = st.plan.table.Columns[st.column].Name
		}
		return dst[:start], Row{}, ee
	}
	return out, r, nil
}

func (st *state) document(dst []byte, b *pipeline.Batch, ev *pipeline.Event, op pipeline.Op, r *Row) ([]byte, error) {
	if !op.Row() {
		return dst, errBadOp
	}
	if err := st.prepare(b, ev); err != nil {
		return dst, err
	}
	if err := st.rows(b, ev, op); err != nil {
		return dst, err
	}
	r.Key = string(st.jsonKey(nil))
	for _, k := range st.plan.identity {
		r.Values = append(r.Values, string(st.key(k)))
	}
	if op == pipeline.OpDelete {
		r.Gone = true
		return dst, nil
	}
	if !st.after.there {
		return dst, errNoRow
	}
	dst, err := st.jsonImage(dst, &st.after, 1)
	if err != nil {
		return dst, err
	}
	for n := range st.plan.cols {
		if c := &st.plan.cols[n]; st.after.ref(c.index).Absent() {
			r.Absent = append(r.Absent, string(c.quoted))
		}
	}
	return dst, nil
}
