package record

import (
	"encoding/binary"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// parts is the prefix of a batch's payload: how many of each thing follow, in the order in which they do, and the
// counter of the position at which the batch ends.
type parts struct {
	tables, chunks, txs, events uint32
	open, token, notices, arena uint32 // bytes
	counter                     uint64
	mark, cuts                  uint64 // bytes of a snapshot's mark, cuts of a commit: a batch has one or the other
}

func partsOf(b *pipeline.Batch, chunks []Chunk, notices, mark int) parts {
	x := parts{tables: uint32(len(b.Tables)), chunks: uint32(len(chunks)), txs: uint32(len(b.Txs)), events: uint32(len(b.Events)),
		open: uint32(len(b.Open)), token: uint32(len(b.End.Token)), notices: uint32(notices), arena: uint32(len(b.Arena)),
		counter: b.End.Counter, mark: uint64(mark)}
	for i := range chunks {
		x.cuts += uint64(len(chunks[i].Cuts))
	}
	return x
}

// size of the payload, with the arena.
func (x *parts) size() uint64 {
	return prefixSize + uint64(x.tables)*tableSize + uint64(x.chunks)*chunkSize + x.cuts*cutSize + uint64(x.txs)*txSize + uint64(x.events)*eventSize +
		uint64(x.open) + uint64(x.token) + uint64(x.notices) + uint64(x.arena) + x.mark
}

// put writes the prefix to p and returns what is behind it.
func (x *parts) put(p []byte) []byte {
	le := binary.LittleEndian
	le.PutUint32(p, x.tables)
	le.PutUint32(p[4:], x.chunks)
	le.PutUint32(p[8:], x.txs)
	le.PutUint32(p[12:], x.events)
	le.PutUint32(p[16:], x.open)
	le.PutUint32(p[20:], x.token)
	le.PutUint32(p[24:], x.notices)
	le.PutUint32(p[28:], x.arena)
	le.PutUint64(p[32:], x.counter)
	le.PutUint64(p[40:], x.mark+x.cuts)
	return p[prefixSize:]
}

// takeParts reads the prefix of a whole payload; what it counts fills the payload exactly.
func takeParts(p []byte, k Kind) (x parts, rest []byte, err error) {
	if len(p) < prefixSize {
		return x, nil, invalid("payload of %d bytes", len(p))
	}
	le := binary.LittleEndian
	x = parts{tables: le.Uint32(p), chunks: le.Uint32(p[4:]), txs: le.Uint32(p[8:]), events: le.Uint32(p[12:]),
		open: le.Uint32(p[16:]), token: le.Uint32(p[20:]), notices: le.Uint32(p[24:]), arena: le.Uint32(p[28:]), counter: le.Uint64(p[32:])}
	switch extra := le.Uint64(p[40:]); k {
	case KindSnapshot:
		x.mark = extra
	case KindCommit:
		x.cuts = extra
	}
	if x.mark > MaxPayload || x.cuts > MaxPayload {
		return x, nil, invalid("a mark of %d bytes, %d cuts", x.mark, x.cuts)
	}
	if want := x.size(); want != uint64(len(p)) {
		return x, nil, invalid("counts add up to %d bytes of %d", want, len(p))
	}
	if x.tables > pipeline.MaxTables {
		return x, nil, invalid("%d table versions", x.tables)
	}
	return x, p[prefixSize:], nil
}

func putTables(p []byte, tables []*schemas.Table) []byte {
	for _, t := range tables {
		binary.LittleEndian.PutUint32(p, t.ID)
		binary.LittleEndian.PutUint32(p[4:], t.Version)
		p = p[tableSize:]
	}
	return p
}

func takeTables(p []byte, n int, tables Resolver, into *pipeline.Batch) ([]byte, error) {
	for range n {
		id, version := binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:])
		t := tables(id, version)
		if t == nil {
			return nil, invalid("table %d version %d is not described", id, version)
		}
		into.Tables = append(into.Tables, t)
		p = p[tableSize:]
	}
	return p, nil
}

func putChunks(p []byte, chunks []Chunk) []byte {
	le := binary.LittleEndian
	for _, c := range chunks {
		le.PutUint64(p, c.Address)
		le.PutUint32(p[8:], c.Events)
		le.PutUint32(p[12:], uint32(len(c.Cuts)))
		p = p[chunkSize:]
	}
	for _, c := range chunks {
		for _, cut := range c.Cuts {
			le.PutUint32(p, cut.First)
			le.PutUint32(p[4:], cut.Events)
			p = p[cutSize:]
		}
	}
	return p
}
