package client

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
)

// Handle calls f for each event of a subscription of the kind pull: those of one key one after the other, in order, those
// of different keys by up to so many workers at once. An event is done when f returns nil. It fails otherwise, and comes
// again as the subscription's retry policy says, before the later events of its key; errors made by [AsFatal] and
// [AsDefer] say something else. Handle returns when ctx ends or trying is useless, once all calls of f have returned; what
// fails after ctx has ended costs no attempt.
//
// Keys are compared byte by byte as they come. Where the database takes different bytes for the same key (a collation
// that ignores case, 1.0 and 1.00 as numeric keys), f may run for both at once: lock by what you write to there, or use
// one worker.
func (c *Client) Handle(ctx context.Context, subscription string, workers int, f func(context.Context, *Event) error) error {
	h := handling{f: f, limit: c.o.Window, waiting: map[uint64][]task{}, seed: maphash.MakeSeed()}
	h.changed.L = &h.mu
	var wg sync.WaitGroup
	for range max(workers, 1) {
		wg.Go(func() { h.work(ctx) })
	}
	rest := func() { h.close(); wg.Wait() }
	defer rest()
	defer context.AfterFunc(ctx, h.close)()
	for b, err := range c.batches(ctx, subscription, rest) {
		if err != nil {
			return err
		}
		b.park()
		left := new(atomic.Int64)
		left.Store(int64(len(b.Events)))
		for _, e := range b.Events {
			h.put(task{b, e, left, h.key(e)})
		}
	}
	return nil
}

// handling shares out events: to any worker, but of one key only one at a time.
type handling struct {
	f     func(context.Context, *Event) error
	seed  maphash.Seed
	limit int

	mu      sync.Mutex
	changed sync.Cond
	ready   []task
	waiting map[uint64][]task // by key, behind one that is ready or at work
	n       int               // of ready and waiting
	closed  bool
}

type task struct {
	b    *Batch
	e    *Event
	left *atomic.Int64 // of the batch
	key  uint64
}

// put waits while there is more than the window, which is so only when the server sends again what still waits here.
func (h *handling) put(t task) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.n >= h.limit && !h.closed {
		h.changed.Wait()
	}
	h.n++
	if behind, busy := h.waiting[t.key]; busy {
		h.waiting[t.key] = append(behind, t)
		return
	}
	h.waiting[t.key] = nil
	h.ready = append(h.ready, t)
	h.changed.Broadcast()
}

// take is the next task for a worker, after what it has done.
func (h *handling) take(done *task) (task, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if done != nil {
		if behind := h.waiting[done.key]; len(behind) > 0 {
			h.ready, h.waiting[done.key] = append(h.ready, behind[0]), behind[1:]
		} else {
			delete(h.waiting, done.key)
		}
	}
	for len(h.ready) == 0 && !h.closed {
		h.changed.Wait()
	}
	if h.closed {
		return task{}, false
	}
	t := h.ready[0]
	h.ready = h.ready[1:]
	if h.n--; h.n == h.limit-1 {
		h.changed.Broadcast() // put may wait
	}
	return t, true
}

// close lets the workers end; what still waits is left undone.
func (h *handling) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.changed.Broadcast()
}

// key of e: the routing key, by which the server keeps order, whatever the table.
func (h *handling) key(e *Event) uint64 {
	key := e.Proto.PartitionKey
	if len(key) == 0 {
		key = e.Proto.Key
	}
	var buf []byte
	for _, v := range key {
		buf, _ = proto.MarshalOptions{Deterministic: true}.MarshalAppend(buf, v) // cannot fail: it came as protobuf
	}
	return maphash.Bytes(h.seed, buf)
}

func (h *handling) work(ctx context.Context) {
	t, ok := h.take(nil)
	for ; ok; t, ok = h.take(&t) {
		if t.b.start(t.e) {
			h.one(ctx, t)
			t.b.stop()
		}
		if t.left.Add(-1) == 0 {
			_ = t.b.Ack() // too late: it comes again
		}
	}
}

func (h *handling) one(ctx context.Context, t task) {
	err := h.f(ctx, t.e)
	if err == nil {
		_ = t.b.AckEvent(t.e)
		return
	}
	if ctx.Err() != nil { // it may be why: the event comes again, without cost
		t.left.Add(1) // not all of the batch
		return
	}
	var v *verdict
	if !errors.As(err, &v) {
		v = &verdict{error: err}
	}
	mark, nackErr := t.b.nack(t.e, v.verdict, v.Error(), v.delay)
	if nackErr != nil {
		return
	}
	select { // until it is known which later events of the key are to be left alone
	case <-mark:
	case <-ctx.Done():
	}
}

type verdict struct {
	error
	verdict Verdict
	delay   time.Duration
}

func (v *verdict) Unwrap() error { return v.error }

// AsFatal makes an error of a Handle's function final: the event is a dead letter, and is not tried again. Nil stays nil.
func AsFatal(err error) error {
	if err == nil {
		return nil
	}
	return &verdict{error: err, verdict: Fatal}
}

// AsDefer makes it "not now": the event comes again after delay, without cost of an attempt. Nil stays nil.
func AsDefer(err error, delay time.Duration) error {
	if err == nil {
		return nil
	}
	return &verdict{error: err, verdict: Defer, delay: delay}
}
