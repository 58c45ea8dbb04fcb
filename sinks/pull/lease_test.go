package pull

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
)

// newSink is a hub's sink without a server: the service's methods are called as they are.
func newSink(o Options) (*service, *Sink) {
	h := NewHub()
	o.Source, o.Encoder = "files", encode.Proto(encode.Options{Source: "files", Form: pipetest.PGForm})
	return &service{h}, h.Sink("sub", o)
}

// delivery holds one insert per key, its path a letter.
func delivery(number uint64, base pipeline.Offset, keys ...int) *pipeline.Delivery {
	t := pipetest.FilesTable("files")
	var tx []pipetest.Change
	for i, k := range keys {
		tx = append(tx, pipetest.Change{Op: pipeline.OpInsert, Table: t, After: pipetest.Row{fmt.Sprint(k), "1", string(rune('a' + int(base%100) + i))}})
	}
	b := pipetest.Build(pipeline.Position{Counter: 1}, time.Unix(1_700_000_000, 0), tx)
	b.Base = base
	for i, k := range keys {
		b.Events[i].Hash = uint64(k)
	}
	return &pipeline.Delivery{Number: number, Runs: []pipeline.Run{{Batch: b, To: uint32(len(keys))}}, Events: len(keys)}
}

func (v *service) receive(t *testing.T, n uint32) (events, lease string) {
	t.Helper()
	r, err := v.Receive(t.Context(), connect.NewRequest(&leatv1.ReceiveRequest{Subscription: "sub", MaxEvents: n, Wait: durationpb.New(time.Second)}))
	if err != nil {
		t.Fatal(err)
	}
	if r.Msg.Events == nil {
		return "", ""
	}
	var decoded leatv1.Events
	if err := proto.Unmarshal(r.Msg.Events.ProtoReflect().GetUnknown(), &decoded); err != nil {
		t.Fatal(err)
	}
	for _, e := range decoded.Events {
		events += e.After.Values[2].GetText()
	}
	return events, r.Msg.Lease
}

func (v *service) ack(t *testing.T, lease string, offsets ...uint64) error {
	_, err := v.Ack(t.Context(), connect.NewRequest(&leatv1.AckRequest{Subscription: "sub", Lease: lease, Offsets: offsets, All: len(offsets) == 0}))
	return err
}

// A lease that nobody acks or extends ends on time; its events and the later ones of their keys are to be tried
// again, and late completions are refused.
func TestLeaseExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := newSink(Options{Lease: 10 * time.Second})
		ones, twos := make(chan pipeline.Outcomes, 1), make(chan pipeline.Outcomes, 1)
		start := time.Now()
		go func() {
			out, _ := s.Deliver(t.Context(), delivery(1, 100, 1, 2, 3))
			ones <- out
		}()
		synctest.Wait()
		go func() {
			out, _ := s.Deliver(t.Context(), delivery(2, 103, 1, 4))
			twos <- out
		}()
		synctest.Wait()
		events, first := v.receive(t, 2)
		if events != "ab" {
			t.Fatal(events)
		}
		if err := v.ack(t, first, 101); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		if _, err := v.Extend(t.Context(), connect.NewRequest(&leatv1.ExtendRequest{Subscription: "sub", Leases: []string{first}})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second) // 15 s: alive, for it was extended
		events, second := v.receive(t, 10)
		if events != "ce" { // "d" waits behind "a", whose key is leased
			t.Fatal(events)
		}
		if err := v.ack(t, second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second - time.Nanosecond)
		synctest.Wait()
		if len(ones) != 0 {
			t.Fatal("the lease ended early")
		}
		one := <-ones
		if took := time.Since(start); took != 16*time.Second || one[0].Class != pipeline.Retry || !strings.Contains(one[0].Reason, "lease expired") || one[1].Class != pipeline.OK || one[2].Class != pipeline.OK {
			t.Fatal(one)
		}
		two := <-twos
		if two[0].Class != pipeline.Retry || two[0].Reason != reasonSuffix || two[1].Class != pipeline.OK {
			t.Fatal(two)
		}
		for _, late := range []struct{ lease, why string }{{first, "expired, neither completed nor extended within 10s"}, {second, "each of its events was acked"}} {
			if err := v.ack(t, late.lease); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), late.why) {
				t.Fatal(err)
			}
			r, err := v.Extend(t.Context(), connect.NewRequest(&leatv1.ExtendRequest{Subscription: "sub", Leases: []string{late.lease}}))
			if err != nil || len(r.Msg.Refused) != 1 {
				t.Fatal(r, err)
			}
		}
		if len(s.leases)+len(s.owners)+len(s.queue)+len(s.early) != 0 {
			t.Fatal("something is left behind")
		}
		s.Close()
	})
}

// A lease of before a restart is refused, though its number may be in use again.
func TestOldEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := newSink(Options{})
		go s.Deliver(t.Context(), delivery(1, 100, 1))
		synctest.Wait()
		_, old := v.receive(t, 1)
		s.Close()
		s = v.h.Sink("sub", s.o)
		go s.Deliver(t.Context(), delivery(1, 100, 1))
		synctest.Wait()
		_, lease := v.receive(t, 1)
		if err := v.ack(t, old); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "older epoch") {
			t.Fatal(err)
		}
		if err := v.ack(t, lease); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.Close()
	})
}

// BySource: all is with one client at a time.
func TestOrderBySource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, s := newSink(Options{Order: BySource})
		go s.Deliver(t.Context(), delivery(1, 100, 1, 2, 3))
		synctest.Wait()
		events, lease := v.receive(t, 1)
		if other, _ := v.receive(t, 10); events != "a" || other != "" {
			t.Fatal(events, other)
		}
		v.ack(t, lease)
		if events, lease = v.receive(t, 10); events != "bc" {
			t.Fatal(events)
		}
		v.ack(t, lease)
		synctest.Wait()
		s.Close()
	})
}

// Deliver waits without a client as long as the caller lets it, and spends nothing.
func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newSink(Options{Lease: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		d := delivery(1, 100, 1)
		d.Deadline = time.Now().Add(time.Second)
		start := time.Now()
		out, err := s.Deliver(ctx, d)
		if out != nil || err == nil || time.Since(start) != time.Hour {
			t.Fatal(out, err, time.Since(start))
		}
		s.Close()
	})
}

// Whatever the sizes of events and credits are, no client gets an event before an earlier one of its key is taken, and
// one client alone gets all in the order of the queue.
func TestNothingOvertakesWhatHasNoRoom(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		_, s := newSink(Options{Lease: time.Hour})
		table := pipetest.FilesTable("files")
		all, base := 0, pipeline.Offset(1)
		for number := range uint64(5) {
			var tx []pipetest.Change
			for range 1 + r.IntN(6) {
				tx = append(tx, pipetest.Change{Op: pipeline.OpInsert, Table: table, After: pipetest.Row{fmt.Sprint(r.IntN(4)), "1", strings.Repeat("x", r.IntN(3)*100)}})
			}
			b := pipetest.Build(pipeline.Position{Counter: 1}, time.Unix(1_700_000_000, 0), tx)
			b.Base = base
			for i := range b.Events {
				b.Events[i].Hash = uint64(r.IntN(4))
			}
			base += pipeline.Offset(len(tx))
			all += len(tx)
			d := &pipeline.Delivery{Number: number + 1, Runs: []pipeline.Run{{Batch: b, To: uint32(len(tx))}}, Events: len(tx)}
			s.mu.Lock()
			s.enqueue(s.item(d))
			s.mu.Unlock()
		}
		clients := make([]*owner, 1+r.IntN(2))
		s.mu.Lock()
		for i := range clients {
			clients[i] = &owner{wakes: make(chan struct{}, 1), known: map[*schemas.Table]struct{}{}, bounded: true}
			s.join(clients[i])
		}
		order, last := uint64(0), map[uint64]uint64{}
		for turn := 0; all > 0; turn++ {
			c := clients[r.IntN(len(clients))]
			c.events, c.bytes = int64(1+r.IntN(4)), int64(1+r.IntN(400))
			var g grant
			if !s.take(c, &g) {
				if turn > 10_000 {
					t.Fatalf("seed %d: nothing is taken any more, %d events wait", seed, all)
				}
				continue
			}
			for _, p := range g.parts {
				for i := p.from; i < p.to; i++ {
					e := &p.it.events[i]
					if e.offset <= last[e.hash] || len(clients) == 1 && e.offset != order+1 {
						t.Fatalf("seed %d: %d of key %d comes behind %d, all stand at %d", seed, e.offset, e.hash, last[e.hash], order)
					}
					last[e.hash], order = e.offset, e.offset
					all--
					s.settle(p.it, i, pipeline.Outcome{Class: pipeline.OK})
				}
			}
			s.sweep()
		}
		s.mu.Unlock()
		s.Close()
	}
}
