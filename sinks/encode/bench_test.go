package encode

import (
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
)

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

func BenchmarkJSON(b *testing.B)  { benchmarkAppend(b, JSON(options()), pipetest.WideBatch(1000)) }
func BenchmarkProto(b *testing.B) { benchmarkAppend(b, Proto(options()), pipetest.WideBatch(1000)) }

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
	batch := pipetest.WideBatch(1000)
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
