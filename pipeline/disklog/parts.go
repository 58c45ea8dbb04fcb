package disklog

import (
	"encoding/binary"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

// unfinished is what Append remembers of an open transaction: enough to say at its commit which events of which chunk
// get offsets. About three bytes per run of events of one part.
type unfinished struct {
	events uint64
	parted bool // some events are of a part
	last   uint32
	// runs: per run the step from the part before (signed varint, one less than nothing steps: see chunk), and its
	// events.
	runs []byte
}

// newChunk is a step that no part makes: they have 32 bits. A chunk begins.
const newChunk = 1 << 33

// chunk takes note of the parts of a chunk.
func (u *unfinished) chunk(b *pipeline.Batch) {
	u.events += uint64(len(b.Events))
	u.runs = binary.AppendVarint(u.runs, newChunk)
	for i := range b.Txs {
		tx := &b.Txs[i]
		end := len(b.Events)
		if i+1 < len(b.Txs) {
			end = int(b.Txs[i+1].First)
		}
		u.parted = u.parted || tx.Part != 0
		u.runs = binary.AppendVarint(u.runs, int64(tx.Part)-int64(u.last))
		u.runs = binary.AppendUvarint(u.runs, uint64(end)-uint64(tx.First))
		u.last = tx.Part
	}
}

// left returns how many events stay when the parts of without go, and what goes of each chunk.
func (u *unfinished) left(without []uint32) (events uint64, cuts map[int][]record.Cut) {
	if len(without) == 0 || !u.parted {
		return u.events, nil
	}
	gone := make(map[uint32]struct{}, len(without))
	for _, part := range without {
		gone[part] = struct{}{}
	}
	cuts, events = map[int][]record.Cut{}, u.events
	chunk, at, part := -1, uint32(0), int64(0)
	for p := u.runs; len(p) > 0; {
		step, n := binary.Varint(p)
		p = p[n:]
		if step == newChunk {
			chunk, at = chunk+1, 0
			continue
		}
		part += step
		run, n := binary.Uvarint(p)
		p = p[n:]
		if _, ok := gone[uint32(part)]; ok && run > 0 {
			events -= run
			cuts[chunk] = cut(cuts[chunk], at, uint32(run))
		}
		at += uint32(run)
	}
	return events, cuts
}

// cut adds a run behind the others, joining it to the last where they touch.
func cut(cuts []record.Cut, first, events uint32) []record.Cut {
	if n := len(cuts); n > 0 && cuts[n-1].First+cuts[n-1].Events == first {
		cuts[n-1].Events += events
		return cuts
	}
	return append(cuts, record.Cut{First: first, Events: events})
}

// whole makes the events of a chunk one run of one transaction, without those that were rolled back.
func whole(b *pipeline.Batch, cuts []record.Cut) {
	if len(cuts) > 0 {
		kept, from := b.Events[:0], 0
		for _, c := range cuts {
			kept = append(kept, b.Events[from:c.First]...)
			from = int(c.First + c.Events)
		}
		b.Events = append(kept, b.Events[from:]...)
	}
	if len(b.Txs) > 1 {
		for i := range b.Events {
			b.Events[i].Tx = 0
		}
	}
}
