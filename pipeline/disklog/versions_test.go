package disklog

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline/record"
)

// Every version is found by the name that it had, over restarts too, and when retention has taken all segments that
// described it.
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
	poll(t, "the segments that described the first version are gone", func() bool {
		return len(l.described(testTable(1, 1).Subject(), 1)) == 0
	})
	look(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, shapesName)
	text, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, append(text, `{"id":1,"vers`...), 0o600) // torn
	}
	if err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, opt)
	look(l)
	if err := l.outlive(l.mu.segs[:1]); err != nil { // goes on behind it
		t.Fatal(err)
	}
	look(l)
}

// The file of shapes is bounded: the latest that left the log stay, and each line is whole. A crash leaves it as it was,
// or bounded.
func TestTheFileOfShapesIsBounded(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Options{Dir: dir, SegmentSize: 16 << 10})
	var lines []byte
	const versions = 200
	for v := uint32(1); v <= versions; v++ {
		var err error
		if lines, err = record.AppendSchema(append(lines, '\n'), testTable(1, v)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.appendShapes(append(lines, '\n')); err != nil {
		t.Fatal(err)
	}
	if err := l.boundShapes(int64(len(lines)) + 1); err != nil {
		t.Fatal(err)
	}
	if all, err := l.outlived(); err != nil || len(all) != versions {
		t.Fatalf("%d of %d within the bound: %v", len(all), versions, err)
	}
	most := int64(len(lines)) / 2
	if err := l.boundShapes(most); err != nil {
		t.Fatal(err)
	}
	all, err := l.outlived()
	if err != nil || len(all) < versions/8 || len(all) > versions/4 || all[len(all)-1].Version != versions {
		t.Fatalf("%d of %d are left: %v", len(all), versions, err)
	}
	for i, table := range all {
		if table.Version != versions-uint32(len(all)-1-i) {
			t.Fatalf("version %d at %d", table.Version, i)
		}
	}
	if got, err := l.Table(testTable(1, 1).Subject(), versions); err != nil || got == nil {
		t.Fatal(got, err)
	}
	if err := l.appendShapes(lines[:len(lines)/versions*3]); err != nil { // it goes on
		t.Fatal(err)
	}
	if more, err := l.outlived(); err != nil || len(more) <= len(all) {
		t.Fatalf("%d: %v", len(more), err)
	}
}
