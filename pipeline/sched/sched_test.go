package sched

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestParseClass(t *testing.T) {
	for c := range classes {
		if got, err := ParseClass(c.String()); err != nil || got != c {
			t.Errorf("%v: %v, %v", c, got, err)
		}
	}
	if _, err := ParseClass("urgent"); err == nil {
		t.Error("urgent is no class")
	}
}

// TestRandomCalls: whatever is called in whatever order, grants go to who wants them, one for each wish.
func TestRandomCalls(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		s, now := New(), epoch
		lanes := make([]*Lane, 1+r.IntN(30))
		wants := map[*Lane]int{}
		for i := range lanes {
			lanes[i] = s.Lane(Class(r.IntN(int(classes))), Kind(r.IntN(int(kinds))))
		}
		type out struct {
			l       *Lane
			charged float64
		}
		var outs []out
		for range 3000 {
			now = now.Add(time.Duration(r.IntN(20_000)) * time.Microsecond)
			l := lanes[r.IntN(len(lanes))]
			switch r.IntN(5) {
			case 0:
				wants[l] = r.IntN(4)
				s.Want(l, wants[l], now)
			case 1:
				s.Shift(l, Class(r.IntN(int(classes))), Kind(r.IntN(int(kinds))))
			case 2:
				if n := len(outs); n > 0 {
					o := outs[n-1]
					outs = outs[:n-1]
					if r.IntN(4) == 0 {
						s.Unused(o.l, o.charged)
					} else {
						s.Done(o.l, o.charged, Cost(time.Duration(r.IntN(1e7)), r.IntN(1e6)))
					}
				}
			default:
				got, charged := s.Next(now)
				if got == nil {
					if s.Waiting() > 0 {
						t.Fatal("nobody goes, and somebody waits")
					}
					break
				}
				if wants[got]--; wants[got] < 0 || wants[got] != got.Wants() {
					t.Fatalf("seed %d: a grant to one who wants none", seed)
				}
				outs = append(outs, out{got, charged})
			}
			verify(t, s)
		}
	}
}

// TestDearGrantIsPaid: what a grant cost beyond what it was charged is paid before the lane goes on, by as much as
// it cost, not by what is learned of it for the next.
func TestDearGrantIsPaid(t *testing.T) {
	const usual, dear = firstCost, 200 * firstCost
	s := New()
	a, b := s.Lane(Normal, Live), s.Lane(Normal, Live)
	s.Want(a, 1<<30, epoch)
	s.Want(b, 1<<30, epoch)
	paid := false
	var free float64 // what b had until a came again
	for range 10_000 {
		l, charged := s.Next(epoch)
		cost := float64(usual)
		switch {
		case l == b:
			free += cost
		case paid: // within a turn of both
			if free < dear-4*usual || free > dear+4*usual {
				t.Fatalf("a had %v at once, then b %v", float64(dear), free)
			}
			return
		default:
			paid, free, cost = true, 0, dear
		}
		s.Done(l, charged, cost)
	}
	t.Fatal("a never came again")
}

// lanes50x64 are the lanes of 50 subscriptions of 64 ranges, all of which always want something.
func lanes50x64(s *Scheduler) []*Lane {
	var all []*Lane
	for i := range 50 * 64 {
		l := s.Lane(Class(i%int(classes)), Kind(i/64%int(kinds)))
		s.Want(l, 1<<30, epoch)
		all = append(all, l)
	}
	return all
}

// cycle is one grant, from the decision to the measured cost.
func cycle(s *Scheduler, now time.Time, i int) {
	l, charged := s.Next(now)
	s.Done(l, charged, 20_000+float64(i%7)*30_000)
}

func BenchmarkNext(b *testing.B) {
	s := New()
	lanes50x64(s)
	now := epoch
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now = now.Add(50 * time.Microsecond)
		cycle(s, now, i)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/event")
}

// BenchmarkGateSaturated: a whole grant through the gate, with 3,200 lanes that wait.
func BenchmarkGateSaturated(b *testing.B) {
	g := NewGate(4)
	entries := make([]*Entry, 50*64)
	now := epoch
	for i := range entries {
		entries[i] = g.Enter(Class(i%int(classes)), Live)
		entries[i].Ask(1<<30, now)
	}
	var t Grant
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(50 * time.Microsecond)
		e := g.busy.first.entry
		e.Ask(1<<30, now)
		e.Begin(&t, now)
		t.Done(100*180, now.Add(50*time.Microsecond))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/event")
}

// BenchmarkGateFree: a whole grant where nobody waits.
func BenchmarkGateFree(b *testing.B) {
	g := NewGate(4)
	e := g.Enter(Normal, Live)
	var t Grant
	now := epoch
	b.ReportAllocs()
	for b.Loop() {
		e.Ask(1, now)
		e.Begin(&t, now)
		t.Done(100*180, now)
	}
}

func TestNoAllocation(t *testing.T) {
	s := New()
	lanes50x64(s)
	i := 0
	if n := testing.AllocsPerRun(1000, func() { i++; cycle(s, epoch.Add(time.Duration(i)*time.Millisecond), i) }); n > 0 {
		t.Errorf("%v allocations per grant", n)
	}
	g := NewGate(4)
	e := g.Enter(Normal, Live)
	var gr Grant
	if n := testing.AllocsPerRun(1000, func() { e.Ask(1, epoch); e.Begin(&gr, epoch); gr.Done(100, epoch) }); n > 0 {
		t.Errorf("%v allocations per grant of the gate", n)
	}
}
