package table

import (
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// BenchmarkUpsert writes Deliveries of 10,000 rows of about 100 bytes over four connections: new ones, then the same again
// changed.
func BenchmarkUpsert(b *testing.B) {
	for kind, start := range kinds {
		b.Run(kind, func(b *testing.B) {
			at := reach(b, kind, start(b))
			s := at.sink(b)
			table := pipetest.FilesTable(servertest.Name())
			const writers, rows = 4, 10_000
			path := strings.Repeat("p", 80)
			var all [writers]*pipeline.Batch
			o := pipeline.Offset(1)
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				for n := range all {
					var changes []pipetest.Change
					for i := range rows {
						changes = append(changes, put(table, strconv.Itoa(i*writers+n), o.String(), path))
					}
					all[n] = batch(o, changes...)
					o += rows
				}
				b.StartTimer()
				var join sync.WaitGroup
				for _, x := range all {
					join.Go(func() {
						out, err := s.Deliver(b.Context(), &pipeline.Delivery{Runs: []pipeline.Run{{Batch: x, To: rows}}, Events: rows})
						if err != nil || len(out) > 0 {
							b.Errorf("%v %v", out, err)
						}
					})
				}
				join.Wait()
				b.StopTimer()
				for _, x := range all {
					x.Release()
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.N*writers*rows)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
