package record

import (
	"encoding/binary"

	"github.com/leat-cdc/leat/pipeline"
)

const (
	chunkSize = 16
	cutSize   = 8
)

// Chunk is where a commit block finds one of its chunks, and how many events of that it commits: all but those
// that Cuts name.
type Chunk struct {
	Address uint64
	Events  uint32
	// Cuts ascend and do not touch.
	Cuts []Cut
}

// Cut is a run of a chunk's events that were rolled back: Events of them from number First on.
type Cut struct{ First, Events uint32 }

// Written is how many events the chunk's block holds.
func (c *Chunk) Written() uint64 {
	n := uint64(c.Events)
	for _, cut := range c.Cuts {
		n += uint64(cut.Events)
	}
	return n
}

// FormatOf is the oldest version that can say the batch, a commit's chunks with it, for Header.Version.
func FormatOf(b *pipeline.Batch, chunks []Chunk) uint16 {
	if b.Kind == pipeline.BatchChunk && len(b.Txs) > 1 {
		return partsVersion
	}
	for i := range chunks {
		if len(chunks[i].Cuts) > 0 {
			return partsVersion
		}
	}
	return KindOf(b).version()
}

// takeChunks reads n chunks and behind them their cuts, and returns what follows.
func takeChunks(p []byte, n, cuts int, into []Chunk) ([]Chunk, []byte, error) {
	le := binary.LittleEndian
	refs, p := p[:n*chunkSize], p[n*chunkSize:]
	var all []Cut
	if cuts > 0 {
		all = make([]Cut, cuts)
	}
	for i := range all {
		all[i], p = Cut{le.Uint32(p), le.Uint32(p[4:])}, p[cutSize:]
	}
	for ; len(refs) > 0; refs = refs[chunkSize:] {
		c := Chunk{Address: le.Uint64(refs), Events: le.Uint32(refs[8:])}
		own := le.Uint32(refs[12:])
		if uint64(own) > uint64(len(all)) {
			return nil, nil, invalid("a chunk with %d cuts, there are %d", own, len(all))
		}
		if own > 0 {
			c.Cuts, all = all[:own:own], all[own:]
		}
		end := uint64(0)
		for j, cut := range c.Cuts {
			if cut.Events == 0 || j > 0 && uint64(cut.First) <= end {
				return nil, nil, invalid("a chunk's cuts are out of order")
			}
			end = uint64(cut.First) + uint64(cut.Events)
		}
		if end > c.Written() {
			return nil, nil, invalid("a chunk's cuts reach behind its %d events", c.Written())
		}
		into = append(into, c)
	}
	if len(all) > 0 {
		return nil, nil, invalid("%d cuts of no chunk", len(all))
	}
	return into, p, nil
}
