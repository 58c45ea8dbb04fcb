package sched

import (
	"runtime"
	"sync"
	"time"
)

// spell is the longest that a grant occupies its slot while others wait: one that is not back by then does not
// encode, it waits for a disk or for a peer that does not read. It is also the most CPU that is charged.
const spell = 10 * time.Millisecond

const slotsPerCore = 2

// DefaultSlots is how many grants are given at once by default: see docs/performance.md.
func DefaultSlots() int { return slotsPerCore * runtime.GOMAXPROCS(0) }

// Gate lets lanes share a number of slots: who asks while one is free gets it; else a Scheduler decides whose
// turn it is when one comes free. Safe for concurrent use.
type Gate struct {
	slots int

	mu    sync.Mutex
	s     *Scheduler
	used  int
	busy  occupied // the longest first
	timer *time.Timer
	armed bool
	gaps  gaps
	stats Stats
}

// NewGate returns a gate of that many slots.
func NewGate(slots int) *Gate { return &Gate{slots: max(1, slots), s: New()} }

// Stats of a gate.
type Stats struct {
	// Slots in all, Used of them, and Waiting lanes, now.
	Slots, Used, Waiting int
	// Granted since the start; Waited of them were not free when asked for; Overdue lost their slot.
	Granted, Waited, Overdue uint64
	// Classes tells the same of each class, in no order.
	Classes [classes]ClassStats
}

// ClassStats of the lanes of one class, since the start.
type ClassStats struct {
	Class Class
	// Granted in all; Waited of them were not free when asked for.
	Granted, Waited uint64
	// Wait is how long those waited, together. A lane that wants several waits for one at a time.
	Wait time.Duration
}

// Stats tells how busy the gate is.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	st := g.stats
	st.Slots, st.Used, st.Waiting = g.slots, g.used, g.s.Waiting()
	for i := range st.Classes {
		st.Classes[i].Class = Class(i)
	}
	return st
}

// Entry is a lane at a gate. Its methods are its owner's, one at a time, save for those of its grants. On a nil
// Entry every grant is free.
type Entry struct {
	gate   *Gate
	lane   *Lane
	wake   chan struct{}
	replay bool
	rest   bool // nothing is asked for; the owner's

	// Under gate.mu: grants that were not begun, what they were charged, and since when they wait for that.
	held    int
	charged float64
	since   stay
	resting bool // it waits for a gap
}

// Enter makes a lane; nil on a nil Gate. One that enters as a Replay is not to be shifted to another kind.
func (g *Gate) Enter(c Class, k Kind) *Entry {
	if g == nil {
		return nil
	}
	e := &Entry{gate: g, lane: g.s.Lane(c, k), wake: make(chan struct{}, 1), replay: k == Replay, rest: true}
	e.since.entry, e.lane.Owner = e, e
	return e
}

// Wake gets a message when a grant came that was asked for.
func (e *Entry) Wake() <-chan struct{} {
	if e == nil {
		return nil
	}
	return e.wake
}

// Shift changes what the lane does.
func (e *Entry) Shift(c Class, k Kind) {
	if e == nil {
		return
	}
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	e.gate.s.Shift(e.lane, c, k)
}

// Ask says that the lane could use n grants now, n > 0, and whether it has one. If not, Wake tells when it has.
func (e *Entry) Ask(n int, now time.Time) bool {
	if e == nil {
		return true
	}
	g := e.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	e.rest = false
	if e.lane.kind == Live {
		g.gaps.live = now
	}
	if e.replay {
		if e.held == 0 && g.rests(e, now) {
			return false
		}
		if now.Sub(g.gaps.live) < Calm {
			n = 1
		}
	}
	switch {
	case e.held > 0:
		g.s.Want(e.lane, n-e.held, now)
	case g.s.Waiting() == 0 && g.used < g.slots:
		g.hold(e, 0, now)
	default:
		g.s.Want(e.lane, n, now)
		g.fill(now)
		g.watch(now)
	}
	return e.held > 0
}

// Rest gives back what the lane has not begun; it wants nothing.
func (e *Entry) Rest(now time.Time) {
	if e == nil || e.rest {
		return
	}
	g := e.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	e.rest = true
	g.s.Want(e.lane, 0, now)
	g.giveBack(e)
	g.freed(now)
}

// freed gives what has come free to those that wait for it.
func (g *Gate) freed(now time.Time) {
	g.fill(now)
	g.wakeReplays(now)
}

// take counts n more slots in use by a lane; below zero: that many fewer.
func (g *Gate) take(replay bool, n int) {
	g.used += n
	if replay {
		g.gaps.used += n
	}
}

// signal wakes the owner.
func (e *Entry) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// hold gives e a grant.
func (g *Gate) hold(e *Entry, charged float64, now time.Time) {
	g.take(e.replay, 1)
	g.stats.Granted++
	g.stats.Classes[e.lane.class.name].Granted++
	if e.held == 0 {
		g.busy.add(&e.since, now)
	}
	e.held++
	e.charged += charged
}

// giveBack takes from e what it has not begun.
func (g *Gate) giveBack(e *Entry) {
	if e.held == 0 {
		return
	}
	g.take(e.replay, -e.held)
	g.s.Unused(e.lane, e.charged)
	e.held, e.charged = 0, 0
	g.busy.remove(&e.since)
}

// fill gives the free slots to those whose turn it is.
func (g *Gate) fill(now time.Time) {
	for g.used < g.slots && g.s.Waiting() > 0 {
		l, charged := g.s.Next(now)
		e := l.Owner.(*Entry)
		g.stats.Waited++
		c := &g.stats.Classes[l.class.name]
		c.Waited++
		c.Wait += max(0, l.waited)
		g.hold(e, charged, now)
		e.signal()
	}
}

// watch sees to it that no slot is kept from those that wait.
func (g *Gate) watch(now time.Time) {
	if g.armed || g.s.Waiting() == 0 || g.busy.first == nil {
		return
	}
	g.armed = true
	due := max(0, g.busy.first.since.Add(spell).Sub(now))
	if g.timer == nil {
		g.timer = time.AfterFunc(due, g.retake)
	} else {
		g.timer.Reset(due)
	}
}

// retake frees the slots of grants that are overdue.
func (g *Gate) retake() {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = false
	for g.busy.first != nil && g.s.Waiting() > 0 && now.Sub(g.busy.first.since) >= spell {
		g.stats.Overdue++
		if first := g.busy.first; first.entry != nil {
			g.giveBack(first.entry)
		} else {
			g.take(first.replay, -1)
			g.busy.remove(first)
		}
		g.freed(now)
	}
	g.watch(now)
}

// Grant is the right to encode and send one Delivery. The zero Grant is used up.
type Grant struct {
	entry   *Entry
	charged float64
	free    bool // nobody was kept waiting
	begun   time.Time
	stay    stay
}

// Begin uses one of the lane's grants; without one it goes ahead all the same.
func (e *Entry) Begin(t *Grant, now time.Time) {
	if e == nil {
		return
	}
	g := e.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	t.entry, t.begun, t.charged, t.free = e, now, 0, false
	if e.held == 0 {
		return // it was overdue
	}
	t.free = e.charged == 0
	t.charged = e.charged / float64(e.held)
	e.charged -= t.charged
	if e.held--; e.held == 0 {
		e.charged = 0
		g.busy.remove(&e.since)
	}
	t.stay.replay = e.replay
	g.busy.add(&t.stay, now)
}

// Begun is false once Done was called.
func (t *Grant) Begun() bool { return t.entry != nil }

// Done ends the grant: the Delivery of that many bytes is encoded and on its way. Again, it does nothing.
func (t *Grant) Done(bytes int, now time.Time) {
	e := t.entry
	if e == nil {
		return
	}
	g := e.gate
	cost := Cost(min(now.Sub(t.begun), spell), bytes)
	g.mu.Lock()
	defer g.mu.Unlock()
	t.entry = nil
	if t.free {
		g.s.Learn(e.lane, cost)
	} else {
		g.s.Done(e.lane, t.charged, cost)
	}
	if e.replay {
		g.rest(min(now.Sub(t.begun), spell), now)
	}
	if t.stay.in {
		g.take(e.replay, -1)
		g.busy.remove(&t.stay)
		g.freed(now)
	}
}

// stay is a grant's, or an entry's grants', in their slots.
type stay struct {
	prev, next *stay
	since      time.Time
	entry      *Entry // nil: of a grant that was begun
	replay     bool   // that one's
	in         bool
}

// occupied lists stays by age.
type occupied struct{ first, last *stay }

func (o *occupied) add(s *stay, now time.Time) {
	s.in, s.since, s.prev, s.next = true, now, o.last, nil
	if o.last != nil {
		o.last.next = s
	} else {
		o.first = s
	}
	o.last = s
}

func (o *occupied) remove(s *stay) {
	if !s.in {
		return
	}
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		o.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		o.last = s.prev
	}
	s.in, s.prev, s.next = false, nil, nil
}
