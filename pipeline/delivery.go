package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Run is a row of consecutive events of one batch: Events[From:To].
type Run struct {
	Batch    *Batch
	From, To uint32
	// As, when not OpNone, is how the events are to be sent instead (a row that leaves the filter is
	// sent as a delete).
	As Op
}

// Reason says why a Delivery is made; its String stands in the Delivery-Reason header.
type Reason uint8

const (
	ReasonFirst Reason = iota
	ReasonRetry
	// ReasonReclaim: after a restart, what was in flight.
	ReasonReclaim
	ReasonRedrive
	ReasonReplay
)

// String is the reason as subscribers see it.
func (r Reason) String() string {
	return [...]string{"first", "retry", "reclaim", "redrive", "replay"}[r]
}

// Delivery is what a sink gets at once: events of one subscription, in offset order within each key.
// It and its batches stay valid until Deliver returns; they belong to the caller.
type Delivery struct {
	Subscription, Source string
	// Number counts the Deliveries of a subscription since it started, from 1, retries included: a sink
	// that keeps order over several Deliveries (Ordered) sends them by Number. Those of a replay aside have
	// none (0): of a key, one is out at a time.
	Number uint64
	// Attempt counts from 1.
	Attempt int
	Reason  Reason
	// Replay is the job that these are copies of; empty: they are none.
	Replay string
	// Deadline by which the sink gives up.
	Deadline time.Time
	Runs     []Run
	// Events and Bytes in it.
	Events, Bytes int
	// Ends, for a Committer: as far as is known no event of the last one's transaction follows. Aside: it is none of the
	// stream, but of what is redriven or taken back beside it.
	Ends, Aside bool
	// Handed, when set, is to be called by the sink once it only waits: for the network, the subscriber's answer, a
	// pace. What it did until then is CPU, and others take their turn. Never after Deliver returned; again does
	// no harm. A sink that never waits need not.
	Handed func()
}

// HandOver calls Handed, when it is set.
func (d *Delivery) HandOver() {
	if d.Handed != nil {
		d.Handed()
	}
}

// Each calls f for each event in order, i counting from 0 over the whole Delivery.
func (d *Delivery) Each(f func(i int, b *Batch, event int, as Op) error) error {
	n := 0
	for _, r := range d.Runs {
		for e := r.From; e < r.To; e++ {
			if err := f(n, r.Batch, int(e), r.As); err != nil {
				return err
			}
			n++
		}
	}
	return nil
}

// Class is what became of an event, or of a whole Delivery.
type Class uint8

const (
	// OK: done.
	OK Class = iota
	// Retry: failed, may succeed later; costs an attempt.
	Retry
	// Fatal: will never succeed: dead letter now.
	Fatal
	// Defer: not now; again after Delay, costs nothing.
	Defer
)

// String is the class as subscribers write it.
func (c Class) String() string { return [...]string{"ok", "retry", "fatal", "defer"}[c] }

// Outcome of one event.
type Outcome struct {
	Class Class
	// Delay before the next try; 0 = by the retry policy.
	Delay time.Duration
	// Reason, for people; no secrets, at most a few hundred bytes.
	Reason string
}

// Outcomes of a Delivery: nil = every event is done; else one per event.
type Outcomes []Outcome

// Sink delivers events to one subscriber.
type Sink interface {
	// Deliver sends the events and returns when it knows what became of them: an outcome per event, or
	// an error for the whole (a *DeliveryError says which kind; any other error is Retriable). It may
	// block until d.Deadline or ctx ends. Called concurrently for different keys, up to the
	// subscription's max_in_flight. Delivering the same events again must be harmless to
	// correctness: subscribers get at least once. It keeps nothing of d after it returns.
	Deliver(ctx context.Context, d *Delivery) (Outcomes, error)
	// Close ends what is open. No Deliver runs or follows. Idempotent.
	Close() error
}

// Ordered is the optional capability of a sink that may be given Deliveries of the same key while
// earlier ones are not acknowledged yet: it sends them by Number, and when an event fails, it fails every
// later event of the same key that it holds (the suffix) with Retry.
type Ordered interface {
	Sink
	// Ordered is only a mark.
	Ordered()
}

// Drainer is the optional capability of a sink whose Deliveries may wait long for somebody to take them.
type Drainer interface {
	// Drain true: until Drain false, Deliveries of which nothing is with the subscriber end at once, with
	// Defer; those that are with it may still end by themselves.
	Drain(on bool)
}

// Resolver is the optional capability of a sink to take leat.resolved events.
type Resolver interface {
	// Resolve tells the subscriber that everything below o is acked or listed. It may be told the
	// same o again, after an error or a restart, never a lower one.
	Resolve(ctx context.Context, o Offset, t time.Time) error
}

// Resumer is the optional capability of a sink that finds out by itself what was delivered before a crash.
type Resumer interface {
	// Resume tells where Deliveries go on, before the first of them: what lies below c and is not pending in it is
	// done. It never blocks. c.Pending is the caller's.
	Resume(c Cursor)
}

// Committer is the optional capability of a sink to take the transactions of the source as a whole, each of them all or
// nothing. It is given one Delivery at a time, in commit order, beside those that are Aside, each of which is a whole.
type Committer interface {
	Sink
	// Commit ends what Deliveries brought that did not end their last transaction (Delivery.Ends). An error says that
	// it is not known whether that is there, or that it is not: then Resume and all of it follow.
	Commit(ctx context.Context) error
	// Abort drops that instead; then Resume follows, or Close.
	Abort(ctx context.Context)
}

// DeliveryClass says how a whole Delivery failed.
type DeliveryClass uint8

const (
	// Retriable: an attempt was spent (5xx, timeout, reset, malformed reply).
	Retriable DeliveryClass = iota
	// Unavailable: the endpoint as a whole is not there (refused, 401, 403, 404, 3xx, 429, 503): no
	// attempt is spent; the subscription waits RetryAfter or backs off.
	Unavailable
	// TooLarge: the Delivery is too big: bisect; a single event is fatal.
	TooLarge
	// Gone: the subscriber asks to stop (410): pause the subscription, keep the events.
	Gone
	// Poison: every event is fatal (422 for a single event).
	Poison
	// Undone, of a Committer: what earlier Deliveries brought and was not committed is lost; it is brought again.
	Undone
)

var deliveryClassNames = [...]string{"retriable", "unavailable", "too_large", "gone", "poison", "undone"}

// String names the class.
func (c DeliveryClass) String() string { return deliveryClassNames[c] }

// DeliveryError is a Delivery that failed as a whole.
type DeliveryError struct {
	Class      DeliveryClass
	RetryAfter time.Duration
	// Congested: the endpoint takes less than it was given (429, 503, RESOURCE_EXHAUSTED).
	Congested bool
	// TimedOut: no answer came in time.
	TimedOut bool
	// Reason, for people: no secrets, at most a few hundred bytes.
	Reason string
	Err    error
}

// Error names class and reason.
func (e *DeliveryError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Class, e.Reason, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Class, e.Reason)
}

// Unwrap returns the cause.
func (e *DeliveryError) Unwrap() error { return e.Err }

// AsDeliveryError returns err as a *DeliveryError; what is none is Retriable.
func AsDeliveryError(err error) *DeliveryError {
	var d *DeliveryError
	if errors.As(err, &d) {
		return d
	}
	return &DeliveryError{Class: Retriable, Reason: err.Error()}
}
