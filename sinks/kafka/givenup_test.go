package kafka

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-cdc/leat/pipeline"
)

// hanging makes connections that take nothing while it is on.
type hanging struct {
	mu   sync.Mutex
	on   chan struct{} // nil: it is off
	some chan struct{} // closed when something was held up
	free int           // bytes that still go through
}

func (h *hanging) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	return &hangingConn{c, h}, err
}

type hangingConn struct {
	net.Conn
	h *hanging
}

// Write sends, and while it hangs ends as a connection whose answer never comes.
func (c *hangingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.h.wait(n)
	return n, err
}

func (h *hanging) wait(n int) {
	h.mu.Lock()
	on := h.on
	if h.free -= n; h.free >= 0 {
		on = nil
	}
	if on != nil && h.some != nil {
		close(h.some)
		h.some = nil
	}
	h.mu.Unlock()
	if on != nil {
		<-on
	}
}

// left is how many bytes still go through.
func (h *hanging) left() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.free
}

// hang begins after that many bytes more; what it returns is closed when something hangs.
func (h *hanging) hang(free int) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.on, h.some, h.free = make(chan struct{}), make(chan struct{}), free
	return h.some
}

func (h *hanging) letGo() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.on)
	h.on = nil
}

// A Delivery that is given up on while Kafka may have taken it is found in the log: again does not mean twice.
func TestGivenUp(t *testing.T) {
	at := broker(t)
	o := options(t, at)
	h := &hanging{}
	o.dialer = h.dial
	s := newSink(t, o)
	deliver(t, s, deliveryOf(t, 1000, inserts(1, 11)...))
	some := h.hang(0)
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	d := deliveryOf(t, 1010, inserts(11, 21)...)
	go func() { done <- second(s.Deliver(ctx, d)) }()
	<-some
	cancel()
	if err := <-done; err == nil {
		t.Fatal("given up on and done")
	}
	h.letGo()
	deliver(t, s, d)
	deliver(t, s, deliveryOf(t, 1020, inserts(21, 31)...))
	got := offsetsOf(t, read(t, o.ID, kgo.SeedBrokers(at)).until(30))
	for i, g := range got {
		if g != pipeline.Offset(1000+i) {
			t.Fatalf("%v", got)
		}
	}
	if n := written(t, s, o.ID); n != 10 && n != 20 {
		t.Errorf("%d records were written behind the 10", n)
	}
}

// A Delivery of several batches of which the last one hangs comes again as a whole: what was acked of it does not.
func TestGivenUpWithinAPartition(t *testing.T) {
	at := broker(t)
	o := options(t, at)
	h := &hanging{}
	o.dialer = h.dial
	s := newSink(t, o)
	deliver(t, s, deliveryOf(t, 1000, inserts(0, 1)...))
	changes := inserts(1, 21)
	for i := range changes {
		changes[i].After[2] = strings.Repeat("x", 140<<10) // seven in a batch
	}
	d := deliveryOf(t, 1001, changes...)
	ctx, cancel := context.WithCancel(testContext(t))
	some, done := h.hang(5<<19), make(chan error, 1)
	go func() { done <- second(s.Deliver(ctx, d)) }()
	<-some
	cancel()
	if err := <-done; err == nil {
		t.Fatal("given up on and done")
	}
	h.letGo()
	deliver(t, s, d)
	deliver(t, s, deliveryOf(t, 1021, inserts(21, 22)...))
	once(t, o, at, 1000, 1022)
}

// One partition hangs: what the others took, of this Delivery and of those beside it, does not come again.
func TestGivenUpOverPartitions(t *testing.T) {
	at := broker(t)
	o := options(t, at)
	o.Create.Partitions = 3
	s := newSink(t, o)
	deliver(t, s, deliveryOf(t, 1000, inserts(0, 1)...))
	slow := (*s.producer.topics.Load())[o.ID].lanes[0]
	slow.running = true // so it says, but nobody does
	ctx, cancel := context.WithCancel(testContext(t))
	both := []*pipeline.Delivery{deliveryOf(t, 1001, inserts(1, 31)...), deliveryOf(t, 1031, inserts(31, 61)...)}
	done := make(chan error, 2)
	taken := 1
	for _, d := range both {
		go func() { done <- second(s.Deliver(ctx, d)) }()
		for id := range d.Events {
			if b := d.Runs[0].Batch; partitionOf([]byte(fmt.Sprintf(`{"id":%d}`, int(b.Offset(id))-1000)), 3) != 0 {
				taken++
			}
		}
	}
	if got := read(t, o.ID, kgo.SeedBrokers(at)).until(taken); len(got) != taken {
		t.Fatalf("%d records, want %d", len(got), taken)
	}
	cancel()
	for range both {
		if err := <-done; err == nil {
			t.Fatal("given up on and done")
		}
	}
	for _, d := range both {
		deliver(t, s, d)
	}
	deliver(t, s, deliveryOf(t, 1061, inserts(61, 62)...))
	once(t, o, at, 1000, 1062)
}

// once looks whether the offsets are all there, none twice.
func once(t *testing.T, o Options, at string, from, to pipeline.Offset) {
	t.Helper()
	got := offsetsOf(t, read(t, o.ID, kgo.SeedBrokers(at)).until(int(to-from)))
	slices.Sort(got)
	for i, g := range got {
		if g != from+pipeline.Offset(i) {
			t.Fatalf("%v", got)
		}
	}
}
