package webhook

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
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
		batches[i] = pipetest.WideBatch(500)
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
