package partition

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"pgregory.net/rapid"
)

// Whatever is split and merged: the ranges tile the space, each key has one owner, ids are unique, the
// lineage is whole, and a history answers for each offset what was in force.
func TestRangesAlwaysTile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := new(History)
		now := pipeline.Offset(100)
		var kept []pipeline.RangeAt
		atOffset := map[pipeline.Offset]*Maps{}
		given := map[uint64]bool{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			maps := h.Last()
			space := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "space")
			m := maps.Map(space)
			var c pipeline.RangeChange
			var err error
			if rapid.Bool().Draw(t, "split") {
				at := rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "at")
				r := rapid.SampledFrom(m.Ranges()).Draw(t, "range")
				c, err = maps.Split(space, r.ID, at, "test")
				if (err == nil) != (r.Contains(at) && len(at) > 0 && !bytes.Equal(at, r.Start)) {
					t.Fatalf("split of %v at %x: %v", r, at, err)
				}
			} else {
				i := rapid.IntRange(0, len(m.Ranges())-1).Draw(t, "from")
				j := rapid.IntRange(0, len(m.Ranges())).Draw(t, "to")
				var ids []uint64
				for k := i; k < j; k++ {
					ids = append(ids, m.Ranges()[k].ID)
				}
				slices.Reverse(ids)
				c, err = maps.Merge(space, ids, "test")
				if (err == nil) != (len(ids) >= 2) {
					t.Fatalf("merge of %v: %v", ids, err)
				}
			}
			if err != nil {
				var re *RangeError
				if !errors.As(err, &re) {
					t.Fatalf("%T", err)
				}
				continue
			}
			for _, r := range c.Opened {
				if given[r.ID] || r.ID == pipeline.WholeRange {
					t.Fatalf("id %d again", r.ID)
				}
				given[r.ID] = true
			}
			now += pipeline.Offset(rapid.IntRange(0, 3).Draw(t, "gap"))
			kept = append(kept, pipeline.RangeAt{At: now, RangeChange: c})
			if err := h.Add(kept[len(kept)-1]); err != nil {
				t.Fatal(err)
			}
			if err := h.Add(kept[len(kept)-1]); err != nil {
				t.Fatalf("the same again: %v", err)
			}
			if _, err := h.Last().Apply(c); !errors.Is(err, ErrEpoch) {
				t.Fatalf("an old change was applied: %v", err)
			}
			atOffset[now] = h.Last()
			checkTiles(t, h.Last())
		}
		again, err := NewHistory(kept)
		if err != nil {
			t.Fatal(err)
		}
		for o, m := range atOffset {
			if h.At(o) != m || fmt.Sprint(again.At(o).Map("a"), again.At(o).Map("b")) != fmt.Sprint(m.Map("a"), m.Map("b")) {
				t.Fatalf("maps at %d", o)
			}
		}
		checkLineage(t, h, "a")
		checkLineage(t, h, "b")
	})
}

func checkTiles(t *rapid.T, maps *Maps) {
	for _, space := range []string{"a", "b"} {
		m := maps.Map(space)
		if err := tiles(m.Ranges(), nil, nil); err != nil {
			t.Fatalf("%s: %v: %v", space, err, m.Ranges())
		}
		key := rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "key")
		for i, r := range m.Ranges() {
			if r.Contains(key) != (m.Find(key) == i) {
				t.Fatalf("key %x: found %d, range %d says %v", key, m.Find(key), i, r.Contains(key))
			}
		}
	}
}

// checkLineage follows every range back to the whole one, and on to ranges that are open.
func checkLineage(t *rapid.T, h *History, space string) {
	all := map[uint64]Life{}
	for _, l := range h.Lineage(space) {
		all[l.ID] = l
	}
	open := 0
	for id, l := range all {
		if l.Closed == 0 {
			open++
			if h.Last().Map(space).Index(id) < 0 {
				t.Fatalf("range %d is not closed and not there", id)
			}
		}
		if id != pipeline.WholeRange && len(l.Parents) == 0 {
			t.Fatalf("range %d has no parents", id)
		}
		for _, p := range l.Parents {
			if parent, ok := all[p]; !ok || !slices.Contains(parent.Children, id) || parent.Closed != l.Opened {
				t.Fatalf("range %d: its parent %d says %+v", id, p, parent)
			}
		}
		for _, c := range l.Children {
			if child, ok := all[c]; !ok || !slices.Contains(child.Parents, id) {
				t.Fatalf("range %d: its child %d says %+v", id, c, child)
			}
		}
	}
	if open != len(h.Last().Map(space).Ranges()) {
		t.Fatalf("%d open ranges in the lineage, %d in the map", open, len(h.Last().Map(space).Ranges()))
	}
}

// A split that is merged again restores what each key belonged to, under a new id.
func TestSplitThenMergeRestores(t *testing.T) {
	maps := new(Maps)
	c, err := maps.Split("s", pipeline.WholeRange, []byte{5}, "")
	if err != nil {
		t.Fatal(err)
	}
	two, err := maps.Apply(c)
	if err != nil {
		t.Fatal(err)
	}
	c, err = two.Merge("s", []uint64{2, 1}, "")
	if err != nil {
		t.Fatal(err)
	}
	one, err := two.Apply(c)
	if err != nil {
		t.Fatal(err)
	}
	if r := one.Map("s").Ranges(); len(r) != 1 || r[0].Start != nil || r[0].End != nil || r[0].ID != 3 || one.count != 1 {
		t.Fatalf("%+v", r)
	}
}

func TestRefusedChangesSayWhy(t *testing.T) {
	maps := new(Maps)
	for range 3 {
		ranges := maps.Map("s").Ranges()
		last := ranges[len(ranges)-1]
		c, err := maps.Split("s", last.ID, append(bytes.Clone(last.Start), 9), "")
		if err != nil {
			t.Fatal(err)
		}
		if maps, err = maps.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	for want, do := range map[string]func() error{
		"no range 99":           func() error { _, err := maps.Split("s", 99, []byte{1}, ""); return err },
		"begins at this key":    func() error { _, err := maps.Split("s", 3, []byte{9}, ""); return err },
		"not in range 1 of key": func() error { _, err := maps.Split("s", 1, []byte{10}, ""); return err },
		"two ranges or more":    func() error { _, err := maps.Merge("s", []uint64{1}, ""); return err },
		"named twice":           func() error { _, err := maps.Merge("s", []uint64{1, 1}, ""); return err },
		"are not neighbours":    func() error { _, err := maps.Merge("s", []uint64{1, 6}, ""); return err },
		"it has [1 3 5 6]":      func() error { _, err := maps.Merge("s", []uint64{1, 2}, ""); return err },
		"do not cover": func() error {
			_, err := maps.Apply(pipeline.RangeChange{Space: "s", Epoch: 4, Closed: []uint64{1}, Opened: []pipeline.Range{{ID: 7, Space: "s"}}})
			return err
		},
	} {
		err := do()
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
