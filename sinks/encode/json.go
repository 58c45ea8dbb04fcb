package encode

import (
	"encoding/base64"
	"fmt"
	"math"
	"strconv"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// jsonTx formats what is the same for all events of a transaction.
func (st *state) jsonTx(b *pipeline.Batch, tx *pipeline.Tx) error {
	f, ok := appendTimestamp(st.frags[:0], tx.Time)
	if !ok {
		return fmt.Errorf("commit time %d µs lies outside the years 1 to 9999", tx.Time)
	}
	st.time = span{0, len(f)}
	st.txid = span{len(f), len(f)}
	if tx.ID.Present() {
		f = append(f, `,"tx":{"id":"`...)
		if f, ok = appendEscaped(f, b.Bytes(tx.ID)); !ok {
			return fmt.Errorf("transaction id: %w", errUTF8)
		}
		f = append(f, `","seq":`...)
		st.txid.to = len(f)
	}
	st.position.from = len(f)
	f = append(f, `,"position":`...)
	if tx.Position.Present() {
		f = append(f, '"')
		if f, ok = appendEscaped(f, b.Bytes(tx.Position)); !ok {
			return fmt.Errorf("position: %w", errUTF8)
		}
		f = append(f, '"')
	} else {
		f = append(f, "null"...)
	}
	st.position.to = len(f)
	st.frags = f
	return nil
}

func (st *state) jsonEvent(dst []byte, b *pipeline.Batch, i int, ev *pipeline.Event, op pipeline.Op) ([]byte, error) {
	p := st.plan
	offset := uint64(b.Offset(i))
	dst = append(dst, st.e.idHead...)
	from := len(dst)
	dst = appendUint(dst, offset)
	to := len(dst)
	dst = append(dst, p.head[op]...)
	dst = append(dst, st.frags[st.time.from:st.time.to]...)
	dst = append(dst, p.mid...)
	if op.Row() {
		dst = st.jsonPartition(dst)
	} else {
		dst = append(dst, "[]"...)
	}
	dst = append(dst, `","sequence":"`...)
	dst = append(dst, "00000000000000000000"[to-from:]...)
	dst = append(dst, dst[from:to]...)
	dst = append(dst, p.data[op]...)

	var err error
	switch {
	case op.Row():
		dst, err = st.jsonRow(dst, ev, op)
		if err == nil && ev.Flags&pipeline.FlagKeyChange != 0 && ev.Op == op {
			dst, err = st.jsonOther(dst, offset, op)
		}
	case op == pipeline.OpTruncate:
		dst = append(dst, `,"key":null,"before":null,"after":null`...)
	case op == pipeline.OpSchema:
		dst, err = st.jsonSchema(dst, b.Bytes(ev.After))
	case op == pipeline.OpMessage:
		dst, err = st.jsonMessage(dst, b.Bytes(ev.Before), b.Bytes(ev.After))
	}
	if err != nil {
		return dst, err
	}
	if op == pipeline.OpSnapshot || st.txid.to == st.txid.from {
		dst = append(dst, `,"tx":null`...)
	} else {
		seq, last := b.Seq(i)
		dst = append(dst, st.frags[st.txid.from:st.txid.to]...)
		dst = appendUint(dst, uint64(seq))
		if last {
			dst = append(dst, `,"last":true}`...)
		} else {
			dst = append(dst, `,"last":false}`...)
		}
	}
	dst = append(dst, st.frags[st.position.from:st.position.to]...)
	return append(dst, st.e.tail...), nil
}

// jsonPartition appends the routing key as a JSON array inside a JSON string.
func (st *state) jsonPartition(dst []byte) []byte {
	dst = append(dst, '[')
	for n, k := range st.plan.routing {
		if n > 0 {
			dst = append(dst, ',')
		}
		dst, _ = appendEscaped(dst, st.key(k)) // is JSON already, so it is valid UTF-8
	}
	return append(dst, ']')
}

// jsonKey appends the identity as an object.
func (st *state) jsonKey(dst []byte) []byte {
	if len(st.plan.identity) == 0 {
		return append(dst, "null"...)
	}
	for n, k := range st.plan.identity {
		c := &st.plan.keys[k]
		if n == 0 {
			dst = append(dst, c.first...)
		} else {
			dst = append(dst, c.next...)
		}
		dst = append(dst, st.key(k)...)
	}
	return append(dst, '}')
}

// jsonRow appends key, before, after and absent.
func (st *state) jsonRow(dst []byte, ev *pipeline.Event, op pipeline.Op) ([]byte, error) {
	dst = append(dst, `,"key":`...)
	dst = st.jsonKey(dst)
	dst = append(dst, `,"before":`...)
	var err error
	if st.before.there && (op == pipeline.OpUpdate || op == pipeline.OpDelete) {
		if dst, err = st.jsonImage(dst, &st.before, 0); err != nil {
			return dst, err
		}
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"after":`...)
	if !st.after.there || op == pipeline.OpDelete {
		return append(dst, "null"...), nil
	}
	if dst, err = st.jsonImage(dst, &st.after, 1); err != nil {
		return dst, err
	}
	return st.jsonAbsent(dst), nil
}

func (st *state) jsonImage(dst []byte, m *image, which uint8) ([]byte, error) {
	empty := true
	p := st.plan
	for n := range p.cols {
		c := &p.cols[n]
		ref := m.ref(c.index)
		if ref.Absent() {
			continue
		}
		if empty {
			dst = append(dst, c.first...)
			empty = false
		} else {
			dst = append(dst, c.next...)
		}
		if c.key >= 0 && st.keyFrom(c.key) == which {
			dst = append(dst, st.key(c.key)...)
			continue
		}
		var err error
		if dst, err = st.cell(dst, &c.wire, m.bytes, ref); err != nil {
			st.column = c.index
			return dst, err
		}
	}
	if empty {
		dst = append(dst, '{')
	}
	return append(dst, '}'), nil
}

// jsonAbsent names the columns of the after image that the source did not send, if there are some.
func (st *state) jsonAbsent(dst []byte) []byte {
	some := false
	for n := range st.plan.cols {
		c := &st.plan.cols[n]
		if !st.after.ref(c.index).Absent() {
			continue
		}
		if some {
			dst = append(dst, ',')
		} else {
			dst = append(dst, `,"absent":[`...)
			some = true
		}
		dst = append(dst, c.quoted...)
	}
	if some {
		dst = append(dst, ']')
	}
	return dst
}

// jsonOther appends the link to the other half of a key change. It replaces the encoded key.
func (st *state) jsonOther(dst []byte, offset uint64, op pipeline.Op) ([]byte, error) {
	other := offset - 1
	if op == pipeline.OpDelete {
		other = offset + 1
	}
	if err := st.encodeKeys(op == pipeline.OpDelete); err != nil {
		return dst, err
	}
	dst = append(dst, `,"key_change":true,"other":{"key":`...)
	dst = st.jsonKey(dst)
	dst = append(dst, `,"partitionkey":"`...)
	dst = st.jsonPartition(dst)
	dst = append(dst, `","id":"`...)
	dst = append(dst, st.e.source...)
	return append(appendUint(dst, other), `"}`...), nil
}

// keyText returns key and partition key as text.
func (st *state) keyText(b *pipeline.Batch, i int) (key, partition string, err error) {
	ev := &b.Events[i]
	st.column = -1
	if !ev.Op.Row() {
		return "null", "[]", nil
	}
	if err = st.prepare(b, ev); err == nil {
		err = st.rows(b, ev, ev.Op)
	}
	if err != nil {
		return "", "", &EventError{Event: i, Err: err}
	}
	dst := append(st.jsonKey(nil), '[')
	n := len(dst) - 1
	for j, k := range st.plan.routing {
		if j > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, st.key(k)...)
	}
	dst = append(dst, ']')
	return string(dst[:n]), string(dst[n:]), nil
}

// jsonValue appends one value as interface.md's table of values says.
func (st *state) jsonValue(dst []byte, v *cell.Value, depth int) ([]byte, error) {
	if v.State != cell.Present {
		return append(dst, "null"...), nil
	}
	ok := true
	switch v.Kind {
	case schemas.KindInt:
		if v.Bits == 64 && st.e.o.Int64AsString {
			return append(strconv.AppendInt(append(dst, '"'), int64(v.N), 10), '"'), nil
		}
		return strconv.AppendInt(dst, int64(v.N), 10), nil
	case schemas.KindUint:
		if v.Bits == 64 && st.e.o.Int64AsString {
			return append(appendUint(append(dst, '"'), v.N), '"'), nil
		}
		return appendUint(dst, v.N), nil
	case schemas.KindText, schemas.KindUnknown, schemas.KindDecimal, schemas.KindBits:
		if dst, ok = appendEscaped(append(dst, '"'), v.B); !ok {
			return dst, errUTF8
		}
		return append(dst, '"'), nil
	case schemas.KindBool:
		return strconv.AppendBool(dst, v.N != 0), nil
	case schemas.KindFloat:
		return appendFloat(dst, v.Float(), int(v.Bits)), nil
	case schemas.KindBytes:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), v.B), '"'), nil
	case schemas.KindJSON:
		return appendJSON(dst, v.B, &st.nest)
	case schemas.KindDate:
		dst, ok = appendDate(append(dst, '"'), int64(v.N))
	case schemas.KindTime:
		dst = appendClock(append(dst, '"'), int64(v.N))
	case schemas.KindDateTime:
		dst, ok = appendDateTime(append(dst, '"'), int64(v.N))
	case schemas.KindTimestamp:
		dst, ok = appendTimestamp(append(dst, '"'), int64(v.N))
	case schemas.KindArray, schemas.KindVector:
		return st.jsonArray(dst, v, depth)
	default:
		return dst, fmt.Errorf("values of kind %s are not known to this version", v.Kind)
	}
	if !ok {
		return dst, fmt.Errorf("%s %d lies outside the years 1 to 9999", v.Kind, int64(v.N))
	}
	return append(dst, '"'), nil
}

func (st *state) jsonArray(dst []byte, v *cell.Value, depth int) ([]byte, error) {
	if depth >= maxDepth {
		return dst, fmt.Errorf("an array is nested more than %d deep", maxDepth)
	}
	dst = append(dst, '[')
	var err error
	for i := range v.Elems {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = st.jsonValue(dst, &v.Elems[i], depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// appendFloat appends the shortest number that reads back the same in bits; NaN and infinities as strings.
func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	if bits != 32 {
		bits = 64
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 {
		if bits == 64 && (a < 1e-6 || a >= 1e21) || bits == 32 && (float32(a) < 1e-6 || float32(a) >= 1e21) {
			format = 'e'
		}
	}
	return strconv.AppendFloat(dst, f, format, -1, bits)
}
