package pull_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/schemas/envelope/frames"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/pull"
)

// BenchmarkPull sends Deliveries of 500 events to subscribers that ack each lease; -cpuprofile shows the shares.
// The batches keep what was encoded, so this is the cost of a further subscriber.
func BenchmarkPull(b *testing.B) {
	for _, subscribers := range []int{1, 4} {
		b.Run(fmt.Sprint(subscribers), func(b *testing.B) { benchmarkPull(b, subscribers) })
	}
}

func benchmarkPull(b *testing.B, subscribers int) {
	h := pull.NewHub()
	share := encode.NewShare(256 << 20)
	mux := http.NewServeMux()
	mux.Handle(h.Handler())
	srv := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()
	batches := make([]*pipeline.Batch, 16)
	for i := range batches {
		batches[i] = pipetest.WideBatch(500)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var sinks []*pull.Sink
	for n := range subscribers {
		name := fmt.Sprintf("sub%d", n)
		s := h.Sink(name, pull.Options{Source: "files", Encoder: encode.Proto(encode.Options{Source: "files", Form: pgtext.Form, Share: share})})
		sinks = append(sinks, s)
		hc, client := newClient("http://"+l.Addr().String(), connect.WithCodec(frames.Codec{}), connect.WithAcceptCompression("gzip", nil, nil))
		defer hc.CloseIdleConnections()
		stream := client.Pull(ctx)
		stream.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: name}}})
		stream.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: 1 << 30}}})
		go func() {
			for {
				m, err := stream.Receive()
				if err != nil {
					return
				}
				lease := m.GetEvents().GetLease()
				frames.Release(m.GetEvents())
				stream.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{UpToLease: lease}}})
			}
		}()
	}
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	for _, s := range sinks {
		window := make(chan struct{}, 32)
		wg.Go(func() {
			var each sync.WaitGroup
			for n := range b.N {
				window <- struct{}{}
				each.Go(func() {
					d := delivery(uint64(n+1), batches[n%len(batches)])
					if out, err := s.Deliver(ctx, d); out != nil || err != nil {
						b.Error(out, err)
					}
					<-window
				})
			}
			each.Wait()
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N*500*subscribers)/b.Elapsed().Seconds(), "events/s")
	for _, s := range sinks {
		s.Close()
	}
}
