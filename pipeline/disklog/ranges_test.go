package disklog

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

// splitAgain is change n of a space, which splits its last range.
func splitAgain(space string, n int, ids *uint64) pipeline.RangeChange {
	closed, start := uint64(pipeline.WholeRange), []byte(nil)
	if n > 0 {
		closed, start = *ids, []byte{byte(n)}
	}
	c := pipeline.RangeChange{Epoch: uint64(n + 1), Space: space, Closed: []uint64{closed}, Reason: "test"}
	for i := range 2 {
		*ids++
		r := pipeline.Range{ID: *ids, Space: space, Start: start, Parents: []uint64{closed}}
		if i == 0 {
			r.End = []byte{byte(n + 1)}
			start = r.End
		}
		c.Opened = append(c.Opened, r)
	}
	return c
}

// What Ranges says survives rolls, retention and reopening: each segment states the maps that it begins with.
func TestRangesSurviveRollsAndRetention(t *testing.T) {
	opt := Options{Dir: t.TempDir(), SegmentSize: minSegment, Retention: Retention{Size: 6 * minSegment}}
	l := mustOpen(t, opt)
	var all []pipeline.RangeAt
	var ids uint64
	next, _ := l.Bounds()
	first := next
	for i := range 400 {
		if i%20 == 0 && i < 200 {
			b := pipeline.NewBatch()
			b.Ranges = append(b.Ranges, splitAgain("s", i/20, &ids))
			all = append(all, pipeline.RangeAt{At: next, RangeChange: b.Ranges[0]})
			mustAppend(t, l, b)
		}
		next = waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), uint64(i), 6))).Next
	}
	check := func(l *Log) {
		t.Helper()
		oldest, _ := l.Bounds()
		want, _ := json.Marshal(pipeline.FoldRanges(all, oldest))
		if got, _ := json.Marshal(l.Ranges()); string(got) != string(want) {
			t.Fatalf("oldest %d (+%d): ranges\n%s\nwant\n%s", oldest, oldest-first, got, want)
		}
	}
	check(l)
	for deadline := time.Now().Add(time.Minute); ; {
		if oldest, _ := l.Bounds(); oldest > all[3].At {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("retention took nothing")
		}
		next = waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), 7, 6))).Next
	}
	check(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if damage, sum, err := Verify(testContext(t), opt.Dir); err != nil || len(damage) > 0 || sum.Next != next {
		t.Fatal(damage, sum, err)
	}
	l = mustOpen(t, opt)
	check(l)
}

// A log that never had a range changed is written in format 1, so that an older version still reads it; one
// that had is refused by it, by number.
func TestOnlyRangesNeedTheNewFormat(t *testing.T) {
	opt := Options{Dir: t.TempDir(), SegmentSize: minSegment}
	l := mustOpen(t, opt)
	waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), 1, 6)))
	versions := func() map[string]uint16 {
		seen := map[string]uint16{}
		if err := Dump(testContext(t), opt.Dir, 0, 0, func(e Entry) error {
			seen[e.Kind.String()] = max(seen[e.Kind.String()], e.Version)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return seen
	}
	for kind, v := range versions() {
		if v != 1 {
			t.Errorf("a %s block in format %d", kind, v)
		}
	}
	var ids uint64
	b := pipeline.NewBatch()
	b.Ranges = append(b.Ranges, splitAgain("s", 0, &ids))
	mustAppend(t, l, b)
	for i := range 400 {
		waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), uint64(i), 6)))
	}
	if got := fmt.Sprint(versions()); got != "map[catalog:2 ranges:2 rows:1 schema:1]" && got != "map[catalog:2 epoch:1 ranges:2 rows:1 schema:1]" {
		t.Error(got)
	}
}

func TestBadRangesAreRefused(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: minSegment})
	for name, c := range map[string]pipeline.RangeChange{
		"closes none": {Epoch: 1, Space: "s", Opened: []pipeline.Range{{ID: 1, Space: "s"}}},
		"opens none":  {Epoch: 1, Space: "s", Closed: []uint64{0}},
		"a gap":       {Epoch: 1, Space: "s", Closed: []uint64{0}, Opened: []pipeline.Range{{ID: 1, Space: "s", End: []byte{1}}, {ID: 2, Space: "s", Start: []byte{2}}}},
		"elsewhere":   {Epoch: 1, Space: "s", Closed: []uint64{0}, Opened: []pipeline.Range{{ID: 1, Space: "t"}}},
	} {
		b := pipeline.NewBatch()
		b.Ranges = append(b.Ranges, c)
		var invalid *record.InvalidError
		if _, err := l.Append(testContext(t), b); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), 1, 6))) // nothing was harmed
}
