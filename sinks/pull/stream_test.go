package pull_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/pull"
)

func (c *consumer) nack(lease, offset uint64, v leatv1.Verdict) {
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Nack{Nack: &leatv1.Nack{Lease: lease, Offset: offset, Verdict: v, Delay: durationpb.New(time.Second), Reason: "no"}}})
}

func (c *consumer) next() *leatv1.PullResponse { c.t.Helper(); return get(c.t, c.got) }

// A nack fails the event and all later ones of its key, sent or not, also in later Deliveries; others go on.
func TestNackRevokesTheSuffix(t *testing.T) {
	s := serve(t, pull.Options{})
	one := s.deliver(t.Context(), 1, batch(100, change{1, "a"}, change{2, "b"}, change{1, "c"}))
	c := s.connect(t, "one")
	c.credit(3)
	e := c.events()
	two := s.deliver(t.Context(), 2, batch(103, change{1, "d"}, change{2, "e"}))
	c.nack(e.Lease, 100, leatv1.Verdict_VERDICT_RETRY)
	if r := c.next().GetRevoked(); r == nil || len(r.Offsets) != 1 || r.Offsets[0] != 102 {
		t.Fatalf("revoked %v", r)
	}
	// What was revoked cannot be acked any more.
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{Lease: e.Lease, Offsets: []uint64{101, 102}}}})
	if r := c.next().GetRefused(); r == nil || len(r.Offsets) != 1 || r.Offsets[0] != 102 {
		t.Fatalf("refused %v", r)
	}
	r := get(t, one)
	if r.err != nil || r.outcomes[0].Class != pipeline.Retry || r.outcomes[0].Delay != time.Second || r.outcomes[0].Reason != "nack: no" || r.outcomes[1].Class != pipeline.OK || r.outcomes[2].Class != pipeline.Retry {
		t.Fatalf("%+v", r)
	}
	c.credit(10)
	// Number 2 may have come before or after the nack; its event of the key is failed, or sent again later.
	e = c.events()
	if got := strings.Join(paths(e), ""); got != "e" && got != "de" {
		t.Fatal(got)
	}
	c.ack(e.Lease)
	if r := get(t, two); r.err != nil {
		t.Fatalf("%+v", r)
	}
}

// Keys are with one client at a time, and in order.
func TestClientsShare(t *testing.T) {
	s := serve(t, pull.Options{})
	a, b := s.connect(t, "a"), s.connect(t, "b")
	a.credit(4)
	var changes []change
	for i := range 40 {
		changes = append(changes, change{i % 10, fmt.Sprint(i)})
	}
	done := s.deliver(t.Context(), 1, batch(100, changes...))
	first := a.events()
	wantPaths(t, first, "0", "1", "2", "3")
	b.credit(100)
	second := b.events()
	for _, e := range second.Events {
		if k := e.Key[0].GetInteger(); k < 4 {
			t.Fatalf("key %d is with two clients", k)
		}
	}
	if len(second.Events) < 6*4-4 { // keys may share a slot with a's
		t.Fatalf("only %d events for the second client", len(second.Events))
	}
	a.ack(first.Lease)
	b.ack(second.Lease)
	a.credit(100)
	seen := map[int64]string{}
	left := 40 - len(first.Events) - len(second.Events)
	for left > 0 {
		var e *leatv1.Events
		from := a
		select {
		case m := <-a.got:
			e = m.GetEvents()
		case m := <-b.got:
			e, from = m.GetEvents(), b
		case <-time.After(time.Minute):
			t.Fatal("the rest did not come")
		}
		for _, ev := range e.Events {
			k, p := ev.Key[0].GetInteger(), ev.After.Values[2].GetText()
			if len(p) < len(seen[k]) || len(p) == len(seen[k]) && p <= seen[k] {
				t.Fatalf("key %d: %s after %s", k, p, seen[k])
			}
			seen[k] = p
		}
		left -= len(e.Events)
		from.ack(e.Lease)
	}
	allOK(t, get(t, done))
}

// What a client had not acked when it went comes again, first, in order; no attempt is spent.
func TestReconnect(t *testing.T) {
	s := serve(t, pull.Options{})
	if waits, _ := s.sink.State(); waits != "no subscriber connected" {
		t.Fatal(waits)
	}
	one := s.deliver(t.Context(), 1, batch(100, change{1, "a"}, change{2, "b"}, change{3, "c"}))
	c := s.connect(t, "one")
	c.credit(2)
	e := c.events()
	wantPaths(t, e, "a", "b")
	if waits, clients := s.sink.State(); waits != "" || len(clients) != 1 || clients[0].Name != "one" || clients[0].Leased != 2 {
		t.Fatal(waits, clients)
	}
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{Lease: e.Lease, Offsets: []uint64{101}}}})
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Extend{Extend: &leatv1.Extend{}}})
	if c.next().GetExtended() == nil { // so the ack before it was taken
		t.Fatal("no answer to extend")
	}
	c.close()
	x := s.connect(t, "one")
	x.credit(10)
	for n := 0; n < 2; { // takes all that is left, and goes too
		n += len(x.events().Events)
	}
	x.close()
	d := s.connect(t, "one")
	d.credit(10)
	var got []string
	for len(got) < 2 {
		e = d.events()
		got = append(got, paths(e)...)
	}
	if fmt.Sprint(got) != "[a c]" {
		t.Fatal(got)
	}
	d.ack(e.Lease)
	allOK(t, get(t, one))
}

// Deliveries are sent by Number, however they come.
func TestOrderOfNumbers(t *testing.T) {
	s := serve(t, pull.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	three := s.deliver(t.Context(), 3, batch(103, change{1, "c"}))
	two := s.deliver(ctx, 2, batch(102, change{1, "b"}))
	c := s.connect(t, "one")
	c.credit(100)
	cancel() // it is withdrawn while it waits for its turn, and holds nobody up
	if r := get(t, two); !errors.Is(r.err, context.Canceled) {
		t.Fatalf("%+v", r)
	}
	one := s.deliver(t.Context(), 1, batch(101, change{1, "a"}))
	var got []string
	for len(got) < 2 {
		e := c.events()
		got = append(got, paths(e)...)
		c.ack(e.Lease)
	}
	if fmt.Sprint(got) != "[a c]" {
		t.Fatal(got)
	}
	allOK(t, get(t, one))
	allOK(t, get(t, three))
	// A subscription that starts anew counts from 1.
	one = s.deliver(t.Context(), 1, batch(104, change{1, "d"}))
	e := c.events()
	wantPaths(t, e, "d")
	c.ack(e.Lease)
	allOK(t, get(t, one))
}

// A client gets no more than it allowed.
func TestCredits(t *testing.T) {
	s := serve(t, pull.Options{})
	done := s.deliver(t.Context(), 1, batch(100, change{1, "a"}, change{2, strings.Repeat("b", 1000)}, change{3, "c"}))
	c := s.connect(t, "slow")
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: 10, Bytes: 200}}})
	e := c.events()
	wantPaths(t, e, "a")
	lease := e.Lease
	e = c.events() // larger than what is left: alone
	if len(e.Events) != 1 || len(e.Tables) != 0 {
		t.Fatalf("%d events, %d tables", len(e.Events), len(e.Tables))
	}
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Extend{Extend: &leatv1.Extend{Leases: []uint64{lease}}}})
	if m := c.next(); m.GetExtended() == nil {
		t.Fatalf("without credit came %v", m)
	}
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Bytes: 2000}}})
	e = c.events()
	wantPaths(t, e, "c")
	c.ack(e.Lease)
	allOK(t, get(t, done))
}

func TestEndings(t *testing.T) {
	s := serve(t, pull.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := s.deliver(ctx, 1, batch(100, change{1, "a"}, change{2, "b"}))
	c := s.connect(t, "one")
	c.credit(10)
	e := c.events()
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{Lease: e.Lease, Offsets: []uint64{100}}}})
	c.send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Extend{Extend: &leatv1.Extend{}}})
	c.next()
	cancel() // what was acked counts
	if r := get(t, done); r.err != nil || r.outcomes[0].Class != pipeline.OK || r.outcomes[1].Class != pipeline.Defer {
		t.Fatalf("%+v", r)
	}
	if r := c.next().GetRevoked(); r == nil || r.Offsets[0] != 101 {
		t.Fatal("the client was not told")
	}
	if err := s.sink.Resolve(t.Context(), 102, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	if r := c.next().GetResolved(); r == nil || r.Offset != 102 {
		t.Fatal("no resolved")
	}
	done = s.deliver(t.Context(), 2, batch(102, change{1, "c"}))
	c.events()
	s.sink.Close()
	if err := get(t, c.ended); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Fatal(err)
	}
	if r := get(t, done); !errors.Is(r.err, pipeline.ErrClosed) {
		t.Fatalf("%+v", r)
	}
	d := s.connect(t, "late")
	if err := get(t, d.ended); connect.CodeOf(err) != connect.CodeNotFound {
		t.Fatal(err)
	}
}

func TestUndecodableEventIsFatal(t *testing.T) {
	s := serve(t, pull.Options{})
	b := batch(100, change{1, "a"}, change{2, "b"}, change{1, "c"}, change{2, "d"})
	image := b.Bytes(b.Events[0].After)
	image[len(image)-1] = 0xff
	done := s.deliver(t.Context(), 1, b)
	c := s.connect(t, "one")
	c.credit(10)
	e := c.events()
	wantPaths(t, e, "b", "d")
	c.ack(e.Lease)
	r := get(t, done)
	if r.err != nil || r.outcomes[0].Class != pipeline.Fatal || !strings.Contains(r.outcomes[0].Reason, `"path"`) || r.outcomes[1].Class != pipeline.OK || r.outcomes[2].Class != pipeline.Retry {
		t.Fatalf("%+v", r)
	}
}

// The same over Connect's JSON, where events are decoded for the client.
func TestReceiveAckExtend(t *testing.T) {
	for name, opts := range map[string][]connect.ClientOption{"proto": nil, "json": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, pull.Options{}, opts...)
			done := s.deliver(t.Context(), 1, batch(100, change{1, "a"}, change{1, "b"}, change{2, "c"}))
			receive := func(n uint32) *leatv1.ReceiveResponse {
				t.Helper()
				r, err := s.client.Receive(t.Context(), connect.NewRequest(&leatv1.ReceiveRequest{Subscription: "sub", MaxEvents: n, Wait: durationpb.New(5 * time.Second)}))
				if err != nil {
					t.Fatal(err)
				}
				return r.Msg
			}
			ack := func(m *leatv1.AckRequest) (*leatv1.AckResponse, error) {
				m.Subscription = "sub"
				r, err := s.client.Ack(t.Context(), connect.NewRequest(m))
				if err != nil {
					return nil, err
				}
				return r.Msg, nil
			}
			one := receive(1)
			wantPaths(t, one.Events, "a")
			two := receive(10) // "b" waits: its key is leased
			wantPaths(t, two.Events, "c")
			if r, err := ack(&leatv1.AckRequest{Lease: one.Lease, Offsets: []uint64{100, 102}}); err != nil || len(r.Refused) != 1 || r.Refused[0] != 102 {
				t.Fatal(r, err)
			}
			if _, err := ack(&leatv1.AckRequest{Lease: one.Lease, All: true}); connect.CodeOf(err) != connect.CodeFailedPrecondition {
				t.Fatal(err)
			}
			three := receive(10)
			wantPaths(t, three.Events, "b")
			if _, err := s.client.Extend(t.Context(), connect.NewRequest(&leatv1.ExtendRequest{Subscription: "sub"})); connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Fatal(err)
			}
			x, err := s.client.Extend(t.Context(), connect.NewRequest(&leatv1.ExtendRequest{Subscription: "sub", Leases: []string{one.Lease, two.Lease}}))
			if err != nil || len(x.Msg.Refused) != 1 || x.Msg.Refused[0] != one.Lease {
				t.Fatal(x, err)
			}
			if _, err := ack(&leatv1.AckRequest{Lease: two.Lease, Nacks: []*leatv1.NackItem{{Offset: 102, Verdict: leatv1.Verdict_VERDICT_FATAL, Reason: "bad"}}}); err != nil {
				t.Fatal(err)
			}
			if _, err := ack(&leatv1.AckRequest{Lease: three.Lease, All: true}); err != nil {
				t.Fatal(err)
			}
			if r := get(t, done); r.err != nil || r.outcomes[0].Class != pipeline.OK || r.outcomes[1].Class != pipeline.OK || r.outcomes[2].Class != pipeline.Fatal {
				t.Fatalf("%+v", r)
			}
			if r, err := s.client.Receive(t.Context(), connect.NewRequest(&leatv1.ReceiveRequest{Subscription: "sub", Wait: durationpb.New(0)})); err != nil || r.Msg.Events != nil || r.Msg.Lease != "" {
				t.Fatal(r, err)
			}
			for _, bad := range []*leatv1.AckRequest{{Lease: "x", All: true}, {Lease: one.Lease}} {
				if _, err := ack(bad); connect.CodeOf(err) != connect.CodeInvalidArgument {
					t.Fatal(err)
				}
			}
		})
	}
}
