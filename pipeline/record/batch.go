package record

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"unsafe"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

const (
	prefixSize = 48
	tableSize  = 8
	txSize     = 40
	eventSize  = 40

	txEnds = 1 << 0
)

// Resolver returns the table version that a batch refers to, nil when it is not known.
type Resolver func(id, version uint32) *schemas.Table

// KindOf is the block kind of a batch.
func KindOf(b *pipeline.Batch) Kind {
	if len(b.Ranges) > 0 {
		return KindRanges
	}
	if b.Snapshot != nil {
		return KindSnapshot
	}
	if b.Kind == pipeline.BatchPrepared {
		return KindPrepared
	}
	return KindRows + Kind(b.Kind)
}

// AppendHead appends to dst what comes before the arena: HeaderSize bytes for Finish to fill, and the
// payload up to the arena. It returns the checksum of the whole payload (arena included) and its length,
// and the newest commit time. The arena itself is not copied: it is written behind the head as it is. chunks are those of a
// commit. A batch that Decode would refuse is an error here.
func AppendHead(dst []byte, b *pipeline.Batch, chunks []Chunk) (head []byte, crc uint32, payload int, newest int64, err error) {
	at := len(dst)
	if err := checkCounts(b); err != nil {
		return dst, 0, 0, 0, err
	}
	if len(b.Ranges) > 0 {
		return appendRanges(dst, b)
	}
	mark, err := appendMark(b)
	if err != nil {
		return dst, 0, 0, 0, err
	}
	var notices []byte
	if len(b.Notices) > 0 {
		if notices, err = json.Marshal(b.Notices); err != nil {
			return dst, 0, 0, 0, invalid("notices: %v", err)
		}
	}
	parts := partsOf(b, chunks, len(notices), len(mark))
	front := int(parts.size()) - len(b.Arena)
	payload = front + len(b.Arena)
	if payload > MaxPayload {
		return dst, 0, 0, 0, invalid("a batch of %d bytes is more than one block holds (%d)", payload, MaxPayload)
	}
	dst = grow(dst, HeaderSize+front)
	p := putChunks(putTables(parts.put(dst[at+HeaderSize:]), b.Tables), chunks)
	newest = math.MinInt64
	for i := range b.Txs {
		newest = max(newest, b.Txs[i].Time)
		putTx(p, &b.Txs[i])
		p = p[txSize:]
	}
	if len(b.Txs) == 0 {
		newest = 0
	}
	putEvents(p, b.Events)
	p = p[len(b.Events)*eventSize:]
	p = p[copy(p, b.Open):]
	p = p[copy(p, b.End.Token):]
	p = p[copy(p, notices):]
	copy(p, mark)
	if err := validate(b); err != nil {
		return dst[:at], 0, 0, 0, err
	}
	crc = CRC(0, dst[at+HeaderSize:])
	crc = CRC(crc, b.Arena)
	return dst, crc, payload, newest, nil
}

// Append appends the batch's whole block to dst. chunks are those of a commit. h gives what the block
// header says; Kind, Events and Time are filled in from the batch.
func Append(dst []byte, b *pipeline.Batch, chunks []Chunk, h *Header) ([]byte, error) {
	at := len(dst)
	dst, crc, payload, newest, err := AppendHead(dst, b, chunks)
	if err != nil {
		return dst, err
	}
	h.Kind, h.Time, h.Events, h.Version = KindOf(b), newest, uint32(len(b.Events)), FormatOf(b, chunks)
	for _, c := range chunks {
		if h.Kind != KindPrepared {
			h.Events += c.Events
		}
	}
	dst = append(dst, b.Arena...)
	Finish(dst[at:], h, crc, payload)
	var zero [Align]byte
	return append(dst, zero[:h.Size()-(len(dst)-at)]...), nil
}

func checkCounts(b *pipeline.Batch) error {
	if b.Kind > pipeline.BatchPrepared {
		return invalid("batch kind %d", b.Kind)
	}
	if len(b.Tables) > pipeline.MaxTables {
		return invalid("%d table versions in one batch, more than %d", len(b.Tables), pipeline.MaxTables)
	}
	if uint64(len(b.Events))*eventSize+uint64(len(b.Txs))*txSize+uint64(len(b.Arena)) > MaxPayload {
		return invalid("a batch of %d events and %d bytes is more than one block holds", len(b.Events), len(b.Arena))
	}
	return nil
}

// grow lengthens p by n bytes of any content.
func grow(p []byte, n int) []byte {
	if cap(p)-len(p) >= n {
		return p[:len(p)+n]
	}
	return append(p, make([]byte, n)...)
}

// The layout of Event in memory is the layout in the log where integers are little-endian: then the
// array is copied as it is. Elsewhere it is converted field by field.
var sameLayout = func() bool {
	var e pipeline.Event
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 1 && unsafe.Sizeof(e) == eventSize &&
		unsafe.Offsetof(e.Op) == 0 && unsafe.Offsetof(e.Flags) == 1 && unsafe.Offsetof(e.Table) == 2 && unsafe.Offsetof(e.Tx) == 4 &&
		unsafe.Offsetof(e.Hash) == 8 && unsafe.Offsetof(e.Key) == 16 && unsafe.Offsetof(e.Before) == 24 && unsafe.Offsetof(e.After) == 32
}()

func eventBytes(events []pipeline.Event) []byte {
	if len(events) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&events[0])), len(events)*eventSize)
}

func putEvents(p []byte, events []pipeline.Event) {
	if sameLayout {
		copy(p, eventBytes(events))
		return
	}
	convertOut(p, events)
}

func convertOut(p []byte, events []pipeline.Event) {
	le := binary.LittleEndian
	for i := range events {
		e, q := &events[i], p[i*eventSize:][:eventSize]
		q[0], q[1] = byte(e.Op), byte(e.Flags)
		le.PutUint16(q[2:], e.Table)
		le.PutUint32(q[4:], e.Tx)
		le.PutUint64(q[8:], e.Hash)
		putSpan(q[16:], e.Key)
		putSpan(q[24:], e.Before)
		putSpan(q[32:], e.After)
	}
}

func takeEvents(events []pipeline.Event, p []byte) {
	if sameLayout {
		copy(eventBytes(events), p)
		return
	}
	convertIn(events, p)
}

func convertIn(events []pipeline.Event, p []byte) {
	le := binary.LittleEndian
	for i := range events {
		e, q := &events[i], p[i*eventSize:][:eventSize]
		e.Op, e.Flags = pipeline.Op(q[0]), pipeline.Flags(q[1])
		e.Table, e.Tx, e.Hash = le.Uint16(q[2:]), le.Uint32(q[4:]), le.Uint64(q[8:])
		e.Key, e.Before, e.After = takeSpan(q[16:]), takeSpan(q[24:]), takeSpan(q[32:])
	}
}

func putSpan(p []byte, s pipeline.Span) {
	binary.LittleEndian.PutUint32(p, s.Off)
	binary.LittleEndian.PutUint32(p[4:], s.Len)
}

func takeSpan(p []byte) pipeline.Span {
	return pipeline.Span{Off: binary.LittleEndian.Uint32(p), Len: binary.LittleEndian.Uint32(p[4:])}
}

func putTx(p []byte, tx *pipeline.Tx) {
	le := binary.LittleEndian
	putSpan(p, tx.ID)
	putSpan(p[8:], tx.Position)
	le.PutUint64(p[16:], uint64(tx.Time))
	le.PutUint32(p[24:], tx.First)
	le.PutUint32(p[28:], tx.Before)
	var flags uint32
	if tx.Ends {
		flags |= txEnds
	}
	le.PutUint32(p[32:], flags)
	le.PutUint32(p[36:], tx.Part)
}

func takeTx(p []byte) pipeline.Tx {
	le := binary.LittleEndian
	return pipeline.Tx{ID: takeSpan(p), Position: takeSpan(p[8:]), Time: int64(le.Uint64(p[16:])), First: le.Uint32(p[24:]),
		Before: le.Uint32(p[28:]), Ends: le.Uint32(p[32:])&txEnds != 0, Part: le.Uint32(p[36:])}
}

// validate checks that every span lies in the arena and every index names something: what Decode
// promises to those who read a batch. Events stand in the order of their transactions.
func validate(b *pipeline.Batch) error {
	arena := uint64(len(b.Arena))
	inside := func(s pipeline.Span) bool { return s.Len == pipeline.NoSpan || uint64(s.Off)+uint64(s.Len) <= arena }
	for i := range b.Txs {
		tx := &b.Txs[i]
		if !inside(tx.ID) || !inside(tx.Position) {
			return invalid("transaction %d names text outside of the batch", i)
		}
		if int(tx.First) > len(b.Events) || i == 0 && tx.First != 0 && len(b.Events) > 0 || i > 0 && tx.First < b.Txs[i-1].First {
			return invalid("transaction %d begins at event %d, out of order", i, tx.First)
		}
	}
	// tables and txs are compared once per run of events where they stay the same.
	tables, txs := len(b.Tables), len(b.Txs)
	if txs == 0 && len(b.Events) > 0 {
		return invalid("events without a transaction")
	}
	for t := range txs {
		end := len(b.Events)
		if t+1 < txs {
			end = int(b.Txs[t+1].First)
		}
		events := b.Events[min(int(b.Txs[t].First), end):end]
		for i := range events {
			e := &events[i]
			if int(e.Tx) != t {
				return invalid("event %d says transaction %d, stands in %d", i, e.Tx, t)
			}
			if int(e.Table) >= tables && e.Table != pipeline.NoTable {
				return invalid("event %d of transaction %d names table %d of %d", i, t, e.Table, tables)
			}
			if !inside(e.Key) || !inside(e.Before) || !inside(e.After) {
				return invalid("event %d of transaction %d names bytes outside of the batch", i, t)
			}
		}
	}
	return nil
}

// Decode reads a block of a batch, checked by Open before, into `into`, which it empties first. The
// arena aliases block: that memory belongs to the caller and must outlive the batch. Base is that of the header; of a
// chunk it means nothing. chunks are appended to buf[:0] and returned for a commit. Nothing is allocated
// when `into` was used before, but for text (Open, End) and notices.
func Decode(block []byte, h *Header, into *pipeline.Batch, tables Resolver, buf []Chunk) ([]Chunk, error) {
	into.Reset()
	if !h.Kind.Batch() {
		return nil, invalid("a %s block is no batch", h.Kind)
	}
	if h.Flags != 0 {
		return nil, invalid("unknown flags %#x", h.Flags)
	}
	p := block[h.Length : h.Length+h.Payload]
	if h.Kind == KindRanges {
		return nil, decodeRanges(p, h, into)
	}
	parts, p, err := takeParts(p, h.Kind)
	if err != nil {
		return nil, err
	}
	into.Base = h.Base
	switch h.Kind {
	case KindSnapshot:
	case KindPrepared:
		into.Kind = pipeline.BatchPrepared
	default:
		into.Kind = pipeline.BatchKind(h.Kind - KindRows)
	}
	into.End.Counter = parts.counter
	if p, err = takeTables(p, int(parts.tables), tables, into); err != nil {
		return nil, err
	}
	chunks, p, err := takeChunks(p, int(parts.chunks), int(parts.cuts), buf[:0])
	if err != nil {
		return nil, err
	}
	for range parts.txs {
		into.Txs = append(into.Txs, takeTx(p))
		p = p[txSize:]
	}
	into.Events = sized(into.Events, int(parts.events))
	takeEvents(into.Events, p)
	p = p[int(parts.events)*eventSize:]
	into.Open, p = string(p[:parts.open]), p[parts.open:]
	into.End.Token, p = string(p[:parts.token]), p[parts.token:]
	if parts.notices > 0 {
		if err := json.Unmarshal(p[:parts.notices], &into.Notices); err != nil {
			return nil, invalid("notices: %v", err)
		}
	}
	p = p[parts.notices:]
	if h.Kind == KindSnapshot {
		if err := decodeMark(p[:parts.mark], into); err != nil {
			return nil, err
		}
		p = p[parts.mark:]
	}
	into.Arena = p[:parts.arena:parts.arena]
	if err := counts(into, h, chunks); err != nil {
		return nil, err
	}
	return chunks, validate(into)
}

// counts checks that the batch gives out as many offsets as its header says.
func counts(b *pipeline.Batch, h *Header, chunks []Chunk) error {
	n := uint64(len(b.Events))
	names, empty := h.Kind == KindCommit || h.Kind == KindPrepared, h.Kind == KindAbort
	if !names && len(chunks) > 0 || (names || empty) && n > 0 {
		return invalid("a %s block with %d chunks and %d events", h.Kind, len(chunks), n)
	}
	if h.Kind == KindPrepared {
		chunks = nil // their events get no offsets yet
	}
	for _, c := range chunks {
		n += uint64(c.Events)
	}
	if n != uint64(h.Events) {
		return invalid("the header says %d events, the block holds %d", h.Events, n)
	}
	return nil
}

func sized(events []pipeline.Event, n int) []pipeline.Event {
	if cap(events) < n {
		return make([]pipeline.Event, n)
	}
	return events[:n]
}
