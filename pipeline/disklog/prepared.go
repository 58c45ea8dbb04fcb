package disklog

import (
	"maps"
	"slices"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
	"github.com/leat-cdc/leat/schemas"
)

// Prepared transactions: their chunks outlive a crash, as the source has spent the place that they came from. The
// block that prepares one names the chunks as a commit does, and each segment's catalog states those that wait, so
// that recovery reads only the last segment. Retention keeps the segments from the first chunk on.

// ending returns the transaction that a commit, an abort or a preparation is about; an empty one when there is none.
func (st *state) ending(open string) *openTx {
	if tx := st.open[open]; tx != nil {
		return tx
	}
	if tx := st.prepared[open]; tx != nil {
		return tx
	}
	return new(openTx)
}

// close notes that a transaction ended, or that tx was prepared.
func (st *state) close(kind pipeline.BatchKind, open string, tx *openTx) {
	delete(st.open, open)
	if kind == pipeline.BatchPrepared {
		st.prepared[open] = tx
	} else if kind != pipeline.BatchRows {
		delete(st.prepared, open)
	}
}

// reprepare notes what a block says that prepares a transaction, of which earlier segments may hold chunks.
func (st *state) reprepare(open string, refs []record.Chunk, tables []*schemas.Table) {
	tx := st.open[open]
	if !tx.named(refs) { // moved, or in part in earlier segments, of which nothing was read
		bytes := int64(0)
		for _, was := range []*openTx{tx, st.prepared[open]} {
			if was != nil {
				bytes = max(bytes, was.bytes)
			}
		}
		tx = kept(refs, tables, bytes)
	}
	st.close(pipeline.BatchPrepared, open, tx)
}

// named reports whether these are the transaction's chunks.
func (tx *openTx) named(refs []record.Chunk) bool {
	return tx != nil && slices.EqualFunc(tx.chunks, refs, func(c *chunk, ref record.Chunk) bool { return c.Address == ref.Address })
}

func kept(refs []record.Chunk, tables []*schemas.Table, bytes int64) *openTx {
	tx := new(openTx)
	for i, ref := range refs {
		c := &chunk{Chunk: ref}
		if i == 0 {
			c.tables = slices.Clone(tables)
		}
		tx.add(c, 0)
	}
	tx.bytes = bytes
	return tx
}

// waiting are the names of the prepared transactions, sorted; nil when there are none.
func (st *state) waiting() []string { return slices.Sorted(maps.Keys(st.prepared)) }

// stated are the prepared transactions as a catalog states them.
func (st *state) stated() (all []record.CatalogPrepared) {
	for _, open := range slices.Sorted(maps.Keys(st.prepared)) {
		tx := st.prepared[open]
		var b pipeline.Batch
		tx.speaksOf(&b)
		all = append(all, record.CatalogPrepared{Open: open, Chunks: tx.refs(), Disk: tx.bytes, Tables: b.Tables})
	}
	return all
}

// restore takes over what a catalog states.
func (st *state) restore(all []record.CatalogPrepared, tables *registry) {
	clear(st.prepared)
	for _, p := range all {
		for i, t := range p.Tables {
			p.Tables[i] = tables.intern(t)
		}
		st.prepared[p.Open] = kept(p.Chunks, p.Tables, p.Disk)
	}
}
