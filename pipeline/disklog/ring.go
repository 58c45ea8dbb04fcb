package disklog

import (
	"sort"

	"github.com/leat-cdc/leat/pipeline"
)

// place is where a batch stands for readers: the address of its block, and for the chunks of a commit
// block which of them.
type place struct {
	address uint64
	chunk   int
}

func (p place) before(q place) bool {
	return p.address < q.address || p.address == q.address && p.chunk < q.chunk
}

// entry is one visible batch of the tail.
type entry struct {
	at, next place
	base     pipeline.Offset
	events   int
	batch    *pipeline.Batch
	size     int64
}

// ring is the shared tail: the newest visible batches, all of them from low on. Under Log.mu.
type ring struct {
	entries []entry
	head    int   // entries before it are gone
	count   int64 // absolute number of entries[0]
	size    int64 // of entries' batches
	pending int64 // of the chunks of open transactions that are still in memory
	// low is the place from which on everything visible is here; lowBase the first offset of that.
	low     place
	lowBase pipeline.Offset
}

func (r *ring) reset(at uint64, next pipeline.Offset) {
	r.low, r.lowBase = place{address: at}, next
}

func (r *ring) push(e entry) {
	if r.head > 64 && r.head*2 > len(r.entries) {
		n := copy(r.entries, r.entries[r.head:])
		clear(r.entries[n:])
		r.count += int64(r.head)
		r.entries, r.head = r.entries[:n], 0
	}
	r.entries = append(r.entries, e)
	r.size += e.size
}

// pop lets the oldest entry go and returns its batch.
func (r *ring) pop() *pipeline.Batch {
	e := &r.entries[r.head]
	b := e.batch
	r.low, r.lowBase = e.next, e.base+pipeline.Offset(e.events)
	r.size -= e.size
	*e = entry{}
	r.head++
	return b
}

func (r *ring) empty() bool { return r.head == len(r.entries) }

// clear lets everything go; what is visible next will be above next.
func (r *ring) clear() (drop []*pipeline.Batch) {
	for !r.empty() {
		drop = append(drop, r.pop())
	}
	return drop
}

// find returns the first entry at or behind p. hint is an absolute number from an earlier find.
func (r *ring) find(p place, hint int64) (e *entry, number int64) {
	i := int(hint - r.count)
	if i < r.head || i >= len(r.entries) || r.entries[i].at.before(p) || i > r.head && !r.entries[i-1].at.before(p) {
		live := r.entries[r.head:]
		i = r.head + sort.Search(len(live), func(i int) bool { return !live[i].at.before(p) })
	}
	if i >= len(r.entries) {
		return nil, r.count + int64(len(r.entries))
	}
	return &r.entries[i], r.count + int64(i)
}

// seek returns the place of the first entry for a reader that wants from: with events at or above it, or
// notices not before it.
func (r *ring) seek(from pipeline.Offset) (place, bool) {
	live := r.entries[r.head:]
	i := sort.Search(len(live), func(i int) bool { return !skips(live[i].base, live[i].events, from) })
	if i == len(live) {
		return place{}, false
	}
	return live[i].at, true
}

// skips reports whether a batch lies wholly before from.
func skips(base pipeline.Offset, events int, from pipeline.Offset) bool {
	if events == 0 {
		return base < from
	}
	return base+pipeline.Offset(events) <= from
}
