package disklog

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// The marks of snapshot jobs survive rolls, retention of the segments that brought them, and reopening.
func TestMarksSurviveRollsAndRetention(t *testing.T) {
	opt := Options{Dir: t.TempDir(), SegmentSize: minSegment, Retention: Retention{Size: 6 * minSegment}}
	l := mustOpen(t, opt)
	first, _ := l.Bounds()
	var all []pipeline.SnapshotMark
	var next pipeline.Offset
	for i := range 400 {
		b := rows(testTable(1, 1), uint64(i), 6)
		if i%20 == 0 && i < 100 {
			m := testMark("a", uint64(i), pipeline.JobRunning)
			if i == 60 {
				m = testMark("b", 1, pipeline.JobDone)
			}
			all = pipeline.FoldMarks(all, m)
			b = pipetest.Marked(b, m)
		}
		next = waitSynced(t, l, mustAppend(t, l, b)).Next
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if oldest, _ := l.Bounds(); oldest > first+600 { // the marks' own segments are gone
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("retention took nothing")
		}
		next = waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), 7, 6))).Next
	}
	want, _ := json.Marshal(all)
	if got, _ := json.Marshal(l.Snapshots()); string(got) != string(want) {
		t.Fatalf("marks %s, want %s", got, want)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if damage, sum, err := Verify(testContext(t), opt.Dir); err != nil || len(damage) > 0 || sum.Next != next {
		t.Fatal(damage, sum, err)
	}
	l = mustOpen(t, opt)
	if got, _ := json.Marshal(l.Snapshots()); string(got) != string(want) {
		t.Fatalf("after reopening: marks %s, want %s", got, want)
	}
}
