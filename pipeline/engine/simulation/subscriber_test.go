package simulation

import (
	"context"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
)

// mood of a subscriber: what it mostly answers.
type mood uint8

const (
	well mood = iota
	flaky
	congested
	down
)

// subscriber is one who is sent to, and what it remembers. The driver's goroutine owns it.
type subscriber struct {
	name     string
	cfg      deliver.Config // as configured; each process fills in the rest
	ordered  bool
	table    int // only events of this table; -1: all
	throttle *deliver.Throttle
	ratio    float64 // that it leaves
	mood     mood
	poison   map[int]bool // events it refuses until the end
	seeks    []seek

	sent, acked map[int]bool // by place in the history
	last        map[string]int
	barriers    []int
	rows        map[[2]int]int // the newest event of a row that was taken
	resolved    pipeline.Offset
	flying      []*flight
	storing     bool               // its loop waits for the store
	copied      map[string]*copied // by job
	brought     map[string]map[int]bool
	everParked  map[string]bool // keys
	buried      map[int]bool    // events that were ever dead letters
	waits       time.Time       // since when it waits for what should have ended
}

func (s *subscriber) selects(e *event) bool { return s.table < 0 || s.table == e.table }

// parks: dead letters are held, and delivered in the end.
func (s *subscriber) parks() bool {
	return s.cfg.Exhausted == deliver.ExhaustedPark && s.cfg.Order != deliver.OrderSource
}

// key that orders an event.
func (s *subscriber) key(e *event, i int) string {
	switch s.cfg.Order {
	case deliver.OrderSource:
		return "all"
	case deliver.OrderNone:
		return fmt.Sprint(i)
	}
	return e.key
}

// take is what a subscriber does with an event: rows by offset, as a redelivery may be older than what it has.
func (s *subscriber) take(e *event, i int) {
	row := [2]int{e.table, e.id} // id 0: the newest truncate
	if old, ok := s.rows[row]; !ok || old < i {
		s.rows[row] = i
	}
}

// carried is an event as it came.
type carried struct {
	offset        pipeline.Offset
	op            pipeline.Op
	table         string
	key           string
	before, after string
}

// flight is a Delivery that is out.
type flight struct {
	sub      *subscriber
	job      string // the replay that it is of
	number   uint64
	attempt  int
	reason   pipeline.Reason
	d        *pipeline.Delivery
	events   []carried
	at       []int // in the history; set when noticed
	outcomes pipeline.Outcomes
	// revoked: of these keys an earlier Delivery failed; the event from there on is refused too (Ordered).
	revoked map[string]int
}

func carry(d *pipeline.Delivery) []carried {
	var all []carried
	_ = d.Each(func(_ int, b *pipeline.Batch, i int, as pipeline.Op) error {
		e := &b.Events[i]
		c := carried{offset: b.Offset(i), op: e.Op, key: string(b.Bytes(e.Key)), before: string(b.Bytes(e.Before)), after: string(b.Bytes(e.After))}
		if as != pipeline.OpNone {
			c.op = as
		}
		if t := b.TableOf(i); t != nil {
			c.table = t.Name
		}
		all = append(all, c)
		return nil
	})
	return all
}

// endpoint is a subscriber as one process sees it.
type endpoint struct {
	p   *process
	sub *subscriber
}

// Deliver implements pipeline.Sink.
func (e endpoint) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	f := &flight{sub: e.sub, number: d.Number, attempt: d.Attempt, reason: d.Reason, d: d, events: carry(d), job: d.Replay}
	name := fmt.Sprintf("%s deliver %06d", e.sub.name, d.Number)
	if f.job != "" {
		name = fmt.Sprintf("%s copies of %s from %d to %d", e.sub.name, f.job, f.events[0].offset, f.events[len(f.events)-1].offset)
	}
	x := &call{kind: callDeliver, name: name, life: e.p.life, sub: e.sub, delivery: f}
	if err := e.p.w.calls.ask(ctx, x); err != nil {
		return nil, err
	}
	if e.p.w.plant.swallows && d.Number == 5 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return f.outcomes, nil
}

// Resolve implements pipeline.Resolver.
func (e endpoint) Resolve(ctx context.Context, o pipeline.Offset, _ time.Time) error {
	if f := e.p.w.plant.resolve; f != nil {
		o = f(o)
	}
	x := &call{kind: callResolve, name: e.sub.name + " resolve", life: e.p.life, sub: e.sub, offset: o}
	return e.p.w.calls.ask(ctx, x)
}

// Close implements pipeline.Sink.
func (e endpoint) Close() error { return nil }

// orderedEndpoint keeps order over several Deliveries.
type orderedEndpoint struct{ endpoint }

// Ordered implements pipeline.Ordered.
func (orderedEndpoint) Ordered() {}
