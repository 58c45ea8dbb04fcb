package disklog

import (
	"testing"
	"time"
)

// Every version that a kept segment describes is found by the name that it had, over restarts too; what retention
// has taken is not.
func TestEveryVersionIsFound(t *testing.T) {
	dir := t.TempDir()
	opt := Options{Dir: dir, SegmentSize: 16 << 10, Memory: 1, Retention: Retention{Size: 1 << 20, Age: 24 * time.Hour}}
	l := mustOpen(t, opt)
	for version := uint32(1); version <= 3; version++ {
		for i := range 60 {
			waitSynced(t, l, mustAppend(t, l, rows(testTable(1, version), uint64(i), 10)))
		}
		waitSynced(t, l, mustAppend(t, l, rows(testTable(2, version), 1, 1)))
	}
	look := func(l *Log) {
		t.Helper()
		for version := uint32(1); version <= 3; version++ {
			for id := uint32(1); id <= 2; id++ {
				want := testTable(id, version)
				got, err := l.Table(want.Subject(), version)
				if err != nil || got == nil || got.ShapeHash() != want.ShapeHash() || got.ID != id {
					t.Errorf("table %d, version %d: %v %v", id, version, got, err)
				}
			}
		}
		for _, none := range []string{"", "public.nosuch", testTable(1, 1).Subject() + "x"} {
			if got, err := l.Table(none, 1); got != nil || err != nil {
				t.Errorf("%q: %v %v", none, got, err)
			}
		}
		if got, err := l.Table(testTable(1, 1).Subject(), 9); got != nil || err != nil {
			t.Errorf("version 9: %v %v", got, err)
		}
	}
	look(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, opt)
	look(l) // from the segments, as nothing has read them yet
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	opt.Retention = Retention{Size: 40 << 10}
	l = mustOpen(t, opt)
	for i := range 200 {
		waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 3), uint64(i), 10)))
	}
	poll(t, "the first version is gone", func() bool {
		got, err := l.Table(testTable(1, 1).Subject(), 1)
		return got == nil && err == nil
	})
	if got, err := l.Table(testTable(1, 3).Subject(), 3); got == nil || err != nil {
		t.Error(got, err)
	}
}
