package kafka

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Compression of record batches. The numbers are the protocol's.
type Compression uint8

const (
	None Compression = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

// Compressions by their names.
var Compressions = map[string]Compression{"none": None, "gzip": Gzip, "snappy": Snappy, "lz4": LZ4, "zstd": Zstd}

// record is one record of a run: its key, value and headers end at end in the run's body, with the count of the
// headers at headers.
type record struct {
	end, headers uint32
	event        uint32 // of the Delivery
	joined       bool   // the next record goes in the same batch
	time         int64  // milliseconds since 1970
	offset       uint64 // in Leat's log
	hash         uint64 // of the event's key
}

// headerHigh tells, on the first record of a batch, the highest offset of ours in the partition up to the batch's end.
const headerHigh = "leat-high"

// batchHead is the length of a batch up to its records.
// https://kafka.apache.org/documentation/#recordbatch
const batchHead = 61

// batch builds one record batch at a time, in memory that is used again.
type batch struct {
	raw, packed []byte // with batchHead bytes for the head
	out         []byte // raw or packed

	records     int
	first, last int64 // times
	high        uint64
	highAt      int // where its digits end in raw
}

func (b *batch) reset(high uint64) {
	var head [batchHead]byte
	*b = batch{raw: append(b.raw[:0], head[:]...), packed: b.packed, high: high}
}

// recordHead is more than a record has beside its body, the header of the first one included.
const recordHead = 96

// size is an upper bound of what the batch has with another record of that many bytes.
func (b *batch) size(body int) int { return len(b.raw) + body + recordHead }

// add appends a record: body is its key, value and headers.
func (b *batch) add(r *record, body []byte) {
	if b.records == 0 {
		body = b.withHigh(body, int(r.headers)-(int(r.end)-len(body)))
	}
	b.put(r, body)
	if b.records == 1 {
		b.highAt = len(b.raw)
	}
	b.high = max(b.high, r.offset)
}

func (b *batch) put(r *record, body []byte) {
	if b.records == 0 {
		b.first, b.last = r.time, r.time
	}
	b.last = max(b.last, r.time)
	var head [3 * binary.MaxVarintLen64]byte
	n := 1 // attributes: 0
	n += binary.PutVarint(head[n:], r.time-b.first)
	n += binary.PutVarint(head[n:], int64(b.records))
	b.raw = binary.AppendVarint(b.raw, int64(n+len(body)))
	b.raw = append(append(b.raw, head[:n]...), body...)
	b.records++
}

// withHigh is the first record's body with one header more, which tells high: its text has a fixed length, so that it
// can be set when the batch is whole.
func (b *batch) withHigh(body []byte, headers int) []byte {
	count, n := binary.Varint(body[headers:])
	with := make([]byte, 0, len(body)+40)
	with = append(with, body[:headers]...)
	with = binary.AppendVarint(with, count+1)
	with = append(with, body[headers+n:]...)
	return appendHeader(with, headerHigh, make([]byte, highDigits))
}

const highDigits = 20

// seal sets the head but what the producer sets: with compression when that helps.
func (b *batch) seal(c Compression) error {
	copy(b.raw[b.highAt-highDigits:b.highAt], fmt.Appendf(nil, "%0*d", highDigits, b.high))
	b.out = b.raw
	if c != None {
		packed, err := compress(append(b.packed[:0], b.raw[:batchHead]...), b.raw[batchHead:], c)
		if err != nil {
			return err
		}
		if b.packed = packed; len(packed) < len(b.raw) {
			b.out = packed
		} else {
			c = None
		}
	}
	h := b.out
	binary.BigEndian.PutUint64(h, 0)                        // base offset: the broker's
	binary.BigEndian.PutUint32(h[8:], uint32(len(h)-12))    // length of what follows
	binary.BigEndian.PutUint32(h[12:], ^uint32(0))          // partition leader epoch: the broker's
	h[16] = 2                                               // magic
	binary.BigEndian.PutUint16(h[21:], uint16(c))           // attributes
	binary.BigEndian.PutUint32(h[23:], uint32(b.records-1)) // last offset delta
	binary.BigEndian.PutUint64(h[27:], uint64(b.first))
	binary.BigEndian.PutUint64(h[35:], uint64(b.last))
	binary.BigEndian.PutUint32(h[57:], uint32(b.records))
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sign sets whose batch it is, and the checksum. The batch is sealed.
func (b *batch) sign(producer int64, epoch int16, sequence int32, transactional bool) {
	h := b.out
	if transactional {
		h[22] |= 1 << 4
	}
	binary.BigEndian.PutUint64(h[43:], uint64(producer))
	binary.BigEndian.PutUint16(h[51:], uint16(epoch))
	binary.BigEndian.PutUint32(h[53:], uint32(sequence))
	binary.BigEndian.PutUint32(h[17:], crc32.Checksum(h[21:], castagnoli))
}

// after is the sequence that follows a batch of n records: sequences wrap at 2³¹.
func after(sequence int32, n int) int32 {
	return int32((int64(sequence) + int64(n)) & 0x7fffffff)
}

func appendHeader(dst []byte, name string, value []byte) []byte {
	dst = append(binary.AppendVarint(dst, int64(len(name))), name...)
	return append(binary.AppendVarint(dst, int64(len(value))), value...)
}

// appendBytes appends a nullable key or value; present false: null.
func appendBytes(dst, p []byte, present bool) []byte {
	if !present {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(p))), p...)
}

var (
	zstdWriter = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(4), zstd.WithEncoderCRC(false))
	})
	gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}
	// As Java's clients write it: small blocks, for which brokers and consumers need small buffers, and no checksum of the
	// content, as the batch has one.
	lz4Writers = sync.Pool{New: func() any {
		w := lz4.NewWriter(nil)
		_ = w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)) // both can be had
		return w
	}}
)

// compress appends records compressed as Kafka's clients do.
func compress(dst, records []byte, c Compression) ([]byte, error) {
	switch c {
	case Zstd:
		w, err := zstdWriter()
		if err != nil {
			return dst, fmt.Errorf("compress: %w", err)
		}
		return w.EncodeAll(records, dst), nil
	case Snappy:
		return appendXerial(dst, records), nil
	case Gzip:
		w := gzipWriters.Get().(*gzip.Writer)
		defer gzipWriters.Put(w)
		out := bytes.NewBuffer(dst)
		w.Reset(out)
		if _, err := w.Write(records); err != nil {
			return dst, fmt.Errorf("compress: %w", err)
		}
		err := w.Close()
		return out.Bytes(), err
	case LZ4:
		w := lz4Writers.Get().(*lz4.Writer)
		defer lz4Writers.Put(w)
		out := bytes.NewBuffer(dst)
		w.Reset(out)
		if _, err := w.Write(records); err != nil {
			return dst, fmt.Errorf("compress: %w", err)
		}
		err := w.Close()
		return out.Bytes(), err
	}
	return dst, fmt.Errorf("compression %d is not known", c)
}

// xerialBlock is how much goes in one block of the frame that Java's snappy library writes and every client reads.
// https://github.com/xerial/snappy-java#compatibility-notes
const xerialBlock = 32 << 10

func appendXerial(dst, p []byte) []byte {
	dst = append(dst, 0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0)
	dst = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, 1), 1)
	block := make([]byte, s2.MaxEncodedLen(xerialBlock))
	for len(p) > 0 {
		n := min(len(p), xerialBlock)
		block = s2.EncodeSnappy(block[:cap(block)], p[:n])
		dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(block))), block...)
		p = p[n:]
	}
	return dst
}

// parseOffset reads the digits of an offset.
func parseOffset(p []byte) (uint64, bool) {
	n, err := strconv.ParseUint(string(p), 10, 64)
	return n, err == nil
}
