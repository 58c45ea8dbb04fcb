package pipetest

import (
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Values is a form of our own: a cell's byte is the index of its value here, so that every value that a decoder may
// yield can be tried. Of at most 256.
type Values struct{ values []cell.Value }

// Form reads rows of one byte per cell: the index of a value.
func (f *Values) Form(t *schemas.Table) *cell.Form {
	out := &cell.Form{Walk: func(p []byte, refs []cell.Ref, upTo int) ([]cell.Ref, error) {
		refs = refs[:0]
		if len(p) != len(t.Columns) {
			return refs, fmt.Errorf("row of %d cells for %d columns", len(p), len(t.Columns))
		}
		for i := range upTo {
			switch v := &f.values[p[i]]; v.State {
			case cell.Null:
				refs = append(refs, cell.Ref{Len: cell.LenNull})
			case cell.Absent:
				refs = append(refs, cell.Ref{Len: cell.LenAbsent})
			default:
				refs = append(refs, cell.Ref{Off: uint32(i), Len: 1})
			}
		}
		return refs, nil
	}}
	for range t.Columns {
		out.Decode = append(out.Decode, func(v *cell.Value, raw []byte, _ *cell.Scratch) error {
			*v = f.values[raw[0]]
			return nil
		})
	}
	return out
}

// Put adds a value and returns its index.
func (f *Values) Put(v cell.Value) byte {
	f.values = append(f.values, v)
	return byte(len(f.values) - 1)
}

// One makes a batch of one event in the middle of a transaction; t may be nil.
func One(t *schemas.Table, op pipeline.Op, before, after []byte) *pipeline.Batch {
	b := pipeline.NewBatch()
	b.Base = 1877212358656123
	ev := pipeline.Event{Op: op, Table: pipeline.NoTable, Key: pipeline.Nowhere, Before: pipeline.Nowhere, After: pipeline.Nowhere}
	if t != nil {
		b.Tables = append(b.Tables, t)
		ev.Table = 0
	}
	if before != nil {
		ev.Before = b.Put(before)
	}
	if after != nil {
		ev.After = b.Put(after)
	}
	at := time.Date(2026, 11, 21, 10, 15, 30, 123456000, time.UTC)
	b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString("751"), Position: b.PutString("0/16B3748"), Time: at.UnixMicro(), Before: 1})
	b.Events = append(b.Events, ev)
	return b
}

// At returns the value that an index names.
func (f *Values) At(i byte) cell.Value { return f.values[i] }
