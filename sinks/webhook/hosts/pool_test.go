package hosts_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/sinks/webhook/hosts"
)

type host = hosts.Host[int]

var start = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func newPool(seed uint64, o hosts.Options, ranks ...int) *hosts.Pool[int] {
	o.Rand = rand.New(rand.NewPCG(seed, 1)).IntN
	p := hosts.New[int](o)
	p.Set(list(ranks...))
	return p
}

func list(ranks ...int) (l []host) {
	for i, r := range ranks {
		l = append(l, host{ID: fmt.Sprint(i), Rank: r, Target: i})
	}
	return l
}

// fail ejects the hosts by failures of their own, as real requests would.
func fail(t *testing.T, p *hosts.Pool[int], now time.Time, c hosts.Cause, which ...int) {
	t.Helper()
	for range 1000 {
		h, _ := p.Pick(now)
		if slices.Contains(which, h.Target) {
			p.Done(h, now, c, "down")
		} else {
			p.Done(h, now, hosts.Fine, "")
		}
	}
}

func probed(ok bool) string {
	if ok {
		return ""
	}
	return "302 Found"
}

func counts(p *hosts.Pool[int], now time.Time, n int) map[int]int {
	got := map[int]int{}
	var picked []*host
	for range n {
		h, _ := p.Pick(now)
		got[h.Target]++
		picked = append(picked, h)
	}
	for _, h := range picked {
		p.Done(h, now, hosts.Fine, "")
	}
	return got
}

func ejected(p *hosts.Pool[int]) (n int) {
	list, _ := p.States()
	for _, s := range list {
		if s.Ejected {
			n++
		}
	}
	return n
}

func TestZonesSpillNothingWhileWell(t *testing.T) {
	p := newPool(1, hosts.Options{}, 0, 0, 1, 1, 2)
	if got := counts(p, start, 1000); got[0] != 500 || got[1] != 500 {
		t.Fatalf("all well: %v", got)
	}
	fail(t, p, start, hosts.Failed, 0)
	if got := counts(p, start, 1000); got[1] != 1000 {
		t.Fatalf("half of the zone: %v", got)
	}
	fail(t, p, start, hosts.Failed, 1)
	if got := counts(p, start, 1000); got[2] != 500 || got[3] != 500 {
		t.Fatalf("no zone: %v", got)
	}
	fail(t, p, start, hosts.Failed, 2, 3)
	if got := counts(p, start, 1000); got[4] != 1000 {
		t.Fatalf("no region: %v", got)
	}
	// The zone comes back by one request that goes well, and takes everything again.
	later := start.Add(34 * time.Second)
	counts(p, later, 1)
	if got := counts(p, later, 1000); got[0]+got[1] != 1000 {
		t.Fatalf("the zone is back: %v", got)
	}
}

func TestPanicUsesAll(t *testing.T) {
	p := newPool(1, hosts.Options{}, 0, 0, 0, 0)
	fail(t, p, start, hosts.Failed, 0, 1)
	if _, panicking := p.States(); panicking || ejected(p) != 2 {
		t.Fatal("half may be ejected")
	}
	fail(t, p, start, hosts.Failed, 0, 1, 2)
	if _, panicking := p.States(); !panicking || ejected(p) != 3 {
		t.Fatal("more than half is a panic")
	}
	fail(t, p, start, hosts.Unknown, 0, 1, 2, 3)
	got := counts(p, start, 1000)
	for i := range 4 {
		if got[i] < 200 {
			t.Fatalf("not all are used: %v", got)
		}
	}
	if ejected(p) != 0 {
		t.Fatal("replies took nobody back")
	}
}

// The time of ejection grows, ends in one trial at a time, and is forgotten.
func TestEjectionGrows(t *testing.T) {
	p := newPool(1, hosts.Options{}, 0, 0)
	fail(t, p, start, hosts.Failed, 0)
	now := start
	for _, want := range []time.Duration{30, 60, 120, 240, 300, 300} {
		s, _ := p.States()
		d := s[0].Until.Sub(now)
		if d < want*time.Second*9/10 || d > want*time.Second*11/10 {
			t.Fatalf("ejected for %s, want about %d s", d, want)
		}
		if got := counts(p, s[0].Until.Add(-1), 10); got[0] != 0 {
			t.Fatal("tried too early")
		}
		now = s[0].Until
		h, _ := p.Pick(now)
		if h.Target != 0 {
			t.Fatal("no trial")
		}
		if got := counts(p, now, 100); got[0] != 0 {
			t.Fatal("a second trial beside the first")
		}
		p.Done(h, now, hosts.Failed, "still")
	}
	s, _ := p.States()
	now = s[0].Until
	counts(p, now, 1)
	now = now.Add(11 * time.Minute)
	fail(t, p, now, hosts.Failed, 0)
	if s, _ = p.States(); s[0].Until.Sub(now) > 33*time.Second {
		t.Fatalf("ejected for %s after a long good time", s[0].Until.Sub(now))
	}
}

func TestProbes(t *testing.T) {
	for _, c := range []struct {
		name     string
		cause    hosts.Cause
		ok, deep bool
		back     bool // before its time
	}{
		{"connects again", hosts.Silent, true, false, true},
		{"still silent", hosts.Silent, false, false, false},
		{"bad replies, connects", hosts.Failed, true, false, false},
		{"bad replies, well by its own path", hosts.Failed, true, true, true},
	} {
		p := newPool(1, hosts.Options{}, 0, 0)
		fail(t, p, start, c.cause, 0)
		if due, next := p.Probes(start.Add(5*time.Second - 1)); len(due) != 0 || next != start.Add(5*time.Second) {
			t.Fatal(c.name, due, next)
		}
		now := start.Add(5 * time.Second)
		due, _ := p.Probes(now)
		if len(due) != 1 || due[0].Target != 0 {
			t.Fatal(c.name, due)
		}
		if again, _ := p.Probes(now.Add(time.Minute)); len(again) != 0 {
			t.Fatal(c.name, "two probes at once")
		}
		p.Probed(due[0], now, probed(c.ok), c.deep)
		if got := counts(p, now, 1); (got[0] == 1) != c.back || (ejected(p) == 0) != c.back {
			t.Errorf("%s: back %v", c.name, got)
		}
		if !c.ok { // its time being over does not help one who does not answer
			if got := counts(p, now.Add(time.Hour), 100); got[0] != 0 {
				t.Errorf("%s: tried although it does not answer", c.name)
			}
		}
	}
}

func TestSetKeepsState(t *testing.T) {
	p := newPool(1, hosts.Options{}, 0, 0, 0)
	fail(t, p, start, hosts.Failed, 1)
	gone, _ := p.Pick(start)
	for gone.Target != 0 {
		p.Done(gone, start, hosts.Unknown, "")
		gone, _ = p.Pick(start)
	}
	p.Set(list(0, 0, 0, 0)[1:])
	p.Done(gone, start, hosts.Failed, "")
	s, _ := p.States()
	if len(s) != 3 || s[0].ID != "1" || !s[0].Ejected || s[2].ID != "3" {
		t.Fatalf("%+v", s)
	}
	p.Set(nil)
	if h, full := p.Pick(start); h != nil || full {
		t.Fatal("a host of nowhere")
	}
}

// Random failures, replies and times against what must always hold.
func TestPoolProperties(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		var ranks []int
		for range 1 + r.IntN(8) {
			ranks = append(ranks, r.IntN(3))
		}
		o := hosts.Options{PerHost: r.IntN(4)}
		p := newPool(seed, o, ranks...)
		now := start
		var under []*host
		count := map[*host]int{}
		for range 500 {
			now = now.Add(time.Duration(r.ExpFloat64() * float64(time.Second)))
			before, panicking := p.States()
			h, full := p.Pick(now)
			switch {
			case h == nil && (!full || o.PerHost == 0):
				t.Fatalf("seed %d: no host although there are %d", seed, len(ranks))
			case h != nil:
				under, count[h] = append(under, h), count[h]+1
				if o.PerHost > 0 && count[h] > o.PerHost {
					t.Fatalf("seed %d: %d requests at one host", seed, count[h])
				}
				check(t, seed, before, panicking, h, now)
			}
			for range r.IntN(3) {
				if len(under) > 0 {
					i := r.IntN(len(under))
					h := under[i]
					under, count[h] = slices.Delete(under, i, i+1), count[h]-1
					p.Done(h, now, hosts.Cause(r.IntN(4)), "")
				}
			}
			due, _ := p.Probes(now)
			for _, h := range due {
				p.Probed(h, now, probed(r.IntN(2) == 0), r.IntN(2) == 0)
			}
		}
		for _, h := range under {
			p.Done(h, now, hosts.Fine, "")
		}
		s, _ := p.States()
		for _, h := range s {
			if h.Under != 0 {
				t.Fatalf("seed %d: %d requests are left over", seed, h.Under)
			}
		}
	}
}

// check says whether a host may be picked in a state: nearest rank that is well, no ejected one before its time.
func check(t *testing.T, seed uint64, before []hosts.State, panicking bool, h *host, now time.Time) {
	t.Helper()
	var all, out [3]int
	for _, s := range before {
		all[s.Rank]++
		if s.Ejected {
			out[s.Rank]++
		}
	}
	near := slices.IndexFunc([]int{0, 1, 2}, func(r int) bool { return all[r] > 0 && 2*out[r] <= all[r] })
	if panicking != (near < 0) {
		t.Fatalf("seed %d: panic %v, ejected %v of %v", seed, panicking, out, all)
	}
	s := before[h.Target]
	switch {
	case panicking:
	case s.Ejected && now.Before(s.Until):
		t.Fatalf("seed %d: an ejected host is used", seed)
	case s.Rank > near, s.Rank < near && !s.Ejected:
		t.Fatalf("seed %d: rank %d is used, rank %d is near and well", seed, s.Rank, near)
	}
}

// Who waits for room gets it in turn; one who gives up passes its turn on.
func TestGetWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(1, hosts.Options{PerHost: 1}, 0)
		first, err := p.Get(t.Context(), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				ctx := t.Context()
				if i == 1 {
					c, cancel := context.WithTimeout(ctx, time.Second)
					defer cancel()
					ctx = c
				}
				h, err := p.Get(ctx, time.Now)
				if (err != nil) != (i == 1) {
					t.Error(i, err)
				}
				order <- i
				if h != nil {
					time.Sleep(time.Minute)
					p.Done(h, time.Now(), hosts.Fine, "")
				}
			}()
			synctest.Wait()
		}
		time.Sleep(2 * time.Second)
		p.Done(first, time.Now(), hosts.Fine, "")
		if a, b, c := <-order, <-order, <-order; a != 1 || b != 0 || c != 2 {
			t.Fatal(a, b, c)
		}
		time.Sleep(time.Hour)
	})
}

func TestPickAllocatesNothing(t *testing.T) {
	p := newPool(1, hosts.Options{}, 0, 0, 1)
	if n := testing.AllocsPerRun(1000, func() {
		h, _ := p.Pick(start)
		p.Done(h, start, hosts.Fine, "")
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
