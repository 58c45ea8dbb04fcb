package parquet

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// extent is where an encoded event stands in a stage.
type extent struct{ at, size int64 }

// extents are those of a part, in the stage's order: for each the varints of the gap before it, and of its size.
type extents struct {
	packed []byte
	n      int
	end    int64 // of the last that was added or taken
}

func (x *extents) add(e extent) {
	x.packed = binary.AppendUvarint(binary.AppendUvarint(x.packed, uint64(e.at-x.end)), uint64(e.size))
	x.n, x.end = x.n+1, e.at+e.size
}

// take removes the first, counted from end.
func (x *extents) take() (e extent, ok bool) {
	gap, n := binary.Uvarint(x.packed)
	if n <= 0 {
		return e, false
	}
	size, m := binary.Uvarint(x.packed[n:])
	e = extent{x.end + int64(gap), int64(size)}
	x.packed, x.end = x.packed[n+m:], e.at+e.size
	return e, m > 0
}

// extents finds the events of a frame.
func (f frame) extents() ([]extent, error) {
	out := make([]extent, 0, len(f.Events.Events))
	for rest := f.bytes; len(rest) > 0; {
		field, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(field, kind, rest[n:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		if field == 1 && kind == protowire.BytesType { // Events.events
			event, _ := protowire.ConsumeBytes(rest[n:])
			out = append(out, extent{f.body + int64(len(f.bytes)-len(rest)+n+size-len(event)), int64(len(event))})
		}
		rest = rest[n+size:]
	}
	if len(out) != len(f.Events.Events) {
		return nil, fmt.Errorf("%d events stand at %d places", len(f.Events.Events), len(out))
	}
	return out, nil
}

// extentReader reads a part's events in order; those that stand near to each other at once.
type extentReader struct {
	in   io.ReaderAt
	rest extents
	at   int64
	buf  []byte
}

const (
	readAtOnce = 256 << 10
	readOver   = 4 << 10 // between two events of one read
)

// read returns the next event. It is the reader's until the next read.
func (r *extentReader) read() ([]byte, error) {
	e, ok := r.rest.take()
	if !ok {
		return nil, io.ErrUnexpectedEOF
	}
	if e.at < r.at || e.at+e.size > r.at+int64(len(r.buf)) {
		end := e.at + e.size
		for ahead := r.rest; ; {
			n, ok := ahead.take()
			if !ok || n.at > end+readOver || n.at+n.size > e.at+readAtOnce {
				break
			}
			end = n.at + n.size
		}
		r.at, r.buf = e.at, slices.Grow(r.buf[:0], int(end-e.at))[:end-e.at]
		if _, err := r.in.ReadAt(r.buf, e.at); err != nil {
			r.buf = r.buf[:0]
			return nil, err
		}
	}
	return r.buf[e.at-r.at:][:e.size], nil
}
