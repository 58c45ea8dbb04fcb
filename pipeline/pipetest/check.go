package pipetest

import (
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// CheckBatch returns what is wrong with a batch as a source hands it over, nil when it is well formed:
// every span lies in the arena, transactions follow one another, tables exist, images fit the op, and
// each image can be walked by its table's form (when form is not nil).
func CheckBatch(b *pipeline.Batch, form func(*schemas.Table) *cell.Form) error {
	switch b.Kind {
	case pipeline.BatchRows:
	case pipeline.BatchChunk:
		if !b.End.Zero() {
			return fmt.Errorf("a chunk of %q with a position to resume at", b.Open)
		}
	case pipeline.BatchCommit:
		if len(b.Txs) != 1 || len(b.Events) != 0 || b.End.Zero() {
			return fmt.Errorf("a commit with %d transactions, %d events, end %v", len(b.Txs), len(b.Events), b.End)
		}
	case pipeline.BatchPrepared:
		if len(b.Txs) != 0 || len(b.Events) != 0 || b.End.Zero() {
			return fmt.Errorf("a preparation with %d transactions, %d events, end %v", len(b.Txs), len(b.Events), b.End)
		}
	case pipeline.BatchAbort:
		if len(b.Events) != 0 {
			return fmt.Errorf("an abort with %d events", len(b.Events))
		}
	default:
		return fmt.Errorf("a batch of kind %d", b.Kind)
	}
	if (b.Kind != pipeline.BatchRows) != (b.Open != "") {
		return fmt.Errorf("kind %d with open transaction %q", b.Kind, b.Open)
	}
	if err := checkTxs(b); err != nil {
		return err
	}
	for i := range b.Events {
		if err := checkEvent(b, i, form); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
	}
	return nil
}

func inside(b *pipeline.Batch, spans ...pipeline.Span) error {
	for _, s := range spans {
		if s.Present() && uint64(s.Off)+uint64(s.Len) > uint64(len(b.Arena)) {
			return fmt.Errorf("span %v beyond the arena of %d bytes", s, len(b.Arena))
		}
	}
	return nil
}

func checkTxs(b *pipeline.Batch) error {
	next := uint32(0)
	for n, tx := range b.Txs {
		if err := inside(b, tx.ID, tx.Position); err != nil {
			return fmt.Errorf("transaction %d: %w", n, err)
		}
		if tx.First < next || int(tx.First) > len(b.Events) || n == 0 && tx.First != 0 {
			return fmt.Errorf("transaction %d begins at event %d", n, tx.First)
		}
		next = tx.First
		if b.Kind == pipeline.BatchRows && (!tx.ID.Present() || !tx.Position.Present() || tx.Time == 0) {
			return fmt.Errorf("transaction %d without id, position or time", n)
		}
	}
	return nil
}

func checkEvent(b *pipeline.Batch, i int, form func(*schemas.Table) *cell.Form) error {
	e := &b.Events[i]
	if err := inside(b, e.Before, e.After); err != nil {
		return err
	}
	if len(b.Txs) == 0 || int(e.Tx) >= len(b.Txs) {
		return fmt.Errorf("transaction %d of %d", e.Tx, len(b.Txs))
	}
	end := len(b.Events)
	if int(e.Tx)+1 < len(b.Txs) {
		end = int(b.Txs[e.Tx+1].First)
	}
	if i < int(b.Txs[e.Tx].First) || i >= end {
		return fmt.Errorf("outside its transaction %d", e.Tx)
	}
	if e.Table == pipeline.NoTable {
		if e.Op != pipeline.OpMessage {
			return fmt.Errorf("%s without a table", e.Op)
		}
		return nil
	}
	if int(e.Table) >= len(b.Tables) {
		return fmt.Errorf("table %d of %d", e.Table, len(b.Tables))
	}
	before, after := e.Before.Present(), e.After.Present()
	switch e.Op {
	case pipeline.OpInsert, pipeline.OpSnapshot:
		if before || !after {
			return fmt.Errorf("%s with before %v, after %v", e.Op, before, after)
		}
	case pipeline.OpUpdate:
		if !after {
			return fmt.Errorf("update without after")
		}
	case pipeline.OpDelete:
		if !before || after {
			return fmt.Errorf("delete with before %v, after %v", before, after)
		}
	}
	if form == nil || !e.Op.Row() {
		return nil
	}
	t := b.Tables[e.Table]
	for _, image := range [][]byte{b.Bytes(e.Before), b.Bytes(e.After)} {
		if image == nil {
			continue
		}
		if _, err := form(t).Walk(image, nil, len(t.Columns)); err != nil {
			return fmt.Errorf("table %s: %w", t.Subject(), err)
		}
	}
	return nil
}
