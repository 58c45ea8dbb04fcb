package sched

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// subscriber sends through a gate as a session does: encoding holds the grant, the answer comes later.
type subscriber struct {
	class    Class
	kind     Kind
	limit    int           // in flight
	cpu, rtt time.Duration // of each
	silent   bool          // its sink does not say when it has encoded

	sent int
	used time.Duration
}

func (u *subscriber) run(ctx context.Context, g *Gate) {
	e := g.Enter(u.class, u.kind)
	back := make(chan struct{}, u.limit)
	flying := 0
	defer func() { e.Rest(time.Now()) }()
	for {
		for flying < u.limit && e.Ask(u.limit-flying, time.Now()) {
			t := new(Grant)
			e.Begin(t, time.Now())
			flying++
			u.sent++
			u.used += u.cpu
			go func() {
				time.Sleep(u.cpu)
				if !u.silent {
					t.Done(1000, time.Now())
				}
				time.Sleep(u.rtt)
				t.Done(1000, time.Now())
				back <- struct{}{}
			}()
		}
		if flying == u.limit {
			e.Rest(time.Now())
		}
		select {
		case <-e.Wake():
		case <-back:
			flying--
		case <-ctx.Done():
			for ; flying > 0; flying-- {
				<-back
			}
			return
		}
	}
}

func serve(g *Gate, d time.Duration, us ...*subscriber) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var wg sync.WaitGroup
	for _, u := range us {
		wg.Go(func() { u.run(ctx, g) })
	}
	wg.Wait()
}

// TestGateShares: at saturation classes get their shares, with sessions that ask, sleep and come back.
func TestGateShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		us := []*subscriber{
			{class: Critical, limit: 64, cpu: 200 * time.Microsecond, rtt: 2 * time.Millisecond},
			{class: High, limit: 64, cpu: 300 * time.Microsecond, rtt: time.Millisecond},
			{class: Normal, limit: 32, cpu: 100 * time.Microsecond, rtt: time.Millisecond},
			{class: Normal, limit: 64, cpu: 800 * time.Microsecond, rtt: 5 * time.Millisecond},
			{class: Low, limit: 64, cpu: 200 * time.Microsecond, rtt: time.Millisecond},
		}
		g := NewGate(4)
		serve(g, 3*time.Second, us...)
		total := 12.0
		for i, want := range []float64{16. / 29, 8. / 29, 2. / 29, 2. / 29, 1. / 29} {
			near(t, us[i].class.String(), us[i].used.Seconds()/total, want, 0.06)
		}
		st := g.Stats()
		if st.Used != 0 || st.Waiting != 0 || st.Overdue != 0 {
			t.Errorf("all is over, and there is %+v", st)
		}
		var sum ClassStats
		mean := map[Class]time.Duration{}
		for _, c := range st.Classes {
			sum.Granted += c.Granted
			sum.Waited += c.Waited
			mean[c.Class] = c.Wait / time.Duration(max(1, c.Waited))
		}
		if sum.Granted != st.Granted || sum.Waited != st.Waited {
			t.Errorf("by class %+v, in all %+v", sum, st)
		}
		if mean[Low] < 2*mean[Critical] || mean[Critical] == 0 {
			t.Errorf("mean waits %v", mean)
		}
	})
}

// TestGateUnsaturated: below saturation nobody waits, whatever the classes.
func TestGateUnsaturated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(4)
		us := []*subscriber{
			{class: Low, kind: CatchUp, limit: 2, cpu: 100 * time.Microsecond, rtt: time.Millisecond},
			{class: Low, limit: 2, cpu: 100 * time.Microsecond, rtt: time.Millisecond},
		}
		serve(g, time.Second, us...)
		for _, u := range us {
			if u.sent < 2*900 {
				t.Errorf("%d sent, %d could have been", u.sent, 2*909)
			}
		}
		if st := g.Stats(); st.Waited != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// TestSilentSinkKeepsNoSlot: a sink that does not say when it only waits holds a slot for a spell at most, so that
// slow peers take nothing from others.
func TestSilentSinkKeepsNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(2)
		slow := &subscriber{class: Critical, limit: 8, cpu: time.Millisecond, rtt: 10 * time.Second, silent: true}
		quick := &subscriber{class: Low, limit: 8, cpu: time.Millisecond}
		serve(g, 2*time.Second, slow, quick)
		if quick.sent < 3700 { // of 4,000
			t.Errorf("%d sent beside a peer that does not answer", quick.sent)
		}
	})
}

// TestSlotsComeBack: whatever sessions do, also at once, all slots are free in the end.
func TestSlotsComeBack(t *testing.T) {
	g := NewGate(3)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 8))
			e := g.Enter(Class(r.IntN(int(classes))), Kind(r.IntN(int(kinds))))
			var out []*Grant
			for range 2000 {
				switch r.IntN(6) {
				case 0:
					e.Rest(time.Now())
				case 1:
					e.Shift(Class(r.IntN(int(classes))), Kind(r.IntN(int(kinds))))
				case 2, 3:
					if e.Ask(1+r.IntN(5), time.Now()) && len(out) < 8 {
						t := new(Grant)
						e.Begin(t, time.Now())
						out = append(out, t)
					}
				default:
					for _, t := range out {
						t.Done(r.IntN(1000), time.Now())
						t.Done(0, time.Now())
					}
					out = out[:0]
				}
			}
			for _, t := range out {
				t.Done(0, time.Now())
			}
			e.Rest(time.Now())
		})
	}
	wg.Wait()
	if st := g.Stats(); st.Used != 0 || st.Waiting != 0 || g.busy.first != nil {
		t.Errorf("%+v", st)
	}
	verify(t, g.s)
}

// TestNilGate lets everything pass.
func TestNilGate(t *testing.T) {
	var g *Gate
	e := g.Enter(Low, Replay)
	var gr Grant
	if !e.Ask(1, epoch) {
		t.Error("no gate, no grant")
	}
	e.Begin(&gr, epoch)
	gr.Done(1, epoch)
	e.Shift(High, Live)
	e.Rest(epoch)
	if e.Wake() != nil {
		t.Error("nobody wakes")
	}
}
