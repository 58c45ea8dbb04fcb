package deliver

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// reads counts the readers of a log.
type reads struct {
	*pipetest.MemoryLog
	n atomic.Int64
}

func (r *reads) Read(from pipeline.Offset) (pipeline.LogReader, error) {
	r.n.Add(1)
	return r.MemoryLog.Read(from)
}

// TestCopiesAreBounded: what is beyond the bound is listed as skipped at once, and a redrive brings the rest; the log is
// read once for all subscriptions.
func TestCopiesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &reads{MemoryLog: pipetest.NewMemoryLog("log", first)}
		var runs []*run
		var stores []*memory
		var sinks []*picky
		for i := range 3 {
			m, sink := newMemory(), newPicky(pipeline.Fatal, first)
			c := parkConfig(l, m, sink)
			c.Name = fmt.Sprint("sub", i)
			runs, stores, sinks = append(runs, start(t, c)), append(stores, m), append(sinks, sink)
		}
		for range 40 {
			appendTo(t, l, keys(1, 2)...)
		}
		time.Sleep(time.Minute)
		runs[0].maxCopied = 1 // nothing
		runs[1].maxCopied = 1 << 30
		l.n.Store(0)
		errs := CopyHeld(context.Background(), first+60, runs[0].Subscription, runs[1].Subscription, runs[2].Subscription)
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
		if l.n.Load() != 1 {
			t.Fatalf("the log was read %d times", l.n.Load())
		}
		if errs := CopyHeld(context.Background(), first+60, runs[0].Subscription); errs[0] != nil || l.n.Load() != 1 {
			t.Fatal("copied again", errs, l.n.Load())
		}
		l.Truncate(first + 60)
		for i, want := range []int{0, 30, 30} {
			if _, n, _ := stores[i].HeldBytes(t.Context(), ""); int(n) != want {
				t.Fatalf("%d copies, want %d", n, want)
			}
			sinks[i].took()
			sinks[i].cure()
			if _, err := runs[i].Redrive(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if got := len(sinks[i].took()); got != want+10 {
				t.Fatalf("%d events redriven, want %d", got, want+10)
			}
			if skips := stores[i].skips; (len(skips) == 1) != (i == 0) || i == 0 && skips[0].Ranges[0] != (pipeline.OffsetRange{From: first, To: first + 60}) {
				t.Fatalf("%+v", skips)
			}
			runs[i].end()
		}
	})
}

// TestAnInsertDoesNotWaitForALostDelete: retention took the first half of a key change before it was copied, and there is a
// copy of the second: a redrive brings what there is and ends the parks.
func TestAnInsertDoesNotWaitForALostDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Fatal, first)
		r := start(t, parkConfig(l, m, sink))
		appendTo(t, l, change{key: 1}, change{key: 1, op: pipeline.OpDelete, pair: true}, change{key: 2, op: pipeline.OpInsert, pair: true}, change{key: 2})
		time.Sleep(time.Minute)
		for _, step := range []struct {
			below pipeline.Offset
			most  int64
		}{{first + 2, 0}, {first + 4, 1 << 30}} { // no room, and then there was
			r.maxCopied = step.most
			if errs := CopyHeld(t.Context(), step.below, r.Subscription); errs[0] != nil {
				t.Fatal(errs[0])
			}
		}
		l.Truncate(first + 4)
		sink.cure()
		if n, err := r.Redrive(t.Context(), nil); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(time.Minute)
		wantOffsets(t, sink.took(), 2, 3)
		if st := r.Status(); st.Parked != 0 || st.Held != 0 || len(m.skips) != 1 {
			t.Fatalf("%+v, skips %v", st, m.skips)
		}
		r.end()
	})
}
