package kafka

import (
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/segmentio/kafka-go/protocol"
)

// transactions are those that a tail's windows cut. A window is read forward, and windows come back to front: how a
// transaction ended stands in the same window, or in one that was read before.
type transactions struct {
	open map[int64][]txBatch // by producer: of the window that is read, without an end so far
	ends map[int64]bool      // by producer: the first end in what was read, true: committed
	here map[int64]bool      // the same of the window that is read
}

// txBatch is what a batch of a transaction tells.
type txBatch struct {
	offsets    []uint64
	high, done uint64
}

// Types of control records.
// https://kafka.apache.org/documentation/#controlbatch
const (
	markerAbort  = 0
	markerCommit = 1
)

// begin begins a window.
func (x *transactions) begin() { x.open, x.here, x.ends = nil, nil, maps.Clone(x.ends) }

func (x *transactions) put(producer int64, w txBatch) {
	if x.open == nil {
		x.open = map[int64][]txBatch{}
	}
	x.open[producer] = append(x.open[producer], w)
}

// marker takes the end of a transaction.
func (t *tail) marker(b *protocol.ControlBatch) error {
	rec, err := b.ReadControlRecord()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("a control record: %w", err)
	}
	if rec.Type != markerAbort && rec.Type != markerCommit {
		return nil
	}
	committed := rec.Type == markerCommit
	if _, ok := t.here[b.ProducerID]; !ok {
		if t.here == nil {
			t.here = map[int64]bool{}
		}
		t.here[b.ProducerID] = committed
	}
	t.end(b.ProducerID, committed)
	return nil
}

// end settles what a producer had open.
func (t *tail) end(producer int64, committed bool) {
	for _, w := range t.open[producer] {
		if !committed {
			continue
		}
		t.batchSeen(w.offsets, w.high)
		if w.done > 0 {
			t.done, t.reaches = max(t.done, w.done), true
		}
	}
	delete(t.open, producer)
}

// decide ends a window. What has no end in it ended in the windows behind it, or is open still: then it does not
// count. last: nothing behind it was read.
func (t *tail) decide(last bool) {
	for producer := range t.open {
		t.end(producer, !last && t.ends[producer])
	}
	if t.ends == nil {
		t.ends = map[int64]bool{}
	}
	for producer, committed := range t.here {
		if _, ok := t.ends[producer]; !ok || !last {
			t.ends[producer] = committed
		}
	}
	t.open, t.here = nil, nil
}
