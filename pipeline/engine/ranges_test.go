package engine

import (
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

func encoded(t testing.TB, id int64) []byte {
	t.Helper()
	k, err := partition.AppendValue(nil, &cell.Value{Kind: schemas.KindInt, N: uint64(id)}, &schemas.Type{Kind: schemas.KindInt})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Ranges are changed while a source is read: nothing is lost, what was refused changed nothing, and a reopened
// log says the same.
func TestRangesAreChangedBesideIngest(t *testing.T) {
	r := newRig(t, time.Millisecond)
	src := pipetest.NewScriptedSource(script(300)...)
	r.source(src)
	sink := pipetest.NewRecordingSink()
	r.subscribe("all", sink)
	r.wait(sink, 1)
	const space = "public.files"
	ctx := t.Context()
	var all sync.WaitGroup
	for i := range 20 { // several people at once: each split meets the newest map
		all.Go(func() {
			at := encoded(t, int64(10+10*i))
			for {
				log, err := r.engine.Log("files")
				if err != nil {
					t.Error(err)
					return
				}
				h, err := partition.NewHistory(log.Ranges())
				if err != nil {
					t.Error(err)
					return
				}
				m := h.Last().Map(space)
				_, err = r.engine.Split(ctx, "files", space, m.Ranges()[m.Find(at)].ID, at, "test")
				var refused *partition.RangeError
				if err == nil || !errors.As(err, &refused) {
					if err != nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	all.Wait()
	open, err := r.engine.Ranges(ctx, "files", false)
	if err != nil || len(open) != 21 {
		t.Fatalf("%d ranges, %v", len(open), err)
	}
	for what, f := range map[string]func() error{
		"a key that is not in it": func() error {
			_, err := r.engine.Split(ctx, "files", space, open[0].ID, encoded(t, 100), "")
			return err
		},
		"no neighbours": func() error {
			_, err := r.engine.Merge(ctx, "files", space, []uint64{open[0].ID, open[2].ID}, "")
			return err
		},
	} {
		var refused *partition.RangeError
		if err := f(); !errors.As(err, &refused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := r.engine.Merge(ctx, "files", space, []uint64{open[1].ID, open[0].ID}, "test"); err != nil {
		t.Fatal(err)
	}
	r.wait(sink, 300)
	before, err := r.engine.Ranges(ctx, "files", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.engine.RemoveSource("files"); err != nil {
		t.Fatal(err)
	}
	r.source(pipetest.NewScriptedSource(script(300)...))
	after, err := r.engine.Ranges(ctx, "files", true)
	if err != nil || len(after) != len(before) || len(after) != 42 {
		t.Fatalf("%d ranges in the lineage, before %d, %v", len(after), len(before), err)
	}
	for i := range after {
		if after[i].ID != before[i].ID || after[i].Opened != before[i].Opened || after[i].Closed != before[i].Closed || !slices.Equal(after[i].Children, before[i].Children) {
			t.Errorf("range %+v, before %+v", after[i], before[i])
		}
	}
}

// A hot range is split by itself, on the log's way.
func TestRangesAreSplitByLoad(t *testing.T) {
	log := pipetest.NewMemoryLog("log", 1000)
	r, err := newRanges(log, "files", partition.Policy{Hot: 50})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(0, 0)
	for range 6 {
		b := pipetest.Build(pipeline.Position{Counter: 1}, now, nil)
		table := filesTable()
		table.KeySpace = "public.files"
		var changes []pipetest.Change
		for i := range 100 {
			changes = append(changes, pipetest.Change{Op: pipeline.OpInsert, Table: table, After: pipetest.Row{strconv.Itoa(i), "1", "/x"}})
		}
		b.Release()
		b = pipetest.Build(pipeline.Position{Counter: 1}, now, changes)
		for i := range b.Events {
			b.Events[i].Key = b.Put(encoded(t, int64(i)))
		}
		if _, err := r.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
		if err := r.step(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	h, err := partition.NewHistory(log.Ranges())
	if err != nil {
		t.Fatal(err)
	}
	ranges := h.Last().Map("public.files").Ranges()
	if len(ranges) != 2 || string(ranges[1].Start) != string(encoded(t, 50)) {
		t.Fatalf("%+v", ranges)
	}
}
