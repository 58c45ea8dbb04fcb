package disklog

import (
	"fmt"
	"slices"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
	"github.com/leat-cdc/leat/schemas"
)

// registry interns table versions: one pointer per version, however it came in.
type registry struct {
	mu     sync.RWMutex
	tables map[versionKey]*schemas.Table
}

func newRegistry() *registry { return &registry{tables: map[versionKey]*schemas.Table{}} }

func (r *registry) get(id, version uint32) *schemas.Table {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.tables[versionKey{id, version}]
}

// intern returns the pointer that stands for t's version: the first one seen.
func (r *registry) intern(t *schemas.Table) *schemas.Table {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := versionKey{t.ID, t.Version}
	if old, ok := r.tables[k]; ok {
		return old
	}
	r.tables[k] = t
	return t
}

// known is the newest version of a table.
type known struct {
	table *schemas.Table
	// address of its newest schema block.
	address uint64
}

// openTx is a transaction whose commit is not there yet.
type openTx struct {
	chunks []*chunk
	bytes  int64 // of the chunks' blocks
	// first is the number of the first segment that it needs, 0: none. Of a prepared one as the log states it, which
	// is behind the chunks while they are moved.
	first uint64
	stuck bool // a chunk is damaged
	told  bool // that a chunk could not be read
}

// add takes a chunk that was written behind the others, and the size of its block.
func (tx *openTx) add(c *chunk, bytes int64) {
	tx.chunks = append(tx.chunks, c)
	tx.bytes += bytes
	if seq, _ := split(c.Address); tx.first == 0 || seq < tx.first {
		tx.first = seq
	}
}

// lowest is the number of the first segment that has a chunk.
func (tx *openTx) lowest() (first uint64) {
	for _, c := range tx.chunks {
		if seq, _ := split(c.Address); first == 0 || seq < first {
			first = seq
		}
	}
	return first
}

func (tx *openTx) refs() []record.Chunk {
	refs := make([]record.Chunk, 0, len(tx.chunks))
	for _, c := range tx.chunks {
		refs = append(refs, c.Chunk)
	}
	return refs
}

// leaveOut cuts what a commit does not commit.
func (tx *openTx) leaveOut(cuts map[int][]record.Cut) {
	for k, c := range cuts {
		ch := &tx.chunks[k].Chunk
		if ch.Cuts != nil {
			continue // the commit was tried in a segment that had no room
		}
		ch.Cuts = c
		for _, cut := range c {
			ch.Events -= cut.Events
		}
	}
}

// speaksOf lists the tables of all chunks in the commit's batch, so that the commit's segment describes them
// and its index knows of them, wherever the chunks lie.
func (tx *openTx) speaksOf(b *pipeline.Batch) {
	b.Tables = b.Tables[:0]
	seen := map[*schemas.Table]bool{}
	for _, c := range tx.chunks {
		for _, t := range c.tables {
			if !seen[t] && len(b.Tables) < pipeline.MaxTables {
				seen[t] = true
				b.Tables = append(b.Tables, t)
			}
		}
	}
}

// chunk is one written chunk of an open transaction. batch is nil when memory ran short.
type chunk struct {
	record.Chunk
	tables []*schemas.Table
	batch  *pipeline.Batch
	size   int64
}

// state is what the log's content amounts to at its end: built by recovery, carried on by the writer.
type state struct {
	next    pipeline.Offset
	ticket  uint64
	last    pipeline.Position
	notices []pipeline.Notice
	ranges  []pipeline.RangeAt      // appended to, never changed in place
	marks   []pipeline.SnapshotMark // replaced, never changed in place
	tables  map[uint32]known
	open    map[string]*openTx
	// prepared are those whose chunks stay when the log is opened again.
	prepared map[string]*openTx
	// lost are tables whose schema lay in a segment that retention has removed: it made sure that they are
	// described again further on.
	lost map[uint32]string
}

func newState() *state {
	return &state{tables: map[uint32]known{}, open: map[string]*openTx{}, prepared: map[string]*openTx{}, lost: map[uint32]string{}}
}

// whole says which table is described nowhere, if any.
func (st *state) whole() error {
	for _, subject := range st.lost {
		return &record.InvalidError{What: "the schema of " + subject + " is in no segment"}
	}
	return nil
}

// notice keeps what is in force: a quarantine until it is released, the newest gap of each table until it is filled.
func (st *state) notice(n pipeline.Notice) {
	st.notices = slices.DeleteFunc(slices.Clone(st.notices), func(o pipeline.Notice) bool {
		if o.Table != n.Table {
			return false
		}
		return o.Kind == n.Kind || n.Kind == pipeline.NoticeReleased && o.Kind == pipeline.NoticeQuarantined ||
			n.Kind == pipeline.NoticeFilled && o.Kind == pipeline.NoticeGap
	})
	if n.Kind != pipeline.NoticeReleased && n.Kind != pipeline.NoticeFilled {
		st.notices = append(st.notices, n)
	}
}

// change notes changes of ranges that hold from at on.
func (st *state) change(at pipeline.Offset, changes []pipeline.RangeChange) {
	for _, c := range changes {
		st.ranges = append(st.ranges, pipeline.RangeAt{At: at, RangeChange: c})
	}
}

// mark notes how far a snapshot job is.
func (st *state) mark(b *pipeline.Batch) {
	if b.Snapshot != nil {
		st.marks = pipeline.FoldMarks(st.marks, *b.Snapshot)
	}
}

// schema notes a schema block.
func (st *state) schema(t *schemas.Table, at uint64) {
	if k, ok := st.tables[t.ID]; !ok || t.Version >= k.table.Version {
		st.tables[t.ID] = known{table: t, address: at}
		delete(st.lost, t.ID)
	}
}

// tx returns the open transaction of that name, making it.
func (st *state) tx(open string) *openTx {
	t := st.open[open]
	if t == nil {
		t = new(openTx)
		st.open[open] = t
	}
	return t
}

// catalog is the state as the record that begins a segment of a log that is kept from oldest on.
func (st *state) catalog(oldest pipeline.Offset) *record.Catalog {
	st.ranges = pipeline.FoldRanges(st.ranges, oldest)
	c := &record.Catalog{Notices: st.notices, Counter: st.last.Counter, Token: st.last.Token, Ticket: st.ticket, Ranges: st.ranges, Snapshots: st.marks, Prepared: st.stated()}
	for _, k := range st.tables {
		c.Tables = append(c.Tables, record.CatalogTable{ID: k.table.ID, Version: k.table.Version, Hash: k.table.ShapeHash(),
			Subject: k.table.Subject(), Address: k.address})
	}
	slices.SortFunc(c.Tables, func(a, b record.CatalogTable) int { return int(int64(a.ID) - int64(b.ID)) })
	return c
}

// replay applies the blocks of a segment, in order, to a state and the segment's index.
type replay struct {
	st     *state
	seg    *segment
	index  *index
	tables *registry
	// load reads a schema block that a catalog points to.
	load   func(address uint64) (*schemas.Table, error)
	oldest uint64 // number of the first segment that is there
	batch  *pipeline.Batch
	chunks []record.Chunk
	first  bool // the first block was seen
	// opening is the low half of the epoch in force.
	opening uint32
}

func (r *replay) resolve(id, version uint32) *schemas.Table { return r.tables.get(id, version) }

// block applies one block. A *record.InvalidError says that its content contradicts what came before.
func (r *replay) block(h *record.Header, block []byte, off int64) error {
	payload := block[h.Length : h.Length+h.Payload]
	if !r.first && h.Kind != record.KindCatalog {
		return &record.InvalidError{What: fmt.Sprintf("the segment begins with a %s block, not with its catalog", h.Kind)}
	}
	if h.Base < r.st.next || h.Base > r.st.next && h.Kind != record.KindEpoch && h.Kind != record.KindChunk && r.first {
		return &record.InvalidError{What: fmt.Sprintf("offset %d where %d follows", h.Base, r.st.next)}
	}
	r.st.ticket = max(r.st.ticket, h.Ticket)
	switch h.Kind {
	case record.KindCatalog:
		r.first = true
		return r.catalog(payload, h)
	case record.KindSchema:
		t, err := record.DecodeSchema(payload)
		if err != nil {
			return err
		}
		r.st.schema(r.tables.intern(t), h.Address)
		r.index.schema(t.ID, t.Version, off)
	case record.KindEpoch:
		clear(r.st.open) // what was open when the log ended is sent again by the source
		e, err := record.DecodeEpoch(payload)
		if err != nil {
			return err
		}
		r.opening, r.st.next = uint32(e.Epoch), h.Base
	case record.KindPrepared, record.KindRows, record.KindChunk, record.KindCommit, record.KindAbort, record.KindRanges, record.KindSnapshot:
		return r.batchBlock(h, block, off)
	case record.KindProof, record.KindFooter:
	default:
		return &record.InvalidError{What: fmt.Sprintf("a %s block, which format %d does not have", h.Kind, record.Version)}
	}
	return nil
}

func (r *replay) catalog(payload []byte, h *record.Header) error {
	c, err := record.DecodeCatalog(payload)
	if err != nil {
		return err
	}
	r.st.ticket = max(r.st.ticket, c.Ticket)
	r.st.next = h.Base
	r.st.last = pipeline.Position{Counter: c.Counter, Token: c.Token}
	r.st.notices, r.st.ranges, r.st.marks = c.Notices, c.Ranges, c.Snapshots
	r.st.restore(c.Prepared, r.tables)
	for _, ct := range c.Tables {
		t := r.tables.get(ct.ID, ct.Version)
		if seq, _ := split(ct.Address); t == nil && seq < r.oldest {
			r.st.lost[ct.ID] = ct.Subject
			continue
		}
		if t == nil {
			if t, err = r.load(ct.Address); err != nil {
				return fmt.Errorf("read schema of %s: %w", ct.Subject, err)
			}
			if t.ID != ct.ID || t.Version != ct.Version {
				return &record.InvalidError{What: "the catalog points to another table's schema than " + ct.Subject}
			}
			t = r.tables.intern(t)
		}
		r.st.tables[ct.ID] = known{table: t, address: ct.Address}
	}
	return nil
}

func (r *replay) batchBlock(h *record.Header, block []byte, off int64) error {
	var err error
	if r.chunks, err = record.Decode(block, h, r.batch, r.resolve, r.chunks); err != nil {
		return err
	}
	b := r.batch
	for _, t := range b.Tables {
		if _, ok := r.index.at[versionKey{t.ID, t.Version}]; !ok {
			return &record.InvalidError{What: fmt.Sprintf("table %s version %d is used before its schema in the segment", t.Subject(), t.Version)}
		}
	}
	if h.Kind == record.KindChunk {
		r.st.tx(b.Open).add(&chunk{Chunk: record.Chunk{Address: h.Address, Events: h.Events}, tables: append([]*schemas.Table(nil), b.Tables...)}, int64(h.Size()))
		return nil
	}
	switch h.Kind {
	case record.KindAbort:
		r.st.close(b.Kind, b.Open, nil)
		return nil
	case record.KindPrepared:
		r.st.reprepare(b.Open, r.chunks, b.Tables)
		r.st.last = b.End
		return nil
	}
	chunks := int64(0)
	if h.Kind == record.KindCommit {
		chunks = r.st.ending(b.Open).bytes
	}
	r.index.add(h, off, chunks)
	for _, t := range b.Tables {
		r.index.touch(t.ID, h)
	}
	if h.Kind == record.KindCommit {
		r.index.needs(r.chunks)
		r.st.close(b.Kind, b.Open, nil)
	}
	r.st.next = h.Base + pipeline.Offset(h.Events)
	if !b.End.Zero() {
		r.st.last = b.End
	}
	for _, n := range b.Notices {
		r.st.notice(n)
	}
	r.st.change(h.Base, b.Ranges)
	r.st.mark(b)
	return nil
}
