package pull

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Order of events among several clients.
type Order uint8

const (
	// ByKey: the events of one key are with one client at a time, in order.
	ByKey Order = iota
	// BySource: all events are with one client at a time.
	BySource
	// NoOrder: any event may be with any client; a failure revokes nothing else.
	NoOrder
)

// Options of a Sink.
type Options struct {
	// Source is the name of the events' source.
	Source string
	// Encoder of the events: encode.Proto.
	Encoder *encode.Encoder
	// Lease is how long a client may hold events without acking or extending; default 30 s.
	Lease time.Duration
	Order Order
	// Admit, when set, is asked before the events of a Delivery go to anyone; its error defers them. It stands here and
	// not before Deliver, as a Delivery that never comes would hold up those behind it.
	Admit func(*pipeline.Delivery) error
}

// Sink is one pull subscription: what Deliver brings waits in it until clients fetched and acked it.
//
// It implements pipeline.Ordered and pipeline.Resolver. While no client is there Deliver waits: see State.
// Delivery.Deadline does not count: the lease does, and it begins when events are sent.
type Sink struct {
	name  string
	o     Options
	hub   *Hub
	epoch uint64

	closing chan struct{}

	mu     sync.Mutex
	closed bool
	// draining: what is not leased is given back.
	draining bool
	// next is the Number of the Delivery to queue next; early holds those that came before their turn,
	// nil for those that were withdrawn.
	next  uint64
	early map[uint64]*item
	// queue holds the items in order; unsent is the index of the first that may have events to send.
	queue  []*item
	unsent int

	owners map[*owner]struct{}
	leases map[uint64]*lease
	lastID uint64
	ended  [1024]ending // by id, modulo
	slots  *slots       // nil while there is one owner
	timer  *time.Timer
	armed  bool
	left   string // who disconnected last with events unacked, for State
}

// event states.
const (
	waiting uint8 = iota
	leased
	done
)

// event is what the queue keeps of one event.
type event struct {
	offset uint64
	hash   uint64
	lease  *lease
	state  uint8
}

// item is one Delivery in the queue. Under Sink.mu, except while its Deliver builds it, and its memory
// once it is gone.
type item struct {
	*memory
	number uint64
	// first is the index of the first event that may be waiting; waiting and open count events.
	first, waiting, open int
	outcomes             pipeline.Outcomes       // nil while none failed
	failed               []uint64                // keys
	gone                 bool                    // out of the queue
	refused              *pipeline.DeliveryError // why no event of it goes to anyone now; nil: they may
	finished             chan struct{}           // closed when open is 0
}

// memory is the part of an item that is used again.
type memory struct {
	g      encode.Gathered
	events []event
	tables []*schemas.Table
}

var memories = sync.Pool{New: func() any { return new(memory) }}

// Ordered implements pipeline.Ordered.
func (s *Sink) Ordered() {}

// Deliver implements pipeline.Sink.
func (s *Sink) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	it := s.item(d)
	defer it.free() // the item is gone by then: nobody else looks at its memory
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, pipeline.ErrClosed
	}
	s.enqueue(it)
	if s.draining {
		s.giveBack()
	}
	s.mu.Unlock()
	d.HandOver()
	select {
	case <-it.finished:
		return it.outcomes, nil
	case <-ctx.Done():
	case <-s.closing:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if some := s.withdraw(it); some {
		return it.outcomes, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("pull: %w", ctx.Err())
	}
	return nil, pipeline.ErrClosed
}

// asideHash tells the keys of copies beside the live events from theirs: what fails there fails nothing here.
const asideHash = 0x9e3779b97f4a7c15

// item encodes the Delivery.
func (s *Sink) item(d *pipeline.Delivery) *item {
	it := &item{memory: memories.Get().(*memory), number: d.Number, finished: make(chan struct{})}
	if s.o.Admit != nil {
		if err := s.o.Admit(d); err != nil {
			it.refused = pipeline.AsDeliveryError(err)
		}
	}
	s.o.Encoder.Gather(d, &it.g)
	var last *schemas.Table
	for r := range d.Runs {
		run := &d.Runs[r]
		for i := run.From; i < run.To; i++ {
			e := &run.Batch.Events[i]
			ev := event{offset: uint64(run.Batch.Offset(int(i))), hash: e.Hash}
			switch s.o.Order {
			case BySource:
				ev.hash = 0
			case NoOrder:
				ev.hash = ev.offset
			}
			if d.Number == 0 && d.Replay != "" {
				ev.hash ^= asideHash
			}
			it.events = append(it.events, ev)
			if t := run.Batch.TableOf(int(i)); t != last && t != nil {
				it.addTable(t)
				last = t
			}
		}
	}
	it.open, it.waiting, it.first = len(it.events), len(it.events), 0
	return it
}

func (it *item) addTable(t *schemas.Table) {
	for _, have := range it.tables {
		if have == t {
			return
		}
	}
	it.tables = append(it.tables, t)
}

// free gives the memory back, unless it is large.
func (m *memory) free() {
	m.g.Release()
	clear(m.tables)
	clear(m.events)
	if cap(m.events) > 1<<14 {
		m.events = nil
	}
	m.tables, m.events = m.tables[:0], m.events[:0]
	memories.Put(m)
}

// settle sets the outcome of an event that is not done, and takes it out of whatever it is in.
func (s *Sink) settle(it *item, i int, o pipeline.Outcome) {
	e := &it.events[i]
	switch e.state {
	case done:
		return
	case leased:
		s.unlease(e)
	case waiting:
		it.waiting--
	}
	e.state = done
	it.open--
	if o.Class == pipeline.OK {
		return
	}
	if it.outcomes == nil {
		it.outcomes = make(pipeline.Outcomes, len(it.events))
	}
	it.outcomes[i] = o
	if !slices.Contains(it.failed, e.hash) {
		it.failed = append(it.failed, e.hash)
	}
}

// unlease takes a leased event out of its lease.
func (s *Sink) unlease(e *event) {
	l := e.lease
	e.lease = nil
	l.open--
	if s.slots != nil {
		s.slots.give(e.hash)
	}
	if l.open == 0 {
		s.endLease(l)
	}
}

// enqueue puts the item in its place. Called with mu held.
func (s *Sink) enqueue(it *item) {
	switch {
	case it.number == 0: // not numbered: as they come
		s.push(it)
		return
	case it.number < s.next: // the subscription was started again and counts from 1
		s.next = 1
	}
	if it.number != s.next {
		s.early[it.number] = it
		return
	}
	s.push(it)
	for s.next++; ; s.next++ {
		later, ok := s.early[s.next]
		if !ok {
			return
		}
		delete(s.early, s.next)
		if later != nil {
			s.push(later)
		}
	}
}

func (s *Sink) push(it *item) {
	for _, before := range s.queue { // what failed there must not be overtaken here
		for _, hash := range before.failed {
			s.suffixOf(it, 0, hash)
		}
	}
	s.queue = append(s.queue, it)
	for i := range it.events {
		if it.refused == nil || it.events[i].state == done {
			continue
		}
		s.settle(it, i, pipeline.Outcome{Class: pipeline.Defer, Delay: it.refused.RetryAfter, Reason: it.refused.Reason})
		s.suffix(len(s.queue)-1, i, it.events[i].hash)
	}
	for _, ee := range it.g.Errs {
		if it.events[ee.Event].state == done {
			continue
		}
		s.settle(it, ee.Event, pipeline.Outcome{Class: pipeline.Fatal, Reason: ee.Error()})
		s.suffix(len(s.queue)-1, ee.Event, it.events[ee.Event].hash)
	}
	if !s.sweep() {
		s.wake()
	}
}

// suffix fails every event of the key that stands behind event i of queue[at], also of Deliveries that
// have not had their turn.
func (s *Sink) suffix(at, i int, hash uint64) {
	from := i + 1
	for _, it := range s.queue[at:] {
		s.suffixOf(it, from, hash)
		from = 0
	}
	for _, it := range s.early {
		if it != nil {
			s.suffixOf(it, 0, hash)
		}
	}
}

func (s *Sink) suffixOf(it *item, from int, hash uint64) {
	for j := from; j < len(it.events); j++ {
		if e := &it.events[j]; e.hash == hash && e.state != done {
			if e.state == leased {
				e.lease.owner.revoke(e.offset, reasonSuffix)
			}
			s.settle(it, j, pipeline.Outcome{Class: pipeline.Retry, Reason: reasonSuffix})
		}
	}
}

const reasonSuffix = "an earlier event of the key failed"

// sweep takes finished items out of the queue; it reports whether there is nothing left to send.
func (s *Sink) sweep() (idle bool) {
	kept := s.queue[:0]
	idle = true
	for i, it := range s.queue {
		if i == s.unsent {
			s.unsent = len(kept)
		}
		if it.open == 0 {
			it.gone = true
			close(it.finished)
			continue
		}
		idle = idle && it.waiting == 0
		kept = append(kept, it)
	}
	clear(s.queue[len(kept):])
	s.queue = kept
	s.unsent = min(s.unsent, len(kept))
	return idle
}

// withdraw takes the item out; what was not done is deferred. some: something was done.
func (s *Sink) withdraw(it *item) (some bool) {
	if it.gone {
		return true
	}
	it.gone = true
	some = it.open < len(it.events)
	for i := range it.events {
		e := &it.events[i]
		if e.state == leased {
			e.lease.owner.revoke(e.offset, reasonStopped)
		}
		s.settle(it, i, pipeline.Outcome{Class: pipeline.Defer, Reason: reasonStopped})
	}
	if held, ok := s.early[it.number]; ok && held == it {
		s.early[it.number] = nil
	}
	for i, q := range s.queue {
		if q == it {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			if s.unsent > i {
				s.unsent--
			}
			break
		}
	}
	return some
}

// Drain implements pipeline.Drainer.
func (s *Sink) Drain(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining = on; on {
		s.giveBack()
	}
}

// giveBack defers every event that waits. Called with mu held.
func (s *Sink) giveBack() {
	for number, it := range s.early {
		if it != nil {
			s.deferWaiting(it)
			it.gone = true
			close(it.finished)
			s.early[number] = nil
		}
	}
	for _, it := range s.queue {
		s.deferWaiting(it)
	}
	s.sweep()
}

func (s *Sink) deferWaiting(it *item) {
	for i := range it.events {
		if it.events[i].state == waiting {
			s.settle(it, i, pipeline.Outcome{Class: pipeline.Defer, Reason: reasonStopped})
		}
	}
}

const reasonStopped = "the subscription was stopped"

// Close implements pipeline.Sink: streams end, waiting Receives return.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.closing)
	if s.timer != nil {
		s.timer.Stop()
	}
	s.hub.remove(s)
	return nil
}

// Resolve implements pipeline.Resolver.
func (s *Sink) Resolve(_ context.Context, o pipeline.Offset, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.owners {
		if !c.once {
			c.resolved = &leatv1.Resolved{Offset: uint64(o), Time: timestamp(t)}
			c.signal()
		}
	}
	return nil
}

// Client is one who is connected now.
type Client struct {
	Name  string
	Since time.Time
	// Leased is how many events it holds.
	Leased int
}

// State says in a few words why nothing moves, empty when a client is there, and who is connected.
func (s *Sink) State() (waits string, clients []Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.owners {
		n := 0
		for _, l := range c.leases {
			n += l.open
		}
		clients = append(clients, Client{c.name, c.since, n})
	}
	if len(clients) == 0 {
		waits = "no subscriber connected"
		if s.left != "" {
			waits += "; " + s.left
		}
	}
	return waits, clients
}
