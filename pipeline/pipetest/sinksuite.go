package pipetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// SinkRig is a sink with the receiver behind it.
type SinkRig struct {
	// Sink of source "files".
	Sink pipeline.Sink
	// Received returns the offsets of the events that arrived so far, in order of arrival, repeats included.
	Received func() []pipeline.Offset
	// Hang makes the receiver take nothing until the test ends; nil where that cannot be.
	Hang func()
	// Once: the receiver drops what it has got before.
	Once bool
}

// TestSink is the conformance suite of pipeline.Sink. open returns a fresh sink with a receiver that takes
// everything; the suite closes the sink.
func TestSink(t *testing.T, open func(t *testing.T) SinkRig) {
	for name, test := range map[string]func(*testing.T, SinkRig){
		"events arrive, in order":                   sinkArrives,
		"the same again does no harm":               sinkAgain,
		"nothing is kept once Deliver returned":     sinkKeepsNothing,
		"a Delivery ends with its context":          sinkEnds,
		"several Deliveries at once, and two Close": sinkConcurrent,
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t)
			defer func() {
				if err := r.Sink.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			test(t, r)
		})
	}
}

// delivery makes a Delivery of n inserts from offset o on; free gives its batch back.
func delivery(number uint64, o pipeline.Offset, n int) (d *pipeline.Delivery, free func()) {
	var changes []Change
	for i := range n {
		changes = append(changes, insert(int(o)+i))
	}
	b := Build(position(1), suiteEpoch, changes)
	b.Base = o
	for i := range b.Events {
		e := &b.Events[i]
		e.Key, e.Hash = b.PutString(fmt.Sprintf("%08d", int(o)+i)), uint64(o)+uint64(i)
	}
	return &pipeline.Delivery{Subscription: "suite", Source: "files", Number: number, Attempt: 1, Deadline: time.Now().Add(time.Minute),
		Runs: []pipeline.Run{{Batch: b, From: 0, To: uint32(n)}}, Events: n, Bytes: len(b.Arena)}, b.Release
}

func deliverAll(t *testing.T, s pipeline.Sink, d *pipeline.Delivery) {
	t.Helper()
	out, err := s.Deliver(suiteContext(t), d)
	if err != nil {
		t.Fatalf("deliver: %v", err)
	}
	for i, o := range out {
		if o.Class != pipeline.OK {
			t.Fatalf("event %d: %s: %s", i, o.Class, o.Reason)
		}
	}
}

func offsets(from pipeline.Offset, n int) (all []pipeline.Offset) {
	for i := range n {
		all = append(all, from+pipeline.Offset(i))
	}
	return all
}

func sinkArrives(t *testing.T, r SinkRig) {
	for i, n := range []int{1, 2, 500} {
		d, free := delivery(uint64(i+1), pipeline.Offset(1000*(i+1)), n)
		before := len(r.Received())
		deliverAll(t, r.Sink, d)
		free()
		if got := r.Received()[before:]; !slices.Equal(got, offsets(pipeline.Offset(1000*(i+1)), n)) {
			t.Fatalf("%d events arrived as %v", n, got)
		}
	}
}

func sinkAgain(t *testing.T, r SinkRig) {
	for attempt := 1; attempt <= 2; attempt++ {
		d, free := delivery(uint64(attempt), 1000, 3)
		d.Attempt = attempt
		if attempt > 1 {
			d.Reason = pipeline.ReasonRetry
		}
		deliverAll(t, r.Sink, d)
		free()
	}
	want := offsets(1000, 3)
	if !r.Once {
		want = append(want, want...)
	}
	if got := r.Received(); !slices.Equal(got, want) {
		t.Fatalf("arrived: %v", got)
	}
}

func sinkKeepsNothing(t *testing.T, r SinkRig) {
	for i := range 20 { // under -race a released batch is overwritten: what is read later arrives broken
		d, free := delivery(uint64(i+1), pipeline.Offset(1000+10*i), 10)
		deliverAll(t, r.Sink, d)
		free()
	}
	if got := r.Received(); !slices.Equal(got, offsets(1000, 200)) {
		t.Fatalf("%d events arrived, want 200 in order", len(got))
	}
}

func sinkEnds(t *testing.T, r SinkRig) {
	if r.Hang == nil {
		return
	}
	r.Hang()
	ctx, cancel := context.WithCancel(suiteContext(t))
	done := make(chan error, 1)
	d, free := delivery(1, 1000, 2)
	defer free()
	go func() {
		out, err := r.Sink.Deliver(ctx, d)
		if err == nil && len(out) == 0 {
			err = fmt.Errorf("says that all is done")
		} else {
			err = nil
		}
		done <- err
	}()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Deliver outlives its context")
	}
}

func sinkConcurrent(t *testing.T, r SinkRig) {
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			d, free := delivery(uint64(i+1), pipeline.Offset(1000*(i+1)), 20)
			defer free()
			if out, err := r.Sink.Deliver(suiteContext(t), d); err != nil || len(out) > 0 {
				t.Errorf("deliver: %v %v", out, err)
			}
		})
	}
	all.Wait()
	got := r.Received()
	slices.Sort(got)
	var want []pipeline.Offset
	for i := range 8 {
		want = append(want, offsets(pipeline.Offset(1000*(i+1)), 20)...)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%d events arrived, want %d", len(got), len(want))
	}
	if err := r.Sink.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}
