package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/client"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/pull"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve has the pull subscription "features" behind a server as Leat has it.
func serve(t *testing.T, lease time.Duration) (*pull.Sink, *httptest.Server) {
	t.Helper()
	hub := pull.NewHub()
	sink := hub.Sink("features", pull.Options{Source: "files", Lease: lease,
		Encoder: encode.Proto(encode.Options{Source: "files", Form: pipetest.PGForm, Share: encode.NewShare(1 << 20)})})
	mux := http.NewServeMux()
	mux.Handle(hub.Handler())
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(func() { sink.Close(); srv.Close(); hub.Wait() })
	return sink, srv
}

func connectTo(t *testing.T, url string, o client.Options) *client.Client {
	t.Helper()
	c, err := client.New(url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// changes is a batch of n inserts of so many keys, in turn, at the offsets 1000 and up.
func changes(n, keys int) *pipeline.Batch {
	table := pipetest.FilesTable("files")
	var tx []pipetest.Change
	for i := range n {
		tx = append(tx, pipetest.Change{Op: pipeline.OpInsert, Table: table, After: pipetest.Row{fmt.Sprint(i % keys), fmt.Sprint(i), "/ä"}})
	}
	b := pipetest.Build(pipeline.Position{Counter: 1}, time.Unix(1_700_000_000, 0), tx)
	b.Base = 1000
	for i := range b.Events {
		b.Events[i].Hash = uint64(i % keys)
	}
	return b
}

// deliverAll does what Leat does with a batch: what fails comes again, each key in order.
func deliverAll(ctx context.Context, sink *pull.Sink, b *pipeline.Batch, keys int) error {
	open := make([]uint32, len(b.Events))
	for i := range open {
		open[i] = uint32(i)
	}
	for number := uint64(1); len(open) > 0; number++ {
		d := &pipeline.Delivery{Subscription: "features", Source: "files", Number: number, Attempt: 1, Events: len(open)}
		for _, i := range open {
			d.Runs = append(d.Runs, pipeline.Run{Batch: b, From: i, To: i + 1})
		}
		out, err := sink.Deliver(ctx, d)
		if err != nil {
			return err
		}
		if out == nil {
			return nil
		}
		var again []uint32
		failed := map[uint32]bool{}
		for n, i := range open {
			if failed[i%uint32(keys)] = failed[i%uint32(keys)] || out[n].Class != pipeline.OK; failed[i%uint32(keys)] {
				again = append(again, i)
			}
		}
		open = again
	}
	return nil
}

// order checks what a handler is given: of each key, first the event that failed last, then what comes after it.
type order struct {
	mu     sync.Mutex
	last   map[string]uint64 // handled, by key
	failed map[string]uint64
	wrong  []string
	done   map[uint64]bool
	calls  int
}

func (o *order) see(e *client.Event, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id, _ := e.Key.Value("id")
	key := fmt.Sprint(id)
	o.calls++
	if f := o.failed[key]; f != 0 && e.Offset > f {
		o.wrong = append(o.wrong, fmt.Sprintf("key %s: %d after %d failed", key, e.Offset, f))
	}
	if ok {
		o.last[key], o.done[e.Offset] = e.Offset, true
		delete(o.failed, key)
	} else {
		o.failed[key] = e.Offset
	}
}

// TestHandle: whatever fails and whenever the connection is lost, each event is handled, and no event of a key
// before an earlier one that failed.
func TestHandle(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			const n, keys = 3000, 7
			sink, srv := serve(t, 30*time.Second)
			c := connectTo(t, srv.URL, client.Options{Window: 400})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex
			chance := func(of int) bool { mu.Lock(); defer mu.Unlock(); return r.IntN(of) == 0 }
			o := &order{last: map[string]uint64{}, failed: map[string]uint64{}, done: map[uint64]bool{}}
			done := make(chan error, 1)
			go func() {
				done <- c.Handle(ctx, "features", 4, func(_ context.Context, e *client.Event) error {
					if seed%2 == 1 && chance(500) {
						srv.CloseClientConnections()
					}
					ok := !chance(50)
					o.see(e, ok)
					if !ok {
						return client.AsDefer(errors.New("not now"), 0)
					}
					return nil
				})
			}()
			if err := deliverAll(ctx, sink, changes(n, keys), keys); err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Handle ends with %v", err)
			}
			if len(o.done) != n || len(o.wrong) > 0 {
				t.Fatalf("%d of %d events handled; wrong: %d, %v", len(o.done), n, len(o.wrong), slices.Concat(o.wrong, []string{"-"})[0])
			}
		})
	}
}

// TestALongWork: a batch that is at work for many times its lease stays with who works on it, until Hold is over.
func TestALongWork(t *testing.T) {
	sink, srv := serve(t, 400*time.Millisecond)
	c := connectTo(t, srv.URL, client.Options{})
	out := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { out <- deliverAll(ctx, sink, changes(3, 3), 3) }()
	n := 0
	for b, err := range c.Pull(ctx, "features") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n > 1 {
			t.Fatal("it came again")
		}
		<-time.After(2 * time.Second) // real time: the lease is the server's
		if b.Revoked(b.Events[0]) || b.Ack() != nil {
			t.Error("the lease was lost")
		}
		if err := b.Ack(); !errors.Is(err, client.ErrLost) {
			t.Errorf("acked twice: %v", err)
		}
		if err := <-out; err != nil {
			t.Fatal(err)
		}
		break
	}

	short := connectTo(t, srv.URL, client.Options{Hold: time.Millisecond})
	go func() { out <- deliverAll(ctx, sink, changes(1, 1), 1) }()
	n = 0
	for b, err := range short.Pull(ctx, "features") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 2 { // the first time nobody completed it
			if b.Ack() != nil {
				t.Error("the second lease was lost")
			}
			break
		}
	}
	if err := <-out; err != nil {
		t.Fatal(err)
	}
}

// TestNackOne: the events of a batch can be completed and failed one by one.
func TestNackOne(t *testing.T) {
	sink, srv := serve(t, 30*time.Second)
	c := connectTo(t, srv.URL, client.Options{Consumer: "a test"})
	outcome := make(chan pipeline.Outcomes, 1)
	b := changes(4, 2)
	go func() {
		out, _ := sink.Deliver(t.Context(), &pipeline.Delivery{Subscription: "features", Source: "files", Number: 1, Attempt: 1, Events: 4,
			Runs: []pipeline.Run{{Batch: b, To: 4}}})
		outcome <- out
	}()
	for batch, err := range c.Pull(t.Context(), "features") {
		if err != nil {
			t.Fatal(err)
		}
		e := batch.Events // keys 0 1 0 1
		if err := errors.Join(batch.AckEvent(e[0]), batch.AckEvent(e[2]), batch.Nack(e[1], client.Fatal, "no such thing", 0)); err != nil {
			t.Error(err)
		}
		out := <-outcome
		if out[0].Class != pipeline.OK || out[2].Class != pipeline.OK || out[1].Class != pipeline.Fatal || !strings.Contains(out[1].Reason, "no such thing") || out[3].Class != pipeline.Retry {
			t.Errorf("outcomes: %+v", out)
		}
		break
	}
}

// TestWhatIsUseless: no endless tries where a person is needed.
func TestWhatIsUseless(t *testing.T) {
	_, srv := serve(t, 30*time.Second)
	c := connectTo(t, srv.URL, client.Options{})
	for b, err := range c.Pull(t.Context(), "feature") {
		if b != nil || !client.IsNotFound(err) || connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("a subscription that is not there: %v", err)
		}
	}
	for _, url := range []string{"127.0.0.1:7070", "ftp://x", "http://user:secret@x", ""} {
		if _, err := client.New(url, client.Options{}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
	for _, host := range []string{"127.0.0.1.example.com", "127.example"} {
		if _, err := client.New("http://"+host+":7070", client.Options{Token: "t0ken"}); err == nil {
			t.Errorf("a token is sent to %s", host)
		}
	}
	if _, err := client.New("http://leat.internal:7070", client.Options{Token: "t0ken"}); err == nil || strings.Contains(err.Error(), "t0ken") {
		t.Errorf("a token in the clear: %v", err)
	}
}
