package disklog

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

var update = flag.Bool("update", false, "write the golden log anew")

// goldenDir was written before there were ranges and snapshots, newestDir with both.
const (
	goldenDir = "testdata/v1"
	newestDir = "testdata/v3"
)

// newestContent is what the golden log of the newest format was made from.
func newestContent(t *testing.T, l *Log) pipeline.Synced {
	var ids uint64
	var s pipeline.Synced
	for i := range 60 {
		b := rows(testTable(1, 1), uint64(i), 6)
		if i%2 == 1 {
			b = pipetest.Marked(b, testMark("a", uint64(i), pipeline.JobRunning))
		}
		mustAppend(t, l, b)
		if i == 10 {
			b = pipeline.NewBatch()
			b.Ranges = append(b.Ranges, splitAgain("s", 0, &ids))
			mustAppend(t, l, b)
		}
		s = waitSynced(t, l, mustAppend(t, l, pipetest.Marked(pipeline.NewBatch(), testMark("b", uint64(i), pipeline.JobDone))))
	}
	return s
}

func testMark(job string, rows uint64, state pipeline.JobState) pipeline.SnapshotMark {
	return pipeline.SnapshotMark{Job: job, For: "s", State: state, Tables: []pipeline.TableProgress{{Table: "public.t1", Rows: rows}},
		Resume: json.RawMessage(fmt.Sprint(rows))}
}

// goldenContent is what the golden log was made from.
func goldenContent(t *testing.T, l *Log) pipeline.Synced {
	for i := range 40 {
		b := rows(testTable(uint32(i%3+1), uint32(i/20+1)), uint64(i), 6)
		if i == 7 {
			b.Notices = append(b.Notices, pipeline.Notice{Kind: pipeline.NoticeQuarantined, Table: "public.t1", Reason: "golden", Time: time.Unix(1, 0).UTC()})
		}
		waitSynced(t, l, mustAppend(t, l, b))
	}
	chunked(t, l, "dropped", 2, 5, false)
	return waitSynced(t, l, chunked(t, l, "large", 3, 40, true))
}

// Logs that older versions wrote are opened by this one and say the same.
func TestGoldenLog(t *testing.T) {
	golden(t, goldenDir, goldenContent, func(l *Log, s pipeline.Synced) {
		if l.Last() != s.End || len(l.Tables()) != 3 || len(l.Notices()) != 2 || len(l.Snapshots()) != 0 {
			t.Error(l.Last(), l.Tables(), l.Notices(), l.Snapshots())
		}
	})
	golden(t, newestDir, newestContent, func(l *Log, s pipeline.Synced) {
		m := l.Snapshots()
		if l.Last() != s.End || len(l.Ranges()) != 1 || len(m) != 2 || string(m[1].Resume) != "59" || m[0].State != pipeline.JobDone {
			t.Error(l.Last(), l.Ranges(), m)
		}
	})
}

func golden(t *testing.T, dir string, content func(*testing.T, *Log) pipeline.Synced, check func(*Log, pipeline.Synced)) {
	opt := Options{SegmentSize: 16 << 10, Now: func() time.Time { return time.Unix(1_700_000_000, 0) }}
	if *update && dir == newestDir { // older ones stay what older versions wrote
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		opt.Dir = dir
		l := mustOpen(t, opt)
		content(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{lockName, nextName} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	opt.Dir = t.TempDir()
	fresh := mustOpen(t, opt)
	s := content(t, fresh)
	first, _ := fresh.Bounds()
	want := readAll(t, fresh, first, s.Next)

	opt.Dir = t.TempDir()
	if err := os.CopyFS(opt.Dir, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if damage, _, err := Verify(testContext(t), opt.Dir); err != nil || len(damage) > 0 {
		t.Fatal(damage, err)
	}
	l := mustOpen(t, opt)
	if got := readAll(t, l, first, s.Next); !slices.Equal(got, want) {
		t.Fatalf("%d events, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	check(l, s)
	next := waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 2), 1, 1))).Next
	if next != s.Next+1 {
		t.Fatalf("next %d, want %d", next, s.Next+1)
	}
}
