package snapshot

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// A table without a key keeps its job's pace while its rows come. When it may not be read for long, the stream goes on,
// and the table begins again.
func TestKeylessTableKeepsThePace(t *testing.T) {
	for name, held := range map[string]time.Duration{"for a while": patience / 2, "for long": 2 * patience} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(rand.New(rand.NewPCG(1, 1)), 200)
			clear(w.rows["a"])
			clear(w.rows["b"])
			st, err := New(w, w, Config{first: 6, batch: 1}).Open(t.Context(), pipeline.Position{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = st.Close() }()
			s := st.(pipeline.Snapshotter)
			s.Start(pipeline.SnapshotJob{ID: "j1", Tables: []string{"*.*"}})
			rows, other := 0, 0
			var mark pipeline.SnapshotMark
			var bag pipeline.TableProgress
			take := func(d time.Duration, until func() bool) {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				defer cancel()
				for !until() {
					b, err := st.Next(ctx)
					if err != nil {
						return
					}
					if rows += len(b.Events); b.Snapshot != nil {
						mark = *b.Snapshot
						for _, p := range mark.Tables {
							if p.Whole {
								bag = p
							}
						}
					} else {
						rows -= len(b.Events)
						other++
					}
					b.Release()
				}
			}
			never := func() bool { return false }
			take(time.Hour, func() bool { return bag.Rows > 20 })
			s.Pace("j1", 0, "a test")
			take(time.Second, never) // what was read
			before, changes := rows, other
			if before > 60 {
				t.Fatalf("%s: %d rows came", name, before)
			}
			w.transact()
			time.Sleep(held)
			take(time.Second, never)
			if long := held > patience; rows != before || (other > changes) != long {
				t.Fatalf("%s: %d rows came at no pace, and %d batches of the stream", name, rows-before, other-changes)
			}
			s.Pace("j1", 1, "")
			take(time.Hour, func() bool { return mark.State.Ended() })
			if want := len(w.rows["bag"]); mark.State != pipeline.JobDone || int(bag.Rows) < 199 || held < patience && rows > 200 || held > patience && rows < want+before-1 {
				t.Fatalf("%s: %s, %d rows of %d: %+v", name, mark.State, rows, want, bag)
			}
		})
	}
}
