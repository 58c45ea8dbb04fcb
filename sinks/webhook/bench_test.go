package webhook

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/sinks/encode"
)

// discard is a receiver that does as little as one can.
func discard(tb testing.TB) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	tb.Cleanup(srv.Close)
	return srv.URL
}

// BenchmarkDeliver posts batches of 500 events, signed, over a few connections at once; encoded anew each time
// as from a filled log with one subscriber.
func BenchmarkDeliver(b *testing.B) {
	s := newSink(b, discard(b), func(o *Options) {
		o.Encoder = encode.JSON(encode.Options{Source: "files", PublicURL: "http://127.0.0.1:7070", Separator: ',', Form: pgtext.Form})
	})
	batches := make([]*pipeline.Batch, 8)
	for i := range batches {
		batches[i] = wideBatch(500)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for n := range next {
				d := &pipeline.Delivery{Attempt: 1, Runs: []pipeline.Run{{Batch: batches[n%len(batches)], To: 500}}, Events: 500}
				if _, err := s.Deliver(context.Background(), d); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for n := range b.N {
		next <- n
	}
	close(next)
	wg.Wait()
	b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "events/s")
}

var _ net.Conn = (*conn)(nil)

// wideBatch holds n inserts of seven columns, about 180 bytes each, in transactions of 100.
func wideBatch(n int) *pipeline.Batch {
	big := schemas.Type{Kind: schemas.KindInt, Bits: 64, Name: "bigint", OID: 20, Mod: -1}
	text := schemas.Type{Kind: schemas.KindText, Name: "text", OID: 25, Mod: -1}
	t := &schemas.Table{ID: 7, Version: 3, Schema: "public", Name: "files", Wire: schemas.WirePGText, Identity: []int{0}, Routing: []int{1},
		Columns: []schemas.Column{{Name: "id", Type: big}, {Name: "namespace_id", Type: big}, {Name: "path", Type: text}, {Name: "size", Type: big},
			{Name: "deleted", Type: schemas.Type{Kind: schemas.KindBool, Name: "boolean", OID: 16, Mod: -1}}, {Name: "hash", Type: text},
			{Name: "modified", Type: schemas.Type{Kind: schemas.KindTimestamp, Name: "timestamp with time zone", OID: 1184, Mod: -1}}}}
	t.Seal()
	var txs [][]pipetest.Change
	for i := range n {
		if i%100 == 0 {
			txs = append(txs, nil)
		}
		txs[len(txs)-1] = append(txs[len(txs)-1], pipetest.Change{Op: pipeline.OpInsert, Table: t, After: pipetest.Row{
			fmt.Sprint(1_000_000 + i), fmt.Sprint(i % 97), fmt.Sprintf("/home/user%d/projects/alpha/file-%08d.txt", i%31, i), fmt.Sprint(i * 37), "f",
			fmt.Sprintf("%064x", i*7919), "2026-11-21 10:15:30.123456+00"}})
	}
	b := pipetest.Build(pipeline.Position{Counter: 0x16B3748, Token: "x"}, time.Unix(1_795_000_000, 123456000), txs...)
	b.Base = 1877212358656123
	return b
}
