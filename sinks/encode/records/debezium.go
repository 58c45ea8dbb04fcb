package records

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/shape"
	"github.com/leat-cdc/leat/sinks/encode"
)

// debezium writes Debezium's change event as JSON without schemas: time.precision.mode adaptive,
// decimal.handling.mode string, binary.handling.mode base64.
// https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events
type debezium struct{}

// unavailable stands in the place of a column that the source did not send, as Debezium has it.
const unavailable = `"__debezium_unavailable_value"`

func (debezium) schemas(_ context.Context, t *Topic, p *plan, _ *shape.Row, _ []shape.Field) error {
	for _, cols := range [][]column{p.cols, p.keys} {
		for i := range cols {
			cols[i].name = append(quoted(nil, cols[i].Name), ':')
		}
	}
	connector, db, schema := "postgresql", "", p.table.Schema
	if p.table.Wire == schemas.WireBinlog {
		connector, db, schema = "mysql", p.table.Schema, ""
	}
	p.fixed = sourceOf(connector, t.e.o.Source, db, schema, p.table.Name)
	return nil
}

func (debezium) messages(_ context.Context, t *Topic, p *plan) error {
	p.fixed = sourceOf("postgresql", t.e.o.Source, "", "", "")
	return nil
}

// sourceOf begins the source block, up to what differs between events.
func sourceOf(connector, name, db, schema, table string) []byte {
	f := []byte(`"source":{"version":"leat","connector":`)
	f = append(quoted(f, connector), `,"name":`...)
	f = append(quoted(f, name), `,"db":`...)
	f = append(quoted(f, db), `,"schema":`...)
	f = append(quoted(f, schema), `,"table":`...)
	return append(quoted(f, table), `,"snapshot":`...)
}

// quoted appends a name as a JSON string; what is not UTF-8 becomes U+FFFD.
func quoted(dst []byte, s string) []byte {
	p, err := json.Marshal(s)
	if err != nil { // a string always has a form
		return append(dst, `""`...)
	}
	return append(dst, p...)
}

// transaction formats the end of the source block, then the transaction's id.
func (debezium) transaction(w *Writer, b *pipeline.Batch, tx *pipeline.Tx) (err error) {
	f := append(w.frags[:0], `,"ts_ms":`...)
	f = strconv.AppendInt(f, tx.Time/1000, 10)
	f = append(f, `,"ts_us":`...)
	f = append(strconv.AppendInt(f, tx.Time, 10), `,"position":`...)
	if f, err = encode.AppendString(f, b.Bytes(tx.Position)); err != nil {
		return fmt.Errorf("position: %w", err)
	}
	w.ends[0] = len(f)
	if f, err = encode.AppendString(f, b.Bytes(tx.ID)); err != nil {
		return fmt.Errorf("transaction id: %w", err)
	}
	w.ends[1], w.frags = len(f), f
	return nil
}

func (debezium) key(w *Writer, dst []byte, op pipeline.Op) ([]byte, error) {
	of, other := w.images(op)
	dst = append(dst, '{')
	for i := range w.plan.keys {
		c := &w.plan.keys[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		m, ref := find(c, of, other)
		if ref.Absent() {
			return dst, columnError(c, errKeyAbsent)
		}
		var err error
		if dst, err = w.debeziumCell(append(dst, c.name...), c, m, ref); err != nil {
			return dst, columnError(c, err)
		}
	}
	return append(dst, '}'), nil
}

// debeziumOps are Debezium's letters by our ops.
var debeziumOps = [...]string{pipeline.OpInsert: "c", pipeline.OpUpdate: "u", pipeline.OpDelete: "d", pipeline.OpSnapshot: "r", pipeline.OpTruncate: "t", pipeline.OpMessage: "m"}

func (debezium) value(w *Writer, dst []byte, b *pipeline.Batch, i int, ev *pipeline.Event, op pipeline.Op) ([]byte, error) {
	dst = append(dst, '{')
	var err error
	switch {
	case op.Row() || op == pipeline.OpTruncate:
		dst = append(dst, `"before":`...)
		if dst, err = w.debeziumImage(dst, &w.before, &w.after, op == pipeline.OpUpdate || op == pipeline.OpDelete); err != nil {
			return dst, err
		}
		dst = append(dst, `,"after":`...)
		if dst, err = w.debeziumImage(dst, &w.after, &w.before, op.Row() && op != pipeline.OpDelete); err != nil {
			return dst, err
		}
	case op == pipeline.OpMessage:
		dst = append(dst, `"message":{"prefix":`...)
		if dst, err = encode.AppendString(dst, b.Bytes(ev.Before)); err != nil {
			return dst, err
		}
		dst = append(base64.StdEncoding.AppendEncode(append(dst, `,"content":"`...), b.Bytes(ev.After)), `"}`...)
	default: // a schema change, as Debezium's own topic of them has it
		var c pipeline.SchemaChange
		if err := json.Unmarshal(b.Bytes(ev.After), &c); err != nil {
			return dst, fmt.Errorf("schema change: %w", err)
		}
		dst = quoted(append(dst, `"ddl":`...), c.Statement)
	}
	dst = append(append(dst, ','), w.plan.fixed...)
	if op == pipeline.OpSnapshot {
		dst = append(dst, `"true"`...)
	} else {
		dst = append(dst, `"false"`...)
	}
	dst = append(dst, w.frags[:w.ends[0]]...)
	dst = append(dst, `,"sequence":`...)
	dst = strconv.AppendUint(dst, uint64(b.Offset(i)), 10)
	if op != pipeline.OpSnapshot {
		dst = append(append(dst, `,"txId":`...), w.frags[w.ends[0]:w.ends[1]]...)
	}
	dst = append(dst, '}')
	if op != pipeline.OpSchema {
		dst = append(append(append(dst, `,"op":"`...), debeziumOps[op]...), '"')
	}
	dst = append(dst, `,"ts_ms":`...)
	dst = strconv.AppendInt(dst, b.Txs[ev.Tx].Time/1000, 10)
	return append(dst, `,"transaction":null}`...), nil
}

func (w *Writer) debeziumImage(dst []byte, m, other *image, wanted bool) ([]byte, error) {
	if !wanted || !m.there {
		return append(dst, "null"...), nil
	}
	dst = append(dst, '{')
	for i := range w.plan.cols {
		c := &w.plan.cols[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, c.name...)
		in, ref := find(c, m, other)
		if ref.Absent() {
			dst = append(dst, unavailable...)
			continue
		}
		var err error
		if dst, err = w.debeziumCell(dst, c, in, ref); err != nil {
			w.column = i
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func (w *Writer) debeziumCell(dst []byte, c *column, m *image, ref cell.Ref) ([]byte, error) {
	if ref.Null() {
		return append(dst, "null"...), nil
	}
	v := &w.value
	w.scratch.Reset()
	*v = cell.Value{}
	if err := c.Decode(v, ref.Of(m.bytes), &w.scratch); err != nil {
		return dst, err
	}
	return w.debeziumValue(dst, v, &c.Type)
}

// debeziumValue appends a value. Times without a zone are numbers: of milliseconds when the column has at most three
// digits of a second, else of microseconds.
func (w *Writer) debeziumValue(dst []byte, v *cell.Value, t *schemas.Type) ([]byte, error) {
	if v.State != cell.Present {
		return append(dst, "null"...), nil
	}
	switch v.Kind {
	case schemas.KindBool:
		return strconv.AppendBool(dst, v.N != 0), nil
	case schemas.KindInt, schemas.KindDate, schemas.KindTime:
		return strconv.AppendInt(dst, int64(v.N), 10), nil
	case schemas.KindUint:
		return strconv.AppendUint(dst, v.N, 10), nil
	case schemas.KindDateTime:
		n := int64(v.N)
		if t.Length <= 3 {
			n = floorDiv(n, 1000)
		}
		return strconv.AppendInt(dst, n, 10), nil
	case schemas.KindFloat:
		if f := v.Float(); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return strconv.AppendFloat(dst, f, 'g', -1, int(v.Bits)), nil
		}
	case schemas.KindArray, schemas.KindVector:
		elem := t.Elem
		if elem == nil {
			elem = &schemas.Type{}
		}
		dst = append(dst, '[')
		for i := range v.Elems {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = w.debeziumValue(dst, &v.Elems[i], elem); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	}
	text, err := encode.TextOf(v, &w.scratch)
	if err != nil {
		return dst, err
	}
	return encode.AppendString(dst, text)
}

func floorDiv(n, by int64) int64 {
	q := n / by
	if n%by < 0 {
		q--
	}
	return q
}
