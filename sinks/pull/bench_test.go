package pull_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/schemas/envelope/frames"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/pull"
)

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
		batches[i] = wideBatch(500)
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
