package sched

import "math"

// turn is a place in a ring.
type turn struct {
	prev, next *turn
	// balance of cost: below zero, the turn is over. Kept while it is out of the ring.
	balance float64
	weight  float64
	in      bool
	begun   bool    // its quantum was given
	fresh   bool    // in the list of those that go first
	given   float64 // the ring's, when it left
	lane    *Lane   // of which it is the turn; nil: of a class
	class   *class
}

// ring is deficit round robin among turns.
type ring struct {
	cur   *turn // whose turn it is; nil when old is empty
	n     int
	fresh struct{ first, last *turn } // each goes once before cur does
	// given is how much a turn of weight 1 has been given in all.
	given float64
}

// worstDebt is the most cost that is held against a turn: a second.
const worstDebt = 1e9

func (r *ring) empty() bool { return r.cur == nil && r.fresh.first == nil }

// join lets t compete. What was given meanwhile pays its debts; credit is kept for a round: for one that asks
// for one grant at a time, and goes on with its turn.
func (r *ring) join(t *turn, quantum float64) {
	if t.in {
		return
	}
	t.in = true
	meanwhile := r.given - t.given
	if t.balance < 0 {
		t.balance = min(0, t.balance+meanwhile*t.weight)
	} else if meanwhile >= quantum {
		t.balance = 0
	}
	if t.balance < 0 {
		r.queue(t)
		return
	}
	t.fresh = true
	t.prev, t.next = r.fresh.last, nil
	if t.prev != nil {
		t.prev.next = t
	} else {
		r.fresh.first = t
	}
	r.fresh.last = t
}

// queue puts t where its turn comes last.
func (r *ring) queue(t *turn) {
	r.n++
	if r.cur == nil {
		r.cur, t.prev, t.next = t, t, t
		return
	}
	t.prev, t.next = r.cur.prev, r.cur
	t.prev.next, t.next.prev = t, t
}

func (r *ring) leave(t *turn) {
	if !t.in {
		return
	}
	r.out(t)
	t.in, t.given = false, r.given
	if r.empty() { // nobody was kept waiting by what it owes
		r.given += worstDebt
	}
}

// out takes t from its list.
func (r *ring) out(t *turn) {
	switch {
	case t.fresh:
		if t.fresh = false; t.prev != nil {
			t.prev.next = t.next
		} else {
			r.fresh.first = t.next
		}
		if t.next != nil {
			t.next.prev = t.prev
		} else {
			r.fresh.last = t.prev
		}
	case t.next == t:
		r.cur, r.n = nil, 0
	default:
		t.prev.next, t.next.prev = t.next, t.prev
		if r.n--; r.cur == t {
			r.turnTo(t.next)
		}
	}
	t.prev, t.next = nil, nil
}

// turnTo begins a turn; the quantum is given when the turn is looked at.
func (r *ring) turnTo(t *turn) { r.cur = t; t.begun = false }

// pick returns whose turn it is; the ring is not empty.
func (r *ring) pick(quantum float64) *turn {
	if t := r.fresh.first; t != nil {
		return t
	}
	for looks := 0; ; looks++ {
		t := r.cur
		if !t.begun {
			t.begun = true
			t.balance += quantum * t.weight
			r.given += quantum / float64(r.n)
		}
		if t.balance >= 0 {
			return t
		}
		if looks >= r.n { // all owe more than a round pays
			r.forward(quantum)
			looks = 0
		}
		r.turnTo(t.next)
	}
}

// forward gives as many rounds at once as the least indebted needs.
func (r *ring) forward(quantum float64) {
	rounds := math.Inf(1)
	for t, i := r.cur, 0; i < r.n; t, i = t.next, i+1 {
		rounds = min(rounds, math.Ceil(-t.balance/(quantum*t.weight))-1)
	}
	if rounds <= 0 {
		return
	}
	for t, i := r.cur, 0; i < r.n; t, i = t.next, i+1 {
		t.balance += rounds * quantum * t.weight
	}
	r.given += rounds * quantum
}

// charge takes a cost from a turn, in the ring or out of it. Negative: too much was taken before.
func (r *ring) charge(t *turn, cost float64) {
	t.balance = max(t.balance-cost, -worstDebt)
	if t.fresh && t.balance < 0 {
		r.out(t)
		r.queue(t)
	}
}
