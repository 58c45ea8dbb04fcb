package event

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Payload unwraps transaction payloads (binlog_transaction_compression) event by event: only one
// event of it is in memory at a time. The zero value is ready; not for concurrent use.
type Payload struct {
	src  bytes.Reader
	zstd *zstd.Decoder
	from io.Reader
	buf  []byte
}

// maxWindow bounds the memory that damaged data can ask for; the server's highest level uses 128 MiB.
const maxWindow = 128 << 20

// Open begins with a payload event's body. Next returns its events; body must stay until its io.EOF.
// https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Transaction__payload__event.html
func (p *Payload) Open(body []byte) error {
	const (
		end, size, compression = 0, 1, 2
		zstandard, none        = 0, 255
	)
	c, algorithm := cursor{b: body}, uint64(zstandard)
	for {
		field := c.packed()
		if field == end || c.bad {
			break
		}
		v := cursor{b: c.take(c.packed())}
		switch field {
		case compression:
			algorithm = v.packed()
		case size:
			if n := v.packed(); n > uint64(len(body)) {
				return damaged("transaction payload")
			}
		}
		c.bad = c.bad || v.bad
	}
	if c.bad {
		return damaged("transaction payload")
	}
	p.src.Reset(c.b)
	switch algorithm {
	case none:
		p.from = &p.src
	case zstandard:
		if p.zstd == nil {
			d, err := zstd.NewReader(&p.src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
			if err != nil {
				return fmt.Errorf("read transaction payload: %w", err)
			}
			p.zstd = d
		} else if err := p.zstd.Reset(&p.src); err != nil {
			return fmt.Errorf("read transaction payload: %w", err)
		}
		p.from = p.zstd
	default:
		return fmt.Errorf("read transaction payload: compression %d is not known to this version", algorithm)
	}
	return nil
}

// Next returns the next event of the payload, with its header, without a checksum, valid until the next
// call; io.EOF at the end. limit bounds an event's size in bytes.
func (p *Payload) Next(limit int) ([]byte, error) {
	if cap(p.buf) < HeaderSize {
		p.buf = make([]byte, 16<<10)
	}
	p.buf = p.buf[:HeaderSize]
	switch _, err := io.ReadFull(p.from, p.buf); {
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case err != nil:
		return nil, fmt.Errorf("read transaction payload: %w: %w", ErrDamaged, err)
	}
	size := int(binary.LittleEndian.Uint32(p.buf[9:]))
	if size < HeaderSize || size > limit {
		return nil, damaged("transaction payload")
	}
	// The size is believed as far as bytes come: a damaged one is not to cost a gigabyte.
	for have := HeaderSize; have < size; {
		step := min(size-have, max(have, firstStep))
		p.buf = slices.Grow(p.buf, step)[:have+step]
		if _, err := io.ReadFull(p.from, p.buf[have:]); err != nil {
			return nil, fmt.Errorf("read transaction payload: %w: %w", ErrDamaged, err)
		}
		have += step
	}
	return p.buf, nil
}

const firstStep = 1 << 20

// Close frees the decoder.
func (p *Payload) Close() {
	if p.zstd != nil {
		p.zstd.Close()
	}
}
