package encode

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Tags of leat/v1/event.proto: field number << 3 | wire type (0 varint, 1 fixed 64, 2 length, 5 fixed 32).
// A test holds them against the generated code.
const (
	tagEntry        = 1<<3 | 2 // Events.events
	tagOffset       = 1<<3 | 1
	tagOp           = 2<<3 | 0
	tagKey          = 5<<3 | 2
	tagPartitionKey = 6<<3 | 2
	tagBefore       = 7<<3 | 2
	tagAfter        = 8<<3 | 2
	tagTx           = 9<<3 | 2
	tagTime         = 10<<3 | 1
	tagPosition     = 11<<3 | 2
	tagKeyChange    = 12<<3 | 2
	tagSchemaChange = 13<<3 | 2
	tagMessage      = 14<<3 | 2
	tagReplay       = 15<<3 | 2

	tagRowValue = 1<<3 | 2
	tagTxID     = 1<<3 | 2
	tagTxSeq    = 2<<3 | 0
	tagTxLast   = 3<<3 | 0

	tagOtherOffset       = 1<<3 | 0
	tagOtherKey          = 2<<3 | 2
	tagOtherPartitionKey = 3<<3 | 2

	tagNull      = 1<<3 | 0
	tagAbsent    = 2<<3 | 0
	tagBoolean   = 3<<3 | 0
	tagInteger   = 4<<3 | 0
	tagUnsigned  = 5<<3 | 0
	tagFloat64   = 6<<3 | 1
	tagFloat32   = 7<<3 | 5
	tagDecimal   = 8<<3 | 2
	tagText      = 9<<3 | 2
	tagBlob      = 10<<3 | 2
	tagBits      = 11<<3 | 2
	tagJSON      = 12<<3 | 2
	tagDate      = 13<<3 | 0
	tagTimeOfDay = 14<<3 | 0
	tagDateTime  = 15<<3 | 1
	tagTimestamp = 16<<3 | 1 // two bytes from here on
	tagArray     = 17<<3 | 2
	tagVector    = 18<<3 | 2
)

// CloseLen writes, as a varint as short as it goes, the length of what follows the two bytes at `at` into them: for messages
// whose length is known at their end.
func CloseLen(dst []byte, at int) []byte {
	n := len(dst) - at - 2
	switch {
	case n < 1<<7:
		dst[at] = byte(n)
		copy(dst[at+1:], dst[at+2:])
		return dst[:len(dst)-1]
	case n < 1<<14:
		dst[at], dst[at+1] = byte(n)|0x80, byte(n>>7)
		return dst
	}
	var length [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(length[:], uint64(n))
	dst = append(dst, length[:w-2]...) // makes space; what is in it is overwritten
	copy(dst[at+w:], dst[at+2:at+2+n])
	copy(dst[at:], length[:w])
	return dst
}

func appendBytes(dst []byte, tag byte, p []byte) []byte {
	return append(appendVarint(append(dst, tag), uint64(len(p))), p...)
}

// protoTx formats what is the same for all events of a transaction.
func (st *state) protoTx(b *pipeline.Batch, tx *pipeline.Tx) error {
	id, position := b.Bytes(tx.ID), b.Bytes(tx.Position)
	if !utf8.Valid(id) || !utf8.Valid(position) {
		return fmt.Errorf("transaction id or position: %w", errUTF8)
	}
	f := binary.LittleEndian.AppendUint64(append(st.frags[:0], tagTime), uint64(tx.Time))
	st.time = span{0, len(f)}
	if len(position) > 0 {
		f = appendBytes(f, tagPosition, position)
	}
	st.position = span{st.time.to, len(f)}
	st.txid = span{len(f), len(f)}
	if tx.ID.Present() {
		f = appendBytes(f, tagTxID, id)
		st.txid.to = len(f)
	}
	st.frags = f
	return nil
}

func (st *state) protoEvent(dst []byte, b *pipeline.Batch, i int, ev *pipeline.Event, op pipeline.Op) ([]byte, error) {
	dst = append(dst, tagEntry, 0, 0)
	at := len(dst) - 2
	offset := uint64(b.Offset(i))
	dst = binary.LittleEndian.AppendUint64(append(dst, tagOffset), offset)
	dst = append(dst, tagOp, byte(op))
	dst = append(dst, st.plan.ref...)
	var err error
	switch {
	case op.Row():
		dst, err = st.protoRow(dst, op)
	case op == pipeline.OpSchema:
		dst, err = st.protoSchema(dst, b.Bytes(ev.After))
	case op == pipeline.OpMessage:
		dst, err = protoMessage(dst, b.Bytes(ev.Before), b.Bytes(ev.After))
	}
	if err != nil {
		return dst, err
	}
	if op != pipeline.OpSnapshot && st.txid.to > st.txid.from {
		seq, last := b.Seq(i)
		dst = append(dst, tagTx, 0, 0)
		tx := len(dst) - 2
		dst = append(dst, st.frags[st.txid.from:st.txid.to]...)
		dst = appendVarint(append(dst, tagTxSeq), uint64(seq))
		if last {
			dst = append(dst, tagTxLast, 1)
		}
		dst = CloseLen(dst, tx)
	}
	dst = append(dst, st.frags[:st.position.to]...)
	if op.Row() && ev.Flags&pipeline.FlagKeyChange != 0 && ev.Op == op {
		if dst, err = st.protoOther(dst, offset, op); err != nil {
			return dst, err
		}
	}
	if st.e.o.Replay != "" {
		dst = append(appendVarint(append(dst, tagReplay), uint64(len(st.e.o.Replay))), st.e.o.Replay...)
	}
	return CloseLen(dst, at), nil
}

func (st *state) protoRow(dst []byte, op pipeline.Op) ([]byte, error) {
	for _, k := range st.plan.identity {
		dst = append(append(dst, tagKey), st.key(k)...)
	}
	if !st.plan.sameKey {
		for _, k := range st.plan.routing {
			dst = append(append(dst, tagPartitionKey), st.key(k)...)
		}
	}
	var err error
	if st.before.there && (op == pipeline.OpUpdate || op == pipeline.OpDelete) {
		if dst, err = st.protoImage(dst, tagBefore, &st.before, 0); err != nil {
			return dst, err
		}
	}
	if st.after.there && op != pipeline.OpDelete {
		dst, err = st.protoImage(dst, tagAfter, &st.after, 1)
	}
	return dst, err
}

func (st *state) protoImage(dst []byte, tag byte, m *image, which uint8) ([]byte, error) {
	dst = append(dst, tag, 0, 0)
	at := len(dst) - 2
	p := st.plan
	for n := range p.cols {
		c := &p.cols[n]
		ref := m.ref(c.index)
		if ref.Absent() {
			dst = append(dst, tagRowValue, 2, tagAbsent, 1)
			continue
		}
		dst = append(dst, tagRowValue)
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
	return CloseLen(dst, at), nil
}

// protoPlain appends a cell whose bytes are its value, as a Value with its length before it; not ok: it has to be decoded,
// and dst is as it was. Most cells of a row come here, so
// it makes room once and then only writes.
func protoPlain(dst []byte, p cell.Plain, raw []byte) (_ []byte, ok bool) {
	const most = 12 // before bytes, or of a number
	if cap(dst)-len(dst) < len(raw)+most {
		dst = slices.Grow(dst, len(raw)+most)
	}
	out := dst[len(dst) : len(dst)+len(raw)+most]
	if p == cell.PlainText || p == cell.PlainASCII {
		if !p.Sound(raw) {
			return dst, false
		}
		if len(raw) < 1<<7-2 {
			out[0], out[1], out[2] = byte(len(raw)+2), tagText, byte(len(raw))
			return dst[:len(dst)+3+copy(out[3:], raw)], true
		}
		return appendValueBytes(dst, tagText, raw), true
	}
	n, ok := p.Number(raw)
	if out[1] = tagInteger; p == cell.PlainUint {
		out[1] = tagUnsigned
	} else {
		n = zigzag(n)
	}
	at := 2
	for ; n >= 0x80; n >>= 7 {
		out[at] = byte(n) | 0x80
		at++
	}
	out[at], out[0] = byte(n), byte(at)
	return dst[:len(dst)+at+1], ok
}

// protoOther appends the link to the other half of a key change. It replaces the encoded key.
func (st *state) protoOther(dst []byte, offset uint64, op pipeline.Op) ([]byte, error) {
	other := offset - 1
	if op == pipeline.OpDelete {
		other = offset + 1
	}
	if err := st.encodeKeys(op == pipeline.OpDelete); err != nil {
		return dst, err
	}
	dst = append(dst, tagKeyChange, 0, 0)
	at := len(dst) - 2
	dst = appendVarint(append(dst, tagOtherOffset), other)
	for _, k := range st.plan.identity {
		dst = append(append(dst, tagOtherKey), st.key(k)...)
	}
	if !st.plan.sameKey {
		for _, k := range st.plan.routing {
			dst = append(append(dst, tagOtherPartitionKey), st.key(k)...)
		}
	}
	return CloseLen(dst, at), nil
}

func (st *state) protoSchema(dst, content []byte) ([]byte, error) {
	c, err := st.schemaChange(content)
	if err != nil {
		return dst, err
	}
	out := &leatv1.SchemaChange{Statement: c.Statement, Rewrites: c.Rewrites}
	for i := range c.Columns {
		out.Columns = append(out.Columns, protoColumn(&c.Columns[i]))
	}
	p, err := proto.Marshal(out)
	if err != nil {
		return dst, fmt.Errorf("schema change: %w", err)
	}
	return appendBytes(dst, tagSchemaChange, p), nil
}

func protoMessage(dst, prefix, content []byte) ([]byte, error) {
	if !utf8.Valid(prefix) {
		return dst, fmt.Errorf("prefix: %w", errUTF8)
	}
	dst = append(dst, tagMessage, 0, 0)
	at := len(dst) - 2
	dst = appendBytes(dst, 1<<3|2, prefix)
	return CloseLen(appendBytes(dst, 2<<3|2, content), at), nil
}

// protoValue appends a Value with its length before it; the caller appended the tag.
func (st *state) protoValue(dst []byte, v *cell.Value, depth int) ([]byte, error) {
	if v.State == cell.Null {
		return append(dst, 2, tagNull, 1), nil
	}
	if v.State == cell.Absent {
		return append(dst, 2, tagAbsent, 1), nil
	}
	switch v.Kind {
	case schemas.KindBool:
		return append(dst, 2, tagBoolean, byte(min(v.N, 1))), nil
	case schemas.KindInt:
		return appendShort(dst, tagInteger, zigzag(v.N)), nil
	case schemas.KindUint:
		return appendShort(dst, tagUnsigned, v.N), nil
	case schemas.KindFloat:
		if v.Bits == 32 {
			return binary.LittleEndian.AppendUint32(append(dst, 5, tagFloat32), uint32(v.N)), nil
		}
		return binary.LittleEndian.AppendUint64(append(dst, 9, tagFloat64), v.N), nil
	case schemas.KindText, schemas.KindUnknown:
		return appendUTF8(dst, tagText, v.B)
	case schemas.KindDecimal:
		return appendUTF8(dst, tagDecimal, v.B)
	case schemas.KindBits:
		return appendUTF8(dst, tagBits, v.B)
	case schemas.KindJSON:
		return appendUTF8(dst, tagJSON, v.B)
	case schemas.KindBytes:
		return appendValueBytes(dst, tagBlob, v.B), nil
	case schemas.KindDate:
		if d := int64(v.N); d != int64(int32(d)) {
			return dst, fmt.Errorf("date %d does not fit", d)
		}
		return appendShort(dst, tagDate, zigzag(v.N)), nil
	case schemas.KindTime:
		return appendShort(dst, tagTimeOfDay, zigzag(v.N)), nil
	case schemas.KindDateTime:
		return binary.LittleEndian.AppendUint64(append(dst, 9, tagDateTime), v.N), nil
	case schemas.KindTimestamp:
		return binary.LittleEndian.AppendUint64(append(dst, 10, tagTimestamp&0x7f|0x80, tagTimestamp>>7), v.N), nil
	case schemas.KindArray:
		return st.protoArray(dst, v, depth)
	case schemas.KindVector:
		return protoVector(dst, v)
	}
	return dst, fmt.Errorf("values of kind %s are not known to this version", v.Kind)
}

func zigzag(n uint64) uint64 { return n<<1 ^ uint64(int64(n)>>63) }

// appendShort appends a Value of one varint: at most 11 bytes, so its length is one byte.
func appendShort(dst []byte, tag byte, v uint64) []byte {
	at := len(dst)
	dst = appendVarint(append(dst, 0, tag), v)
	dst[at] = byte(len(dst) - at - 1)
	return dst
}

func varintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func appendValueBytes(dst []byte, tag byte, p []byte) []byte {
	n := uint64(len(p))
	if n < 1<<7-2 {
		return append(append(dst, byte(n+2), tag, byte(n)), p...)
	}
	dst = appendVarint(dst, 1+uint64(varintLen(n))+n)
	return append(appendVarint(append(dst, tag), n), p...)
}

func appendUTF8(dst []byte, tag byte, p []byte) ([]byte, error) {
	if !utf8.Valid(p) {
		return dst, errUTF8
	}
	return appendValueBytes(dst, tag, p), nil
}

func (st *state) protoArray(dst []byte, v *cell.Value, depth int) ([]byte, error) {
	if depth >= maxDepth {
		return dst, fmt.Errorf("an array is nested more than %d deep", maxDepth)
	}
	value := len(dst)
	dst = append(dst, 0, 0, tagArray&0x7f|0x80, tagArray>>7, 0, 0)
	array := len(dst) - 2
	var err error
	for i := range v.Elems {
		if dst, err = st.protoValue(append(dst, tagRowValue), &v.Elems[i], depth+1); err != nil {
			return dst, err
		}
	}
	return CloseLen(CloseLen(dst, array), value), nil
}

func protoVector(dst []byte, v *cell.Value) ([]byte, error) {
	value := len(dst)
	dst = append(dst, 0, 0, tagVector&0x7f|0x80, tagVector>>7, 0, 0)
	vector := len(dst) - 2
	dst = append(dst, 1<<3|2, 0, 0)
	packed := len(dst) - 2
	for i := range v.Elems {
		e := &v.Elems[i]
		if e.Kind != schemas.KindFloat || e.Bits != 32 || e.State != cell.Present {
			return dst, fmt.Errorf("a vector holds a %s of %d bits", e.Kind, e.Bits)
		}
		dst = binary.LittleEndian.AppendUint32(dst, uint32(e.N))
	}
	return CloseLen(CloseLen(CloseLen(dst, packed), vector), value), nil
}
