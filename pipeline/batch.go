package pipeline

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/schemas"
)

// BatchKind says how a batch becomes visible. The numbers stand in the log's format: never reuse one.
type BatchKind uint8

const (
	// BatchRows holds whole transactions (or, with no events, only a position or notices). It is
	// visible as soon as it is durable.
	BatchRows BatchKind = 0
	// BatchChunk holds part of the transaction named by Open. Its events get offsets and become visible
	// when a BatchCommit of the same Open is durable; it carries no End position.
	BatchChunk BatchKind = 1
	// BatchCommit commits the chunks of Open, in the order they were appended, but for the events of the parts that
	// Without names: those were rolled back. It holds one Tx (ID, Position, Time), no events.
	BatchCommit BatchKind = 2
	// BatchAbort drops the chunks of Open.
	BatchAbort BatchKind = 3
	// BatchPrepared says that the chunks of Open are all there is and stay, also when the log is opened again, until a
	// BatchCommit or BatchAbort of Open (XA PREPARE: the source does not send them again). It holds an End and
	// nothing else.
	BatchPrepared BatchKind = 4
)

// Batch is what a source hands over and what the log keeps as one Block: events, and one arena that all
// their bytes lie in.
//
// Until Append it belongs to the one who builds it. From then on it is immutable and shared by
// everybody, without lock or copy; who keeps it beyond a call takes a reference with Retain and gives it
// back with Release. The last Release returns its memory to the pool: no slice of Arena may be used
// after that.
type Batch struct {
	Kind BatchKind
	// Base is the offset of Events[0]; given by the log.
	Base Offset
	// Open names the open transaction of chunks, commits and aborts; unique among the open ones.
	Open string
	// Without are the parts (Tx.Part) of Open that a commit leaves out.
	Without []uint32
	Tables  []*schemas.Table
	Txs     []Tx
	Events  []Event
	Arena   []byte
	// End is where the source stands after this batch: resuming there neither loses nor doubles an
	// event. Zero: this batch alone is no place to resume.
	End     Position
	Notices []Notice
	// Ranges are changes of the key spaces' ranges that hold from Base on. A batch that has some is BatchRows
	// and holds nothing else.
	Ranges []RangeChange
	// Snapshot is set when the batch belongs to a snapshot job: its events are rows of that job (OpSnapshot), or
	// there are none and the job only came further. Such a batch is BatchRows and carries no End.
	Snapshot *SnapshotMark
	// Watermarks that stand in the batch, in order. The source sets them and the snapshot's decorator takes them
	// out; not kept in the log.
	Watermarks []Watermark
	// Read is when the source's bytes arrived; not kept in the log.
	Read time.Time

	refs    atomic.Int32
	mu      sync.Mutex
	derived []derivation
	free    func(*Batch)
}

// Derived is something computed from a whole batch and shared by all who need it, such as its events
// encoded in one format.
type Derived interface {
	// Size in bytes, for the memory budget.
	Size() int
	// Free gives the memory back; called once, when the batch's last reference goes.
	Free()
}

type derivation struct {
	key   any
	value Derived
	err   error
}

var batches = sync.Pool{New: func() any { return new(Batch) }}

// NewBatch returns an empty batch with one reference, from the pool.
func NewBatch() *Batch {
	b := batches.Get().(*Batch)
	b.refs.Store(1)
	return b
}

// NewBatchOver returns an empty batch whose memory is not the pool's: free is called instead with the
// last Release.
func NewBatchOver(free func(*Batch)) *Batch {
	b := &Batch{free: free}
	b.refs.Store(1)
	return b
}

// Retain takes a reference.
func (b *Batch) Retain() { b.refs.Add(1) }

// Release gives one reference back.
func (b *Batch) Release() {
	n := b.refs.Add(-1)
	if n > 0 {
		return
	}
	if n < 0 {
		panic("pipeline: batch released more often than retained") // a bug that would corrupt data: never go on
	}
	for _, d := range b.derived {
		if d.value != nil {
			d.value.Free()
		}
	}
	clear(b.derived)
	if b.free != nil {
		b.free(b)
		return
	}
	mangle(b.Arena) // under -race only: shows who reads after the last Release
	b.Reset()
	batches.Put(b)
}

// maxPooledArena keeps one huge batch from pinning its memory in the pool.
const maxPooledArena = 4 << 20

// Reset empties the batch and keeps its memory; for the one who builds it.
func (b *Batch) Reset() {
	clear(b.Tables)
	clear(b.Notices)
	clear(b.Ranges)
	clear(b.Watermarks)
	b.Snapshot, b.Watermarks = nil, b.Watermarks[:0]
	b.Kind, b.Base, b.Open, b.End, b.Read = 0, 0, "", Position{}, time.Time{}
	b.Tables, b.Txs, b.Events, b.Notices, b.derived = b.Tables[:0], b.Txs[:0], b.Events[:0], b.Notices[:0], b.derived[:0]
	b.Ranges, b.Without = b.Ranges[:0], b.Without[:0]
	if cap(b.Arena) > maxPooledArena {
		b.Arena = nil
	}
	b.Arena = b.Arena[:0]
}

// Derive returns what build makes of the batch for key, building it at most once however many ask. The
// result lives as long as the batch.
func (b *Batch) Derive(key any, build func(*Batch) (Derived, error)) (Derived, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.derived {
		if b.derived[i].key == key {
			return b.derived[i].value, b.derived[i].err
		}
	}
	v, err := build(b)
	b.derived = append(b.derived, derivation{key, v, err})
	return v, err
}

// Bytes returns what s names, nil for Nowhere. It aliases the Arena.
func (b *Batch) Bytes(s Span) []byte {
	if s.Len == NoSpan {
		return nil
	}
	return b.Arena[s.Off : s.Off+s.Len : s.Off+s.Len]
}

// Room makes room for that many bytes more in the arena and that many events more, and an eighth beside where that takes
// new memory; for the one who builds the batch.
func (b *Batch) Room(bytes, events int) {
	b.Arena, b.Events = room(b.Arena, bytes), room(b.Events, events)
}

// room is what slices.Grow would be if that did not clear what it adds, also memory that the system has just cleared.
func room[T any](s []T, n int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	grown := make([]T, len(s), len(s)+n+n/8)
	copy(grown, s)
	return grown
}

// Put copies p into the arena and returns its span.
func (b *Batch) Put(p []byte) Span {
	off := len(b.Arena)
	b.Arena = append(b.Arena, p...)
	return Span{uint32(off), uint32(len(p))}
}

// PutString copies s into the arena and returns its span.
func (b *Batch) PutString(s string) Span {
	off := len(b.Arena)
	b.Arena = append(b.Arena, s...)
	return Span{uint32(off), uint32(len(s))}
}

// TableOf returns the table version of event i, nil for a message.
func (b *Batch) TableOf(i int) *schemas.Table {
	if t := b.Events[i].Table; t != NoTable {
		return b.Tables[t]
	}
	return nil
}

// TableIndex returns the index of t in Tables, adding it when it is new.
func (b *Batch) TableIndex(t *schemas.Table) (uint16, error) {
	for i := len(b.Tables) - 1; i >= 0; i-- {
		if b.Tables[i] == t {
			return uint16(i), nil
		}
	}
	if len(b.Tables) >= MaxTables {
		return 0, fmt.Errorf("a batch speaks of more than %d table versions", MaxTables)
	}
	b.Tables = append(b.Tables, t)
	return uint16(len(b.Tables) - 1), nil
}

// Meant reports whether the batch's events are for the subscription: not rows of a snapshot for another.
func (b *Batch) Meant(subscription string) bool {
	return b.Snapshot == nil || b.Snapshot.For == "" || b.Snapshot.For == subscription
}

// Offset returns the offset of event i.
func (b *Batch) Offset(i int) Offset { return b.Base + Offset(i) }

// Next is the offset behind the batch's last event.
func (b *Batch) Next() Offset { return b.Base + Offset(len(b.Events)) }

// Seq is the place of event i in its transaction, from 1, and whether it is the transaction's last.
func (b *Batch) Seq(i int) (seq uint32, last bool) {
	n := b.Events[i].Tx
	tx := &b.Txs[n]
	end := len(b.Events)
	if int(n)+1 < len(b.Txs) {
		end = int(b.Txs[n+1].First)
	}
	return tx.Before + uint32(i) - tx.First + 1, tx.Ends && i == end-1
}

// Size is about how much memory the batch holds, in bytes, without what was derived from it.
func (b *Batch) Size() int {
	return cap(b.Arena) + cap(b.Events)*eventSize + cap(b.Txs)*txSize
}

const (
	eventSize = 40
	txSize    = 40
)
