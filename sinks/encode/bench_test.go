package encode

import (
	"fmt"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
)

// wideTable has the seven columns of the budget in the design: about 180 bytes a row.
func wideTable() *schemas.Table {
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

// wideBatch holds n inserts in transactions of 100.
func wideBatch(n int) *pipeline.Batch {
	t := wideTable()
	var txs [][]pipetest.Change
	for i := range n {
		if i%100 == 0 {
			txs = append(txs, nil)
		}
		txs[len(txs)-1] = append(txs[len(txs)-1], pipetest.Change{Op: pipeline.OpInsert, Table: t, After: pipetest.Row{
			fmt.Sprint(1_000_000 + i), fmt.Sprint(i % 97), fmt.Sprintf("/home/user%d/projects/alpha/file-%08d.txt", i%31, i), fmt.Sprint(i * 37), "f",
			fmt.Sprintf("%064x", i*7919), "2026-11-21 10:15:30.123456+00"}})
	}
	b := pipetest.Build(pipeline.Position{Counter: 0x16B3748, Token: "x"}, time.Date(2026, 11, 21, 10, 15, 30, 123456000, time.UTC), txs...)
	b.Base = 1877212358656123
	return b
}

func options() Options {
	return Options{Source: "files", PublicURL: "http://127.0.0.1:7070", Form: pgtext.Form}
}

func benchmarkAppend(b *testing.B, e *Encoder, batch *pipeline.Batch) {
	var dst []byte
	b.ReportAllocs()
	bytes := 0
	for b.Loop() {
		st := e.state()
		for i := range batch.Events {
			var err error
			if dst, err = st.append(dst[:0], batch, i, 0); err != nil {
				b.Fatal(err)
			}
			bytes += len(dst)
		}
		e.release(st)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch.Events)), "ns/event")
	b.ReportMetric(float64(bytes)/float64(b.N*len(batch.Events)), "B/event")
}

func BenchmarkJSON(b *testing.B)  { benchmarkAppend(b, JSON(options()), wideBatch(1000)) }
func BenchmarkProto(b *testing.B) { benchmarkAppend(b, Proto(options()), wideBatch(1000)) }

func BenchmarkProtoBinlog(b *testing.B) {
	o := options()
	o.Form = binlog.Form
	benchmarkAppend(b, Proto(o), binlogBatch(b, 1000))
}

func BenchmarkJSONBinlog(b *testing.B) {
	o := options()
	o.Form = binlog.Form
	benchmarkAppend(b, JSON(o), binlogBatch(b, 1000))
}

func benchmarkGather(b *testing.B, share *Share, readers int) {
	o := options()
	o.Share = share
	e, _ := Proto(o), Proto(o) // one alone shares nothing
	batch := wideBatch(1000)
	var g Gathered
	b.ReportAllocs()
	for b.Loop() {
		batch.Retain()
		for range readers {
			for at := uint32(0); at < 1000; at += 500 {
				e.Gather(&pipeline.Delivery{Runs: []pipeline.Run{{Batch: batch, From: at, To: at + 500}}}, &g)
			}
		}
		b.StopTimer()
		batch.Release()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*1000*readers), "ns/event")
}

// The batch's last reference never goes here, so that what is shared stays: the cost of a further reader.
func BenchmarkGatherShared(b *testing.B) { benchmarkGather(b, NewShare(1<<30), 1) }
func BenchmarkGatherAlone(b *testing.B)  { benchmarkGather(b, nil, 1) }
