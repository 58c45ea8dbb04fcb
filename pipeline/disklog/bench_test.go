package disklog

import (
	"context"
	"fmt"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
)

// BenchmarkAppend appends events of about 180 bytes; every batch waits for nothing, the log is closed in the
// time that is measured, so that all is synced. "fresh" begins with an empty folder each time; "recycled" writes into segments that were
// written before.
func BenchmarkAppend(b *testing.B) {
	for _, kind := range []string{"fresh", "recycled"} {
		for _, n := range []int{100, 1000, 5000} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) { benchAppend(b, kind == "recycled", n) })
		}
	}
}

func benchAppend(b *testing.B, recycled bool, n int) {
	opt := Options{Dir: b.TempDir(), Source: "db"}
	if recycled {
		opt.Retention.Size = 3 * 128 << 20
	}
	l := mustOpen(b, opt)
	ctx := context.Background()
	tab := testTable(1, 1)
	proto := pipeline.NewBatch()
	fillBatch(proto, tab, 1, n, 100, 175)
	run := func(events int) {
		var ticket uint64
		for done := 0; done < events; done += n {
			c := pipeline.NewBatch()
			c.Tables = append(c.Tables, proto.Tables...)
			c.Txs = append(c.Txs, proto.Txs...)
			c.Events = append(c.Events, proto.Events...)
			c.Arena = append(c.Arena, proto.Arena...)
			c.End = proto.End
			var err error
			if ticket, err = l.Append(ctx, c); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := l.Synced(ctx, ticket-1); err != nil {
			b.Fatal(err)
		}
	}
	if recycled {
		run(4_000_000)
	}
	b.ReportAllocs()
	b.ResetTimer()
	run(b.N)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mevents/s")
	b.SetBytes(int64(len(proto.Arena)/n + 40))
	proto.Release()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRead reads everything, from the tail in memory or from segments.
func BenchmarkRead(b *testing.B) {
	for _, kind := range []string{"ring", "segments"} {
		b.Run(kind, func(b *testing.B) {
			opt := Options{Dir: b.TempDir(), Source: "db", Memory: 1}
			if kind == "ring" {
				opt.Memory = 1 << 30
			}
			l := mustOpen(b, opt)
			const n, batches = 1000, 1000
			tab := testTable(1, 1)
			var ticket uint64
			for range batches {
				c := pipeline.NewBatch()
				fillBatch(c, tab, 1, n, 100, 175)
				ticket = mustAppend(b, l, c)
			}
			waitSynced(b, l, ticket)
			oldest, next := l.Bounds()
			ctx := context.Background()
			b.ReportAllocs()
			b.ResetTimer()
			done := 0
			for done < b.N {
				r, err := l.Read(oldest)
				if err != nil {
					b.Fatal(err)
				}
				for at := oldest; at < next && done < b.N; {
					c, err := r.Next(ctx)
					if err != nil {
						b.Fatal(err)
					}
					at = c.Next()
					done += len(c.Events)
					c.Release()
				}
				_ = r.Close()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mevents/s")
		})
	}
}
