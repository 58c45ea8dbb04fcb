package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/leat-cdc/leat/client"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/pull"
)

// deliverOnce has the events sent and tells what became of each.
func deliverOnce(ctx context.Context, sink *pull.Sink, b *pipeline.Batch) <-chan pipeline.Outcomes {
	out := make(chan pipeline.Outcomes, 1)
	go func() {
		o, _ := sink.Deliver(ctx, &pipeline.Delivery{Subscription: "features", Source: "files", Number: 1, Attempt: 1, Events: len(b.Events),
			Runs: []pipeline.Run{{Batch: b, To: uint32(len(b.Events))}}})
		out <- o
	}()
	return out
}

// first takes one batch of a client, acks it, and tells what it had.
func first(t *testing.T, c *client.Client) (offsets []uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for b, err := range c.Pull(ctx, "features") {
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Ack(); err != nil {
			t.Error(err)
		}
		for _, e := range b.Events {
			offsets = append(offsets, e.Offset)
		}
		break
	}
	return offsets
}

// TestNobodyAcks: what is taken back gives its credit back, so it comes again as often as it takes.
func TestNobodyAcks(t *testing.T) {
	t.Parallel()
	sink, srv := serve(t, 200*time.Millisecond)
	c := connectTo(t, srv.URL, client.Options{Window: 4, Hold: time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { _ = deliverAll(ctx, sink, changes(3, 3), 3) }()
	var batches []*client.Batch
	for b, err := range c.Pull(ctx, "features") {
		if err != nil {
			t.Fatalf("%d batches: %v", len(batches), err)
		}
		if batches = append(batches, b); len(batches) == 6 {
			if err := batches[0].Ack(); !errors.Is(err, client.ErrLost) {
				t.Errorf("Ack of what was taken back: %v", err)
			}
			break
		}
	}
}

// TestALostStream: batches that wait here when their stream ends are not handed out.
func TestALostStream(t *testing.T) {
	t.Parallel()
	sink, srv := serve(t, 30*time.Second)
	c := connectTo(t, srv.URL, client.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	deliverOnce(ctx, sink, changes(6000, 6000))
	n := 0
	for b, err := range c.Pull(ctx, "features") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 1 {
			<-time.After(300 * time.Millisecond) // until more waits behind it
			srv.CloseClientConnections()
			for !b.Revoked(b.Events[0]) {
				<-time.After(time.Millisecond)
			}
			continue
		}
		if err := b.Ack(); err != nil {
			t.Fatalf("batch %d was lost when it was handed out", n)
		}
		break
	}
}

// TestACleanEnd: what was completed one by one arrives, however short before the end.
func TestACleanEnd(t *testing.T) {
	t.Parallel()
	const n = 70
	sink, srv := serve(t, 30*time.Second)
	c := connectTo(t, srv.URL, client.Options{})
	out := deliverOnce(t.Context(), sink, changes(n, n))
	for b, err := range c.Pull(t.Context(), "features") {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events[:n-1] {
			if err := b.AckEvent(e); err != nil {
				t.Error(err)
			}
			<-time.After(10 * time.Millisecond) // longer in all than what gathers
		}
		break
	}
	if again := first(t, c); !slices.Equal(again, []uint64{1000 + n - 1}) {
		t.Errorf("came again: %v", again)
	}
	<-out
}

// TestHandleEnds: the calls that run when ctx ends count, those that fail because of it cost no attempt.
func TestHandleEnds(t *testing.T) {
	t.Parallel()
	sink, srv := serve(t, 30*time.Second)
	c := connectTo(t, srv.URL, client.Options{})
	out := deliverOnce(t.Context(), sink, changes(2, 2))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started := make(chan bool, 2)
	go func() { <-started; <-started; cancel() }()
	err := c.Handle(ctx, "features", 2, func(ctx context.Context, e *client.Event) error {
		started <- true
		<-ctx.Done()
		if e.Offset == 1000 {
			<-time.After(50 * time.Millisecond)
			return nil
		}
		return ctx.Err()
	})
	if again := first(t, c); !errors.Is(err, context.Canceled) || !slices.Equal(again, []uint64{1001}) {
		t.Errorf("%v; came again: %v", err, again)
	}
	for i, o := range <-out {
		if o.Class != pipeline.OK { // a nack would have failed it
			t.Errorf("event %d: %+v", i, o)
		}
	}
}

// TestHandleASlowKey: a key whose call takes long holds up nobody else, however many events wait behind it.
func TestHandleASlowKey(t *testing.T) {
	t.Parallel()
	const n = 600
	sink, srv := serve(t, 30*time.Second)
	c := connectTo(t, srv.URL, client.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := deliverOnce(ctx, sink, changes(n, 2))
	others := make(chan bool, n)
	done := make(chan error, 1)
	go func() {
		done <- c.Handle(ctx, "features", 2, func(ctx context.Context, e *client.Event) error {
			if e.Offset == 1000 {
				for range n / 2 {
					select {
					case <-others:
					case <-ctx.Done():
						return fmt.Errorf("only %d others", len(others))
					}
				}
			} else if e.Offset%2 == 1 {
				others <- true
			}
			return nil
		})
	}()
	for i, o := range <-out {
		if o.Class != pipeline.OK {
			t.Fatalf("event %d: %+v", i, o)
		}
	}
	cancel()
	<-done
}

// TestHold: a batch that gets on is not taken away; of one that does not, what waits behind it goes to others too.
func TestHold(t *testing.T) {
	t.Parallel()
	sink, srv := serve(t, 400*time.Millisecond)
	c := connectTo(t, srv.URL, client.Options{Hold: 2 * time.Second, Window: 8})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := deliverOnce(ctx, sink, changes(8, 8))
	for b, err := range c.Pull(ctx, "features") {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events {
			<-time.After(400 * time.Millisecond)
			if err := b.AckEvent(e); err != nil {
				t.Fatalf("event %s: %v", e.ID, err)
			}
		}
		break
	}
	<-out

	hung := connectTo(t, srv.URL, client.Options{Hold: 500 * time.Millisecond})
	one, two := deliverOnce(ctx, sink, changes(1, 1)), make(<-chan pipeline.Outcomes)
	for b, err := range hung.Pull(ctx, "features") {
		if err != nil {
			t.Fatal(err)
		}
		if b.Events[0].Offset != 1000 {
			t.Errorf("%d came first", b.Events[0].Offset)
		}
		second := changes(1, 1)
		second.Base, second.Events[0].Hash = 2000, 7
		two = deliverOnce(ctx, sink, second)
		for name, out := range map[string]<-chan pipeline.Outcomes{"at work": one, "behind it": two} {
			select {
			case o := <-out:
				if len(o) != 1 || o[0].Class != pipeline.Retry {
					t.Errorf("%s: %+v", name, o)
				}
			case <-ctx.Done():
				t.Fatalf("what is %s is held for ever", name)
			}
		}
		break
	}
}

// TestAPanic in the loop ends the stream: others have its events at once.
func TestAPanic(t *testing.T) {
	t.Parallel()
	sink, srv := serve(t, 30*time.Second)
	c := connectTo(t, srv.URL, client.Options{})
	go func() { _ = deliverAll(t.Context(), sink, changes(1, 1), 1) }()
	func() {
		defer func() { _ = recover() }()
		for range c.Pull(t.Context(), "features") {
			panic("the loop's own")
		}
	}()
	first(t, c)
}

func TestVerdictsOfNil(t *testing.T) {
	if client.AsFatal(nil) != nil || client.AsDefer(nil, time.Second) != nil {
		t.Error("nil became an error")
	}
}
