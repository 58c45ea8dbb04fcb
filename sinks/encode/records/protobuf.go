package records

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/schemas/shape"
	"github.com/leat-cdc/leat/sinks/encode"
)

// protobuf writes the messages of shape's .proto files: the first message of the file, so that its index is one byte 0.
// https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
type protobuf struct{}

func (protobuf) schemas(ctx context.Context, t *Topic, p *plan, row *shape.Row, keys []shape.Field) error {
	record := row.Schema + "." + row.Table
	if len(keys) > 0 {
		numbers, err := t.numbers(ctx, "key", record+".Key", "Key", keys)
		if err != nil {
			return err
		}
		number(p.keys, numbers)
		id, err := t.register(ctx, "key", record+".Key", shape.Protobuf, row.ProtobufKey(keys, numbers))
		if err != nil {
			return err
		}
		p.key = append(framed(id), 0)
	}
	numbers, err := t.numbers(ctx, "value", record+".Envelope", "Value", row.Fields)
	if err != nil {
		return err
	}
	number(p.cols, numbers)
	id, err := t.register(ctx, "value", record+".Envelope", shape.Protobuf, row.ProtobufEnvelope(numbers))
	if err != nil {
		return err
	}
	p.value = append(framed(id), 0)
	p.fixed = appendString(appendString(nil, shape.NumberSource, t.e.o.Source), shape.NumberTable, p.table.Subject())
	return nil
}

// numbers keeps for each field the number that it had in any version of the subject.
func (t *Topic) numbers(ctx context.Context, kind, record, message string, fields []shape.Field) ([]int, error) {
	subject := t.subject(kind, record)
	versions, err := t.e.o.Schemas.Versions(ctx, subject, shape.Protobuf)
	if err != nil {
		return nil, noSchema(subject, err)
	}
	return shape.Number(fields, compat.Numbers(versions, message)), nil
}

// number compiles what stands before each column's value.
func number(cols []column, numbers []int) {
	for i := range cols {
		c := &cols[i]
		c.number = numbers[i]
		c.name = protowire.AppendTag(nil, protowire.Number(numbers[i]), wireType(c.shape.Class))
	}
}

func wireType(c shape.Class) protowire.Type {
	switch c {
	case shape.Bool, shape.Int32, shape.Int64, shape.Uint64:
		return protowire.VarintType
	case shape.Float32:
		return protowire.Fixed32Type
	case shape.Float64:
		return protowire.Fixed64Type
	}
	return protowire.BytesType
}

func (protobuf) messages(ctx context.Context, t *Topic, p *plan) error {
	id, err := t.register(ctx, "value", "leat.Message", shape.Protobuf, shape.ProtobufMessage)
	p.value, p.fixed = append(framed(id), 0), appendString(nil, shape.NumberSource, t.e.o.Source)
	return err
}

// transaction formats time and position, then the transaction's id as the beginning of a Tx.
func (protobuf) transaction(w *Writer, b *pipeline.Batch, tx *pipeline.Tx) error {
	id, position := b.Bytes(tx.ID), b.Bytes(tx.Position)
	if !utf8.Valid(id) || !utf8.Valid(position) {
		return fmt.Errorf("transaction id or position: %w", errUTF8)
	}
	f := appendNumber(w.frags[:0], shape.NumberTime, uint64(tx.Time))
	if tx.Position.Present() {
		f = appendField(f, shape.NumberPosition, position)
	}
	w.ends[0] = len(f)
	if tx.ID.Present() {
		f = appendField(f, 1, id)
	}
	w.ends[1], w.frags = len(f), f
	return nil
}

func (protobuf) key(w *Writer, dst []byte, op pipeline.Op) ([]byte, error) {
	of, other := w.images(op)
	dst = append(dst, w.plan.key...)
	for i := range w.plan.keys {
		c := &w.plan.keys[i]
		m, ref := find(c, of, other)
		if ref.Absent() {
			return dst, columnError(c, errKeyAbsent)
		}
		var err error
		if dst, err = w.protoCell(dst, c, m, ref); err != nil {
			return dst, columnError(c, err)
		}
	}
	return dst, nil
}

func (protobuf) value(w *Writer, dst []byte, b *pipeline.Batch, i int, ev *pipeline.Event, op pipeline.Op) ([]byte, error) {
	dst = append(dst, w.plan.value...)
	if op != pipeline.OpMessage {
		dst = appendNumber(dst, shape.NumberOp, uint64(op))
	}
	dst = append(dst, w.plan.fixed...)
	sequence := int64(b.Offset(i))
	dst = appendNumber(dst, shape.NumberSequence, uint64(sequence))
	dst = append(dst, w.frags[:w.ends[0]]...)
	if op != pipeline.OpSnapshot && w.ends[0] < w.ends[1] {
		var at int
		dst, at = begin(dst, shape.NumberTx)
		dst = append(dst, w.frags[w.ends[0]:w.ends[1]]...)
		seq, last := b.Seq(i)
		dst = appendNumber(dst, 2, uint64(seq))
		if last {
			dst = appendNumber(dst, 3, 1)
		}
		dst = encode.CloseLen(dst, at)
	}
	if op == pipeline.OpMessage {
		prefix := b.Bytes(ev.Before)
		if !utf8.Valid(prefix) {
			return dst, fmt.Errorf("prefix: %w", errUTF8)
		}
		return w.protoReplay(appendField(appendField(dst, shape.NumberPrefix, prefix), shape.NumberContent, b.Bytes(ev.After))), nil
	}
	if ev.Flags&pipeline.FlagKeyChange != 0 && ev.Op == op {
		dst = appendNumber(dst, shape.NumberOther, uint64(otherHalf(sequence, op)))
	}
	var err error
	if w.before.there && (op == pipeline.OpUpdate || op == pipeline.OpDelete) {
		if dst, err = w.protoImage(dst, &w.before, &w.after, shape.NumberBefore, shape.NumberBeforeAbsent); err != nil {
			return dst, err
		}
	}
	if w.after.there && op.Row() && op != pipeline.OpDelete {
		if dst, err = w.protoImage(dst, &w.after, &w.before, shape.NumberAfter, shape.NumberAbsent); err != nil {
			return dst, err
		}
	}
	if op == pipeline.OpSchema {
		if dst, err = protoSchemaChange(dst, b.Bytes(ev.After)); err != nil {
			return dst, err
		}
	}
	return w.protoReplay(dst), nil
}

func (w *Writer) protoReplay(dst []byte) []byte {
	if w.replay == "" {
		return dst
	}
	return appendString(dst, shape.NumberReplay, w.replay)
}

// protoImage appends a row, and the names of what is absent from it. NULL is a field that is not there.
func (w *Writer) protoImage(dst []byte, m, other *image, field, missing protowire.Number) ([]byte, error) {
	dst, at := begin(dst, field)
	some := false
	for i := range w.plan.cols {
		c := &w.plan.cols[i]
		in, ref := find(c, m, other)
		if ref.Absent() {
			if c.key {
				w.column = i
				return dst, errKeyAbsent
			}
			some = true
			continue
		}
		var err error
		if dst, err = w.protoCell(dst, c, in, ref); err != nil {
			w.column = i
			return dst, err
		}
	}
	dst = encode.CloseLen(dst, at)
	for i := range w.plan.cols {
		if c := &w.plan.cols[i]; some && !c.key && m.ref(c.Index).Absent() {
			dst = appendString(dst, missing, c.Name)
		}
	}
	return dst, nil
}

func protoSchemaChange(dst, content []byte) ([]byte, error) {
	var c pipeline.SchemaChange
	if err := json.Unmarshal(content, &c); err != nil {
		return dst, fmt.Errorf("schema change: %w", err)
	}
	dst, at := begin(dst, shape.NumberSchemaChange)
	if c.Statement != "" {
		dst = appendString(dst, 1, c.Statement)
	}
	if c.Rewrites {
		dst = appendNumber(dst, 2, 1)
	}
	return encode.CloseLen(dst, at), nil
}

// protoCell appends the field of one cell that is not absent; nothing for NULL.
func (w *Writer) protoCell(dst []byte, c *column, m *image, ref cell.Ref) ([]byte, error) {
	if ref.Null() {
		return dst, nil
	}
	raw := ref.Of(m.bytes)
	if c.Plain == cell.PlainText && c.shape.Class == shape.Text && utf8.Valid(raw) {
		return protowire.AppendBytes(append(dst, c.name...), raw), nil
	}
	v := &w.value
	w.scratch.Reset()
	*v = cell.Value{}
	if err := c.Decode(v, raw, &w.scratch); err != nil || v.State != cell.Present {
		return dst, err
	}
	return w.protoValue(append(dst, c.name...), v, &c.shape)
}

// protoValue appends a value behind its tag.
func (w *Writer) protoValue(dst []byte, v *cell.Value, t *shape.Type) ([]byte, error) {
	fits := true
	switch t.Class {
	case shape.Bool:
		dst, fits = protowire.AppendVarint(dst, min(v.N, 1)), v.Kind == schemas.KindBool
	case shape.Int32, shape.Int64, shape.Uint64:
		dst, fits = protowire.AppendVarint(dst, v.N), v.Kind == schemas.KindInt || v.Kind == schemas.KindUint
	case shape.Float32:
		dst, fits = binary.LittleEndian.AppendUint32(dst, uint32(v.N)), v.Kind == schemas.KindFloat && v.Bits == 32
	case shape.Float64:
		dst, fits = binary.LittleEndian.AppendUint64(dst, v.N), v.Kind == schemas.KindFloat && v.Bits == 64
	case shape.Bytes:
		dst, fits = protowire.AppendBytes(dst, v.B), v.Kind == schemas.KindBytes
	case shape.Vector:
		fits = v.Kind == schemas.KindVector
		dst = protowire.AppendVarint(dst, uint64(4*len(v.Elems)))
		for i := range v.Elems {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(v.Elems[i].N))
		}
	case shape.Array:
		if v.Kind != schemas.KindArray {
			return dst, errNoList
		}
		return w.protoList(dst, v, 0)
	default:
		text, err := w.text(v)
		return protowire.AppendBytes(dst, text), err
	}
	if !fits {
		return dst, fmt.Errorf("a value of kind %s in a column that holds none", v.Kind)
	}
	return dst, nil
}

var errNoList = fmt.Errorf("an array with bounds of its own is no list: cast the column to string by the subscription's mapping")

// text is a value as JSON has it between the quotes; valid until the next use.
func (w *Writer) text(v *cell.Value) ([]byte, error) {
	text, err := encode.TextOf(v, &w.scratch)
	if err == nil && !utf8.Valid(text) {
		err = errUTF8
	}
	return text, err
}

// Fields of google.protobuf.Value and ListValue.
const (
	valueNull   = 1
	valueNumber = 2
	valueString = 3
	valueBool   = 4
	valueList   = 6
	listValues  = 1
)

const maxDepth = 64

// protoList appends a google.protobuf.ListValue with its length. Numbers that a double does not hold are text, as in
// protobuf's own JSON.
func (w *Writer) protoList(dst []byte, v *cell.Value, depth int) ([]byte, error) {
	if depth >= maxDepth {
		return dst, fmt.Errorf("an array is nested more than %d deep", maxDepth)
	}
	dst = append(dst, 0, 0)
	list := len(dst) - 2
	for i := range v.Elems {
		e := &v.Elems[i]
		var at int
		dst, at = begin(dst, listValues)
		var err error
		switch {
		case e.State != cell.Present:
			dst = appendNumber(dst, valueNull, 0)
		case e.Kind == schemas.KindArray:
			dst, err = w.protoList(protowire.AppendTag(dst, valueList, protowire.BytesType), e, depth+1)
		case e.Kind == schemas.KindBool:
			dst = appendNumber(dst, valueBool, min(e.N, 1))
		case e.Kind == schemas.KindFloat:
			dst = appendDouble(dst, e.Float())
		case e.Kind == schemas.KindInt && e.Bits <= 32:
			dst = appendDouble(dst, float64(int64(e.N)))
		default:
			var text []byte
			text, err = w.text(e)
			dst = appendField(dst, valueString, text)
		}
		if err != nil {
			return dst, err
		}
		dst = encode.CloseLen(dst, at)
	}
	return encode.CloseLen(dst, list), nil
}

func appendDouble(dst []byte, f float64) []byte {
	return binary.LittleEndian.AppendUint64(protowire.AppendTag(dst, valueNumber, protowire.Fixed64Type), math.Float64bits(f))
}

// begin appends the tag of a message and room for its length, which encode.CloseLen writes.
func begin(dst []byte, n protowire.Number) (_ []byte, at int) {
	dst = append(protowire.AppendTag(dst, n, protowire.BytesType), 0, 0)
	return dst, len(dst) - 2
}

func appendNumber(dst []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.VarintType), v)
}

func appendField(dst []byte, n protowire.Number, p []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, n, protowire.BytesType), p)
}

func appendString(dst []byte, n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, n, protowire.BytesType), s)
}
