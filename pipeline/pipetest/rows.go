package pipetest

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Row is a row for tests: the text of each cell; Null and Absent are cells too.
type Row []string

// Null and Absent, as cells of a Row.
const (
	Null   = "\x00null"
	Absent = "\x00absent"
)

// FilesTable returns a table (id bigint primary key, namespace_id bigint, path text) in PostgreSQL's text
// form, sealed; ID and Version 1, routed by id.
func FilesTable(name string) *schemas.Table {
	t := &schemas.Table{ID: 1, Version: 1, Schema: "public", Name: name, Wire: schemas.WirePGText, Identity: []int{0}, Routing: []int{0},
		KeySpace: "public." + name, Columns: []schemas.Column{
			{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Bits: 64, Name: "bigint", OID: 20, Mod: -1}},
			{Name: "namespace_id", Type: schemas.Type{Kind: schemas.KindInt, Bits: 64, Name: "bigint", OID: 20, Mod: -1}, Nullable: true},
			{Name: "path", Type: schemas.Type{Kind: schemas.KindText, Name: "text", OID: 25, Mod: -1}, Nullable: true},
		}}
	return t.Seal()
}

// AppendTuple appends r in WirePGText.
func AppendTuple(dst []byte, r Row) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(r)))
	for _, c := range r {
		switch c {
		case Null:
			dst = append(dst, 'n')
		case Absent:
			dst = append(dst, 'u')
		default:
			dst = binary.BigEndian.AppendUint32(append(dst, 't'), uint32(len(c)))
			dst = append(dst, c...)
		}
	}
	return dst
}

// PGForm is a minimal cell.Form for WirePGText of integers and text, for packages that must not depend on
// the real one.
func PGForm(t *schemas.Table) *cell.Form {
	f := &cell.Form{Walk: func(p []byte, refs []cell.Ref, upTo int) ([]cell.Ref, error) {
		refs = refs[:0]
		if len(p) < 2 || int(binary.BigEndian.Uint16(p)) != len(t.Columns) {
			return refs, fmt.Errorf("tuple of %d bytes for %d columns", len(p), len(t.Columns))
		}
		at := 2
		for range upTo {
			switch {
			case at < len(p) && p[at] == 'n':
				refs, at = append(refs, cell.Ref{Len: cell.LenNull}), at+1
			case at < len(p) && p[at] == 'u':
				refs, at = append(refs, cell.Ref{Len: cell.LenAbsent}), at+1
			case at+5 <= len(p) && p[at] == 't' && at+5+int(binary.BigEndian.Uint32(p[at+1:])) <= len(p):
				n := binary.BigEndian.Uint32(p[at+1:])
				refs, at = append(refs, cell.Ref{Off: uint32(at + 5), Len: n}), at+5+int(n)
			default:
				return refs, fmt.Errorf("tuple broken at byte %d", at)
			}
		}
		return refs, nil
	}}
	for i := range t.Columns {
		kind := t.Columns[i].Type.Kind
		f.Decode = append(f.Decode, func(v *cell.Value, raw []byte, _ *cell.Scratch) error {
			*v = cell.Value{Kind: kind, B: raw, Bits: 64}
			if kind == schemas.KindInt {
				var n int64
				if _, err := fmt.Sscan(string(raw), &n); err != nil {
					return fmt.Errorf("integer: %w", err)
				}
				v.N, v.B = uint64(n), nil
			}
			return nil
		})
	}
	return f
}

// Change is one event of a script.
type Change struct {
	Op            pipeline.Op
	Table         *schemas.Table
	Before, After Row
}

// Build makes a batch of whole transactions from changes, one transaction per element.
func Build(end pipeline.Position, at time.Time, txs ...[]Change) *pipeline.Batch {
	b := pipeline.NewBatch()
	b.End, b.Read = end, at
	for n, changes := range txs {
		b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString(fmt.Sprintf("%d", end.Counter*1000+uint64(n))), Position: b.PutString(fmt.Sprintf("0/%X", end.Counter)),
			Time: at.UnixMicro(), First: uint32(len(b.Events)), Ends: true})
		for _, c := range changes {
			b.Events = append(b.Events, buildEvent(b, c, uint32(n)))
		}
	}
	return b
}

func buildEvent(b *pipeline.Batch, c Change, tx uint32) pipeline.Event {
	e := pipeline.Event{Op: c.Op, Table: pipeline.NoTable, Tx: tx, Key: pipeline.Nowhere, Before: pipeline.Nowhere, After: pipeline.Nowhere}
	if c.Table != nil {
		e.Table, _ = b.TableIndex(c.Table)
	}
	image := func(r Row) pipeline.Span {
		off := len(b.Arena)
		b.Arena = AppendTuple(b.Arena, r)
		return pipeline.Span{Off: uint32(off), Len: uint32(len(b.Arena) - off)}
	}
	if c.Before != nil {
		e.Before = image(c.Before)
	}
	if c.After != nil {
		e.After = image(c.After)
	}
	return e
}
