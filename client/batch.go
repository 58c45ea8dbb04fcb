package client

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Batch is what came at once, under one lease.
type Batch struct {
	// Events in order per key. They belong to the receiver.
	Events []*Event

	s        *session
	lease    uint64
	epoch    uint64
	all      []*Event
	size     uint32
	bytes    uint64
	deadline time.Time        // under s.mu, as what follows
	since    time.Time        // it was handed out, or last got on; zero: it waits for its turn
	working  int              // Handle's calls that run
	states   map[uint64]state // by offset, of those that are not open
	done     []uint64         // completed one by one and not said yet
	saidAt   time.Time
	open     int  // events that have no state
	ended    bool // no more in held
	lost     bool // the server took some of it back
	over     bool // Ack was called
}

// state of an event that is not simply open.
type state uint8

const (
	acked state = iota + 1
	nacked
	revoked
)

// drop leaves out what was revoked before it was handed out.
func (b *Batch) drop() {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	switch {
	case b.ended:
		b.Events = nil
	case len(b.states) > 0:
		b.Events = slices.DeleteFunc(slices.Clone(b.all), func(e *Event) bool { return b.states[e.Offset] == revoked })
	}
}

// revoke marks an event that the server has taken back. Called with mu held.
func (b *Batch) revoke(offset uint64) {
	if b.states[offset] == 0 && slices.ContainsFunc(b.all, func(e *Event) bool { return e.Offset == offset }) {
		b.set(offset, revoked)
	}
}

func (b *Batch) set(offset uint64, to state) {
	if b.states == nil {
		b.states = map[uint64]state{}
	}
	if b.states[offset] == 0 {
		b.open--
	}
	b.states[offset] = to
	if to == revoked {
		b.lost = true
	}
	if b.open == 0 && !b.ended {
		b.finish(false)
	}
}

// progressed: it was handed out or has got on. Called with mu held.
func (b *Batch) progressed() {
	b.since = time.Now()
	b.s.moved = b.since
}

// park is called by Handle, where a batch is at work only while calls for its events run.
func (b *Batch) park() {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.since = time.Time{}
}

// start says whether Handle may work on e now; stop is to be called after that.
func (b *Batch) start(e *Event) bool {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.s.err != nil || b.states[e.Offset] == revoked || b.ended {
		return false
	}
	b.working++
	b.progressed()
	return true
}

func (b *Batch) stop() {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.working--; b.working == 0 {
		b.since = time.Time{}
	}
}

// Revoked reports that e is no more this client's: an earlier event of its key failed, or the lease ended. It will come
// again; do not act on it.
func (b *Batch) Revoked(e *Event) bool {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return b.s.err != nil || b.states[e.Offset] == revoked
}

// Ack completes the events that were not completed or failed one by one. It returns [ErrLost] when that came too late.
// It does not wait for the server: what it did not get, because the stream was lost just then, comes again.
func (b *Batch) Ack() error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.over || b.s.err != nil || b.ended && (b.lost || b.open > 0) {
		return ErrLost
	}
	b.over = true
	b.finish(true) // unless each event was completed or failed already
	return nil
}

// finish ends the batch; ack: what is open of it is completed. Called with mu held.
func (b *Batch) finish(ack bool) {
	s := b.s
	b.ended = true
	i := slices.Index(s.held, b)
	if i < 0 {
		return
	}
	s.held = slices.Delete(s.held, i, i+1)
	if !ack && len(b.done) > 0 {
		s.say = append(s.say, b.progress(time.Now(), true))
	}
	if ack && i == 0 {
		s.upTo = b.lease
	} else if ack {
		s.say = append(s.say, &leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{Lease: b.lease, Epoch: b.epoch}}})
	}
	s.events, s.bytes = s.events+b.size, s.bytes+b.bytes
	signal(s.wake)
}

// AckEvent completes one event.
func (b *Batch) AckEvent(e *Event) error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.ended || b.s.err != nil || b.states[e.Offset] == revoked {
		return ErrLost
	}
	if b.states[e.Offset] == 0 {
		b.progressed()
		b.done = append(b.done, e.Offset)
		b.set(e.Offset, acked)
	}
	return nil
}

// progress says which events were completed of a batch that is still at work: now and then, or for the last time.
func (b *Batch) progress(now time.Time, last bool) *leatv1.PullRequest {
	if len(b.done) == 0 || !last && now.Sub(b.saidAt) < slow {
		return nil
	}
	done := b.done
	b.done, b.saidAt = nil, now
	return &leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{Lease: b.lease, Offsets: done, Epoch: b.epoch}}}
}

// Verdict says what becomes of a failed event.
type Verdict int

// Verdicts.
const (
	Retry Verdict = iota // failed, may succeed later: costs an attempt
	Fatal                // will never succeed: dead letter now
	Defer                // not now: costs no attempt
)

// Nack fails one event: reason is shown by `leat parked`; delay before the next try, 0 is as the subscription's retry
// policy says. The later events of its key that were sent are revoked with it: do not act on them.
func (b *Batch) Nack(e *Event, v Verdict, reason string, delay time.Duration) error {
	_, err := b.nack(e, v, reason, delay)
	return err
}

// nack is Nack; mark is closed when everything that the nack revokes is known to be.
func (b *Batch) nack(e *Event, v Verdict, reason string, delay time.Duration) (mark chan struct{}, err error) {
	s := b.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.ended || s.err != nil || b.states[e.Offset] == revoked {
		return nil, ErrLost
	}
	n := &leatv1.Nack{Lease: b.lease, Offset: e.Offset, Verdict: map[Verdict]leatv1.Verdict{Retry: leatv1.Verdict_VERDICT_RETRY,
		Fatal: leatv1.Verdict_VERDICT_FATAL, Defer: leatv1.Verdict_VERDICT_DEFER}[v], Reason: reason, Epoch: b.epoch}
	if delay > 0 {
		n.Delay = durationpb.New(delay)
	}
	mark = make(chan struct{})
	s.marks = append(s.marks, mark)
	s.say = append(s.say, &leatv1.PullRequest{Message: &leatv1.PullRequest_Nack{Nack: n}},
		&leatv1.PullRequest{Message: &leatv1.PullRequest_Extend{Extend: &leatv1.Extend{Leases: []uint64{b.lease}}}}) // its answer comes behind what the nack revoked
	b.progressed()
	b.set(e.Offset, nacked)
	signal(s.wake)
	return mark, nil
}
