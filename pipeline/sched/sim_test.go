package sched

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

var epoch = time.Unix(1_700_000_000, 0)

// client is one lane of the simulation.
type client struct {
	name  string
	class Class
	kind  Kind
	cost  func() time.Duration
	ahead int // grants that it wants at once
	// pause between the end of a grant and the next wish of one who asks for one at a time.
	pause func() time.Duration

	lane    *Lane
	granted int
	used    time.Duration
	since   time.Time // it wants something since then
	longest time.Duration
	waits   []int // grants to anybody between a wish and its grant
	wished  int
}

type event struct {
	at      time.Time
	c       *client
	done    bool
	charged float64
	cost    time.Duration
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any          { o := *e; x := o[len(o)-1]; *e = o[:len(o)-1]; return x }

// simulate runs clients over slots until the time is up; check, when set, runs after each grant.
func simulate(t testing.TB, slots int, clients []*client, total time.Duration, check func(s *Scheduler, now time.Time)) {
	t.Helper()
	s, now, q, used, grants := New(), epoch, &events{}, 0, 0
	want := func(c *client) {
		if c.lane.Wants() == 0 {
			c.since, c.wished = now, grants
		}
		s.Want(c.lane, max(1, c.ahead), now)
	}
	for _, c := range clients {
		c.lane = s.Lane(c.class, c.kind)
		c.lane.Owner = c
		want(c)
	}
	for now.Sub(epoch) < total {
		for used < slots {
			l, charged := s.Next(now)
			if l == nil {
				break
			}
			c := l.Owner.(*client)
			grants++
			c.granted++
			c.longest = max(c.longest, now.Sub(c.since))
			c.waits = append(c.waits, grants-c.wished-1)
			c.since, c.wished = now, grants
			used++
			cost := c.cost()
			heap.Push(q, event{now.Add(cost), c, true, charged, cost})
			if c.pause == nil {
				want(c)
			}
			if check != nil {
				check(s, now)
			}
		}
		if q.Len() == 0 {
			t.Fatal("nobody works and nobody gets a grant")
		}
		e := heap.Pop(q).(event)
		now = e.at
		if !e.done {
			want(e.c)
			continue
		}
		used--
		e.c.used += e.cost
		s.Done(e.c.lane, e.charged, Cost(e.cost, 0))
		if e.c.pause != nil {
			heap.Push(q, event{at: now.Add(e.c.pause()), c: e.c})
		}
	}
}

func costs(r *rand.Rand, mean time.Duration) func() time.Duration {
	return func() time.Duration { return time.Duration((0.2 + 1.6*r.Float64()) * float64(mean)) }
}

// used sums up what the clients that match used, as a share of all.
func used(clients []*client, match func(*client) bool) float64 {
	var all, some time.Duration
	for _, c := range clients {
		all += c.used
		if match(c) {
			some += c.used
		}
	}
	return float64(some) / float64(all)
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.Abs(got-want) > tolerance*want {
		t.Errorf("%s: got %.4f of all, want %.4f", what, got, want)
	}
}

// TestShares: classes, and their lanes, get 8:4:2:1 at least, and no more than that asks for; lanes of a class get
// alike, by cost, however unlike their grants cost and however many lanes a class has.
func TestShares(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		var clients []*client
		present := map[Class]int{}
		for c := range classes {
			n := r.IntN(5)
			if n == 0 {
				continue
			}
			present[c] = n
			for i := range n {
				mean := time.Duration(20+r.IntN(500)) * time.Microsecond
				clients = append(clients, &client{name: fmt.Sprint(c, i), class: c, cost: costs(r, mean), ahead: 1 + r.IntN(64)})
			}
		}
		if len(clients) == 0 {
			continue
		}
		simulate(t, 1+r.IntN(8), clients, 3*time.Second, nil)
		share := func(c Class) float64 { return used(clients, func(x *client) bool { return x.class == c }) }
		for c, n := range present {
			least := math.Inf(1) // of what it gets over its ratio to each lower class
			for d, m := range present {
				if want := weights[c] / weights[d]; want > 1 {
					got := share(c) / share(d)
					least = min(least, min(got, got/float64(n)*float64(m))/want)
				}
			}
			if !math.IsInf(least, 1) {
				near(t, fmt.Sprintf("seed %d: %v to what is below it, of %v", seed, c, present), least, 1, 0.06)
			}
			for _, x := range clients {
				if x.class == c {
					near(t, fmt.Sprintf("seed %d lane %s of %d", seed, x.name, n), used(clients, func(y *client) bool { return x == y }), share(c)/float64(n), 0.06)
				}
			}
		}
	}
}

// TestKinds: live first, and 5 % for what else wants something.
func TestKinds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, tc := range []struct{ lanes, want [kinds]float64 }{
		{[kinds]float64{3, 2, 5}, [kinds]float64{0.90, 0.05, 0.05}},
		{[kinds]float64{1, 0, 9}, [kinds]float64{0.95, 0, 0.05}},
		{[kinds]float64{0, 1, 3}, [kinds]float64{0, 0.95, 0.05}},
		{[kinds]float64{0, 0, 4}, [kinds]float64{0, 0, 1}},
	} {
		var clients []*client
		for k, n := range tc.lanes {
			for range int(n) {
				clients = append(clients, &client{class: Normal, kind: Kind(k), ahead: 8, cost: costs(r, time.Duration(50+r.IntN(400))*time.Microsecond)})
			}
		}
		simulate(t, 4, clients, 2*time.Second, nil)
		for k, want := range tc.want {
			near(t, fmt.Sprintf("%v, kind %d", tc.lanes, k), used(clients, func(c *client) bool { return c.kind == Kind(k) }), want, 0.06)
		}
	}
}

// TestAskingAnewIsNoAdvantage: one who asks for one grant at a time, and again at once, gets no more than its
// share; nor does one whose grants cost a hundred times as much as others'.
func TestAskingAnewIsNoAdvantage(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	sly := &client{class: Normal, cost: costs(r, 100*time.Microsecond), pause: func() time.Duration { return time.Microsecond }}
	fat := &client{class: Normal, cost: costs(r, 10*time.Millisecond), ahead: 4}
	clients := []*client{sly, fat}
	for range 6 {
		clients = append(clients, &client{class: Normal, cost: costs(r, 100*time.Microsecond), ahead: 16})
	}
	simulate(t, 2, clients, 6*time.Second, nil)
	if share := used(clients, func(c *client) bool { return c == sly }); share > 1.1/8 {
		t.Errorf("asking one by one brought %.3f of all, the share is %.3f", share, 1.0/8)
	}
	near(t, "large grants", used(clients, func(c *client) bool { return c == fat }), 1.0/8, 0.05)
}

// TestSeldomGoesFirst: who asks seldom is served before those that always want.
func TestSeldomGoesFirst(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	seldom := &client{class: Normal, cost: costs(r, 100*time.Microsecond), pause: func() time.Duration { return 50 * time.Millisecond }}
	clients := []*client{seldom}
	for range 100 {
		clients = append(clients, &client{class: Normal, cost: costs(r, 100*time.Microsecond), ahead: 16})
	}
	simulate(t, 2, clients, 5*time.Second, nil)
	for _, n := range seldom.waits[1:] {
		if n > 2 { // one by age, one that was begun
			t.Fatalf("%d grants went to others first", n)
		}
	}
	if len(seldom.waits) < 90 {
		t.Errorf("only %d grants", len(seldom.waits))
	}
}

// TestNobodyStarves: whatever others do, a lane waits no longer than Patience and eight grants for each lane.
func TestNobodyStarves(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 6))
		var clients []*client
		n := 2 + r.IntN(200)
		slow := 0.0
		for i := range n {
			mean := time.Duration(10+r.IntN(20_000)) * time.Microsecond
			slow = max(slow, 1.8*float64(mean))
			c := &client{name: fmt.Sprint(i), class: Class(r.IntN(int(classes))), kind: Kind(r.IntN(int(kinds))), cost: costs(r, mean), ahead: 1 + r.IntN(64)}
			if r.IntN(3) == 0 {
				c.pause = func() time.Duration { return time.Duration(r.IntN(50_000)) * time.Microsecond }
			}
			if i == 0 {
				c.class, c.kind = Low, Replay
			}
			clients = append(clients, c)
		}
		aged := 0 // grants since the one that waits longest has lost its patience
		var who *Lane
		simulate(t, 1+r.IntN(4), clients, 6*time.Second, func(s *Scheduler, now time.Time) {
			if r.IntN(16) == 0 {
				verify(t, s)
			}
			if s.oldest != who {
				who, aged = s.oldest, 0
			}
			if who != nil && now.Sub(who.since) >= Patience {
				if aged++; aged > AgeEvery {
					t.Fatalf("seed %d: the oldest of %d lanes was passed over %d times after %s", seed, n, aged, now.Sub(who.since))
				}
			}
			if r.IntN(100) == 0 {
				c := clients[r.IntN(n)]
				c.class, c.kind = Class(r.IntN(int(classes))), Kind(r.IntN(int(kinds)))
				s.Shift(c.lane, c.class, c.kind)
			}
		})
		bound := Patience + time.Duration(float64(AgeEvery*(n+8))*slow)
		for _, c := range clients {
			if c.longest > bound || c.granted == 0 {
				t.Errorf("seed %d: lane %s (%v) waited %s, the bound is %s; %d grants", seed, c.name, c.class, c.longest, bound, c.granted)
			}
		}
	}
}

// verify checks what always holds.
func verify(t *testing.T, s *Scheduler) {
	t.Helper()
	listed := 0
	for l := s.oldest; l != nil; l = l.younger {
		listed++
		if l.wants <= 0 || !l.turn.in || !l.class.turn.in {
			t.Fatal("a lane waits that does not compete")
		}
		if l.younger != nil && l.younger.since.Before(l.since) {
			t.Fatal("ages are out of order")
		}
	}
	in := 0
	for i := range s.classes {
		c := &s.classes[i]
		if c.empty() == c.turn.in {
			t.Fatal("a class competes without lanes, or the other way round")
		}
		for k := range c.kinds {
			in += count(t, &c.kinds[k])
		}
	}
	if in != s.waiting || listed != s.waiting {
		t.Fatalf("%d lanes wait, %d are in rings, %d in the list", s.waiting, in, listed)
	}
	count(t, &s.ring)
}

func count(t *testing.T, r *ring) int {
	t.Helper()
	fresh, old := 0, 0
	for x := r.fresh.first; x != nil; x = x.next {
		fresh++
	}
	if r.cur != nil {
		for x := r.cur; ; x = x.next {
			if x.next.prev != x || x.fresh || !x.in {
				t.Fatal("the ring is broken")
			}
			if old++; x.next == r.cur {
				break
			}
		}
	}
	if old != r.n {
		t.Fatalf("%d turns in a ring that says %d", old, r.n)
	}
	return old + fresh
}
