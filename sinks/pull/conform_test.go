package pull_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/pull"
)

func TestThePullStreamConforms(t *testing.T) {
	pipetest.TestSink(t, func(t *testing.T) pipetest.SinkRig {
		s := serve(t, pull.Options{})
		var mu sync.Mutex
		var got []pipeline.Offset
		var hung atomic.Bool
		stream := s.client.Pull(t.Context())
		send := func(m *leatv1.PullRequest) {
			if err := stream.Send(m); err != nil {
				t.Error(err)
			}
		}
		send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: "sub"}}})
		send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: 100000}}})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				m, err := stream.Receive()
				if err != nil {
					return
				}
				if e := m.GetEvents(); e != nil && !hung.Load() {
					mu.Lock()
					for _, ev := range e.Events {
						got = append(got, pipeline.Offset(ev.Offset))
					}
					mu.Unlock()
					send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{UpToLease: e.Lease}}})
				}
			}
		}()
		t.Cleanup(func() {
			s.sink.Close()
			<-ended
			stream.CloseRequest()
			stream.CloseResponse()
		})
		return pipetest.SinkRig{Sink: s.sink, Hang: func() { hung.Store(true) },
			Received: func() []pipeline.Offset { mu.Lock(); defer mu.Unlock(); return append([]pipeline.Offset(nil), got...) }}
	})
}
