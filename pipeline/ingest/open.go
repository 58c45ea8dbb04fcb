package ingest

import (
	"slices"

	"github.com/leat-cdc/leat/pipeline"
)

// openTx is what is known of a transaction whose end was not seen: what is wrong in it counts when it commits.
type openTx struct {
	// bad are its tables with rows that cannot be taken, and missed those of which rows were left out, as they were
	// quarantined meanwhile. By subject.
	bad    map[string][]fault
	missed map[string]bool
}

// fault is a row that cannot be taken, and the part of the transaction (Tx.Part) that it stands in.
type fault struct {
	part   uint32
	notice pipeline.Notice
}

// maxFaults bounds the faults of a table in one transaction: with more parts than that, its rows of all are left out.
const maxFaults = 1000

func (t *openTx) add(n pipeline.Notice, part uint32) {
	if t.without(n.Table, part) {
		return
	}
	if t.bad == nil {
		t.bad = map[string][]fault{}
	}
	if len(t.bad[n.Table]) >= maxFaults {
		part = 0
	}
	t.bad[n.Table] = append(t.bad[n.Table], fault{part, n})
}

// without reports whether a table's rows of that part are left out behind one that cannot be taken: those of other parts
// stay, as that one may be rolled back alone.
func (t *openTx) without(table string, part uint32) bool {
	if len(t.bad) == 0 {
		return false
	}
	return slices.ContainsFunc(t.bad[table], func(f fault) bool { return f.part == 0 || f.part == part })
}

func (t *openTx) leaveOut(p *plan) {
	if t == nil || t.missed[p.table.Subject()] {
		return
	}
	if t.missed == nil {
		t.missed = map[string]bool{}
	}
	t.missed[p.table.Subject()] = true
}

// opened returns the transaction that a chunk is a part of, nil for other batches.
func (c *catalog) opened(b *pipeline.Batch) *openTx {
	if b.Kind != pipeline.BatchChunk {
		return nil
	}
	t := c.open[b.Open]
	if t == nil {
		t = &openTx{}
		c.open[b.Open] = t
	}
	return t
}

// ended takes the end of a transaction: what was wrong in it counts if it was not rolled back. One that is prepared may
// end after a restart, which does not know what was: it counts as if it had committed.
func (c *catalog) ended(b *pipeline.Batch) {
	if b.Kind == pipeline.BatchRows || b.Kind == pipeline.BatchChunk {
		return
	}
	if delete(c.preparing, b.Open); b.Kind == pipeline.BatchPrepared {
		c.preparing[b.Open] = true
	}
	t := c.open[b.Open]
	delete(c.open, b.Open)
	if t == nil || b.Kind == pipeline.BatchAbort {
		return
	}
	position := firstPosition(b)
	for table, faults := range t.bad {
		i := slices.IndexFunc(faults, func(f fault) bool { return f.part == 0 || !slices.Contains(b.Without, f.part) })
		if _, is := c.quarant[table]; is || i < 0 {
			continue
		}
		n := faults[i].notice
		n.Position = position
		c.quarantine(n)
	}
	for table := range t.missed {
		if _, is := c.quarant[table]; !is {
			c.pending = append(c.pending, gapOf(table, "", position, "a transaction that was open while it was quarantined has committed: rows of it did not enter the log"))
		}
	}
}
