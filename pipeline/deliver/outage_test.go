package deliver

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// sick is an endpoint that fails between two moments, and what it took of each key, in order.
type sick struct {
	mu       sync.Mutex
	rand     *rand.Rand
	from, to time.Time
	fault    func(*rand.Rand) (takes time.Duration, err *pipeline.DeliveryError)
	poison   func(pipeline.Offset) bool // fails what it is part of, at any time
	takes    time.Duration              // a call that works; 0: 20 ms
	took     map[uint64][]pipeline.Offset
	probes   int // calls while it failed
	calls    int
	now      int   // at once
	after    []int // as it was with the first calls after it
}

func (s *sick) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, takes := time.Now(), cmp.Or(s.takes, 20*time.Millisecond)
	failing := !at.Before(s.from) && at.Before(s.to)
	s.calls++
	var err error
	if failing {
		s.probes++
		var fault *pipeline.DeliveryError
		takes, fault = s.fault(s.rand)
		err = fault
	}
	if s.now++; !at.Before(s.to) && len(s.after) < 4 {
		s.after = append(s.after, s.now)
	}
	s.mu.Unlock()
	t := time.NewTimer(takes)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	s.now--
	_ = d.Each(func(_ int, b *pipeline.Batch, i int, _ pipeline.Op) error {
		if s.poison != nil && s.poison(b.Offset(i)) {
			err = &pipeline.DeliveryError{Reason: "500"}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return nil, d.Each(func(_ int, b *pipeline.Batch, i int, _ pipeline.Op) error {
		s.took[b.Events[i].Hash] = append(s.took[b.Events[i].Hash], b.Offset(i))
		return nil
	})
}

func (s *sick) Close() error { return nil }

// want: each key's events came, in order; what came again came in order too. Without order: they came.
func (s *sick) want(t *testing.T, sent map[uint64][]pipeline.Offset, inOrder bool) {
	t.Helper()
	if !inOrder {
		for _, took := range s.took {
			slices.Sort(took)
		}
	}
	for k, offsets := range sent {
		next := 0
		for _, o := range s.took[k] {
			if next < len(offsets) && o == offsets[next] {
				next++
			} else if next == len(offsets) && o > offsets[next-1] || next < len(offsets) && o > offsets[next] {
				t.Fatalf("key %d: %d came, %d is missing", k, o, offsets[next])
			}
		}
		if next < len(offsets) {
			t.Fatalf("key %d: %d of %d came", k, next, len(offsets))
		}
	}
}

func instantly(class pipeline.DeliveryClass, congested bool, after time.Duration, reason string) func(*rand.Rand) (time.Duration, *pipeline.DeliveryError) {
	return func(*rand.Rand) (time.Duration, *pipeline.DeliveryError) {
		return time.Millisecond, &pipeline.DeliveryError{Class: class, Congested: congested, RetryAfter: after, Reason: reason}
	}
}

var (
	errors500  = instantly(pipeline.Retriable, false, 0, "500")
	errors503  = instantly(pipeline.Unavailable, true, 0, "503")
	waits503   = instantly(pipeline.Unavailable, true, 90*time.Second, "503")
	refuses    = instantly(pipeline.Unavailable, false, 0, "connection refused")
	timeouts30 = func(*rand.Rand) (time.Duration, *pipeline.DeliveryError) {
		return 30 * time.Second, &pipeline.DeliveryError{TimedOut: true, Reason: "no reply within 30s"}
	}
	anything = func(r *rand.Rand) (time.Duration, *pipeline.DeliveryError) {
		return [...]func(*rand.Rand) (time.Duration, *pipeline.DeliveryError){errors500, errors503, waits503, refuses, timeouts30}[r.IntN(5)](r)
	}
)

// TestTwoHoursOfOutage: however an endpoint is away, and for however long: no attempt is spent, nothing is parked or
// given up, few calls are made, and once it is there again everything comes, in order, slowly at first.
func TestTwoHoursOfOutage(t *testing.T) {
	faults := map[string]func(*rand.Rand) (time.Duration, *pipeline.DeliveryError){
		"500": errors500, "503": errors503, "503 with Retry-After": waits503, "refused": refuses, "timeouts": timeouts30, "all of it": anything}
	for shape, edit := range map[string]func(*Config){
		"adaptive":   func(c *Config) { c.Adaptive, c.Batch.Events = true, 1 },
		"one by one": func(c *Config) { c.MaxInFlight, c.Batch.Events = 1, 1 },
		"no order":   func(c *Config) { c.Order, c.Batch.Events = OrderNone, 10 },
		"ordered sink": func(c *Config) {
			c.Sink, c.MaxInFlight, c.Batch.Events = ordered{c.Sink}, 8, 20
		},
		"skip": func(c *Config) { c.Exhausted, c.MaxInFlight = ExhaustedSkip, 16 },
	} {
		for fault, f := range faults {
			if shape != "adaptive" && shape != "one by one" && fault != "500" && fault != "all of it" {
				continue
			}
			t.Run(shape+"/"+fault, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, m, sink := outlast(t, f, edit)
					if m.buried > 0 {
						t.Errorf("%d dead letters and parks were made: %v", m.buried, m.dead)
					}
					if shape == "adaptive" && slices.Max(sink.after) > 2 {
						t.Errorf("first calls: %v at once", sink.after)
					}
					if sink.probes > 400 {
						t.Errorf("%d calls while it was away", sink.probes)
					}
				})
			})
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// outlast runs a subscription over an endpoint that is away for two hours while events keep coming.
func outlast(t *testing.T, fault func(*rand.Rand) (time.Duration, *pipeline.DeliveryError), edit func(*Config)) (Status, *memory, *sick) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 3))
	began := time.Now()
	sink := &sick{rand: rand.New(rand.NewPCG(1, 4)), fault: fault, took: map[uint64][]pipeline.Offset{}, from: began.Add(10 * time.Minute), to: began.Add(130 * time.Minute)}
	l, m := pipetest.NewMemoryLog("log", first), newMemory()
	c := config(l, m, sink)
	c.Exhausted = ExhaustedPark
	edit(&c)
	sub := start(t, c)
	sent, n := map[uint64][]pipeline.Offset{}, first
	for time.Since(began) < 3*time.Hour {
		var some []uint64
		for i := range 1 + r.IntN(4) + 2000*b2i(n == first) {
			k := uint64(r.IntN(40) + i/4*40)
			some = append(some, k)
			sent[k] = append(sent[k], n)
			n++
		}
		appendTo(t, l, keys(some...)...)
		time.Sleep(20 * time.Second)
		if since := time.Since(sink.from); since > 30*time.Minute && since < 2*time.Hour {
			if st := sub.Status(); st.State != StateWaiting || st.Until.IsZero() || !strings.Contains(st.Reason, "endpoint") && !strings.Contains(st.Reason, "failed") {
				t.Fatalf("after %s of it: %+v", since, st)
			}
		}
	}
	st := sub.Status()
	sub.end()
	if st.Low != n || st.State != StateRunning || st.Parked != 0 || len(m.parks) != 0 {
		t.Fatalf("%+v", st)
	}
	_, loose := c.Sink.(pipeline.Ordered) // whose order the sink itself has to keep
	sink.want(t, sent, !loose && c.Order != OrderNone)
	return st, m, sink
}

// TestAnOutageOfAStrictOrder: one event is tried at a time, and under skip given up on; when that was done to some in a
// row it is the endpoint, and no more are.
func TestAnOutageOfAStrictOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		sink := &sick{rand: rand.New(rand.NewPCG(1, 4)), fault: errors500, took: map[uint64][]pipeline.Offset{}, from: began, to: began.Add(12 * time.Hour)}
		l, m := pipetest.NewMemoryLog("log", first), newMemory()
		c := config(l, m, sink)
		c.Order, c.Exhausted, c.MaxInFlight, c.Batch.Events = OrderSource, ExhaustedSkip, 1, 1
		sub := start(t, c)
		var all []uint64
		for k := range uint64(50) {
			all = append(all, k)
		}
		appendTo(t, l, keys(all...)...)
		time.Sleep(11 * time.Hour)
		sink.mu.Lock()
		calls := sink.probes
		sink.mu.Unlock()
		if st := sub.Status(); st.State != StateWaiting || calls > 1000 {
			t.Errorf("after %d calls: %+v", calls, st)
		}
		time.Sleep(2 * time.Hour)
		st := sub.Status()
		sub.end()
		if lost := len(m.dead); lost == 0 || lost > 4 || len(sink.took) != 50-lost || st.State != StateRunning || st.Low != first+50 {
			t.Errorf("%d dead letters, %d of 50 events came: %+v", lost, len(sink.took), st)
		}
	})
}

// TestKeysParkedByAnOutageRedriveThemselves: where attempts are spent before it is known.
func TestKeysParkedByAnOutageRedriveThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m, _ := outlast(t, errors500, func(c *Config) {
			c.Retry, c.Batch.Events, c.MaxInFlight = Retry{Initial: time.Second, Max: time.Second, Attempts: 2}, 1, 4
		})
		if m.buried == 0 {
			t.Fatal("nothing was parked: this shows nothing")
		}
		if len(m.dead) > 0 {
			t.Fatalf("all came, and these are listed as dead: %v", m.dead)
		}
	})
}

// TestParksOfAnOutageOutliveACrash: what an outage parked in a process that was killed before or while it was known is
// redriven by the next one; what was parked while others worked is not.
func TestParksOfAnOutageOutliveACrash(t *testing.T) {
	for _, known := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			sink := &sick{rand: rand.New(rand.NewPCG(1, 4)), fault: errors500, took: map[uint64][]pipeline.Offset{}, from: began.Add(time.Minute), to: began.Add(time.Hour),
				poison: func(o pipeline.Offset) bool { return o == first }}
			slow := &slowKey{sick: sink, key: 99}
			l, m := pipetest.NewMemoryLog("log", first), newMemory()
			c := parkConfig(l, m, slow)
			c.Batch.Events, c.MaxInFlight, c.Grace = 1, 8, time.Minute
			sub := start(t, c)
			appendTo(t, l, keys(1)...) // poison
			time.Sleep(10 * time.Second)
			appendTo(t, l, keys(2)...)
			time.Sleep(time.Minute)
			appendTo(t, l, keys(99, 11, 12, 13, 14)...)
			time.Sleep(5 * time.Second)
			if st := sub.Status(); st.Parked != 5 || st.State == StateWaiting {
				t.Fatalf("%+v", st)
			}
			var more []uint64
			for k := range uint64(40) {
				more = append(more, 20+k)
			}
			if known {
				appendTo(t, l, keys(more...)...)
				time.Sleep(5 * time.Second) // a call of the session that ends hangs still
			}
			disk := m.killed()
			sub.end()
			if known { // it is over
				sink.mu.Lock()
				sink.to = time.Now()
				sink.mu.Unlock()
			} else {
				appendTo(t, l, keys(more...)...)
			}
			c.Store, c.Cursors, c.Jobs = disk, disk, disk
			sub = start(t, c)
			time.Sleep(2 * time.Hour)
			st := sub.Status()
			sub.end()
			if st.Parked != 1 || len(disk.dead) != 1 || disk.dead[first].Offset != first || len(sink.took) != 46 || st.State != StateRunning {
				t.Fatalf("known %v: %d of 46 keys came, %d dead letters: %+v", known, len(sink.took), len(disk.dead), st)
			}
		})
	}
}

// slowKey is an endpoint where the calls of one key hang for as long as the grace.
type slowKey struct {
	*sick
	key uint64
}

func (s *slowKey) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	if d.Runs[0].Batch.Events[d.Runs[0].From].Hash == s.key {
		t := time.NewTimer(time.Minute)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return s.sick.Deliver(ctx, d)
}

// TestPoisonIsNoOutage: Deliveries of many events fail by one of them, more than half of all calls do, and it is
// still that one key which is parked; the others come.
func TestPoisonIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &sick{took: map[uint64][]pipeline.Offset{}, poison: func(o pipeline.Offset) bool { return (o-first)%100 == 7 }}
		l, m := pipetest.NewMemoryLog("log", first), newMemory()
		c := config(l, m, sink)
		c.Exhausted, c.MaxInFlight, c.Retry = ExhaustedPark, 16, Retry{Initial: time.Second, Max: time.Minute, Attempts: 5}
		var away time.Duration
		var since time.Time
		c.Observer.SubscriptionState = func(_, state, _ string) {
			if state == StateWaiting {
				since = time.Now()
			} else if !since.IsZero() {
				away, since = away+time.Since(since), time.Time{}
			}
		}
		sub := start(t, c)
		n := uint64(0)
		for range 60 {
			some := make([]uint64, 100)
			for i := range some {
				some[i], n = n, n+1
			}
			appendTo(t, l, keys(some...)...)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(15 * time.Minute)
		st := sub.Status()
		sub.end()
		if st.Parked != 60 || st.Low != first+pipeline.Offset(n) || len(sink.took) != int(n)-60 || away > 10*time.Second {
			t.Fatalf("away for %s, %d of %d keys came; %+v", away, len(sink.took), n, st)
		}
		t.Logf("%d calls, away for %s", sink.calls, away)
	})
}

// TestManyPoisonKeysAreNoOutage: fifty keys that begin to be refused at once are more than half of all calls, and what
// is sent to find out is not one of them: the others go on, and the fifty are parked.
func TestManyPoisonKeysAreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &sick{takes: time.Millisecond, took: map[uint64][]pipeline.Offset{}, poison: func(o pipeline.Offset) bool { return o >= first+200 && o < first+250 }}
		l, m := pipetest.NewMemoryLog("log", first), newMemory()
		c := config(l, m, sink)
		c.Exhausted, c.MaxInFlight, c.Batch.Events, c.Retry = ExhaustedPark, 16, 20, Retry{Initial: 100 * time.Millisecond, Max: 500 * time.Millisecond, Attempts: 3}
		sub := start(t, c)
		n, worst := uint64(0), 0
		for i := range 600 {
			some := make([]uint64, 10+40*b2i(i == 20))
			for i := range some {
				some[i], n = n, n+1
			}
			appendTo(t, l, keys(some...)...)
			time.Sleep(10 * time.Millisecond)
			sink.mu.Lock()
			worst = max(worst, int(n)-50*b2i(i >= 20)-len(sink.took))
			sink.mu.Unlock()
		}
		time.Sleep(10 * time.Second)
		st := sub.Status()
		sub.end()
		if st.Parked != 50 || st.Low != first+pipeline.Offset(n) || len(sink.took) != int(n)-50 || st.State != StateRunning || worst > 100 {
			t.Fatalf("%d of %d keys came, %d behind at most; %+v", len(sink.took), n, worst, st)
		}
		t.Logf("%d calls, %d events behind at most", sink.calls, worst)
	})
}

// TestAnOutageOutlivesASession: a pause within it asks nothing of the endpoint, a resume asks at once.
func TestAnOutageOutlivesASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, nil, whole(pipeline.Unavailable, 10*time.Minute), whole(pipeline.Unavailable, 0))
		appendTo(t, s.l, keys(1)...)
		s.after(time.Second)
		if err := s.run.Seek(t.Context(), Start{Offset: first}, ""); err != nil {
			t.Fatal(err)
		}
		if st := s.after(time.Minute); st.State != StateWaiting || s.times(0) != "[0s]" {
			t.Fatalf("%+v %s", st, s.times(0))
		}
		if err := cmp.Or(s.run.Pause(t.Context(), ""), s.run.Resume(t.Context())); err != nil {
			t.Fatal(err)
		}
		s.after(time.Minute)
		if got := fmt.Sprint(s.times(0)); got != "[0s 1m1s 1m3s]" {
			t.Fatal(got)
		}
		s.run.end()
	})
}
