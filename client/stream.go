package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/schemas/envelope/frames"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Pull takes the batches of a subscription of the kind pull, for ever: a stream that is lost is opened again, and what
// was not completed comes again. Complete each batch by [Batch.Ack], in any order; its lease is extended until then.
// The loop ends with an error when ctx does, and when trying again is useless (no such subscription, no right).
func (c *Client) Pull(ctx context.Context, subscription string) iter.Seq2[*Batch, error] {
	return c.batches(ctx, subscription, func() {})
}

// batches is Pull; rest is called when ctx has ended, while what was handed out can still be completed.
func (c *Client) batches(ctx context.Context, subscription string, rest func()) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		for tries := 0; ; tries++ {
			began := time.Now()
			took, more, err := c.one(ctx, subscription, rest, yield)
			if !more {
				return
			}
			if err = errors.Join(ctx.Err(), err); ctx.Err() != nil || permanent(err) || errors.Is(err, errDecode) {
				yield(nil, fmt.Errorf("leat: pull %s: %w", subscription, err))
				return
			}
			if took || time.Since(began) > time.Minute {
				tries = 0
			}
			d := c.backoff(tries)
			if c.o.OnRetry != nil {
				c.o.OnRetry(err, d)
			}
			_ = wait(ctx, d) // the next stream finds out that ctx has ended
		}
	}
}

// one stream, from its beginning to its end: err says why it ended.
func (c *Client) one(ctx context.Context, subscription string, rest func(), yield func(*Batch, error) bool) (took, more bool, err error) {
	s := c.open(ctx, subscription)
	defer func() { err = s.close() }() // also when the loop's body panics
	if took, more = s.hand(ctx, yield); ctx.Err() != nil {
		rest()
	}
	return took, more, nil
}

// errDecode: what came is not what this client knows. The same would come again.
var errDecode = errors.New("decode what the server sent; use a client of the server's version")

// session is one stream. What is under mu is shared by three goroutines: the user's, listen, speak.
type session struct {
	c      *Client
	stream *connect.BidiStreamForClient[leatv1.PullRequest, leatv1.PullResponse]
	end    context.CancelFunc
	shapes shapes // listen's alone
	wg     sync.WaitGroup

	mu       sync.Mutex
	arrived  chan struct{} // something is in queue, or err is set
	wake     chan struct{} // speak has something to say
	queue    []*Batch      // not handed out yet
	held     []*Batch      // neither completed nor given up, by lease
	upTo     uint64        // everything to this lease is completed
	say      []*leatv1.PullRequest
	events   uint32 // to give as credit
	bytes    uint64
	marks    []chan struct{} // one for each Extend that is not answered; nil: nobody waits for it
	extendAt time.Time
	moved    time.Time // the receiver last took or completed something, or something came to an empty queue
	err      error     // why the stream has ended
	closing  bool
}

// open begins a stream. Its errors show in hand.
func (c *Client) open(ctx context.Context, subscription string) *session {
	own, end := context.WithCancel(context.WithoutCancel(ctx)) // the last acks go out when ctx has ended
	s := &session{c: c, end: end, stream: c.pull.Pull(own), shapes: shapes{}, arrived: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	s.say = append(s.say, &leatv1.PullRequest{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: subscription, Consumer: c.o.Consumer}}})
	s.events, s.bytes = uint32(c.o.Window), uint64(c.o.WindowBytes)
	s.wg.Go(s.speak)
	s.wg.Go(s.listen)
	return s
}

// hand gives the batches to yield until the stream or ctx ends, or yield wants no more.
func (s *session) hand(ctx context.Context, yield func(*Batch, error) bool) (took, more bool) {
	for ctx.Err() == nil {
		s.mu.Lock()
		var b *Batch
		over := s.err != nil
		if over {
			s.queue = nil // these leases ended with the stream
		}
		if len(s.queue) > 0 {
			b, s.queue = s.queue[0], s.queue[1:]
			b.progressed()
		}
		s.mu.Unlock()
		switch {
		case b != nil:
			took = true
			if b.drop(); len(b.Events) > 0 && !yield(b, nil) {
				return took, false
			}
		case over:
			return took, true
		default:
			select {
			case <-ctx.Done():
			case <-s.arrived:
			}
		}
	}
	return took, true
}

// close sends what is completed, waits until the server has it, and returns why the stream ended.
func (s *session) close() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	signal(s.wake)
	late := time.AfterFunc(5*time.Second, s.end)
	s.wg.Wait()
	late.Stop()
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.err, io.EOF) {
		return errors.New("the server ended the stream")
	}
	return s.err
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fail ends the stream for all.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	marks := s.marks
	s.marks = nil
	s.mu.Unlock()
	for _, m := range marks {
		if m != nil {
			close(m)
		}
	}
	signal(s.arrived)
	signal(s.wake)
}

// lazy is how long speak lets completions gather: two small messages for each few hundred events would be a fifth of
// what the stream costs the server.
const lazy = 5 * time.Millisecond

// slow is how often the completed events of a batch that is still at work are said.
const slow = 500 * time.Millisecond

// speak sends: completions, credit, extensions.
func (s *session) speak() {
	defer func() { _ = s.stream.CloseRequest() }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		out, again, last := s.words(time.Now())
		for _, m := range out {
			if err := s.stream.Send(m); err != nil {
				if !errors.Is(err, io.EOF) { // else listen finds out why
					s.fail(err)
				}
				return
			}
		}
		if last {
			return
		}
		timer.Reset(again)
		select {
		case <-s.wake:
		case <-timer.C:
		}
		if s.patient() {
			time.Sleep(lazy)
		}
	}
}

// patient says whether what is to be said may wait for more.
func (s *session) patient() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closing && s.err == nil && len(s.say) == 0 && int(s.events) < s.c.o.Window/8 && int64(s.bytes) < s.c.o.WindowBytes/8
}

// words takes what is to be sent now, and says when to ask again, if nothing happens; last: and nothing after it.
func (s *session) words(now time.Time) (out []*leatv1.PullRequest, again time.Duration, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, 0, true
	}
	out, s.say = s.say, nil
	for _, b := range s.held {
		if done := b.progress(now, s.closing); done != nil {
			out = append(out, done)
		}
	}
	if s.upTo > 0 {
		out = append(out, &leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{UpToLease: s.upTo}}})
		s.upTo = 0
	}
	if s.closing {
		return out, 0, true
	}
	if s.events > 0 || s.bytes > 0 {
		out = append(out, &leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: s.events, Bytes: s.bytes}}})
		s.events, s.bytes = 0, 0
	}
	if len(s.held) == 0 {
		return out, time.Minute, false // batch wakes us
	}
	if ids := s.extend(now); len(ids) > 0 {
		s.marks = append(s.marks, nil)
		out = append(out, &leatv1.PullRequest{Message: &leatv1.PullRequest_Extend{Extend: &leatv1.Extend{Leases: ids}}})
	}
	return out, min(s.extendAt.Sub(now), slow), false
}

// extend lists the leases to prolong now: those at work, until Hold has passed since their last progress, and those that
// wait for their turn here, while the receiver moves at all.
func (s *session) extend(now time.Time) (ids []uint64) {
	if now.Before(s.extendAt) {
		return nil
	}
	first := now.Add(time.Hour) // deadline of those
	for _, b := range s.held {
		since := b.since
		if since.IsZero() {
			since = s.moved
		}
		if now.Sub(since) < s.c.o.Hold {
			ids = append(ids, b.lease)
			if b.deadline.Before(first) {
				first = b.deadline
			}
		}
	}
	s.extendAt = now.Add(s.c.third(now, first))
	return ids
}

// third of what is left until a deadline, within reason should the clocks differ.
func (c *Client) third(now, deadline time.Time) time.Duration {
	return min(max(deadline.Sub(now)/3, 100*time.Millisecond), 10*time.Second)
}

// listen takes what the server sends.
func (s *session) listen() {
	defer func() { _ = s.stream.CloseResponse() }()
	for {
		m, err := s.stream.Receive()
		if err == nil {
			err = s.take(m)
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *session) take(m *leatv1.PullResponse) error {
	switch m := m.Message.(type) {
	case *leatv1.PullResponse_Events:
		return s.batch(m.Events)
	case *leatv1.PullResponse_Resolved:
		if s.c.o.OnResolved != nil {
			s.c.o.OnResolved(m.Resolved.Offset, m.Resolved.Time.AsTime())
		}
	case *leatv1.PullResponse_Revoked:
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, b := range slices.Clone(s.held) { // revoke takes from it
			for _, o := range m.Revoked.Offsets {
				b.revoke(o)
			}
		}
	case *leatv1.PullResponse_Refused:
		s.mu.Lock()
		defer s.mu.Unlock()
		if i := slices.IndexFunc(s.held, func(b *Batch) bool { return b.lease == m.Refused.Lease }); i >= 0 && len(m.Refused.Offsets) == 0 {
			s.held[i].finish(false) // the lease is no more
		}
	case *leatv1.PullResponse_Extended:
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, b := range s.held {
			if slices.Contains(m.Extended.Leases, b.lease) {
				b.deadline = m.Extended.Deadline.AsTime()
			}
		}
		if len(s.marks) > 0 {
			if s.marks[0] != nil {
				close(s.marks[0])
			}
			s.marks = s.marks[1:]
		}
	}
	return nil // also to what is newer than this client
}

// batch decodes and queues a message's events.
func (s *session) batch(m *leatv1.Events) error {
	s.shapes.learn(m.Tables)
	b := &Batch{s: s, lease: m.Lease, epoch: m.Epoch, deadline: m.Deadline.AsTime()}
	for raw := range frames.Raw(m) {
		p := &leatv1.Event{}
		if err := proto.Unmarshal(raw, p); err != nil {
			return fmt.Errorf("%w: %w", errDecode, err)
		}
		e, err := s.shapes.event(m.Source, p)
		if err != nil {
			return fmt.Errorf("%w: %w", errDecode, err)
		}
		b.Events = append(b.Events, e)
		b.bytes += uint64(protowire.SizeTag(1) + protowire.SizeBytes(len(raw)))
	}
	frames.Release(m)
	b.all, b.size, b.open = b.Events, uint32(len(b.Events)), len(b.Events)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if at := now.Add(s.c.third(now, b.deadline)); len(s.held) == 0 || at.Before(s.extendAt) {
		s.extendAt = at
		signal(s.wake) // speak reckons with it
	}
	if len(s.queue) == 0 {
		s.moved = now
	}
	s.held, s.queue = append(s.held, b), append(s.queue, b)
	signal(s.arrived)
	return nil
}
