package deliver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// taker is a subscriber of live events and copies that takes its time and fails at random.
type taker struct {
	mu      sync.Mutex
	rand    *rand.Rand
	trouble float64
	order   Order
	stalled chan struct{} // live Deliveries wait for it
	took    map[string][]pipeline.Offset
	flying  map[string]int // Deliveries, by job
	most    map[string]int
	keys    map[string]map[uint64]bool // in flight
	wrong   string
}

func newTaker(seed uint64, trouble float64) *taker {
	return &taker{rand: rand.New(rand.NewPCG(seed, 3)), trouble: trouble, took: map[string][]pipeline.Offset{}, flying: map[string]int{}, most: map[string]int{},
		keys: map[string]map[uint64]bool{}}
}

func (k *taker) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	k.mu.Lock()
	delay, fails, stalled := time.Duration(k.rand.IntN(300))*time.Millisecond, k.rand.Float64() < k.trouble, k.stalled
	if k.keys[d.Replay] == nil {
		k.keys[d.Replay] = map[uint64]bool{}
	}
	k.flying[d.Replay]++
	k.most[d.Replay] = max(k.most[d.Replay], k.flying[d.Replay])
	in := map[uint64]bool{}
	var offsets []pipeline.Offset
	_ = d.Each(func(_ int, b *pipeline.Batch, i int, _ pipeline.Op) error {
		hash := b.Events[i].Hash
		if k.order == OrderNone {
			hash = uint64(b.Offset(i))
		}
		in[hash] = true
		offsets = append(offsets, b.Offset(i))
		return nil
	})
	for key := range in {
		if k.keys[d.Replay][key] {
			k.wrong = fmt.Sprintf("two Deliveries of job %q with key %d", d.Replay, key)
		}
		k.keys[d.Replay][key] = true
	}
	if (d.Replay != "") != (d.Reason == pipeline.ReasonReplay) && d.Attempt == 1 {
		k.wrong = fmt.Sprintf("a Delivery of job %q has the reason %s", d.Replay, d.Reason)
	}
	k.mu.Unlock()
	t := time.NewTimer(delay)
	defer t.Stop()
	if d.Replay == "" && stalled != nil {
		select {
		case <-stalled:
		case <-ctx.Done():
		}
	}
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.flying[d.Replay]--
	for key := range in {
		delete(k.keys[d.Replay], key)
	}
	if ctx.Err() != nil || fails {
		return nil, fmt.Errorf("not taken")
	}
	k.took[d.Replay] = append(k.took[d.Replay], offsets...)
	return nil, nil
}

func (*taker) Close() error { return nil }

// besideRun runs a job beside a subscription until the job is done or stop.
type besideRun struct {
	*Aside
	cancel context.CancelFunc
	done   chan bool
}

func startAside(t *testing.T, s *Subscription, j pipeline.Job) *besideRun {
	a, err := s.NewAside(j)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &besideRun{a, cancel, make(chan bool, 1)}
	go func() {
		done, _ := a.Run(ctx, func() (float64, string) { return 1, "" })
		r.done <- done
	}()
	t.Cleanup(cancel)
	return r
}

// TestAsideHistories: whatever the subscriber answers and however often the process dies, copies of all of the
// window come, in order by key, a key once at a time, and live goes its own way.
func TestAsideHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed, order := rapid.Uint64().Draw(rt, "seed"), Order(rapid.IntRange(0, 2).Draw(rt, "order"))
		crashes, trouble := rapid.IntRange(0, 3).Draw(rt, "crashes"), float64(rapid.IntRange(0, 5).Draw(rt, "trouble"))/10
		inFlight, tiny := rapid.IntRange(1, 20).Draw(rt, "inFlight"), rapid.Bool().Draw(rt, "tiny")
		var err error
		synctest.Test(t, func(t *testing.T) { err = asideHistory(t, seed, order, crashes, trouble, inFlight, tiny) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func asideHistory(t *testing.T, seed uint64, order Order, crashes int, trouble float64, inFlight int, tiny bool) error {
	r, sink := rand.New(rand.NewPCG(seed, 1)), newTaker(seed, trouble)
	l, m := pipetest.NewMemoryLog("log", first), newMemory()
	c := config(l, m, sink)
	sink.order = order
	c.Order, c.MaxInFlight, c.Batch, c.Grace = order, inFlight, Batch{Events: 1 + r.IntN(6)}, time.Second
	c.Retry, c.Exhausted = Retry{Initial: time.Second, Max: 2 * time.Second, Attempts: 1000}, ExhaustedBlock
	if tiny {
		c.Budget = 8
	}
	var hashes []uint64
	put := func(n int) {
		changes := make([]change, n)
		for i := range changes {
			changes[i].key = uint64(r.IntN(7))
			hashes = append(hashes, changes[i].key)
		}
		appendTo(t, l, changes...)
	}
	sub := start(t, c)
	for range 10 {
		put(1 + r.IntN(15))
	}
	old := pipeline.Offset(len(hashes))
	for sub.Delivered() < first+old {
		time.Sleep(time.Second)
	}
	j := pipeline.Job{ID: "a1", Subscription: "sub", Log: "log", Kind: pipeline.JobAside, State: pipeline.JobRunning}
	j.From = first + pipeline.Offset(r.IntN(int(old)))
	j.To = j.From + 1 + pipeline.Offset(r.IntN(int(first+old-j.From)))
	j.At, j.High = j.From, j.From
	aside := startAside(t, sub.Subscription, j)
	deadline := time.Now().Add(24 * time.Hour)
	for done := false; !done; {
		if len(hashes) < 300 { // more, and live lags for ever
			put(1 + r.IntN(10))
		}
		select {
		case done = <-aside.done:
		case <-time.After(time.Duration(r.IntN(3000)) * time.Millisecond):
		}
		if crashes--; crashes >= 0 && !done {
			saved := m.cursor("sub")
			m.setFail(fmt.Errorf("the process is dead"))
			aside.cancel()
			sub.stop()
			<-sub.done
			<-aside.done
			m.setFail(nil)
			m.mu.Lock()
			m.cursors["sub"] = saved
			if kept, ok := m.jobs["a1"]; ok {
				j = kept
			}
			m.mu.Unlock()
			sub = start(t, c)
			aside = startAside(t, sub.Subscription, j)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the replay stands still: %+v; %+v", aside.Job(), sub.Status())
		}
	}
	all := pipeline.Offset(len(hashes))
	for sub.Status().Persisted < first+all {
		time.Sleep(time.Second)
	}
	sub.end()
	if sink.wrong != "" {
		return fmt.Errorf("%s", sink.wrong)
	}
	if most := sink.most["a1"]; most > max(1, (inFlight+4)/5) {
		return fmt.Errorf("%d copies at once of %d", most, inFlight)
	}
	key := func(o pipeline.Offset) uint64 {
		switch order {
		case OrderKey:
			return hashes[o-first]
		case OrderNone:
			return uint64(o)
		}
		return 0
	}
	if err := inOrder(sink.took["a1"], key, j.From, j.To); err != nil {
		return fmt.Errorf("copies: %w", err)
	}
	return inOrder(sink.took[""], key, first, first+all)
}

// inOrder: all of [from, to) was taken; of a key, what is taken begins anywhere at or before what was taken already
// and goes on from there without leaving anything out.
func inOrder(took []pipeline.Offset, key func(pipeline.Offset) uint64, from, to pipeline.Offset) error {
	events, last, seen := map[uint64][]pipeline.Offset{}, map[uint64]int{}, map[pipeline.Offset]bool{}
	for o := from; o < to; o++ {
		events[key(o)] = append(events[key(o)], o)
	}
	for k := range events {
		last[k] = -1
	}
	for _, o := range took {
		n := slices.Index(events[key(o)], o)
		if n < 0 {
			return fmt.Errorf("%d is not one of %d to %d", o, from, to)
		}
		if n > last[key(o)]+1 {
			return fmt.Errorf("key %d: %d came too early", key(o), o)
		}
		last[key(o)], seen[o] = n, true
	}
	for o := from; o < to; o++ {
		if !seen[o] {
			return fmt.Errorf("%d did not come", o)
		}
	}
	return nil
}

// TestAsideYields: no copy goes while live stands still for longer than its target, or is paused, and it says why.
func TestAsideYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newTaker(1, 0)
		l, m := pipetest.NewMemoryLog("log", first), newMemory()
		c := config(l, m, sink)
		c.MaxInFlight, c.Batch.Events = 5, 1
		sub := start(t, c)
		for range 400 {
			appendTo(t, l, keys(1, 2, 3, 4, 5, 6)...)
		}
		for sub.Delivered() < first+2400 {
			time.Sleep(time.Second)
		}
		a := startAside(t, sub.Subscription, pipeline.Job{ID: "a1", Subscription: "sub", Log: "log", Kind: pipeline.JobAside, State: pipeline.JobRunning,
			From: first, At: first, High: first, To: first + 2400})
		copied := func() int { sink.mu.Lock(); defer sink.mu.Unlock(); return len(sink.took["a1"]) }
		moves := func(want bool, why string) {
			t.Helper()
			before := copied()
			time.Sleep(10 * time.Second)
			if moved := copied() > before; moved != want || !strings.Contains(a.Job().Reason, why) || (a.Job().State == pipeline.JobWaiting) == want {
				t.Fatalf("moved %v: %d after %d; %+v", moved, copied(), before, a.Job())
			}
		}
		moves(true, "")
		sink.mu.Lock()
		sink.stalled = make(chan struct{})
		sink.mu.Unlock()
		appendTo(t, l, keys(1)...)
		time.Sleep(asideLag + time.Second)
		moves(false, "behind")
		close(sink.stalled)
		time.Sleep(time.Second)
		moves(true, "")
		if err := sub.Pause(t.Context(), "night"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		moves(false, "the subscription is paused: night")
		if err := sub.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		moves(true, "")
		if got := sub.Delivered(); got != first+2401 {
			t.Fatalf("live is at %d", got)
		}
		a.cancel()
		<-a.done
	})
}

// TestATruncateWaitsForKeysTakenBack: it would take rows away that are still to come.
func TestATruncateWaitsForKeysTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Retry)
		c := config(l, m, sink)
		c.Retry = Retry{Initial: time.Second, Max: time.Second, Attempts: 1000}
		c.Rand = func() float64 { return 0.1 } // no handover while the window is being delivered
		r := start(t, c)
		appendTo(t, l, keys(1, 2, 1)...)
		time.Sleep(10 * time.Second)
		wantOffsets(t, sink.took(), 0, 1, 2)
		sink.mu.Lock()
		sink.refuses[first] = pipeline.Defer
		sink.mu.Unlock()
		j := pipeline.Job{ID: "r1", Subscription: "sub", Log: "log", Kind: pipeline.JobRewind, State: pipeline.JobRunning, From: first,
			Scope: pipeline.Scope{Keys: []pipeline.Key{{Space: table.KeySpace, Encoded: []byte("key-1")}}}}
		if err := r.Rewind(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		appendTo(t, l, change{key: 2}, change{key: 1}, change{key: 3, op: pipeline.OpTruncate}, change{key: 2})
		time.Sleep(time.Minute)
		wantOffsets(t, sink.took(), 3) // another key, before the truncate
		sink.cure()
		time.Sleep(time.Minute)
		if got := sink.took(); !slices.Equal(got, []pipeline.Offset{first, first + 2, first + 4, first + 5, first + 6}) {
			t.Fatalf("took %v", got)
		}
		r.end()
	})
}
