package nats

import (
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// BenchmarkDeliver is the rate of events of three columns into a local server, four Deliveries of 10,000 at once, of keys
// of their own.
func BenchmarkDeliver(b *testing.B) {
	v := servertest.ExclusiveNATS(b, servers.NATSOptions{})
	o := options(b, v, `, "max_msgs": 100000, "duplicate_window": 100000000`)
	s := newSink(b, o)
	const size = 10_000
	var changes []pipetest.Change
	for range size {
		changes = append(changes, pipetest.Change{Op: pipeline.OpInsert, Table: filesTable, After: pipetest.Row{"42", "7", "/a/path/of/a/file"}})
	}
	batch := pipetest.Build(pipeline.Position{Counter: 1, Token: "p"}, epoch, changes)
	defer batch.Release()
	for i := range batch.Events {
		batch.Events[i].Key, batch.Events[i].Hash = batch.PutString("42"), uint64(i)
	}
	batch.Base = 1770000000 << 20
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range (b.N + 4*size - 1) / (4 * size) {
				d := &pipeline.Delivery{Subscription: "suite", Source: "files", Attempt: 1, Deadline: time.Now().Add(time.Minute),
					Reason: pipeline.ReasonReplay, Runs: []pipeline.Run{{Batch: batch, To: size}}, Events: size}
				if out, err := s.Deliver(b.Context(), d); err != nil || out != nil {
					b.Error(out, err)
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
