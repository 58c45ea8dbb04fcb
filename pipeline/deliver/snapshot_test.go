package deliver

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// rowsFor appends rows of a snapshot for a subscription.
func rowsFor(t testing.TB, l pipeline.Log, name string, ks ...uint64) {
	t.Helper()
	b := pipetest.Marked(batchOf(time.Now(), keys(ks...)...), pipeline.SnapshotMark{Job: "j", For: name, State: pipeline.JobRunning})
	if _, err := l.Append(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

// Rows of a snapshot for another subscription are passed over; those for this one or for all come in their place.
func TestRowsForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, sink := newMemory(), pipetest.NewRecordingSink()
		l := pipetest.NewMemoryLog("log", first)
		r := start(t, config(l, m, sink))
		appendTo(t, l, keys(1)...)      // first
		rowsFor(t, l, "other", 2, 3)    // first+1, +2
		rowsFor(t, l, "sub", 4)         // first+3
		rowsFor(t, l, "", 5)            // first+4
		rowsFor(t, l, "other", 1, 2, 3) // first+5 to +7
		time.Sleep(2 * time.Second)     // virtual
		synctest.Wait()
		if got := fmt.Sprint(offsets(sink.All())); got != fmt.Sprint([]pipeline.Offset{first, first + 3, first + 4}) {
			t.Fatal(got)
		}
		if c := m.cursor("sub"); c.Low != first+8 {
			t.Fatalf("what is for another holds the cursor at %d", c.Low)
		}
		r.end()
	})
}

// A laggard whose policy is a snapshot goes on where the snapshot's rows begin, also when it has to find that place
// again, and what is left out is listed.
func TestLaggardGetsASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, sink := newMemory(), pipetest.NewRecordingSink()
		l := pipetest.NewMemoryLog("log", first)
		c := config(l, m, sink)
		c.Laggard = LaggardSnapshot
		var asked []string
		begun := pipeline.Offset(0)
		c.Snapshot = func(_ context.Context, why string, oldest, next pipeline.Offset) (pipeline.Offset, error) {
			asked = append(asked, why)
			if begun == 0 {
				begun = next
			}
			return max(begun, oldest), nil
		}
		for k := range 20 {
			appendTo(t, l, keys(uint64(k))...)
		}
		m.cursors["sub"] = pipeline.Cursor{Log: "log", Low: first + 2, High: first + 2}
		l.Truncate(first + 10)
		r := start(t, c)
		rowsFor(t, l, "sub", 4, 5)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := fmt.Sprint(offsets(sink.All())); got != fmt.Sprint([]pipeline.Offset{first + 20, first + 21}) {
			t.Fatal(got)
		}
		if fmt.Sprint(m.skips[0].Ranges) != fmt.Sprint([]pipeline.OffsetRange{{From: first + 2, To: first + 20}}) {
			t.Fatal(m.skips)
		}
		r.end()
		if fmt.Sprint(asked) != "[laggard]" {
			t.Fatal(asked)
		}
		// The process ended before the cursor was saved: the snapshot's rows are not left out.
		m.cursors["sub"] = pipeline.Cursor{Log: "log", Low: first + 2, High: first + 2}
		sink = pipetest.NewRecordingSink()
		c.Sink = sink
		appendTo(t, l, keys(9)...)
		r = start(t, c)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := fmt.Sprint(offsets(sink.All())); got != fmt.Sprint([]pipeline.Offset{first + 20, first + 21, first + 22}) {
			t.Fatal(got)
		}
		r.end()
	})
}

// A new subscription that begins with a snapshot reads from where that was made durable on.
func TestFromSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, sink := newMemory(), pipetest.NewRecordingSink()
		l := pipetest.NewMemoryLog("log", first)
		appendTo(t, l, keys(1, 2, 3)...)
		c := config(l, m, sink)
		c.From = Start{Snapshot: true}
		if _, err := New(c); err == nil {
			t.Fatal("a snapshot that nothing makes is taken")
		}
		c.Snapshot = func(_ context.Context, why string, _, next pipeline.Offset) (pipeline.Offset, error) {
			if why != WhyNew {
				t.Error(why)
			}
			return next, nil
		}
		r := start(t, c)
		rowsFor(t, l, "sub", 1)
		appendTo(t, l, keys(7)...)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := fmt.Sprint(offsets(sink.All())); got != fmt.Sprint([]pipeline.Offset{first + 3, first + 4}) {
			t.Fatal(got)
		}
		r.end()
	})
}
