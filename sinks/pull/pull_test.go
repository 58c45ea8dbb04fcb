package pull_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/pull"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a hub with one subscription "sub" behind a real HTTP/2 server.
type server struct {
	hub    *pull.Hub
	sink   *pull.Sink
	client leatv1connect.SubscriberServiceClient
	url    string
}

func serve(tb testing.TB, o pull.Options, opts ...connect.ClientOption) *server {
	tb.Helper()
	h := pull.NewHub()
	o.Source = "files"
	o.Encoder = encode.Proto(encode.Options{Source: "files", Form: pipetest.PGForm, Share: encode.NewShare(64 << 20)})
	sink := h.Sink("sub", o)
	mux := http.NewServeMux()
	mux.Handle(h.Handler())
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	s := &server{hub: h, sink: sink, url: srv.URL}
	var hc *http.Client
	hc, s.client = newClient(srv.URL, opts...)
	tb.Cleanup(func() {
		sink.Close()
		hc.CloseIdleConnections()
		srv.Close()
		h.Wait()
	})
	return s
}

func newClient(url string, opts ...connect.ClientOption) (*http.Client, leatv1connect.SubscriberServiceClient) {
	tr := &http.Transport{DialContext: (&net.Dialer{}).DialContext, Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	hc := &http.Client{Transport: tr}
	return hc, leatv1connect.NewSubscriberServiceClient(hc, url, opts...)
}

// change is an event of a test: a key (the row's id) and a path, unique.
type change struct {
	key  int
	path string
}

// batch builds a batch of inserts whose hash is a function of the id.
func batch(base pipeline.Offset, changes ...change) *pipeline.Batch {
	t := pipetest.FilesTable("files")
	var tx []pipetest.Change
	for _, c := range changes {
		tx = append(tx, pipetest.Change{Op: pipeline.OpInsert, Table: t, After: pipetest.Row{fmt.Sprint(c.key), "1", c.path}})
	}
	b := pipetest.Build(pipeline.Position{Counter: 1, Token: "t"}, time.Unix(1_700_000_000, 0), tx)
	b.Base = base
	for i, c := range changes {
		b.Events[i].Hash = uint64(c.key) * 0x9e3779b97f4a7c15
	}
	return b
}

func delivery(number uint64, b *pipeline.Batch) *pipeline.Delivery {
	return &pipeline.Delivery{Subscription: "sub", Source: "files", Number: number, Attempt: 1,
		Runs: []pipeline.Run{{Batch: b, From: 0, To: uint32(len(b.Events))}}, Events: len(b.Events)}
}

type result struct {
	outcomes pipeline.Outcomes
	err      error
}

// deliver runs Deliver in the background.
func (s *server) deliver(ctx context.Context, number uint64, b *pipeline.Batch) <-chan result {
	out := make(chan result, 1)
	go func() {
		o, err := s.sink.Deliver(ctx, delivery(number, b))
		out <- result{o, err}
	}()
	return out
}

func get[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing came for 10 s")
		panic("unreachable")
	}
}

// consumer is a client of the stream.
type consumer struct {
	t      testing.TB
	stream *connect.BidiStreamForClient[leatv1.PullRequest, leatv1.PullResponse]
	cancel context.CancelFunc
	got    chan *leatv1.PullResponse
	ended  chan error
}

func (s *server) connect(t testing.TB, name string) *consumer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &consumer{t: t, stream: s.client.Pull(ctx), cancel: cancel, got: make(chan *leatv1.PullResponse, 1000), ended: make(chan error, 1)}
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: "sub", Consumer: name}}})
	go func() {
		for {
			m, err := c.stream.Receive()
			if err != nil {
				c.ended <- err
				return
			}
			c.got <- m
		}
	}()
	t.Cleanup(c.close)
	return c
}

func (c *consumer) close() {
	c.cancel()
	c.stream.CloseRequest()
	c.stream.CloseResponse()
}

func (c *consumer) send(m *leatv1.PullRequest) {
	c.t.Helper()
	if err := c.stream.Send(m); err != nil {
		c.t.Fatal(err)
	}
}

func (c *consumer) credit(events int) {
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: uint32(events)}}})
}

func (c *consumer) ack(upTo uint64) {
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{UpToLease: upTo}}})
}

// events returns the next message of events.
func (c *consumer) events() *leatv1.Events {
	c.t.Helper()
	for {
		if e := get(c.t, c.got).GetEvents(); e != nil {
			return e
		}
	}
}

func paths(e *leatv1.Events) (out []string) {
	for _, ev := range e.Events {
		out = append(out, ev.After.Values[2].GetText())
	}
	return out
}

func wantPaths(t testing.TB, e *leatv1.Events, want ...string) {
	t.Helper()
	if got := paths(e); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("events %v, want %v", got, want)
	}
}

func allOK(t testing.TB, r result) {
	t.Helper()
	if r.err != nil || r.outcomes != nil {
		t.Fatalf("outcomes %v, error %v; want all ok", r.outcomes, r.err)
	}
}

func TestEventsTravelAndAreAcked(t *testing.T) {
	s := serve(t, pull.Options{})
	b := batch(100, change{1, "a"}, change{2, "b"}, change{1, "c"})
	done := s.deliver(t.Context(), 1, b)
	c := s.connect(t, "one")
	c.credit(10)
	e := c.events()
	wantPaths(t, e, "a", "b", "c")
	if e.Source != "files" || e.Lease == 0 || e.Epoch == 0 || e.Deadline == nil || len(e.Tables) != 1 || e.Events[0].Offset != 100 || e.Events[2].Tx.Seq != 3 {
		t.Fatalf("events %v", e)
	}
	c.ack(e.Lease)
	allOK(t, get(t, done))
	done = s.deliver(t.Context(), 2, batch(103, change{1, "d"}))
	e = c.events()
	wantPaths(t, e, "d")
	if len(e.Tables) != 1 {
		t.Fatal("another table version came without its definition")
	}
	c.ack(e.Lease)
	allOK(t, get(t, done))
}

func TestASubscriptionThatIsBeingStartedIsNotUnknown(t *testing.T) {
	s := serve(t, pull.Options{})
	s.hub.Starting = func(name string) bool { return name == "soon" }
	for name, want := range map[string]connect.Code{"soon": connect.CodeUnavailable, "never": connect.CodeNotFound} {
		_, err := s.client.Receive(t.Context(), connect.NewRequest(&leatv1.ReceiveRequest{Subscription: name}))
		if got := connect.CodeOf(err); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
