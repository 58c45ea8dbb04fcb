package disklog

import (
	"sync"
	"sync/atomic"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

// readAhead is how much a reader takes from a segment at once.
const readAhead = 1 << 20

// pinnable is how large an arena must be to alias the buffer that it was read into: a batch that somebody
// holds keeps all of that, and a budget counts the batch alone. Smaller ones are copied.
const pinnable = readAhead / 32

// buffer is memory that blocks were read into; the stream that fills it and every batch that aliases it
// hold a reference.
type buffer struct {
	b    []byte
	refs atomic.Int32
}

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, readAhead)} }}

func newBuffer(size int) *buffer {
	var b *buffer
	if size <= readAhead {
		b = buffers.Get().(*buffer)
	} else {
		b = &buffer{b: make([]byte, record.Padded(size))}
	}
	b.refs.Store(1)
	return b
}

func (b *buffer) release() {
	if b.refs.Add(-1) > 0 {
		return
	}
	mangle(b.b) // under -race only
	if len(b.b) == readAhead {
		buffers.Put(b)
	}
}

// blockBatch is a pooled batch that was read from a segment. Its arena aliases buf, or is own.
type blockBatch struct {
	*pipeline.Batch
	buf *buffer
	own []byte
}

var blockBatches sync.Pool

func newBlockBatch() *blockBatch {
	if bb, ok := blockBatches.Get().(*blockBatch); ok {
		bb.Retain()
		return bb
	}
	bb := new(blockBatch)
	bb.Batch = pipeline.NewBatchOver(func(b *pipeline.Batch) { bb.free() })
	return bb
}

func (bb *blockBatch) free() {
	bb.Arena = nil
	bb.Reset()
	if bb.buf != nil {
		bb.buf.release()
		bb.buf = nil
	}
	mangle(bb.own[:cap(bb.own)])
	blockBatches.Put(bb)
}

// alias makes the batch hold the buffer that its arena lies in.
func (bb *blockBatch) alias(buf *buffer) {
	buf.refs.Add(1)
	bb.buf = buf
}

// ownArena copies the arena, with room for more, into memory of the batch's own.
func (bb *blockBatch) ownArena(room int) {
	bb.own = append(bb.own[:0], bb.Arena...)
	if cap(bb.own)-len(bb.own) < room {
		bb.own = append(bb.own, make([]byte, room)...)[:len(bb.own)]
	}
	bb.Arena = bb.own
}
