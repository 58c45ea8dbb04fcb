package snapshot

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
)

// transactions makes a batch of so many, of a table, with ids from first on.
func transactions(t *schemas.Table, first, n int) *pipeline.Batch {
	b := pipeline.NewBatch()
	b.Tables = []*schemas.Table{t}
	for i := range n {
		b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString(strconv.Itoa(first + i)), Ends: true})
	}
	return b
}

// However much the stream brings, windows that were read stay valid, and one that missed a transaction does not.
func TestBusyStreamVoidsNothing(t *testing.T) {
	never := func([]byte) bool { return false }
	for name, unseen := range map[string]func([]byte) bool{"all is visible": nil, "nothing is missed": never, "one is missed": func(id []byte) bool { return string(id) == "70001" }} {
		s := newStream(nil, nil, Config{Workers: 3})
		j := &job{SnapshotJob: pipeline.SnapshotJob{ID: "j1"}, ratio: 1, stop: func() {}}
		files := pipetest.FilesTable("a")
		tb, other := s.newTable(j, Table{Schema: "public", Name: "a", Key: []string{"id"}}), s.newTable(j, Table{Schema: "public", Name: "b", Key: []string{"id"}})
		j.add(tb)
		j.add(other)
		s.jobs = []*job{j}
		s.busy.Store(true)
		var windows []*window
		for _, x := range []*table{tb, other} {
			w := &window{job: j, table: x, chunk: &Chunk{Unseen: unseen}}
			s.register(w)
			windows = append(windows, w)
		}
		for n := 0; n < 3*mostRemembered; n += 1000 { // the stream is far behind: low does not come for long
			b := transactions(files, n, 1000)
			s.record(b)
			b.Release()
		}
		want := ""
		if name == "one is missed" {
			want = windows[0].void
			if want == "" {
				t.Errorf("%s: and the chunk is used", name)
			}
		}
		if s.history.lost && want == "" || windows[0].void != want || windows[1].void != "" || s.history.txs > mostRemembered {
			t.Errorf("%s: lost %v, void %q and %q, %d remembered", name, s.history.lost, windows[0].void, windows[1].void, s.history.txs)
		}
		// One that is not read yet needs what came since it was opened.
		w := &window{job: j, table: tb}
		s.register(w)
		s.history.lost = false
		for n := range remembered / 1000 * 2 {
			b := transactions(files, n*1000, 1000)
			s.record(b)
			b.Release()
		}
		if s.history.lost {
			t.Errorf("%s: what an open window needs is lost", name)
		}
		w.opened, w.past, w.chunk = true, s.history.next, &Chunk{Unseen: func(id []byte) bool { return string(id) == "1" }}
		if s.check(w); w.void == "" {
			t.Errorf("%s: the chunk misses a transaction and is used", name)
		}
		s.end()
	}
}

// Marks name what changed, and what is being read: not each of ten thousand tables.
func TestMarksAreSmall(t *testing.T) {
	const tables = 10_000
	s := newStream(nil, nil, Config{Workers: 1})
	defer s.end()
	newJob := func(m *pipeline.SnapshotMark) *job {
		j := &job{SnapshotJob: pipeline.SnapshotJob{ID: "j1", Mark: m}, ratio: 1, stop: func() {}}
		j.resume(func(t Table) *table { return s.newTable(j, t) })
		return j
	}
	var all []Table
	for i := range tables {
		all = append(all, Table{Schema: "public", Name: fmt.Sprint("t", i), Key: []string{"id"}, Estimate: 10})
	}
	j := newJob(nil)
	create := func(t Table) *table { return s.newTable(j, t) }
	j.load(all, create)
	var marks []pipeline.SnapshotMark
	keep := func(m *pipeline.SnapshotMark) int {
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		marks = pipeline.FoldMarks(marks, *m)
		return len(text)
	}
	if n := keep(j.mark(pipeline.JobRunning, "")); n > tables*100 {
		t.Errorf("the first mark has %d bytes", n)
	}
	for i, tb := range j.tables[:50] {
		tb.begun, tb.open[0].after = true, []byte("after")
		tb.progress.Rows += 5
		if i%2 == 0 {
			tb.open = nil
			tb.settle()
		}
		if n := keep(j.mark(pipeline.JobRunning, "")); n > 10_000 {
			t.Fatalf("mark %d has %d bytes", i, n)
		}
	}
	again := newJob(&marks[0])
	again.load(all, create)
	for i, tb := range again.tables {
		was := j.tables[i]
		if tb.progress != was.progress || tb.begun != was.begun && !tb.done() || len(tb.open) != len(was.open) || len(tb.open) > 0 && !slices.Equal(tb.open[0].after, was.open[0].after) {
			t.Fatalf("table %d: %+v, was %+v", i, tb, was)
		}
	}
	if m := again.mark(pipeline.JobRunning, ""); len(m.Tables) > 0 {
		t.Errorf("a job that goes on tells of %d tables again", len(m.Tables))
	}
}
