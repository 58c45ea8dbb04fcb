package disklog

import (
	"sort"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

// indexStep is how many bytes of blocks one entry of the sparse index stands for.
const indexStep = 64 << 10

// index is what is known about a segment's content. Live ones grow under Log.mu.
type index struct {
	record.Footer
	tables map[uint32]int // index into Tables
	at     map[versionKey]uint32
	last   int64 // where the newest entry's block begins
	timed  bool
	// weights are, for each of Blocks, the bytes of the events before it; weight of all: chunks weigh where their
	// commit is. Not in the file: after a restart estimated (weigh).
	weights []int64
	weight  int64
}

type versionKey struct{ id, version uint32 }

func newIndex(seq uint64, base pipeline.Offset) *index {
	x := &index{tables: map[uint32]int{}, at: map[versionKey]uint32{}}
	x.Base, x.Next, x.Needs = base, base, seq
	return x
}

func indexOf(f *record.Footer) *index {
	x := &index{Footer: *f, tables: map[uint32]int{}, at: map[versionKey]uint32{}, timed: f.Newest != 0 || f.Oldest != 0}
	for i := range f.Tables {
		x.tables[f.Tables[i].ID] = i
	}
	for _, s := range f.Schemas {
		x.at[versionKey{s.ID, s.Version}] = s.At
	}
	return x
}

// add notes a block that gives out offsets (visible rows or a commit), of which chunks have so many bytes.
func (x *index) add(h *record.Header, off, chunks int64) {
	if len(x.Blocks) == 0 || off-x.last >= indexStep {
		x.Blocks = append(x.Blocks, record.IndexEntry{At: uint32(off), Base: h.Base, Time: x.Newest})
		x.weights = append(x.weights, x.weight)
		x.last = off
	}
	x.weight += int64(h.Size()) + chunks
	if h.Events == 0 {
		return
	}
	x.Next = h.Base + pipeline.Offset(h.Events)
	if !x.timed || h.Time < x.Oldest {
		x.Oldest = h.Time
	}
	if !x.timed || h.Time > x.Newest {
		x.Newest = h.Time
	}
	x.timed = true
}

// touch notes that a block speaks of a table.
func (x *index) touch(id uint32, h *record.Header) {
	if h.Events == 0 {
		return
	}
	last := h.Base + pipeline.Offset(h.Events) - 1
	i, ok := x.tables[id]
	if !ok {
		x.tables[id] = len(x.Tables)
		x.Tables = append(x.Tables, record.IndexTable{ID: id, First: h.Base, Last: last})
		return
	}
	x.Tables[i].Last = last
}

// needs notes where the chunks of a commit lie, perhaps in earlier segments.
func (x *index) needs(chunks []record.Chunk) {
	for _, c := range chunks {
		seq, _ := split(c.Address)
		x.Needs = min(x.Needs, seq)
	}
}

func (x *index) schema(id, version uint32, off int64) {
	if _, ok := x.at[versionKey{id, version}]; !ok {
		x.Schemas = append(x.Schemas, record.IndexSchema{ID: id, Version: version, At: uint32(off)})
	}
	x.at[versionKey{id, version}] = uint32(off)
}

func (x *index) footerSize() int {
	return record.FooterSize(len(x.Blocks), len(x.Tables), len(x.Schemas))
}

// seek returns where to begin reading for the event at o.
func (x *index) seek(o pipeline.Offset) int64 {
	i := sort.Search(len(x.Blocks), func(i int) bool { return x.Blocks[i].Base >= o })
	return x.entry(i)
}

// seekTime returns where to begin reading for the first commit time at or above t.
func (x *index) seekTime(t int64) int64 {
	i := sort.Search(len(x.Blocks), func(i int) bool { return x.Blocks[i].Time >= t && (i > 0) })
	return x.entry(i)
}

// entry is the last step before the i-th.
func (x *index) entry(i int) int64 {
	if i == 0 {
		return firstBlock
	}
	return int64(x.Blocks[i-1].At)
}
