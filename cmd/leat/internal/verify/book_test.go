package verify

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// TestBook: a book is a map of the last lines, however little memory it has, and whatever it is told to forget; its
// files stay within the quota.
func TestBook(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Fatal(err)
		}
		disk := &quota{most: 8 << 10}
		b := newBook(dir, int64(rapid.IntRange(300, 4000).Draw(t, "memory")), disk)
		model := map[uint64]line{}
		for n := range rapid.IntRange(0, 500).Draw(t, "lines") {
			if table := uint32(n % 2); rapid.IntRange(0, 200).Draw(t, "op") == 0 {
				maps.DeleteFunc(model, func(_ uint64, l line) bool { return l.table == table })
				if err := b.empty(table); err != nil {
					t.Fatal(err)
				}
				continue
			}
			id := uint64(rapid.IntRange(0, 39).Draw(t, "key"))
			l := line{key: id<<58 | id, table: uint32(id % 2), at: uint64(n), span: uint32(n % 5), gone: n%7 == 0, sums: []uint64{uint64(n + 1), uint64(n % 3), 9}[:2+id%2]}
			if err := b.put(l); err != nil {
				t.Fatal(err)
			}
			l.sums = append([]uint64(nil), l.sums...)
			if old, ok := model[l.key]; ok {
				old.merge(l)
				l = old
			}
			model[l.key] = l
			if disk.used > disk.most {
				t.Fatalf("%d bytes in files", disk.used)
			}
		}
		have := map[uint64]line{}
		for p := range parts {
			passes := b.passes(p)
			for n := range passes {
				lines, err := b.part(p, n, passes)
				if err != nil {
					t.Fatal(err)
				}
				maps.Copy(have, lines)
			}
		}
		if !reflect.DeepEqual(have, model) {
			t.Fatalf("%d lines, want %d, or others", len(have), len(model))
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
			t.Fatalf("left: %v", left)
		}
	})
}

// counted counts the events that are read from a log.
type counted struct {
	pipeline.Log
	events int
}

type countedReader struct {
	pipeline.LogReader
	l *counted
}

func (l *counted) Read(from pipeline.Offset) (pipeline.LogReader, error) {
	r, err := l.Log.Read(from)
	return countedReader{r, l}, err
}

func (r countedReader) Next(ctx context.Context) (*pipeline.Batch, error) {
	b, err := r.LogReader.Next(ctx)
	if err == nil {
		r.l.events += len(b.Events)
	}
	return b, err
}

// TestReadsTheLogOnce: however many tables there are. What takes more room than there is ends it, and says why; what it
// left behind, or a process that was killed, is swept.
func TestReadsTheLogOnce(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, table: pipetest.FilesTable("files"), rows: map[int]pipetest.Row{}, target: map[int]pipetest.Row{}, log: pipetest.NewMemoryLog("log", 1000), broken: map[int]string{}}
		defer w.log.Close()
		for range 50 {
			w.change()
		}
		w.drain(0)
		log := &counted{Log: w.log}
		o := w.options(dir, false)
		o.Log = log
		for n := range 5 {
			o.Tables = append(o.Tables, snapshot.Table{Schema: "public", Name: fmt.Sprint("other", n), Key: []string{"id"}})
		}
		o.Source = func(context.Context) (snapshot.Session, error) {
			return &session{w, func() map[int]pipetest.Row { return w.rows }}, nil
		}
		first, next := w.log.Bounds()
		report, err := Run(t.Context(), o)
		if err != nil || len(report.Tables) != 6 || report.Tables[0].Different != 0 {
			t.Fatalf("%+v, %v", report, err)
		}
		if log.events > int(next-first) {
			t.Fatalf("%d events were read of %d", log.events, next-first)
		}
		o.Disk = 100
		if _, err := Run(t.Context(), o); len(w.rows) > 10 && (err == nil || !strings.Contains(err.Error(), "temporary files")) {
			t.Fatalf("no room: %v", err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
			t.Fatalf("left: %v", left)
		}
	})
	if err := os.MkdirAll(filepath.Join(dir, "verify-7", "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Fatalf("left: %v", left)
	}
}
