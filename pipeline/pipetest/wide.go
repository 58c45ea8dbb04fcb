package pipetest

import (
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// WideTable has seven columns, of which some may be null: its rows take about 180 bytes. What encodings and sinks cost is
// measured with it.
func WideTable() *schemas.Table {
	big := schemas.Type{Kind: schemas.KindInt, Bits: 64, Name: "bigint", OID: 20, Mod: -1}
	text := schemas.Type{Kind: schemas.KindText, Name: "text", OID: 25, Mod: -1}
	t := &schemas.Table{ID: 7, Version: 3, Schema: "public", Name: "files", Wire: schemas.WirePGText, Identity: []int{0}, Routing: []int{1},
		KeySpace: "tree", Columns: []schemas.Column{
			{Name: "id", Type: big},
			{Name: "namespace_id", Type: big, Nullable: true},
			{Name: "path", Type: text, Nullable: true},
			{Name: "size", Type: big, Nullable: true},
			{Name: "deleted", Type: schemas.Type{Kind: schemas.KindBool, Name: "boolean", OID: 16, Mod: -1}},
			{Name: "hash", Type: text, Nullable: true},
			{Name: "modified", Type: schemas.Type{Kind: schemas.KindTimestamp, Name: "timestamp with time zone", OID: 1184, Mod: -1}},
		}}
	return t.Seal()
}

// WideBatch holds n inserts into WideTable, in transactions of 100.
func WideBatch(n int) *pipeline.Batch {
	t := WideTable()
	var txs [][]Change
	for i := range n {
		if i%100 == 0 {
			txs = append(txs, nil)
		}
		txs[len(txs)-1] = append(txs[len(txs)-1], Change{Op: pipeline.OpInsert, Table: t, After: Row{
			fmt.Sprint(1_000_000 + i), fmt.Sprint(i % 97), fmt.Sprintf("/home/user%d/projects/alpha/file-%08d.txt", i%31, i), fmt.Sprint(i * 37), "f",
			fmt.Sprintf("%064x", i*7919), "2026-11-21 10:15:30.123456+00"}})
	}
	b := Build(pipeline.Position{Counter: 0x16B3748, Token: "x"}, time.Date(2026, 11, 21, 10, 15, 30, 123456000, time.UTC), txs...)
	b.Base = 1877212358656123
	return b
}
