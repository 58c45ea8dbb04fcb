package app

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/internal/servers/rough"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// puller is a subscriber on a network that makes trouble: what it got and acked outlives its connections.
type puller struct {
	t       *testing.T
	seen    map[uint64]bool
	last    map[string]uint64 // by key: the highest offset that came
	again   int
	streams int
}

// credits are what a puller lets be under way.
const credits = 500

// pull takes events over one connection until it breaks or is found dead; true when n events were seen.
func (p *puller) pull(ctx context.Context, addr, proxy string, n int) bool {
	p.streams++
	dialer := &net.Dialer{}
	tr := &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, proxy)
		},
		HTTP2: &http.HTTP2Config{SendPingTimeout: 200 * time.Millisecond, PingTimeout: 500 * time.Millisecond},
	}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	s := leatv1connect.NewSubscriberServiceClient(&http.Client{Transport: tr}, "http://"+addr).Pull(ctx)
	stop := context.AfterFunc(ctx, func() { _ = s.CloseRequest() })
	defer stop()
	defer s.CloseResponse()
	defer s.CloseRequest()
	send := func(m *leatv1.PullRequest) bool { return s.Send(m) == nil }
	credit := func(n int) bool {
		return send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: uint32(n)}}})
	}
	if !send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: "r", Consumer: fmt.Sprint("c", p.streams)}}}) || !credit(credits) {
		return false
	}
	within := map[string]uint64{} // of this stream: a key's events come in order, and not twice
	for len(p.seen) < n {
		m, err := s.Receive()
		if err != nil {
			return false
		}
		e := m.GetEvents()
		if e == nil {
			continue
		}
		p.take(e, within)
		if !send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{UpToLease: e.Lease, Epoch: e.Epoch}}}) || !credit(len(e.Events)) {
			return false
		}
	}
	return true
}

func (p *puller) take(e *leatv1.Events, within map[string]uint64) {
	for _, x := range e.Events {
		key := fmt.Sprint(x.Key) // the routing key is left out where it is the same
		if x.Offset <= within[key] {
			p.t.Fatalf("stream %d: key %s: offset %d after %d", p.streams, key, x.Offset, within[key])
		}
		within[key] = x.Offset
		if p.seen[x.Offset] {
			p.again++
			continue
		}
		p.seen[x.Offset] = true
		if x.Offset < p.last[key] {
			p.t.Fatalf("key %s: offset %d comes first after %d", key, x.Offset, p.last[key])
		}
		p.last[key] = x.Offset
	}
}

// TestPullOverARoughNetwork: connections of a pull subscriber are delayed, reset in the middle and left standing
// without a word. Leases last far longer than the test: what a connection that stands still held comes again only
// because the server finds it dead. Each event comes, in order per key, and what comes again is what was in flight.
func TestPullOverARoughNetwork(t *testing.T) {
	t.Parallel()
	db := newPG(t)
	in := install(t, t.TempDir(), db.yaml("r: {source: files, deliver: {pull: {lease: 1h}}, batch: {events: 50}}"),
		func(o *Options) { o.Limits = api.Limits{Quiet: 200 * time.Millisecond, Answer: 500 * time.Millisecond} })
	in.streaming(t, "files")
	const rows, changes = 1000, 4000
	db.exec(t, fmt.Sprintf("INSERT INTO files SELECT i, repeat('x', 100), 0 FROM generate_series(1, %d) i", rows))
	for range changes/rows - 1 {
		db.exec(t, "UPDATE files SET size = size + 1")
	}
	proxy := rough.New(t, in.addr, func(n int) rough.Trouble {
		trouble := rough.Trouble{Delay: time.Duration(rand.IntN(2)) * time.Millisecond, Reset: 5_000 + rand.Int64N(150_000)}
		if n%4 == 1 && n < 10 {
			trouble.Reset, trouble.Stall = 0, trouble.Reset
		}
		return trouble
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := &puller{t: t, seen: map[uint64]bool{}, last: map[string]uint64{}}
	for !p.pull(ctx, in.addr, proxy.Addr, changes) {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d events over %d streams", len(p.seen), changes, p.streams)
		}
	}
	_, resets, stalls := proxy.Counts()
	if resets == 0 || stalls == 0 {
		t.Errorf("%d resets, %d stalls", resets, stalls)
	}
	if most := (p.streams - 1) * credits; p.again > most {
		t.Errorf("%d events came again over %d breaks, at most %d were in flight", p.again, p.streams-1, most)
	}
	t.Logf("%d streams, %d resets, %d stalls, %d events again", p.streams, resets, stalls, p.again)
}
