package records

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/shape"
)

// avro writes the binary form of shape's Avro schemas.
// https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
type avro struct{}

// branch is the index of a union's branch.
const (
	branch0 byte = iota << 1
	branch1
	branch2
)

func (avro) schemas(ctx context.Context, t *Topic, p *plan, row *shape.Row, keys []shape.Field) error {
	for i := range p.cols {
		p.cols[i].name = appendText(nil, p.cols[i].Name)
	}
	record := row.Schema + "." + row.Table
	if len(keys) > 0 {
		text, err := row.AvroKey(keys)
		if err != nil {
			return err
		}
		id, err := t.register(ctx, "key", record+".Key", shape.Avro, text)
		if err != nil {
			return err
		}
		p.key = framed(id)
	}
	text, err := row.AvroEnvelope()
	if err != nil {
		return err
	}
	id, err := t.register(ctx, "value", record+".Envelope", shape.Avro, text)
	if err != nil {
		return err
	}
	p.value = framed(id)
	// What stands between op and sequence.
	p.fixed = appendText(appendText(nil, t.e.o.Source), p.table.Subject())
	return nil
}

func (avro) messages(ctx context.Context, t *Topic, p *plan) error {
	text, err := shape.AvroMessage()
	if err != nil {
		return err
	}
	id, err := t.register(ctx, "value", "leat.Message", shape.Avro, text)
	p.value, p.fixed = framed(id), appendText(nil, t.e.o.Source)
	return err
}

// transaction formats time and position, then the transaction's id.
func (avro) transaction(w *Writer, b *pipeline.Batch, tx *pipeline.Tx) error {
	id, position := b.Bytes(tx.ID), b.Bytes(tx.Position)
	if !utf8.Valid(id) || !utf8.Valid(position) {
		return fmt.Errorf("transaction id or position: %w", errUTF8)
	}
	f := appendLong(w.frags[:0], tx.Time)
	if tx.Position.Present() {
		f = appendBytes(append(f, branch1), position)
	} else {
		f = append(f, branch0)
	}
	w.ends[0] = len(f)
	if tx.ID.Present() {
		f = appendBytes(append(f, branch1), id)
	}
	w.ends[1], w.frags = len(f), f
	return nil
}

func (avro) key(w *Writer, dst []byte, op pipeline.Op) ([]byte, error) {
	of, other := w.images(op)
	dst = append(dst, w.plan.key...)
	for i := range w.plan.keys {
		c := &w.plan.keys[i]
		m, ref := find(c, of, other)
		var err error
		if dst, err = w.avroCell(dst, c, m, ref); err != nil {
			return dst, columnError(c, err)
		}
	}
	return dst, nil
}

func (a avro) value(w *Writer, dst []byte, b *pipeline.Batch, i int, ev *pipeline.Event, op pipeline.Op) ([]byte, error) {
	dst = append(dst, w.plan.value...)
	if op != pipeline.OpMessage {
		dst = append(dst, byte(op-1)<<1)
	}
	dst = append(dst, w.plan.fixed...)
	sequence := int64(b.Offset(i))
	dst = appendLong(dst, sequence)
	dst = append(dst, w.frags[:w.ends[0]]...)
	if op == pipeline.OpSnapshot || w.ends[0] == w.ends[1] {
		dst = append(dst, branch0)
	} else {
		seq, last := b.Seq(i)
		dst = appendLong(append(dst, w.frags[w.ends[0]:w.ends[1]]...), int64(seq))
		dst = appendBool(dst, last)
	}
	var err error
	if op == pipeline.OpMessage {
		prefix := b.Bytes(ev.Before)
		if !utf8.Valid(prefix) {
			return dst, fmt.Errorf("prefix: %w", errUTF8)
		}
		dst = appendBytes(appendBytes(dst, prefix), b.Bytes(ev.After))
		return w.avroReplay(dst), nil
	}
	if ev.Flags&pipeline.FlagKeyChange != 0 && ev.Op == op {
		dst = appendLong(append(dst, branch1), otherHalf(sequence, op))
	} else {
		dst = append(dst, branch0)
	}
	if dst, err = w.avroImage(dst, &w.before, &w.after, op == pipeline.OpUpdate || op == pipeline.OpDelete); err != nil {
		return dst, err
	}
	if dst, err = w.avroImage(dst, &w.after, &w.before, op.Row() && op != pipeline.OpDelete); err != nil {
		return dst, err
	}
	if dst, err = avroSchemaChange(dst, b.Bytes(ev.After), op); err != nil {
		return dst, err
	}
	return w.avroReplay(dst), nil
}

// otherHalf is the sequence of the other half of a key change.
func otherHalf(sequence int64, op pipeline.Op) int64 {
	if op == pipeline.OpDelete {
		return sequence + 1
	}
	return sequence - 1
}

func (w *Writer) avroReplay(dst []byte) []byte {
	if w.replay == "" {
		return append(dst, branch0)
	}
	return appendText(append(dst, branch1), w.replay)
}

// avroImage appends a row and the names of what is absent from it; wanted: the op has this image.
func (w *Writer) avroImage(dst []byte, m, other *image, wanted bool) ([]byte, error) {
	if !wanted || !m.there {
		return append(dst, branch0, 0), nil
	}
	dst = append(dst, branch1)
	missing := 0
	for i := range w.plan.cols {
		c := &w.plan.cols[i]
		in, ref := find(c, m, other)
		if ref.Absent() && !c.key {
			missing++
			dst = append(dst, branch0)
			continue
		}
		var err error
		if dst, err = w.avroCell(dst, c, in, ref); err != nil {
			w.column = i
			return dst, err
		}
	}
	if missing > 0 {
		dst = appendLong(dst, int64(missing))
		for i := range w.plan.cols {
			if c := &w.plan.cols[i]; !c.key && m.ref(c.Index).Absent() {
				dst = append(dst, c.name...)
			}
		}
	}
	return append(dst, 0), nil
}

func avroSchemaChange(dst, content []byte, op pipeline.Op) ([]byte, error) {
	if op != pipeline.OpSchema {
		return append(dst, branch0), nil
	}
	var c pipeline.SchemaChange
	if err := json.Unmarshal(content, &c); err != nil {
		return dst, fmt.Errorf("schema change: %w", err)
	}
	dst = append(dst, branch1)
	if c.Statement == "" {
		dst = append(dst, branch0)
	} else {
		dst = appendText(append(dst, branch1), c.Statement)
	}
	return appendBool(dst, c.Rewrites), nil
}

// avroCell appends one cell that is not absent, with the branch of its union.
func (w *Writer) avroCell(dst []byte, c *column, m *image, ref cell.Ref) ([]byte, error) {
	if ref.Absent() {
		return dst, errKeyAbsent
	}
	if ref.Null() {
		if !c.optional {
			return dst, errNullKey
		}
		return append(dst, branch0), nil
	}
	raw := ref.Of(m.bytes)
	if c.Plain == cell.PlainText && c.shape.Class == shape.Text && utf8.Valid(raw) {
		if c.optional {
			dst = append(dst, branch1)
		}
		return appendBytes(dst, raw), nil
	}
	v := &w.value
	w.scratch.Reset()
	*v = cell.Value{}
	if err := c.Decode(v, raw, &w.scratch); err != nil {
		return dst, err
	}
	if v.Kind == schemas.KindArray && !flat(v) {
		*v = cell.Value{Kind: schemas.KindText, B: raw} // of several dimensions: the database's own text
	}
	return w.avroValue(dst, v, &c.shape, c.optional)
}

// flat reports whether an array has one dimension.
func flat(v *cell.Value) bool {
	for i := range v.Elems {
		if v.Elems[i].State == cell.Present && v.Elems[i].Kind == schemas.KindArray {
			return false
		}
	}
	return true
}

// avroValue appends a value with the branch of its union.
func (w *Writer) avroValue(dst []byte, v *cell.Value, t *shape.Type, optional bool) ([]byte, error) {
	if v.State != cell.Present {
		if !optional {
			return dst, errNullKey
		}
		return append(dst, branch0), nil
	}
	start := len(dst)
	branch := branch0
	if optional {
		branch = branch1
	}
	if optional || t.Loose {
		dst = append(dst, branch)
	}
	out, ok, err := w.avroBare(dst, v, t)
	if ok || err != nil {
		return out, err
	}
	if !t.Loose {
		return out, fmt.Errorf("a value of kind %s in a column that holds none", v.Kind)
	}
	text, ok := looseText(v)
	if !ok || !utf8.Valid(text) {
		return out, errUTF8
	}
	return appendBytes(append(out[:start], branch+branch1), text), nil
}

var midnight = []byte("24:00:00")

// looseText is the database's own text of a value that its class has no form for.
func looseText(v *cell.Value) (text []byte, ok bool) {
	switch v.Kind {
	case schemas.KindText, schemas.KindDecimal:
		return v.B, true
	case schemas.KindTime:
		return midnight, true
	}
	return nil, false
}

// avroBare appends a value as its class writes it; not ok: it has no form for this one.
func (w *Writer) avroBare(dst []byte, v *cell.Value, t *shape.Type) (out []byte, ok bool, err error) {
	n := int64(v.N)
	switch t.Class {
	case shape.Text, shape.UUID, shape.JSON:
		switch v.Kind {
		case schemas.KindText, schemas.KindUnknown, schemas.KindDecimal, schemas.KindBits, schemas.KindJSON:
			if !utf8.Valid(v.B) {
				return dst, false, errUTF8
			}
			return appendBytes(dst, v.B), true, nil
		}
		return dst, false, nil
	case shape.Bool:
		return appendBool(dst, v.N != 0), v.Kind == schemas.KindBool, nil
	case shape.Int32, shape.Int64:
		return appendLong(dst, n), v.Kind == schemas.KindInt || v.Kind == schemas.KindUint, nil
	case shape.Uint64:
		w.number.setUint(v.N)
		return appendBytes(dst, w.number.bytes()), v.Kind == schemas.KindUint, nil
	case shape.Decimal:
		if v.Kind != schemas.KindDecimal || !w.number.set(v.B, t.Scale) {
			return dst, false, nil
		}
		return appendBytes(dst, w.number.bytes()), true, nil
	case shape.Float32:
		return binary.LittleEndian.AppendUint32(dst, uint32(v.N)), v.Kind == schemas.KindFloat && v.Bits == 32, nil
	case shape.Float64:
		return binary.LittleEndian.AppendUint64(dst, v.N), v.Kind == schemas.KindFloat && v.Bits == 64, nil
	case shape.Bytes:
		return appendBytes(dst, v.B), v.Kind == schemas.KindBytes, nil
	case shape.Date:
		return appendLong(dst, n), v.Kind == schemas.KindDate, nil
	case shape.TimeOfDay:
		return appendLong(dst, n), v.Kind == schemas.KindTime && n >= 0 && n < 86_400_000_000, nil
	case shape.Duration:
		return appendLong(dst, n), v.Kind == schemas.KindTime, nil
	case shape.DateTime:
		return appendLong(dst, n), v.Kind == schemas.KindDateTime, nil
	case shape.Instant:
		return appendLong(dst, n), v.Kind == schemas.KindTimestamp, nil
	case shape.Array, shape.Vector:
		return w.avroArray(dst, v, t)
	}
	return dst, false, nil
}

func (w *Writer) avroArray(dst []byte, v *cell.Value, t *shape.Type) ([]byte, bool, error) {
	if v.Kind != schemas.KindArray && v.Kind != schemas.KindVector {
		return dst, false, nil
	}
	if len(v.Elems) > 0 {
		dst = appendLong(dst, int64(len(v.Elems)))
	}
	for i := range v.Elems {
		e := &v.Elems[i]
		if t.Class == shape.Vector {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(e.N))
			continue
		}
		var err error
		if dst, err = w.avroValue(dst, e, t.Elem, true); err != nil {
			return dst, false, err
		}
	}
	return append(dst, 0), true, nil
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// appendLong appends a zigzag varint: Avro's int and long.
func appendLong(dst []byte, n int64) []byte { return binary.AppendVarint(dst, n) }

func appendBytes(dst, p []byte) []byte { return append(appendLong(dst, int64(len(p))), p...) }

func appendText(dst []byte, s string) []byte { return append(appendLong(dst, int64(len(s))), s...) }
