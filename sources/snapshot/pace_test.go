package snapshot

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// The size settles where a chunk takes less than the target, and follows a database that becomes slow and quick again.
func TestSizer(t *testing.T) {
	c := Config{Chunk: 100 * time.Millisecond, first: firstChunk}
	s := newSizer(&c, 180)
	for _, cost := range []time.Duration{20 * time.Microsecond, 200 * time.Microsecond, time.Microsecond, 10 * time.Millisecond, 5 * time.Microsecond} {
		worst := time.Duration(0)
		for n := range 700 {
			d := time.Duration(s.limit) * cost
			if n >= 600 {
				worst = max(worst, d)
			}
			s.took(s.limit, d, false)
		}
		if best := min(c.Chunk, mostChunk*cost); worst > max(c.Chunk*11/10, leastChunk*cost) || worst < best/2 {
			t.Errorf("a row takes %v: chunks of up to %v", cost, worst)
		}
	}
	if s.took(3, time.Second, true); s.limit != 3 {
		t.Errorf("after 3 large rows the next chunk is to have %d", s.limit)
	}
	if d := rest(100*time.Millisecond, 0.25); d != 300*time.Millisecond {
		t.Errorf("a quarter of the time rests %v after 100 ms", d)
	}
}

// The first chunk goes by the rows' width.
func TestFirstChunk(t *testing.T) {
	c := Config{Chunk: 100 * time.Millisecond, first: firstChunk}
	for width, want := range map[uint64]int{0: firstBlind, 1: firstChunk, 1000: firstChunk, 10_000: 104, 200_000: 5, 1 << 40: 1} {
		if s := newSizer(&c, width); s.limit != want || s.least > s.limit {
			t.Errorf("rows of %d bytes: %d of them, want %d", width, s.limit, want)
		}
	}
}

// A job that is paced to nothing stands still; one that is stopped says so though the database is idle; ids are heeded.
func TestStopAndPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(rand.New(rand.NewPCG(1, 1)), 50)
		st, err := New(w, w, Config{first: 6}).Open(t.Context(), pipeline.Position{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = st.Close() }()
		s := st.(pipeline.Snapshotter)
		s.Start(pipeline.SnapshotJob{ID: "j1", Tables: []string{"*.*"}})
		s.Start(pipeline.SnapshotJob{ID: "j1", Tables: []string{"*.*"}})
		s.Stop("unknown")
		take := func(d time.Duration, until func(m *pipeline.SnapshotMark) bool) (rows int, last *pipeline.SnapshotMark) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			for {
				b, err := st.Next(ctx)
				if err != nil {
					return rows, last
				}
				if b.Snapshot != nil {
					rows, last = rows+len(b.Events), b.Snapshot
				}
				b.Release()
				if last != nil && until(last) {
					return rows, last
				}
			}
		}
		take(time.Minute, func(m *pipeline.SnapshotMark) bool { return len(m.Tables) > 0 && m.Tables[0].Rows > 0 })
		s.Pace("j1", 0, "a test")
		take(time.Minute, func(*pipeline.SnapshotMark) bool { return false }) // what is under way
		if rows, _ := take(time.Hour, func(*pipeline.SnapshotMark) bool { return false }); rows > 0 {
			t.Errorf("%d rows came at no pace", rows)
		}
		s.Stop("j1")
		if rows, last := take(time.Minute, func(m *pipeline.SnapshotMark) bool { return m.State.Ended() }); rows > 0 || last == nil || last.State != pipeline.JobCancelled {
			t.Errorf("stopped: %d rows, %+v", rows, last)
		}
		s.Start(pipeline.SnapshotJob{ID: "j2", Tables: []string{"*.*"}})
		if rows, last := take(time.Hour, func(m *pipeline.SnapshotMark) bool { return m.State.Ended() }); rows != 150 || last.State != pipeline.JobDone {
			t.Errorf("another job: %d rows, %+v", rows, last)
		}
	})
}
