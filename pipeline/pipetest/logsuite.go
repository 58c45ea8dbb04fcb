package pipetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// TestLog is the conformance suite of pipeline.Log. open returns a fresh log whose first offset is not zero;
// the suite closes it.
func TestLog(t *testing.T, open func(t *testing.T) pipeline.Log) {
	for name, test := range map[string]func(*testing.T, pipeline.Log){
		"offsets are dense and readers see all":         logDense,
		"chunks surface at their commit, in order":      logChunks,
		"chunks of an abort never surface":              logAbort,
		"parts that a commit leaves out never surface":  logParts,
		"a reader beyond the tail is refused":           logBeyond,
		"a blocked reader wakes, and ends with the log": logWakes,
		"time is found by the running maximum":          logAt,
		"readers are independent":                       logReaders,
		"positions and notices are kept":                logPositions,
		"changes of ranges stand in order with events":  logRanges,
		"marks of snapshots stand with their rows":      logMarks,
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t)
			defer l.Close()
			test(t, l)
		})
	}
}

var suiteEpoch = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func suiteContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func insert(id int) Change {
	return Change{Op: pipeline.OpInsert, Table: suiteTable, After: Row{fmt.Sprint(id), "1", fmt.Sprint("/", id)}}
}

var suiteTable = FilesTable("files")

func position(n int) pipeline.Position {
	return pipeline.Position{Counter: uint64(n), Token: fmt.Sprint("p", n)}
}

// put appends and waits until it is durable.
func put(t *testing.T, l pipeline.Log, b *pipeline.Batch) pipeline.Synced {
	t.Helper()
	ticket, err := l.Append(suiteContext(t), b)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Synced(suiteContext(t), ticket-1)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// read returns n events from o on as text "offset op path tx/seq/last".
func read(t *testing.T, l pipeline.Log, from pipeline.Offset, n int) []string {
	t.Helper()
	r, err := l.Read(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all []string
	for len(all) < n {
		b, err := r.Next(suiteContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Events {
			if o := b.Offset(i); o >= from {
				seq, last := b.Seq(i)
				all = append(all, fmt.Sprintf("%d %s %s %s/%d/%v", o, b.Events[i].Op, path(b, i), b.Bytes(b.Txs[b.Events[i].Tx].ID), seq, last))
			}
		}
		b.Release()
	}
	return all
}

func path(b *pipeline.Batch, i int) string {
	image := b.Bytes(b.Events[i].After)
	refs, err := PGForm(b.TableOf(i)).Walk(image, nil, 3)
	if err != nil {
		return err.Error()
	}
	return string(refs[2].Of(image))
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Fatalf("got\n%s\nwant\n%s", g, w)
	}
}

func logDense(t *testing.T, l pipeline.Log) {
	first, _ := l.Bounds()
	put(t, l, Build(position(1), suiteEpoch, []Change{insert(1), insert(2)}))
	put(t, l, Build(position(2), suiteEpoch))
	s := put(t, l, Build(position(3), suiteEpoch, []Change{insert(3)}, []Change{insert(4)}))
	if s.Next != first+4 || s.End != position(3) {
		t.Fatalf("synced %+v, want next %d", s, first+4)
	}
	want := []string{fmt.Sprintf("%d insert /1 1000/1/false", first), fmt.Sprintf("%d insert /2 1000/2/true", first+1),
		fmt.Sprintf("%d insert /3 3000/1/true", first+2), fmt.Sprintf("%d insert /4 3001/1/true", first+3)}
	same(t, read(t, l, first, 4), want...)
	same(t, read(t, l, first+1, 3), want[1:]...)
	same(t, read(t, l, first+3, 1), want[3:]...)
}

func chunk(open string, ids ...int) *pipeline.Batch {
	var changes []Change
	for _, id := range ids {
		changes = append(changes, insert(id))
	}
	b := Build(pipeline.Position{}, suiteEpoch, changes)
	b.Kind, b.Open = pipeline.BatchChunk, open
	return b
}

func closing(kind pipeline.BatchKind, open string, end pipeline.Position) *pipeline.Batch {
	b := Build(end, suiteEpoch, []Change{})
	b.Kind, b.Open = kind, open
	return b
}

func logChunks(t *testing.T, l pipeline.Log) {
	first, _ := l.Bounds()
	put(t, l, chunk("a", 1, 2))
	put(t, l, chunk("b", 10))
	put(t, l, Build(position(1), suiteEpoch, []Change{insert(5)}))
	if _, next := l.Bounds(); next != first+1 {
		t.Fatalf("an open transaction took offsets: next %d, first %d", next, first)
	}
	put(t, l, chunk("a", 3))
	put(t, l, closing(pipeline.BatchCommit, "a", position(2)))
	put(t, l, closing(pipeline.BatchCommit, "b", position(3)))
	same(t, read(t, l, first, 5), fmt.Sprintf("%d insert /5 1000/1/true", first), fmt.Sprintf("%d insert /1 2000/1/false", first+1),
		fmt.Sprintf("%d insert /2 2000/2/false", first+2), fmt.Sprintf("%d insert /3 2000/3/true", first+3), fmt.Sprintf("%d insert /10 3000/1/true", first+4))
}

func logAbort(t *testing.T, l pipeline.Log) {
	first, _ := l.Bounds()
	put(t, l, chunk("a", 1))
	abort := pipeline.NewBatch()
	abort.Kind, abort.Open = pipeline.BatchAbort, "a"
	put(t, l, abort)
	put(t, l, chunk("a", 2))
	put(t, l, closing(pipeline.BatchCommit, "a", position(1)))
	same(t, read(t, l, first, 1), fmt.Sprintf("%d insert /2 1000/1/true", first))
	if _, next := l.Bounds(); next != first+1 {
		t.Fatalf("next %d, want %d", next, first+1)
	}
}

// parted is a chunk whose events are of the parts given, one each.
func parted(open string, first int, parts ...uint32) *pipeline.Batch {
	var txs [][]Change
	for i := range parts {
		txs = append(txs, []Change{insert(first + i)})
	}
	b := Build(pipeline.Position{}, suiteEpoch, txs...)
	b.Kind, b.Open = pipeline.BatchChunk, open
	for i, p := range parts {
		b.Txs[i].Part, b.Txs[i].Ends = p, false
	}
	return b
}

func logParts(t *testing.T, l pipeline.Log) {
	first, _ := l.Bounds()
	put(t, l, parted("a", 1, 0, 7, 0, 7, 8, 0))
	put(t, l, parted("b", 20, 7, 9)) // the same number, of another transaction
	put(t, l, parted("a", 11, 7, 7)) // goes whole
	put(t, l, parted("a", 13, 8, 9))
	end := closing(pipeline.BatchCommit, "a", position(1))
	end.Without = append(end.Without, 7, 9, 4_000_000_000)
	if s := put(t, l, end); s.Next != first+5 {
		t.Fatalf("next %d, want %d", s.Next, first+5)
	}
	put(t, l, Build(position(2), suiteEpoch, []Change{insert(30)}))
	end = closing(pipeline.BatchCommit, "b", position(3))
	end.Without = append(end.Without, 7, 9)
	put(t, l, end)
	put(t, l, Build(position(4), suiteEpoch, []Change{insert(31)}))
	same(t, read(t, l, first, 7), fmt.Sprintf("%d insert /1 1000/1/false", first), fmt.Sprintf("%d insert /3 1000/2/false", first+1),
		fmt.Sprintf("%d insert /5 1000/3/false", first+2), fmt.Sprintf("%d insert /6 1000/4/false", first+3), fmt.Sprintf("%d insert /13 1000/5/true", first+4),
		fmt.Sprintf("%d insert /30 2000/1/true", first+5), fmt.Sprintf("%d insert /31 4000/1/true", first+6))
}

func logBeyond(t *testing.T, l pipeline.Log) {
	first, next := l.Bounds()
	if first == 0 || first != next {
		t.Fatalf("a fresh log is [%d, %d)", first, next)
	}
	if _, err := l.Read(next + 1); !errors.Is(err, pipeline.ErrBeyondTail) {
		t.Fatalf("got %v", err)
	}
	var tr *pipeline.TruncatedError
	if _, err := l.Read(first - 1); !errors.As(err, &tr) || tr.Oldest != first {
		t.Fatalf("got %v", err)
	}
}

func logWakes(t *testing.T, l pipeline.Log) {
	_, next := l.Bounds()
	r, err := l.Read(next)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		b, err := r.Next(suiteContext(t))
		if err == nil {
			b.Release()
			_, err = r.Next(suiteContext(t))
		}
		got <- err
	}()
	put(t, l, Build(position(1), suiteEpoch, []Change{insert(1)}))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, pipeline.ErrClosed) {
		t.Fatalf("the reader ended with %v", err)
	}
	if _, err := l.Append(suiteContext(t), Build(position(2), suiteEpoch)); err == nil {
		t.Fatal("a closed log takes batches")
	}
}

func logAt(t *testing.T, l pipeline.Log) {
	first, _ := l.Bounds()
	for i, second := range []int{10, 5, 20} { // commit times are not monotonic
		put(t, l, Build(position(i+1), suiteEpoch.Add(time.Duration(second)*time.Second), []Change{insert(i)}))
	}
	for second, want := range map[int]pipeline.Offset{0: first, 10: first, 11: first + 2, 20: first + 2, 21: first + 3} {
		got, err := l.At(suiteContext(t), suiteEpoch.Add(time.Duration(second)*time.Second))
		if err != nil || got != want {
			t.Errorf("at second %d: %d %v, want %d", second, got, err, want)
		}
	}
}

func logReaders(t *testing.T, l pipeline.Log) {
	first, _ := l.Bounds()
	const batches = 200
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			r, err := l.Read(first)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			for at := first; at < first+2*batches; {
				b, err := r.Next(suiteContext(t))
				if err != nil {
					t.Errorf("reader %d at %d: %v", n, at, err)
					return
				}
				if b.Base != at {
					t.Errorf("reader %d: batch at %d, want %d", n, b.Base, at)
				}
				for i := range b.Events {
					if want := fmt.Sprint("/", int(b.Offset(i)-first)); path(b, i) != want {
						t.Errorf("reader %d: offset %d is %s, want %s", n, b.Offset(i), path(b, i), want)
					}
				}
				at = b.Next()
				b.Release()
			}
		})
	}
	for i := range batches {
		if _, err := l.Append(suiteContext(t), Build(position(i+1), suiteEpoch, []Change{insert(2 * i), insert(2*i + 1)})); err != nil {
			t.Error(err)
		}
	}
	all.Wait()
}

func logPositions(t *testing.T, l pipeline.Log) {
	b := Build(position(7), suiteEpoch, []Change{insert(1)})
	b.Notices = append(b.Notices, pipeline.Notice{Kind: pipeline.NoticeQuarantined, Table: "public.a", Reason: "torn"},
		pipeline.Notice{Kind: pipeline.NoticeQuarantined, Table: "public.b", Reason: "torn"})
	put(t, l, b)
	b = Build(position(8), suiteEpoch)
	b.Notices = append(b.Notices, pipeline.Notice{Kind: pipeline.NoticeReleased, Table: "public.a"})
	put(t, l, b)
	if l.Last() != position(8) {
		t.Fatalf("last position %v", l.Last())
	}
	if n := l.Notices(); len(n) != 1 || n[0].Table != "public.b" {
		t.Fatalf("in force: %+v", n)
	}
	for i, k := range []pipeline.NoticeKind{pipeline.NoticeGap, pipeline.NoticeFilled} {
		b = Build(position(8), suiteEpoch)
		b.Notices = append(b.Notices, pipeline.Notice{Kind: k, Table: "public.b"}) // quarantined it stays
		put(t, l, b)
		if n := l.Notices(); len(n) != 2-i {
			t.Fatalf("in force: %+v", n)
		}
	}
	if tables := l.Tables(); len(tables) != 1 || tables[0].Subject() != "public.files" {
		t.Fatalf("tables: %v", tables)
	}
}

// Changed returns the control batch that makes a change.
func Changed(c pipeline.RangeChange) *pipeline.Batch {
	b := pipeline.NewBatch()
	b.Ranges = append(b.Ranges, c)
	return b
}

// Marked turns a batch into one of a snapshot job.
func Marked(b *pipeline.Batch, m pipeline.SnapshotMark) *pipeline.Batch {
	b.Snapshot, b.End = &m, pipeline.Position{}
	for i := range b.Events {
		b.Events[i].Op = pipeline.OpSnapshot
	}
	return b
}

func logMarks(t *testing.T, l pipeline.Log) {
	first, _ := l.Bounds()
	if m := l.Snapshots(); len(m) != 0 {
		t.Fatalf("a fresh log has marks: %v", m)
	}
	progress := func(job, table string, rows uint64, state pipeline.JobState) pipeline.SnapshotMark {
		return pipeline.SnapshotMark{Job: job, For: "s", State: state, Resume: json.RawMessage(fmt.Sprint(`{"n":`, rows, `}`)),
			Tables: []pipeline.TableProgress{{Table: table, Rows: rows}}}
	}
	put(t, l, Build(position(1), suiteEpoch, []Change{insert(1)}))
	put(t, l, Marked(Build(position(0), suiteEpoch, []Change{insert(2)}, []Change{insert(3)}), progress("a", "public.files", 2, pipeline.JobRunning)))
	s := put(t, l, Marked(Build(position(0), suiteEpoch), progress("b", "public.b", 1, pipeline.JobRunning))) // came further without rows
	if s.Next != first+3 || s.End != position(1) {
		t.Fatalf("synced %+v", s)
	}
	put(t, l, Marked(Build(position(0), suiteEpoch, []Change{insert(4)}), progress("a", "public.other", 1, pipeline.JobRunning)))
	put(t, l, Marked(Build(position(0), suiteEpoch), progress("b", "public.b", 5, pipeline.JobDone)))
	show := func() (all []string) {
		for _, m := range l.Snapshots() {
			text := fmt.Sprint(m.Job, " for ", m.For, " ", m.State, " ", string(m.Resume))
			for _, p := range m.Tables {
				text += fmt.Sprint(" ", p.Table, "=", p.Rows)
			}
			all = append(all, text)
		}
		return all
	}
	same(t, show(), `a for s running {"n":1} public.files=2 public.other=1`, `b for s done  public.b=5`)
	r, err := l.Read(first)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var seen []string
	for len(seen) < 4 {
		b, err := r.Next(suiteContext(t))
		if err != nil {
			t.Fatal(err)
		}
		job := ""
		if b.Snapshot != nil {
			job = b.Snapshot.Job + " " + b.Snapshot.For
		}
		for i := range b.Events {
			seen = append(seen, fmt.Sprintf("%d %s %s %s", b.Offset(i)-first, b.Events[i].Op, path(b, i), job))
		}
		b.Release()
	}
	same(t, seen, "0 insert /1 ", "1 snapshot /2 a s", "2 snapshot /3 a s", "3 snapshot /4 a s")
	bad := Marked(Build(position(9), suiteEpoch), progress("a", "public.files", 1, pipeline.JobRunning))
	bad.End = position(9)
	if _, err := l.Append(suiteContext(t), bad); err == nil {
		t.Fatal("a snapshot's batch with a position is taken")
	}
	for _, state := range []pipeline.JobState{"", pipeline.JobWaiting, pipeline.JobPaused} {
		if _, err := l.Append(suiteContext(t), Marked(Build(position(0), suiteEpoch), progress("a", "public.files", 1, state))); err == nil {
			t.Fatalf("a mark with state %q is taken", state)
		}
	}
	for i := range 40 { // of many that ended, the newest are known
		put(t, l, Marked(Build(position(0), suiteEpoch), progress(fmt.Sprint("e", i), "public.b", 1, pipeline.JobDone)))
	}
	m := l.Snapshots()
	if m[0].Job != "a" || m[len(m)-1].Job != "e39" || len(m) > 30 {
		t.Fatal(show())
	}
}

func logRanges(t *testing.T, l pipeline.Log) {
	first, _ := l.Bounds()
	if r := l.Ranges(); len(r) != 0 {
		t.Fatalf("a fresh log has ranges: %v", r)
	}
	split := pipeline.RangeChange{Epoch: 1, Space: "s", Closed: []uint64{pipeline.WholeRange}, Reason: "a person",
		Opened: []pipeline.Range{{ID: 1, Space: "s", End: []byte{5}, Parents: []uint64{0}}, {ID: 2, Space: "s", Start: []byte{5}, Parents: []uint64{0}}}}
	merge := pipeline.RangeChange{Epoch: 2, Space: "s", Closed: []uint64{1, 2}, Opened: []pipeline.Range{{ID: 3, Space: "s", Parents: []uint64{1, 2}}}}
	put(t, l, Build(position(1), suiteEpoch, []Change{insert(1)}))
	put(t, l, Changed(split))
	put(t, l, Build(position(2), suiteEpoch, []Change{insert(2)}))
	if s := put(t, l, Changed(merge)); s.Next != first+2 || s.End != position(2) {
		t.Fatalf("a change of ranges moved the log: %+v", s)
	}
	put(t, l, Build(position(3), suiteEpoch, []Change{insert(3)}))
	want := fmt.Sprint([]pipeline.RangeAt{{At: first + 1, RangeChange: split}, {At: first + 2, RangeChange: merge}})
	if got := fmt.Sprint(l.Ranges()); got != want {
		t.Fatalf("ranges %s, want %s", got, want)
	}
	r, err := l.Read(first)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var seen []string
	for len(seen) < 5 {
		b, err := r.Next(suiteContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range b.Ranges {
			seen = append(seen, fmt.Sprintf("%d ranges %d", b.Base-first, c.Epoch))
		}
		for i := range b.Events {
			seen = append(seen, fmt.Sprintf("%d %s", b.Offset(i)-first, path(b, i)))
		}
		b.Release()
	}
	same(t, seen, "0 /1", "1 ranges 1", "1 /2", "2 ranges 2", "2 /3")
	bad := Changed(split)
	bad.End = position(9)
	if _, err := l.Append(suiteContext(t), bad); err == nil {
		t.Fatal("a change of ranges with a position is taken")
	}
}
