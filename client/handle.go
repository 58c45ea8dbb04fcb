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
// [AsDefer] say something else. Handle returns when ctx ends or trying is useless, once all calls of f have returned.
func (c *Client) Handle(ctx context.Context, subscription string, workers int, f func(context.Context, *Event) error) error {
	h := handling{f: f, tasks: make([]chan task, max(workers, 1)), seed: maphash.MakeSeed()}
	var wg sync.WaitGroup
	for i := range h.tasks {
		h.tasks[i] = make(chan task, 64)
		wg.Go(func() { h.work(ctx, h.tasks[i]) })
	}
	defer wg.Wait()
	defer func() {
		for _, t := range h.tasks {
			close(t)
		}
	}()
	for b, err := range c.Pull(ctx, subscription) {
		if err != nil {
			return err
		}
		left := new(atomic.Int64)
		left.Store(int64(len(b.Events)))
		for _, e := range b.Events {
			select {
			case h.tasks[h.worker(e)] <- task{b, e, left}:
			case <-ctx.Done(): // not all of the batch: Pull ends next
			}
		}
	}
	return nil
}

type handling struct {
	f     func(context.Context, *Event) error
	tasks []chan task
	seed  maphash.Seed
}

type task struct {
	b    *Batch
	e    *Event
	left *atomic.Int64 // of the batch
}

// worker of e's key: the routing key, by which the server keeps order, whatever the table.
func (h *handling) worker(e *Event) uint64 {
	key := e.Proto.PartitionKey
	if len(key) == 0 {
		key = e.Proto.Key
	}
	var buf []byte
	for _, v := range key {
		buf, _ = proto.MarshalOptions{Deterministic: true}.MarshalAppend(buf, v) // cannot fail: it came as protobuf
	}
	return maphash.Bytes(h.seed, buf) % uint64(len(h.tasks))
}

func (h *handling) work(ctx context.Context, tasks <-chan task) {
	for t := range tasks {
		if ctx.Err() == nil && !t.b.Revoked(t.e) {
			h.one(ctx, t)
		}
		if t.left.Add(-1) == 0 && ctx.Err() == nil {
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

// AsFatal makes an error of a Handle's function final: the event is a dead letter, and is not tried again.
func AsFatal(err error) error { return &verdict{error: err, verdict: Fatal} }

// AsDefer makes it "not now": the event comes again after delay, without cost of an attempt.
func AsDefer(err error, delay time.Duration) error {
	return &verdict{error: err, verdict: Defer, delay: delay}
}
