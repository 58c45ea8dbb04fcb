package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leat-cdc/leat/pipeline"
)

// Whole says how transactions of the source become transactions of Kafka; the zero value: they do not.
type Whole struct {
	On bool
	// Skip: an event that Kafka never takes is left out of its transaction, as a dead letter. Else all waits for it.
	Skip bool
	// Timeout after which Kafka ends a transaction that is open; default 5 min. The brokers' transaction.max.timeout.ms
	// bounds it.
	Timeout time.Duration
}

// open is what a sink has taken and not committed. Guarded by Sink.turn.
type open struct {
	of    *producer // whose transaction it stands in; nil: there is none
	first uint64    // its first event
	last  uint64    // the last event that was taken, whether committed or not
	aged  uint64    // first of the one that Kafka ended for its age; 0: none
	// refused is an event that Kafka refused when it was sent already, why, and until when that is believed.
	refused uint64
	reason  string
	until   time.Time
}

// wasRefused says, by a *refusal, that Kafka did not take that event a moment ago.
func (o *open) wasRefused(offset uint64, topic string) error {
	if o.refused != offset || time.Now().After(o.until) {
		return nil
	}
	return &refusal{topic: topic, err: errors.New(o.reason)}
}

// take waits until nobody else has a transaction at Kafka.
func (s *Sink) take(ctx context.Context) (giveBack func(), err error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.anew.Swap(false) { // all that was not committed comes again
		s.opened.of = nil
	}
	return func() { <-s.turn }, nil
}

// deliverWhole is Deliver with Options.Whole: one at a time, in commit order. What is taken is committed where a
// transaction of the source ends, with the Delivery or a later one.
func (s *Sink) deliverWhole(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	giveBack, err := s.take(ctx)
	if err != nil {
		return nil, s.classify(ctx, err)
	}
	defer giveBack()
	if d.Aside && s.opened.of != nil { // open or lost, which only who brought it is to be told
		out := make(pipeline.Outcomes, d.Events)
		for i := range out {
			out[i] = pipeline.Outcome{Class: pipeline.Defer, Delay: time.Second, Reason: "a transaction is open"}
		}
		return out, nil
	}
	p, err := s.open(ctx)
	if err != nil {
		return nil, s.classify(ctx, err)
	}
	defer func() {
		if p.ctx.Err() != nil {
			p.told.Store(true)
		}
	}()
	if of := s.opened.of; of != nil && of != p {
		s.opened.of = nil
		return nil, s.undone(of)
	}
	l := s.load(p, d)
	if err := l.pack(ctx, d); err != nil {
		return nil, s.classify(ctx, err)
	}
	bad := slices.IndexFunc(l.outcomes, func(o pipeline.Outcome) bool { return o.Class == pipeline.Fatal })
	if bad < 0 || s.o.Whole.Skip || d.Aside {
		return s.produceWhole(ctx, p, l, d)
	}
	reason := l.outcomes[bad].Reason
	l.free()
	before, ends := upTo(d, bad)
	if before == nil {
		return nil, &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: fmt.Sprintf("event %s: %s. Its transaction is not delivered without it, and none passes it; with exhausted: skip it is left out",
			s.eventID(offsetAt(d, bad)), reason)}
	}
	l = s.load(p, before)
	if err := l.pack(ctx, before); err != nil {
		return nil, s.classify(ctx, err)
	}
	if _, err := s.produceWhole(ctx, p, l, before); err != nil {
		return nil, err
	}
	out := make(pipeline.Outcomes, d.Events)
	for i := ends; i < len(out); i++ {
		out[i] = pipeline.Outcome{Class: pipeline.Defer, Delay: time.Millisecond, Reason: reason}
	}
	return out, nil
}

func (s *Sink) eventID(offset uint64) string { return fmt.Sprintf("%s-%d", s.o.Source, offset) }

// upTo is d up to the end of the last transaction before its n-th event, and how many events that are; nil: none.
func upTo(d *pipeline.Delivery, n int) (before *pipeline.Delivery, events int) {
	type place struct {
		b  *pipeline.Batch
		tx uint32
	}
	var last place
	_ = d.Each(func(i int, b *pipeline.Batch, ev int, _ pipeline.Op) error {
		at := place{b, uint32(b.Events[ev].Tx)}
		goesOn := b != last.b && at.tx == 0 && len(b.Txs) > 0 && b.Txs[0].Before > 0
		if i > 0 && i <= n && at != last && !goesOn {
			events = i
		}
		last = at
		return nil
	})
	if events == 0 {
		return nil, 0
	}
	c := *d
	c.Runs, c.Events, c.Ends = nil, events, true
	left := uint32(events)
	for _, r := range d.Runs {
		if r.To = min(r.To, r.From+left); r.To > r.From {
			c.Runs = append(c.Runs, r)
			left -= r.To - r.From
		}
	}
	return &c, events
}

// offsetAt is the offset of d's n-th event.
func offsetAt(d *pipeline.Delivery, n int) (o uint64) {
	_ = d.Each(func(i int, b *pipeline.Batch, ev int, _ pipeline.Op) error {
		if i == n {
			o = uint64(b.Offset(ev))
		}
		return nil
	})
	return o
}

// produceWhole sends a load within a transaction, and commits that when the Delivery ends one of the source's.
func (s *Sink) produceWhole(ctx context.Context, p *producer, l *load, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	if err := p.join(ctx, l); err != nil {
		return nil, s.classify(ctx, err)
	}
	known := slices.Clone(l.outcomes)
	clear(l.failed) // what follows a failure was not packed, and what is before it goes
	out, err := s.send(ctx, p, l, d.HandOver)
	if err != nil {
		return nil, err
	}
	if n := refusedLate(known, out); n >= 0 {
		s.opened.refused, s.opened.reason, s.opened.until = offsetAt(d, n), out[n].Reason, time.Now().Add(time.Minute)
		p.fail(errors.New("a record was refused: " + out[n].Reason))
		return nil, s.classify(ctx, p.err)
	}
	if !d.Aside {
		if s.opened.of == nil {
			s.opened.first = offsetAt(d, 0)
		}
		s.opened.last = offsetAt(d, d.Events-1)
	}
	if end := classAt(out, d.Events-1); !d.Aside && (!d.Ends || end != pipeline.OK && end != pipeline.Fatal) {
		s.opened.of = p
		return out, nil
	}
	if err := p.finish(ctx, true); err != nil {
		return nil, s.classify(ctx, err)
	}
	if s.opened.of = nil; !d.Aside {
		s.opened.aged = 0
		p.reached(s.opened.last)
	}
	return out, nil
}

func classAt(out pipeline.Outcomes, n int) pipeline.Class {
	if out == nil {
		return pipeline.OK
	}
	return out[n].Class
}

// refusedLate finds the first event that failed while it was sent; -1: none.
func refusedLate(known, out pipeline.Outcomes) int {
	for i := range out {
		if out[i].Class == pipeline.Fatal && classAt(known, i) == pipeline.OK {
			return i
		}
	}
	return -1
}

// undone says that what stands in an earlier producer's transaction is lost. Twice for its age: a person is asked.
func (s *Sink) undone(of *producer) error {
	var aged *agedError
	if errors.As(of.err, &aged) {
		if s.opened.aged == s.opened.first {
			s.opened.aged = 0
			return &pipeline.DeliveryError{Class: pipeline.Gone, Reason: fmt.Sprintf("the transaction that begins with event %s does not get through: twice %v", s.eventID(s.opened.first), aged)}
		}
		s.opened.aged = s.opened.first
	}
	return &pipeline.DeliveryError{Class: pipeline.Undone, Reason: "Kafka has taken back a transaction: it is brought again"}
}

// Commit implements pipeline.Committer.
func (s *Sink) Commit(ctx context.Context) error {
	giveBack, err := s.take(ctx)
	if err != nil {
		return s.classify(ctx, err)
	}
	defer giveBack()
	p := s.opened.of
	if p == nil {
		return nil
	}
	s.opened.of = nil
	if err := p.finish(ctx, true); err != nil {
		return s.classify(ctx, err)
	}
	s.opened.aged = 0
	p.reached(s.opened.last)
	return nil
}

// Abort implements pipeline.Committer.
func (s *Sink) Abort(ctx context.Context) {
	giveBack, err := s.take(ctx)
	if err != nil {
		return
	}
	defer giveBack()
	if p := s.opened.of; p != nil {
		s.opened.of = nil
		_ = p.finish(ctx, false) // else Kafka does, or the next producer
	}
}

// agedError says that Kafka ended a transaction because it was open for too long.
type agedError struct{ timeout time.Duration }

// Error has the cure.
func (e *agedError) Error() string {
	return fmt.Sprintf("Kafka ended it, as it was open for longer than transaction_timeout (%s): raise that, and transaction.max.timeout.ms of the brokers, then leat resume", e.timeout)
}

// aged tells who was fenced by another from who took too long.
func (p *producer) aged(err error) error {
	var fenced *FencedError
	limit := p.s.o.Whole.Timeout
	if begun := p.begun.Load(); begun > 0 && errors.As(err, &fenced) && time.Since(time.UnixMicro(begun)) >= limit {
		return &agedError{limit}
	}
	return err
}

// join adds the partitions that a load goes to to the transaction, which begins with the first of them.
func (p *producer) join(ctx context.Context, l *load) error {
	all, joins := map[string][]kafka.AddPartitionToTxn{}, []*lane(nil)
	for _, r := range l.runs {
		if r.lane != nil && len(r.records) > 0 && !p.in[r.lane] {
			name := r.lane.topic.name
			all[name] = append(all[name], kafka.AddPartitionToTxn{Partition: r.lane.partition})
			joins = append(joins, r.lane)
		}
	}
	if len(joins) == 0 {
		return nil
	}
	p.begun.CompareAndSwap(0, time.Now().UnixMicro())
	if err := p.add(ctx, all); err != nil {
		p.fail(err)
		return p.err
	}
	if p.in == nil {
		p.in = map[*lane]bool{}
	}
	for _, l := range joins {
		p.in[l] = true
	}
	return nil
}

// finish commits the transaction, if one is open, or aborts it. After an error it is not known which of them it was.
func (p *producer) finish(ctx context.Context, commit bool) error {
	if p.ctx.Err() != nil {
		return cmp.Or(p.err, p.ctx.Err())
	}
	if p.begun.Load() == 0 {
		return nil
	}
	if err := p.endTxn(ctx, commit); err != nil {
		p.fail(err)
		return p.err
	}
	p.begun.Store(0)
	for l := range p.in {
		l.base = l.next
	}
	clear(p.in)
	return nil
}

// reached notes that all up to the offset is committed, in whichever topic it was to go.
func (p *producer) reached(offset uint64) {
	for _, t := range *p.topics.Load() {
		t.done = max(t.done, offset)
	}
}
