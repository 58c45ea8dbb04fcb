package deliver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// picky refuses events, by offset, until it is cured.
type picky struct {
	mu      sync.Mutex
	refuses map[pipeline.Offset]pipeline.Class
	got     []pipeline.Offset
	reasons map[pipeline.Offset][]pipeline.Reason
	most    map[pipeline.Reason]int // Deliveries at once
	now     map[pipeline.Reason]int
}

func newPicky(class pipeline.Class, offsets ...pipeline.Offset) *picky {
	p := &picky{refuses: map[pipeline.Offset]pipeline.Class{}, reasons: map[pipeline.Offset][]pipeline.Reason{}, most: map[pipeline.Reason]int{}, now: map[pipeline.Reason]int{}}
	for _, o := range offsets {
		p.refuses[o] = class
	}
	return p
}

func (p *picky) Deliver(_ context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	p.mu.Lock()
	p.now[d.Reason]++
	p.most[d.Reason] = max(p.most[d.Reason], p.now[d.Reason])
	p.mu.Unlock()
	time.Sleep(10 * time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now[d.Reason]--
	out, refused := make(pipeline.Outcomes, d.Events), map[uint64]bool{}
	_ = d.Each(func(n int, b *pipeline.Batch, i int, _ pipeline.Op) error {
		o := b.Offset(i)
		p.reasons[o] = append(p.reasons[o], d.Reason)
		hash := b.Events[i].Hash
		if out[n].Class = p.refuses[o]; out[n].Class == pipeline.OK && refused[hash] {
			out[n].Class = pipeline.Retry
		}
		if refused[hash] = out[n].Class != pipeline.OK; !refused[hash] {
			p.got = append(p.got, o)
		}
		return nil
	})
	return out, nil
}

func (p *picky) Close() error { return nil }

func (p *picky) cure() { p.mu.Lock(); clear(p.refuses); p.mu.Unlock() }

// took returns what was taken since the last call, in order.
func (p *picky) took() []pipeline.Offset {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

func parkConfig(l pipeline.Log, m *memory, sink pipeline.Sink) Config {
	c := config(l, m, sink)
	c.Exhausted, c.Retry = ExhaustedPark, Retry{Initial: time.Second, Max: time.Second, Attempts: 2}
	return c
}

func wantOffsets(t *testing.T, got []pipeline.Offset, want ...pipeline.Offset) {
	t.Helper()
	for i := range want {
		want[i] += first
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Fatalf("took %v, want %v", got, want)
	}
}

// TestAParkedKeyIsHeldByOffset: a key whose event is given up on or refused for good stands still, holds no
// memory, and every other key moves; also after a restart. What is told as resolved stays below it.
func TestAParkedKeyIsHeldByOffset(t *testing.T) {
	for _, class := range []pipeline.Class{pipeline.Retry, pipeline.Fatal} {
		synctest.Test(t, func(t *testing.T) {
			l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(class, first+1)
			c := parkConfig(l, m, sink)
			r := start(t, c)
			appendTo(t, l, keys(1, 2, 3, 2)...)
			time.Sleep(10 * time.Second)
			appendTo(t, l, keys(2, 1, 2)...)
			time.Sleep(10 * time.Second)
			wantOffsets(t, sink.took(), 0, 2, 5)
			st := r.Status()
			if st.State != StateRunning || st.Parked != 1 || st.Open != 0 || st.Held != 0 || st.Buffered != 0 || st.Low != first+7 {
				t.Fatalf("%+v", st)
			}
			ps := r.Parked()
			if len(ps) != 1 || ps[0].From != first+1 || string(ps[0].Key) != "key-2" || ps[0].KeyJSON != "key-2" || ps[0].Log != l.ID() || ps[0].Attempts == 0 {
				t.Fatalf("%+v", ps)
			}
			if o, ok, known := r.Wanted(); o != first+1 || !ok || !known {
				t.Fatal(o, ok, known)
			}
			if o, _ := r.Progress(); o != first+7 {
				t.Fatalf("progress %d waits for a park", o)
			}
			r.end()
			if len(m.dead) != 1 || m.dead[first+1].Offset != first+1 {
				t.Fatalf("dead letters %v", m.dead)
			}
			sink.cure()
			m.cursors["sub"] = pipeline.Cursor{Log: l.ID(), Low: first, High: first} // as after a crash
			r = start(t, c)
			appendTo(t, l, keys(2, 3)...)
			time.Sleep(10 * time.Second)
			wantOffsets(t, sink.took(), 0, 2, 5, 8)
			r.end()
		})
	}
}

// TestAnInsertIsParkedWithItsDelete: the second half of a key change never goes before the first.
func TestAnInsertIsParkedWithItsDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Fatal, first)
		r := start(t, parkConfig(l, m, sink))
		appendTo(t, l, change{key: 1}, change{key: 2}, change{key: 1, op: pipeline.OpDelete, pair: true}, change{key: 2, op: pipeline.OpInsert, pair: true}, change{key: 2}, change{key: 3})
		time.Sleep(time.Minute)
		wantOffsets(t, sink.took(), 1, 5)
		ps := r.Parked()
		if len(ps) != 2 || !ps[1].Paired || ps[1].From != first+3 || ps[1].PairHash != ps[0].Hash {
			t.Fatalf("%+v", ps)
		}
		if st := r.Status(); st.Low != first+6 || st.Held != 0 {
			t.Fatalf("%+v", st)
		}
		r.end()
	})
}

// TestFullParksBlock: beyond the bound nothing is parked, and the reason says what to do.
func TestFullParksBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Fatal, first)
		for n := range uint64(maxParks) {
			p := Park{Subscription: "sub", Log: l.ID(), Hash: 1000 + n, From: first}
			m.parks[p.ID()] = p
		}
		r := start(t, parkConfig(l, m, sink))
		appendTo(t, l, keys(1, 2)...)
		time.Sleep(time.Minute)
		if st := r.Status(); st.State != StateBlocked || st.Reason[:14] != "parks are full" || len(r.Parked()) != maxParks {
			t.Fatalf("%+v", st)
		}
		if n, err := r.Discard(t.Context(), nil, "me"); n != maxParks || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(time.Minute)
		wantOffsets(t, sink.took(), 1)
		r.end()
		if len(m.parks) != 1 {
			t.Fatal(len(m.parks))
		}
	})
}

// TestWhatIsDiscardedIsListed: the key goes on live behind what was given up.
func TestWhatIsDiscardedIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Fatal, first)
		r := start(t, parkConfig(l, m, sink))
		appendTo(t, l, keys(1, 2, 1)...)
		time.Sleep(time.Second)
		if n, err := r.Discard(t.Context(), []ParkKey{{Key: []byte("other")}}, "me"); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		key := r.Parked()[0]
		if n, err := r.Discard(t.Context(), []ParkKey{{Space: key.Space, Key: key.Key}}, "me"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		appendTo(t, l, keys(1)...)
		time.Sleep(time.Second)
		wantOffsets(t, sink.took(), 1, 3)
		r.end()
		if want := fmt.Sprint([]pipeline.OffsetRange{{From: first, To: first + 3}}); len(m.skips) != 1 || fmt.Sprint(m.skips[0].Ranges) != want || len(m.parks) != 0 {
			t.Fatalf("%+v %v", m.skips, m.parks)
		}
	})
}

// TestParksOfALostLogAreForgotten: by the seek that says where to go on.
func TestParksOfALostLogAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Fatal, first)
		r := start(t, parkConfig(l, m, sink))
		appendTo(t, l, keys(1)...)
		time.Sleep(time.Second)
		r.end()
		other := pipetest.NewMemoryLog("other", first+9000)
		appendTo(t, other, keys(1)...)
		r = start(t, parkConfig(other, m, sink))
		if err := r.Seek(t.Context(), Start{}, "new log"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		wantOffsets(t, sink.took(), 9000)
		r.end()
		if len(m.parks) != 0 {
			t.Fatal(m.parks)
		}
	})
}

// TestRedrive: what was held comes again in order, the event that failed first too, by few Deliveries at once,
// while live events go on; then the key goes on live. One that fails again is parked again, at that event.
func TestRedrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Fatal)
		c := parkConfig(l, m, sink)
		c.MaxInFlight, c.Batch.Events = 40, 1
		for k := range pipeline.Offset(20) {
			sink.refuses[first+k] = pipeline.Fatal
		}
		r := start(t, c)
		var first20 []uint64
		for k := range uint64(20) {
			first20 = append(first20, k)
		}
		appendTo(t, l, keys(first20...)...)
		time.Sleep(time.Second)
		for range 10 {
			appendTo(t, l, keys(first20...)...)
		}
		time.Sleep(time.Second)
		if st := r.Status(); st.Parked != 20 || len(sink.took()) != 0 {
			t.Fatalf("%+v", st)
		}
		sink.cure()
		sink.mu.Lock()
		sink.refuses[first+100] = pipeline.Retry // of key 0
		sink.mu.Unlock()
		if n, err := r.Redrive(t.Context(), nil); n != 20 || err != nil {
			t.Fatal(n, err)
		}
		for range 50 {
			appendTo(t, l, keys(3, 77)...)
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		parked, st := r.Parked(), r.Status()
		if len(parked) != 1 || parked[0].From != first+100 || parked[0].Redrive || parked[0].Attempts != 2 || st.Held != 0 || st.Open != 0 || st.Buffered != 0 {
			t.Fatalf("%+v %+v", parked, st)
		}
		r.end()
		if len(m.dead) != 1 || m.dead[first+100].ID == "" {
			t.Fatalf("listed as dead: %v", m.dead)
		}
		got := sink.took()
		last := map[uint64]pipeline.Offset{}
		for _, o := range got {
			k := uint64(o-first) % 20
			if o >= first+220 {
				k = []uint64{3, 77}[(o-first)%2]
			}
			if o <= last[k] {
				t.Fatalf("key %d: %d after %d", k, o, last[k])
			}
			last[k] = o
		}
		if len(got) != 220-6+100 {
			t.Fatalf("%d events taken", len(got))
		}
		if sink.most[pipeline.ReasonRedrive] != 4 || sink.reasons[first][1] != pipeline.ReasonRedrive || sink.reasons[first+221][0] != pipeline.ReasonFirst {
			t.Fatalf("%v %v", sink.most, sink.reasons[first])
		}
	})
}

// TestARedriveOutlivesTheProcess, and what retention took of it is listed.
func TestARedriveOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Fatal, first)
		r := start(t, parkConfig(l, m, sink))
		appendTo(t, l, keys(1)...)
		time.Sleep(time.Second)
		appendTo(t, l, keys(1, 2, 1)...)
		time.Sleep(time.Second)
		if err := r.Pause(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		if n, err := r.Redrive(t.Context(), nil); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		r.end()
		sink.cure()
		wantOffsets(t, sink.took(), 2)
		l.Truncate(first + 1)
		r = start(t, parkConfig(l, m, sink))
		if err := r.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		wantOffsets(t, sink.took(), 1, 3)
		r.end()
		if len(m.parks) != 0 || len(m.skips) != 1 || m.skips[0].Ranges[0] != (pipeline.OffsetRange{From: first, To: first + 1}) {
			t.Fatalf("%v %v", m.parks, m.skips)
		}
	})
}
