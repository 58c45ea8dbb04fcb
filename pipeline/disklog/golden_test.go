package disklog

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

var update = flag.Bool("update", false, "write the golden log anew")

const goldenDir = "testdata/v1"

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

// A log that format 1 wrote is opened by this version and says the same.
func TestGoldenLog(t *testing.T) {
	opt := Options{SegmentSize: 16 << 10, Now: func() time.Time { return time.Unix(1_700_000_000, 0) }}
	if *update {
		if err := os.RemoveAll(goldenDir); err != nil {
			t.Fatal(err)
		}
		opt.Dir = goldenDir
		l := mustOpen(t, opt)
		goldenContent(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{lockName, nextName} {
			if err := os.Remove(filepath.Join(goldenDir, name)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	opt.Dir = t.TempDir()
	fresh := mustOpen(t, opt)
	s := goldenContent(t, fresh)
	first, _ := fresh.Bounds()
	want := readAll(t, fresh, first, s.Next)

	opt.Dir = t.TempDir()
	if err := os.CopyFS(opt.Dir, os.DirFS(goldenDir)); err != nil {
		t.Fatal(err)
	}
	if damage, _, err := Verify(testContext(t), opt.Dir); err != nil || len(damage) > 0 {
		t.Fatal(damage, err)
	}
	l := mustOpen(t, opt)
	if got := readAll(t, l, first, s.Next); !slices.Equal(got, want) {
		t.Fatalf("%d events, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	if l.Last() != s.End || len(l.Tables()) != 3 || len(l.Notices()) != 2 {
		t.Fatal(l.Last(), l.Tables(), l.Notices())
	}
	next := waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 2), 1, 1))).Next
	if next != s.Next+1 {
		t.Fatalf("next %d, want %d", next, s.Next+1)
	}
}
