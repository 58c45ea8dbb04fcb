package record

import (
	"encoding/binary"
	"encoding/json"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// AppendSchema appends the payload of a schema block: the table as JSON.
func AppendSchema(dst []byte, t *schemas.Table) ([]byte, error) {
	j, err := json.Marshal(t)
	if err != nil {
		return dst, invalid("table %s: %v", t.Subject(), err)
	}
	return append(dst, j...), nil
}

// DecodeSchema reads the payload of a schema block. The table is sealed and owns its memory.
func DecodeSchema(payload []byte) (*schemas.Table, error) {
	t := new(schemas.Table)
	if err := json.Unmarshal(payload, t); err != nil {
		return nil, invalid("schema: %v", err)
	}
	if t.ID == 0 || t.Version == 0 {
		return nil, invalid("schema without id or version")
	}
	for _, list := range [][]int{t.Identity, t.Routing} {
		for _, c := range list {
			if c < 0 || c >= len(t.Columns) {
				return nil, invalid("schema of %s names column %d of %d", t.Subject(), c, len(t.Columns))
			}
		}
	}
	return t.Seal(), nil
}

// CatalogTable is the newest version of a table at the start of a segment, and where its full schema lies.
type CatalogTable struct {
	ID      uint32 `json:"id"`
	Version uint32 `json:"version"`
	Hash    uint64 `json:"hash,string"`
	Subject string `json:"subject"`
	// Address of the newest schema block of this version.
	Address uint64 `json:"address,string"`
}

// CatalogPrepared is a transaction that was prepared in an earlier segment, or in this one's past.
type CatalogPrepared struct {
	Open   string  `json:"open"`
	Chunks []Chunk `json:"chunks"`
	// Disk is how many bytes the chunks have in the log.
	Disk int64 `json:"disk"`
	// Tables of the chunks, in full: they may not be the newest versions.
	Tables []*schemas.Table `json:"tables"`
}

// Catalog is what is known at the start of a segment.
type Catalog struct {
	Tables  []CatalogTable    `json:"tables"`
	Notices []pipeline.Notice `json:"notices,omitempty"`
	// Ranges are what pipeline.Log.Ranges returns at this place.
	Ranges []pipeline.RangeAt `json:"ranges,omitempty"`
	// Snapshots are what pipeline.Log.Snapshots returns at this place.
	Snapshots []pipeline.SnapshotMark `json:"snapshots,omitempty"`
	// Prepared are the transactions whose chunks stay until a commit that is not there yet.
	Prepared []CatalogPrepared `json:"prepared,omitempty"`
	// Counter and Token are the last End position.
	Counter uint64 `json:"counter,string"`
	Token   string `json:"token"`
	// Ticket is the last one given out before.
	Ticket uint64 `json:"ticket,string"`
}

// Format is the version of the block that the catalog stands in, for Header.Version.
func (c *Catalog) Format() uint16 {
	switch {
	case len(c.Snapshots) > 0 || len(c.Prepared) > 0:
		return snapshotVersion
	case len(c.Ranges) > 0:
		return rangesVersion
	}
	return 1
}

// AppendCatalog appends the payload of a catalog block, JSON.
func AppendCatalog(dst []byte, c *Catalog) ([]byte, error) {
	j, err := json.Marshal(c)
	if err != nil {
		return dst, invalid("catalog: %v", err)
	}
	return append(dst, j...), nil
}

// DecodeCatalog reads the payload of a catalog block.
func DecodeCatalog(payload []byte) (*Catalog, error) {
	c := new(Catalog)
	if err := json.Unmarshal(payload, c); err != nil {
		return nil, invalid("catalog: %v", err)
	}
	for i := range c.Ranges {
		if err := checkChange(&c.Ranges[i].RangeChange); err != nil {
			return nil, err
		}
	}
	for _, p := range c.Prepared {
		for _, t := range p.Tables {
			if p.Open == "" || t == nil || t.ID == 0 || t.Version == 0 {
				return nil, invalid("a prepared transaction without a name, or of a table without id or version")
			}
			t.Seal()
		}
	}
	for i := range c.Snapshots {
		if err := checkMark(&c.Snapshots[i]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Epoch says that the log was opened again.
type Epoch struct {
	// Epoch of the blocks that follow.
	Epoch uint64
	// Time of the opening, microseconds since 1970 UTC.
	Time int64
}

// AppendEpoch appends the payload of an epoch block.
func AppendEpoch(dst []byte, e Epoch) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, e.Epoch)
	return binary.LittleEndian.AppendUint64(dst, uint64(e.Time))
}

// DecodeEpoch reads the payload of an epoch block.
func DecodeEpoch(payload []byte) (Epoch, error) {
	if len(payload) != 16 {
		return Epoch{}, invalid("epoch record of %d bytes", len(payload))
	}
	return Epoch{Epoch: binary.LittleEndian.Uint64(payload), Time: int64(binary.LittleEndian.Uint64(payload[8:]))}, nil
}

// Footer is the index of a sealed segment. All byte offsets are in the segment's file.
type Footer struct {
	// Base is the segment's first offset, Next the one behind its last.
	Base, Next pipeline.Offset
	// Oldest and Newest commit time in it, microseconds; both 0 when it has none.
	Oldest, Newest int64
	// Needs is the number of the first segment that holds chunks which a commit in this one names; its own
	// number when there is none.
	Needs   uint64
	Blocks  []IndexEntry
	Tables  []IndexTable
	Schemas []IndexSchema
}

// IndexEntry is one step of the sparse index: the block at At begins at offset Base, and Time is the
// newest commit time of all blocks of the segment before it (0 when there is none).
type IndexEntry struct {
	At   uint32
	Base pipeline.Offset
	Time int64
}

// IndexTable says that events of a table lie in [First, Last].
type IndexTable struct {
	ID          uint32
	First, Last pipeline.Offset
}

// IndexSchema is where the schema of a table version lies.
type IndexSchema struct{ ID, Version, At uint32 }

const (
	footerFixed   = 52
	entrySize     = 20
	footTableSize = 20
	footSchema    = 12
)

// FooterSize is the size of the whole footer block with so many entries.
func FooterSize(blocks, tables, schemas int) int {
	return Padded(HeaderSize + footerFixed + blocks*entrySize + tables*footTableSize + schemas*footSchema)
}

// AppendFooter appends the payload of a footer block.
func AppendFooter(dst []byte, f *Footer) []byte {
	le := binary.LittleEndian
	for _, v := range [...]uint64{uint64(f.Base), uint64(f.Next), uint64(f.Oldest), uint64(f.Newest), f.Needs} {
		dst = le.AppendUint64(dst, v)
	}
	for _, n := range [...]int{len(f.Blocks), len(f.Tables), len(f.Schemas)} {
		dst = le.AppendUint32(dst, uint32(n))
	}
	for _, e := range f.Blocks {
		dst = le.AppendUint32(dst, e.At)
		dst = le.AppendUint64(dst, uint64(e.Base))
		dst = le.AppendUint64(dst, uint64(e.Time))
	}
	for _, t := range f.Tables {
		dst = le.AppendUint32(dst, t.ID)
		dst = le.AppendUint64(dst, uint64(t.First))
		dst = le.AppendUint64(dst, uint64(t.Last))
	}
	for _, s := range f.Schemas {
		dst = le.AppendUint32(dst, s.ID)
		dst = le.AppendUint32(dst, s.Version)
		dst = le.AppendUint32(dst, s.At)
	}
	return dst
}

// DecodeFooter reads the payload of a footer block.
func DecodeFooter(p []byte) (*Footer, error) {
	if len(p) < footerFixed {
		return nil, invalid("footer of %d bytes", len(p))
	}
	le := binary.LittleEndian
	f := &Footer{Base: pipeline.Offset(le.Uint64(p)), Next: pipeline.Offset(le.Uint64(p[8:])), Oldest: int64(le.Uint64(p[16:])),
		Newest: int64(le.Uint64(p[24:])), Needs: le.Uint64(p[32:])}
	blocks, tables, versions := uint64(le.Uint32(p[40:])), uint64(le.Uint32(p[44:])), uint64(le.Uint32(p[48:]))
	p = p[footerFixed:]
	if want := blocks*entrySize + tables*footTableSize + versions*footSchema; want != uint64(len(p)) {
		return nil, invalid("footer's counts add up to %d bytes of %d", want, len(p))
	}
	f.Blocks, f.Tables, f.Schemas = make([]IndexEntry, blocks), make([]IndexTable, tables), make([]IndexSchema, versions)
	for i := range f.Blocks {
		f.Blocks[i] = IndexEntry{At: le.Uint32(p), Base: pipeline.Offset(le.Uint64(p[4:])), Time: int64(le.Uint64(p[12:]))}
		p = p[entrySize:]
	}
	for i := range f.Tables {
		f.Tables[i] = IndexTable{ID: le.Uint32(p), First: pipeline.Offset(le.Uint64(p[4:])), Last: pipeline.Offset(le.Uint64(p[12:]))}
		p = p[footTableSize:]
	}
	for i := range f.Schemas {
		f.Schemas[i] = IndexSchema{ID: le.Uint32(p), Version: le.Uint32(p[4:]), At: le.Uint32(p[8:])}
		p = p[footSchema:]
	}
	return f, nil
}
