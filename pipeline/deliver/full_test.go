package deliver

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// TestAFullRangePauses: where as many keys of a range are parked as may be, the next one holds the range and nothing else;
// over a restart too; with room again all comes, in order.
func TestAFullRangePauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Fatal, first, first+1, first+2, first+3)
		split, err := new(partition.Maps).Split(table.KeySpace, pipeline.WholeRange, []byte("key-5"), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(t.Context(), pipetest.Changed(split)); err != nil {
			t.Fatal(err)
		}
		c := parkConfig(l, m, sink)
		c.RangeParks = 3
		r := start(t, c)
		appendTo(t, l, keys(1, 2, 3)...)
		time.Sleep(time.Minute)
		appendTo(t, l, keys(4, 6)...)
		time.Sleep(time.Minute)
		appendTo(t, l, keys(0, 4, 7)...)
		time.Sleep(time.Minute)
		wantOffsets(t, sink.took(), 4, 7)
		st := r.Status()
		if at, _ := r.Progress(); st.State != StateRunning || st.Parked != 3 || st.Low != first+8 || st.Lanes[0].Paused != first+3 || st.Lanes[1].Paused != 0 || at != first+3 {
			t.Fatalf("progress %d, %+v", at, st)
		}
		if place, _ := r.Place(); place.Low != first+3 || len(m.dead) != 3 || len(r.Parked()) != 3 {
			t.Fatalf("%+v, %d dead letters", place, len(m.dead))
		}
		disk := m.killed()
		r.end()
		c.Store, c.Cursors, c.Jobs = disk, disk, disk
		r = start(t, c)
		appendTo(t, l, keys(0, 8)...)
		time.Sleep(time.Minute)
		wantOffsets(t, sink.took(), 9)

		if n, err := r.Discard(t.Context(), []ParkKey{{Space: table.KeySpace, Key: []byte("key-1")}}, "me"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		// What follows the range brings: key-1's event 9 below, too.
		if s := disk.skips[len(disk.skips)-1]; len(disk.skips) != 1 || s.Ranges[0] != (pipeline.OffsetRange{From: first, To: first + 3}) {
			t.Fatalf("%+v", disk.skips)
		}
		time.Sleep(time.Minute) // and the event that made it pause has a place now
		wantOffsets(t, sink.took(), 5, 8)
		if st := r.Status(); st.Parked != 3 || st.Lanes[0].Paused != 0 || len(disk.parks) != 3 {
			t.Fatalf("%+v", st)
		}
		sink.cure()
		if n, err := r.Redrive(t.Context(), nil); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(time.Minute)
		wantOffsets(t, sink.took(), 1, 2, 3, 6)
		if at, _ := r.Progress(); at != first+10 || disk.parked() != 0 || len(disk.dead) != 1 { // the one that was discarded
			t.Fatalf("progress %d, %v, %v", at, disk.parks, disk.dead)
		}
		r.end()
	})
}

// TestRetentionPassesAPausedRange: what it takes of the range is listed and counted when it does, not at the redrive; the
// range is held from there on where the log begins.
func TestRetentionPassesAPausedRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Fatal, first, first+1, first+2, first+3)
		split, err := new(partition.Maps).Split(table.KeySpace, pipeline.WholeRange, []byte("key-5"), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(t.Context(), pipetest.Changed(split)); err != nil {
			t.Fatal(err)
		}
		c := parkConfig(l, m, sink)
		c.RangeParks = 3
		r := start(t, c)
		appendTo(t, l, keys(1, 2, 3, 4)...)
		time.Sleep(time.Minute)
		for _, k := range []uint64{0, 6, 0, 4, 7} { // a batch each
			appendTo(t, l, keys(k)...)
		}
		time.Sleep(time.Minute)
		wantOffsets(t, sink.took(), 5, 8)
		if place, _ := r.Place(); place != (Place{Low: first + 3, Read: first + 3}) || len(m.skips) > 0 {
			t.Fatalf("%+v, %+v", place, m.skips)
		}
		l.Truncate(first + 6)
		time.Sleep(time.Minute)
		if place, _ := r.Place(); place != (Place{Low: first + 6, Read: first + 6, Expired: 3}) {
			t.Fatalf("%+v", place)
		}
		if len(m.skips) != 1 || m.skips[0].Ranges[0] != (pipeline.OffsetRange{From: first + 3, To: first + 6}) {
			t.Fatalf("%+v", m.skips)
		}
		sink.cure()
		if n, err := r.Discard(t.Context(), nil, "me"); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(time.Minute)
		wantOffsets(t, sink.took(), 6, 7)
		r.end()
	})
}

// TestACancelledRewindWhoseBeginningIsGone: which keys it took back is not known any more; none is left at an old event.
func TestACancelledRewindWhoseBeginningIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Defer)
		c := parkConfig(l, m, sink)
		c.MaxInFlight, c.Batch.Events, c.Budget = 1, 1, 1
		r := start(t, c)
		appendTo(t, l, keys(1)...)
		for range 20 {
			appendTo(t, l, keys(2)...)
		}
		appendTo(t, l, keys(1)...)
		time.Sleep(time.Minute)
		sink.took()
		if err := r.Rewind(t.Context(), pipeline.Job{ID: "j1", Subscription: "sub", Log: "log", Kind: pipeline.JobRewind, State: pipeline.JobRunning, From: first}); err != nil {
			t.Fatal(err)
		}
		var at pipeline.Offset
		for at < first+3 {
			time.Sleep(10 * time.Millisecond)
			j, _, _ := r.Replaying()
			at = j.At
		}
		l.Truncate(at)
		if err := r.ChangeRewind(t.Context(), pipeline.JobCancelled, "me"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r.end()
		one, two := pipeline.Offset(0), pipeline.Offset(0)
		for _, o := range sink.took() {
			if o == first || o == first+21 {
				one = o
			} else {
				two = o
			}
		}
		if one != first+21 || two != first+20 || m.jobs["j1"].State != pipeline.JobCancelled {
			t.Fatalf("the keys end at %d and %d: %+v", one, two, m.jobs["j1"])
		}
	})
}
