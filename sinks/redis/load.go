package redis

import (
	"context"
	"errors"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/encode/records"
)

// load is one Delivery on its way, encoded.
type load struct {
	replay   string
	copies   bool // of what was delivered before: sent whatever is there
	entries  []entry
	body     []byte // keys and events, one behind the other
	outcomes pipeline.Outcomes
	done     chan struct{} // closed when err is known

	mu    sync.Mutex
	ended bool
	left  bool // nobody waits any more
	err   error
}

// entry is an event that goes to a stream.
type entry struct {
	stream       string
	offset, hash uint64
	op           pipeline.Op
	key, end     uint32 // where key and event end in the body
	keyed        bool
}

func newLoad(d *pipeline.Delivery) *load {
	return &load{replay: d.Replay, copies: d.Replay != "" || d.Reason == pipeline.ReasonReplay, entries: make([]entry, 0, d.Events), body: make([]byte, 0, d.Bytes+400*d.Events), done: make(chan struct{})}
}

// leave says that nobody waits for it any more; false: it has ended.
func (l *load) leave() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = !l.ended
	return l.left
}

// gone reports whether nobody waits for it any more.
func (l *load) gone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left
}

// settled reports whether it has ended.
func (l *load) settled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// end settles it; false: nobody waits for it any more.
func (l *load) end(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return !l.left
	}
	l.ended, l.err = true, err
	close(l.done)
	return !l.left
}

// parts are key and event of entry n.
func (l *load) parts(n int) (key, event []byte) {
	start := uint32(0)
	if n > 0 {
		start = l.entries[n-1].end
	}
	e := &l.entries[n]
	return l.body[start:e.key], l.body[e.key:e.end]
}

const reasonSuffix = "an earlier event of the key failed"

// pack encodes the Delivery. What cannot be encoded is settled, with the later events of its key. An error is about the
// Delivery as a whole.
func (s *Sink) pack(ctx context.Context, l *load, d *pipeline.Delivery) error {
	w := s.o.Encoder.Writer(ctx, d.Replay)
	defer w.Close()
	failed := map[uint64]bool{}
	set := func(i int, hash uint64, o pipeline.Outcome) {
		if l.outcomes == nil {
			l.outcomes = make(pipeline.Outcomes, d.Events)
		}
		l.outcomes[i], failed[hash] = o, true
	}
	var table *schemas.Table
	var topic *records.Topic
	var name string
	return d.Each(func(n int, b *pipeline.Batch, i int, as pipeline.Op) error {
		ev := &b.Events[i]
		if failed[ev.Hash] {
			set(n, ev.Hash, pipeline.Outcome{Class: pipeline.Retry, Reason: reasonSuffix})
			return nil
		}
		if t := b.TableOf(i); topic == nil || t != table {
			table, name = t, s.o.Stream.Name(s.o.Source, s.o.Subscription, t, nil)
			topic = s.o.Encoder.Topic(name)
		}
		start := len(l.body)
		body, rec, err := w.Append(l.body, topic, b, i, as)
		if ee := (*encode.EventError)(nil); errors.As(err, &ee) {
			l.body = l.body[:start]
			set(n, ev.Hash, pipeline.Outcome{Class: pipeline.Fatal, Reason: err.Error()})
			return nil
		}
		if err != nil {
			return err
		}
		l.body = body
		op := ev.Op
		if as != pipeline.OpNone {
			op = as
		}
		l.entries = append(l.entries, entry{stream: name, offset: uint64(b.Offset(i)), hash: ev.Hash, op: op,
			key: uint32(start + max(rec.Key, 0)), end: uint32(len(l.body)), keyed: rec.Key >= 0})
		return nil
	})
}
