package disklog

import (
	"sort"

	"github.com/leat-cdc/leat/pipeline"
)

// weightFrom is about how many bytes the segment's events at or above o have: between two entries of the index by
// their share of the events.
func (x *index) weightFrom(o pipeline.Offset) int64 {
	i := sort.Search(len(x.Blocks), func(i int) bool { return x.Blocks[i].Base > o }) - 1
	if i < 0 {
		return x.weight
	}
	from, end, base, next := x.weights[i], x.weight, x.Blocks[i].Base, x.Next
	if i+1 < len(x.Blocks) {
		end, next = x.weights[i+1], x.Blocks[i+1].Base
	}
	if o >= next {
		return x.weight - end
	}
	return x.weight - from - int64(float64(end-from)*float64(o-base)/float64(next-base))
}

// chunkGap is a distance between two entries that rows do not make: with chunks between, it is several steps.
const chunkGap = 4 * indexStep

// weigh tells the weights of segments after opening, oldest first: of those of which only the index was read, by
// estimate; of transactions that begin before their commit's segment, with what lies there. Chunks that have rows of
// others between them weigh as those rows do.
func weigh(segs []*segment) {
	for _, s := range segs {
		if x := s.index; len(x.weights) < len(x.Blocks) {
			x.estimate(s.end)
		}
	}
	carried := int64(0)
	for i, s := range segs {
		x, open := s.index, false
		if x.Needs < s.seq {
			x.burden(carried)
			carried = 0
		}
		for _, later := range segs[i+1:] {
			if open = later.index.Needs <= s.seq; open || later.index.Next > later.index.Base {
				break
			}
		}
		if carried += max(0, s.end-firstBlock-x.weight); !open {
			carried = 0
		}
	}
}

// burden adds bytes to the entry with most events: the transaction that is large enough to begin elsewhere.
func (x *index) burden(n int64) {
	most, at := pipeline.Offset(0), len(x.Blocks)
	for i, e := range x.Blocks {
		next := x.Next
		if i+1 < len(x.Blocks) {
			next = x.Blocks[i+1].Base
		}
		if next-e.Base > most {
			most, at = next-e.Base, i
		}
	}
	for i := at + 1; i < len(x.weights); i++ {
		x.weights[i] += n
	}
	if at < len(x.Blocks) {
		x.weight += n
	}
}

// estimate tells weights from where the entries lie in blocks that end at end. What lies before a far entry is
// shared between the events before and those behind it by their number: chunks, whose commit the entry is, have
// nearly all. What is far behind the last entry is of nobody here.
func (x *index) estimate(end int64) {
	x.weights = make([]int64, len(x.Blocks))
	last, own, before := int64(firstBlock), int64(0), float64(0) // own: the share of a gap that its entry's events have
	for i, e := range x.Blocks {
		next := x.Next
		if i+1 < len(x.Blocks) {
			next = x.Blocks[i+1].Base
		}
		gap, events := int64(e.At)-last, float64(next-e.Base)
		x.weight += own + gap
		if own = 0; (i == 0 || gap >= chunkGap) && events > 0 {
			own = int64(float64(gap) * events / (before + events))
		}
		x.weight -= own
		x.weights[i] = x.weight
		last, before = int64(e.At), events
	}
	x.weight += own
	if tail := end - last; tail < chunkGap || len(x.Blocks) > 0 && before > float64(tail)/64 {
		x.weight += max(0, tail)
	}
}
