package deliver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// pressure returns what takes much of a memory, or waits for it, or gives it back.
func pressure(t *testing.T, m *Memory, r *rand.Rand) func() {
	h := m.hold(&Config{Budget: 1 << 20, Credit: 1}, make(chan struct{}, 1))
	b := h.budget(1 << 20)
	held := int64(0)
	back := func() {
		unlock := b.lock()
		b.account.Leave()
		b.account.Give(held, true)
		unlock()
		held = 0
	}
	t.Cleanup(func() {
		back()
		h.close()
		if n, waiting := m.Used(); n != 0 || waiting != 0 {
			t.Errorf("all is over, and %d bytes are held, %d wait", n, waiting)
		}
	})
	return func() {
		if r.IntN(3) == 0 {
			back()
			return
		}
		n := int64(500 + r.IntN(3000))
		unlock := b.lock()
		defer unlock()
		if !b.account.Waits() && (b.account.Take(n) || b.account.Wait(n) && b.account.Take(n)) {
			held += n
		}
	}
}

// stuck takes Deliveries and does not come back before it is told to.
type stuck struct {
	open   chan struct{}
	events atomic.Int64
}

func (s *stuck) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	select {
	case <-s.open:
		s.events.Add(int64(d.Events))
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (*stuck) Close() error { return nil }

// TestStalledKeepNothing: ten subscriptions that stop taking anything, with all memory read ahead, give it back to
// one that moves; when they go on, they have missed nothing. What is counted stays within the memory.
func TestStalledKeepNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const total, stalled = 6 << 20, 10
		m := NewMemory(total)
		subscribe := func(name string, events pipeline.Offset, sink pipeline.Sink) *run {
			c := config(&endless{pipetest.NewMemoryLog("log", first), events}, newMemory(), sink)
			c.Name, c.Memory, c.Credit, c.Budget, c.MaxInFlight, c.Grace = name, m, 200<<10, 2<<20, 4, time.Millisecond
			return start(t, c)
		}
		within := func() {
			t.Helper()
			if n, _ := m.Used(); n > total {
				t.Errorf("%d of %d bytes are held", n, total)
			}
		}
		var runs []*run
		var sinks []*stuck
		for i := range stalled {
			s := &stuck{open: make(chan struct{}, 1<<20)}
			sinks, runs = append(sinks, s), append(runs, subscribe(fmt.Sprint("stalled", i), 40_000, s))
		}
		for _, s := range sinks {
			for range 200 { // it moves, and then it does not
				s.open <- struct{}{}
			}
		}
		time.Sleep(time.Second)
		within()
		if n, _ := m.Used(); n < total/2 {
			t.Fatalf("they hold %d of %d bytes only", n, total)
		}
		quick := &toiler{answer: time.Millisecond}
		r := subscribe("quick", 1<<40, quick)
		for range 50 {
			time.Sleep(5 * time.Millisecond)
			within()
		}
		// Four at a time, a millisecond each: 1,000 Deliveries of 100.
		if got := quick.events.Load(); got < 95_000 {
			t.Errorf("%d events in 250 ms beside those that stand still; alone it is 100,000", got)
		}
		if b := r.Status().Buffered; b > 2<<20+100<<10 {
			t.Errorf("it holds %d bytes", b)
		}
		r.end()
		for _, s := range sinks {
			close(s.open)
		}
		time.Sleep(time.Minute)
		for i, s := range sinks {
			if got := s.events.Load(); got != 40_000 {
				t.Errorf("subscription %d got %d events of 40,000", i, got)
			}
		}
		within()
		for _, r := range runs {
			r.end()
		}
		if n, waiting := m.Used(); n != 0 || waiting != 0 {
			t.Errorf("all is over, and %d bytes are held, %d wait", n, waiting)
		}
	})
}

// watched counts the readers of a log that are open and have read something: those hold what was read ahead for them.
type watched struct {
	*endless
	holding atomic.Int64
}

func (w *watched) Read(from pipeline.Offset) (pipeline.LogReader, error) {
	r, err := w.endless.Read(from)
	return &watchedReader{LogReader: r, w: w}, err
}

type watchedReader struct {
	pipeline.LogReader
	w    *watched
	read bool
}

func (r *watchedReader) Next(ctx context.Context) (*pipeline.Batch, error) {
	if !r.read {
		r.read = true
		r.w.holding.Add(1)
	}
	return r.LogReader.Next(ctx)
}

func (r *watchedReader) Close() error {
	if r.read {
		r.w.holding.Add(-1)
	}
	return r.LogReader.Close()
}

// TestOneThatStandsStillHoldsNoReader: it lets go of what the log has read ahead for it, and misses nothing by that.
func TestOneThatStandsStillHoldsNoReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events = 40_000
		l := &watched{endless: &endless{pipetest.NewMemoryLog("log", first), events}}
		s := &stuck{open: make(chan struct{}, 1<<20)}
		c := config(l, newMemory(), s)
		c.Memory, c.Credit, c.Budget, c.MaxInFlight = NewMemory(6<<20), 200<<10, 1<<20, 4
		r := start(t, c)
		time.Sleep(inHand / 2)
		if l.holding.Load() == 0 {
			t.Error("it let go of the log at once")
		}
		time.Sleep(inHand)
		if n := l.holding.Load(); n != 0 {
			t.Errorf("%d readers hold what was read ahead", n)
		}
		close(s.open)
		time.Sleep(time.Minute)
		if got := s.events.Load(); got != events {
			t.Errorf("%d events of %d", got, events)
		}
		r.end()
	})
}
