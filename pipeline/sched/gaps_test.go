package sched

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pulse sends one Delivery each so often, as long as ctx lives, and tells how long the longest wait for a grant was.
func pulse(ctx context.Context, g *Gate, each, cpu time.Duration) (worst time.Duration) {
	e := g.Enter(Normal, Live)
	tick := time.NewTicker(each)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return worst
		}
		asked := time.Now()
		for !e.Ask(1, time.Now()) {
			<-e.Wake()
		}
		worst = max(worst, time.Since(asked))
		var t Grant
		e.Begin(&t, time.Now())
		time.Sleep(cpu)
		t.Done(100, time.Now())
		e.Rest(time.Now())
	}
}

// TestReplaysGoInGaps: beside what is live, replays take little, one at a time, whatever they could; alone, all there is.
func TestReplaysGoInGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(4) // two cores
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a := &subscriber{class: High, kind: Replay, limit: 4, cpu: 200 * time.Microsecond, rtt: 100 * time.Microsecond}
		b := &subscriber{kind: Replay, limit: 4, cpu: 200 * time.Microsecond, rtt: 100 * time.Microsecond}
		var wg sync.WaitGroup
		var worst time.Duration
		wg.Go(func() { worst = pulse(ctx, g, 3*time.Millisecond, 100*time.Microsecond) })
		wg.Go(func() {
			<-time.After(4 * time.Millisecond)
			serve(g, time.Second-4*time.Millisecond, a, b)
		})
		wg.Go(func() { // never two at once
			for ctx.Err() == nil {
				time.Sleep(177 * time.Microsecond)
				g.mu.Lock()
				if g.gaps.used > 1 {
					t.Errorf("%d replays at once", g.gaps.used)
				}
				g.mu.Unlock()
			}
		})
		wg.Wait()
		near(t, "replays' share of two cores", (a.used+b.used).Seconds()/2, ReplayShare, 0.01)
		if a.sent == 0 || b.sent == 0 || worst > 0 {
			t.Errorf("%d and %d copies, live waited %s", a.sent, b.sent, worst)
		}
		if st := g.Stats(); st.Used != 0 || g.gaps.used != 0 {
			t.Errorf("%+v, %d of replays", st, g.gaps.used)
		}

		a.used, a.sent = 0, 0
		serve(g, 2*time.Second, a) // Calm, then all that it can have
		if part := a.used.Seconds() / 2; part < 1.2 {
			t.Errorf("alone it uses %.2f cores", part)
		}
	})
}

// TestReplaysAreNotStarved: live lanes that always hold a slot keep replays waiting for a while only.
func TestReplaysAreNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, live := range map[string]*subscriber{
			"half of the slots": {limit: 2, cpu: time.Millisecond},
			"all of them":       {limit: 8, cpu: time.Millisecond},
		} {
			g := NewGate(4)
			copies := &subscriber{kind: Replay, limit: 4, cpu: 200 * time.Microsecond}
			serve(g, 2*time.Second, live, copies)
			if copies.sent < 16 {
				t.Errorf("%s: %d copies in 2 s", name, copies.sent)
			}
		}
	})
}
