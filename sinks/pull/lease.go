package pull

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// owner is who holds leases: a Pull stream, or one Receive, whose lease is an owner of its own.
type owner struct {
	name  string
	since time.Time
	once  bool // of a Receive
	wakes chan struct{}

	// The rest is under Sink.mu.
	leases   []*lease // by id
	events   int64    // credit
	bytes    int64
	bounded  bool // by bytes
	known    map[*schemas.Table]struct{}
	resolved *leatv1.Resolved
	notices  []*leatv1.PullResponse
	revoked  map[string][]uint64 // offsets by reason, told together
}

// lease is what was sent at once.
type lease struct {
	id       uint64
	owner    *owner
	deadline time.Time
	parts    []part
	open     int
	ended    bool
	expired  bool
}

// part is a row of events of one item.
type part struct {
	it       *item
	from, to int
}

func (c *owner) signal() {
	select {
	case c.wakes <- struct{}{}:
	default:
	}
}

func (c *owner) revoke(offset uint64, reason string) {
	if c.once {
		return
	}
	if c.revoked == nil {
		c.revoked = map[string][]uint64{}
	}
	c.revoked[reason] = append(c.revoked[reason], offset)
	c.signal()
}

func (s *Sink) wake() {
	for c := range s.owners {
		c.signal()
	}
}

func timestamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

// join makes c an owner. With a second one keys are told apart by slot.
func (s *Sink) join(c *owner) {
	s.owners[c] = struct{}{}
	if len(s.owners) > 1 && s.slots == nil {
		s.slots = newSlots()
		for _, it := range s.queue {
			for i := range it.events {
				if e := &it.events[i]; e.state == leased {
					s.slots.take(e.hash, e.lease.owner)
				}
			}
		}
	}
}

// leave ends an owner: what it has not acked waits again, in its place.
func (s *Sink) leave(c *owner, why string) {
	if _, ok := s.owners[c]; !ok {
		return
	}
	delete(s.owners, c)
	n := 0
	for _, l := range slices.Clone(c.leases) {
		for _, p := range l.parts {
			if p.it.gone {
				continue
			}
			for i := p.from; i < p.to; i++ {
				e := &p.it.events[i]
				if e.state != leased || e.lease != l {
					continue
				}
				s.unlease(e)
				e.state = waiting
				p.it.waiting++
				p.it.first = min(p.it.first, i)
				n++
			}
		}
	}
	if s.draining {
		s.giveBack()
	}
	if n > 0 {
		s.unsent = 0
		s.left = fmt.Sprintf("client %q %s with %d events unacked", c.name, why, n)
	}
	if len(s.owners) <= 1 {
		s.slots = nil
	}
	s.wake()
}

// endLease forgets a lease with nothing open.
func (s *Sink) endLease(l *lease) {
	if l.ended {
		return
	}
	l.ended = true
	delete(s.leases, l.id)
	s.ended[l.id%uint64(len(s.ended))] = ending{l.id, l.expired}
	c := l.owner
	if i, ok := slices.BinarySearchFunc(c.leases, l.id, func(l *lease, id uint64) int { return int(int64(l.id - id)) }); ok {
		c.leases = slices.Delete(c.leases, i, i+1)
	}
	if c.once {
		s.leave(c, "is done")
	}
}

// ending is how a lease ended; kept of the last ones, to say why a completion comes too late.
type ending struct {
	id      uint64
	expired bool
}

// tooLate says why the lease of a Receive cannot be completed or extended.
func (s *Sink) tooLate(name string) string {
	epoch, id, ok := parseToken(name)
	switch {
	case ok && epoch != s.epoch:
		return fmt.Sprintf("lease %s is of an older epoch: the subscription was started again, and its events are sent again", name)
	case ok && id > 0:
		if e := s.ended[id%uint64(len(s.ended))]; e.id == id && e.expired {
			return fmt.Sprintf("lease %s expired, neither completed nor extended within %s: its events are sent again", name, s.o.Lease)
		} else if e.id == id {
			return fmt.Sprintf("lease %s has ended: each of its events was acked, nacked or revoked", name)
		}
	}
	return fmt.Sprintf("lease %s has ended: what of it was not acked is sent again", name)
}

// most events and bytes of one response; gRPC clients refuse messages above 4 MiB unless told otherwise.
const (
	mostEvents = 500
	mostBytes  = 1 << 20
)

// grant is what take found: its events are to be copied by copyTo before mu is given up, and sent outside of it.
type grant struct {
	parts    []part
	size     int // of the events, in bytes
	tables   []*schemas.Table
	lease    uint64
	deadline time.Time
	events   int
}

// copyTo appends the events: entries of Events.events. Called with mu held, as items go when they are acked.
func (g *grant) copyTo(dst []byte) []byte {
	for _, p := range g.parts {
		dst = p.it.g.AppendRange(dst, p.it.start(p.from), p.it.start(p.to))
	}
	return dst
}

// start returns where the i-th event begins among the item's bytes.
func (it *item) start(i int) int {
	if i == 0 {
		return 0
	}
	return int(it.g.Ends[i-1])
}

// take leases to c what it may have now, up to its credit. It reports false when there is nothing.
func (s *Sink) take(c *owner, g *grant) bool {
	g.parts, g.size, g.tables, g.events = nil, 0, g.tables[:0], 0
	most := min(c.events, mostEvents)
	if c.once {
		most = c.events
	}
	room := int64(mostBytes)
	if c.bounded {
		if c.bytes <= 0 {
			return false
		}
		room = min(room, c.bytes)
	}
	if most <= 0 || s.closed {
		return false
	}
	var l *lease
	behind := false // an item with waiting events that are not for c
	for n := s.unsent; n < len(s.queue) && int64(g.events) < most && int64(g.size) < room; n++ {
		it := s.queue[n]
		if it.waiting == 0 {
			if !behind {
				s.unsent = n + 1
			}
			continue
		}
		var full bool
		l, full = s.takeFrom(it, c, l, g, int(most), int(room))
		if full { // a smaller one behind it would overtake it, perhaps of the same key
			break
		}
		if it.waiting > 0 {
			behind = true
		}
	}
	if l == nil {
		return false
	}
	s.lastID++
	now := time.Now()
	l.id, l.owner, l.deadline = s.lastID, c, now.Add(s.o.Lease)
	s.leases[l.id] = l
	c.leases = append(c.leases, l)
	c.events -= int64(g.events)
	c.bytes -= int64(g.size)
	g.lease, g.deadline, g.parts = l.id, l.deadline, l.parts
	s.arm(l.deadline, now)
	return true
}

// takeFrom takes from one item what c may have, in rows as long as they go. full: there is no room for the next one.
func (s *Sink) takeFrom(it *item, c *owner, l *lease, g *grant, most, room int) (_ *lease, full bool) {
	took := false
	skipped := false
	for i := it.first; i < len(it.events) && g.events < most; {
		if it.events[i].state != waiting || s.slots != nil && !s.slots.free(it.events[i].hash, c) {
			skipped = skipped || it.events[i].state == waiting
			i++
			continue
		}
		start := it.start(i)
		j := i
		if l == nil {
			l = &lease{}
		}
		for j < len(it.events) && g.events < most {
			e := &it.events[j]
			if e.state != waiting || s.slots != nil && !s.slots.free(e.hash, c) {
				break
			}
			if size := int(it.g.Ends[j]) - start; g.events > 0 && g.size+size > room {
				break
			}
			e.state, e.lease = leased, l
			if s.slots != nil {
				s.slots.take(e.hash, c)
			}
			g.events++
			j++
		}
		if full = j == i; full {
			break
		}
		g.size += it.start(j) - start
		l.parts = append(l.parts, part{it, i, j})
		l.open += j - i
		it.waiting -= j - i
		took = true
		if !skipped {
			it.first = j
		}
		i = j
	}
	if took {
		for _, t := range it.tables {
			if _, ok := c.known[t]; !ok {
				c.known[t] = struct{}{}
				g.tables = append(g.tables, t)
			}
		}
	}
	return l, full
}

// arm sees to it that the timer runs at the latest at t.
func (s *Sink) arm(t, now time.Time) {
	if s.armed || s.closed {
		return // it looks for the earliest deadline when it fires
	}
	s.armed = true
	if s.timer == nil {
		s.timer = time.AfterFunc(t.Sub(now), s.expire)
		return
	}
	s.timer.Reset(t.Sub(now))
}

// expire ends the leases whose time is over: their events, and the later ones of their keys, are to be
// tried again.
func (s *Sink) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	if s.closed {
		return
	}
	now := time.Now()
	var over []*lease
	var next time.Time
	for _, l := range s.leases {
		if !l.deadline.After(now) {
			over = append(over, l)
		} else if next.IsZero() || l.deadline.Before(next) {
			next = l.deadline
		}
	}
	if len(over) > 0 {
		slices.SortFunc(over, func(a, b *lease) int { return int(int64(a.id - b.id)) })
		s.expireLeases(over)
	}
	if !next.IsZero() {
		s.arm(next, now)
	}
}

func (s *Sink) expireLeases(over []*lease) {
	reason := fmt.Sprintf("lease expired: neither acked nor extended within %s", s.o.Lease)
	expired := map[*lease]bool{}
	for _, l := range over {
		expired[l], l.expired = true, true
	}
	failed := map[uint64]bool{} // keys, from their first expired event on
	for _, it := range s.queue {
		for i := range it.events {
			e := &it.events[i]
			switch {
			case e.state == leased && expired[e.lease]:
				failed[e.hash] = true
				e.lease.owner.revoke(e.offset, reason)
				s.settle(it, i, pipeline.Outcome{Class: pipeline.Retry, Reason: reason})
			case e.state != done && failed[e.hash]:
				if e.state == leased {
					e.lease.owner.revoke(e.offset, reasonSuffix)
				}
				s.settle(it, i, pipeline.Outcome{Class: pipeline.Retry, Reason: reasonSuffix})
			}
		}
	}
	for _, it := range s.early {
		if it == nil {
			continue
		}
		for i := range it.events {
			if failed[it.events[i].hash] {
				s.settle(it, i, pipeline.Outcome{Class: pipeline.Retry, Reason: reasonSuffix})
			}
		}
	}
	s.sweep()
	s.wake()
}

// ack completes events of a lease: those at offsets, or all. It returns the offsets that are not in it.
func (s *Sink) ack(l *lease, offsets []uint64) (refused []uint64) {
	if len(offsets) == 0 {
		for _, p := range l.parts {
			if p.it.gone {
				continue
			}
			for i := p.from; i < p.to; i++ {
				if e := &p.it.events[i]; e.state == leased && e.lease == l {
					s.settle(p.it, i, pipeline.Outcome{})
				}
			}
		}
		return nil
	}
	at := cursor{}
	for _, o := range offsets {
		if it, i, ok := l.find(o, &at); ok {
			s.settle(it, i, pipeline.Outcome{})
		} else {
			refused = append(refused, o)
		}
	}
	return refused
}

// nack fails one event of a lease, and with it the later ones of its key.
func (s *Sink) nack(l *lease, offset uint64, o pipeline.Outcome) bool {
	it, i, ok := l.find(offset, &cursor{})
	if !ok {
		return false
	}
	hash := it.events[i].hash
	s.settle(it, i, o)
	s.suffix(slices.Index(s.queue, it), i, hash)
	return true
}

// cursor remembers where the last event was found, as offsets mostly come in order.
type cursor struct{ part, i int }

// find returns the event of that offset, if the lease still holds it.
func (l *lease) find(offset uint64, at *cursor) (*item, int, bool) {
	for n := range l.parts {
		k := (at.part + n) % len(l.parts)
		p := &l.parts[k]
		if p.it.gone {
			continue
		}
		from := p.from
		if n == 0 {
			from = max(from, at.i)
		}
		for i := from; i < p.to; i++ {
			if e := &p.it.events[i]; e.offset == offset && e.state == leased && e.lease == l {
				*at = cursor{k, i}
				return p.it, i, true
			}
		}
	}
	if at.i > 0 { // once more from the beginning
		*at = cursor{at.part, 0}
		return l.find(offset, at)
	}
	return nil, 0, false
}

// slots tell which owner has events of a key: by a part of the key's hash, so that no key needs an entry
// of its own; keys that share a slot go to the same owner.
type slots [1 << 14]struct {
	owner *owner
	count uint32
}

func newSlots() *slots { return new(slots) }

func slotOf(hash uint64) uint64 { return hash * 0x9e3779b97f4a7c15 >> (64 - 14) }

func (t *slots) free(hash uint64, c *owner) bool {
	s := &t[slotOf(hash)]
	return s.count == 0 || s.owner == c
}

func (t *slots) take(hash uint64, c *owner) {
	s := &t[slotOf(hash)]
	s.owner = c
	s.count++
}

func (t *slots) give(hash uint64) { t[slotOf(hash)].count-- }
