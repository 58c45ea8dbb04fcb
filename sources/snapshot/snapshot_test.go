package snapshot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/form"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// subscriber applies what comes: snapshot rows as upserts, absent columns as they were.
type subscriber struct {
	tables map[string]map[string][]string
	latest map[string]int // by table and key: the newest version seen
	open   map[string][]func() error
	waits  map[string]bool // transactions of open that are prepared
	bag    map[string]int
	read   bool  // the table without a key is
	readAt int64 // when those of its rows that came last were
	rows   int
	end    pipeline.Position
	mark   *pipeline.SnapshotMark
	forms  form.Cache
}

func newSubscriber() *subscriber {
	return &subscriber{tables: map[string]map[string][]string{"a": {}, "b": {}}, latest: map[string]int{}, open: map[string][]func() error{}, waits: map[string]bool{}, bag: map[string]int{}}
}

func (s *subscriber) take(b *pipeline.Batch) error {
	var apply []func() error
	for i := range b.Events {
		e := b.Events[i]
		t := b.TableOf(i)
		read := func(sp pipeline.Span) []string {
			if !sp.Present() {
				return nil
			}
			p := b.Bytes(sp)
			refs, err := s.forms.Of(t).Walk(p, nil, 3)
			if err != nil {
				return nil
			}
			row := make([]string, 3)
			for i, r := range refs {
				row[i] = string(r.Of(p))
				if r.Len == cell.LenAbsent {
					row[i] = pipetest.Absent
				}
			}
			return row
		}
		before, after, name := read(e.Before), read(e.After), t.Name
		apply = append(apply, func() error { return s.apply(e.Op, name, before, after) })
	}
	switch b.Kind {
	case pipeline.BatchChunk:
		s.open[b.Open] = append(s.open[b.Open], apply...)
		return nil
	case pipeline.BatchPrepared:
		s.waits[b.Open] = true
	case pipeline.BatchCommit:
		apply = s.open[b.Open]
		delete(s.open, b.Open)
		delete(s.waits, b.Open)
	}
	if b.Snapshot != nil {
		s.beginAnew(b)
	}
	for _, f := range apply {
		if err := f(); err != nil {
			return err
		}
	}
	if b.Snapshot != nil {
		if !b.End.Zero() || b.Kind != pipeline.BatchRows {
			return errors.New("a batch of a snapshot is no place to resume at")
		}
		var was []pipeline.SnapshotMark
		if s.mark != nil {
			was = append(was, *s.mark)
		}
		s.mark = &pipeline.FoldMarks(was, *b.Snapshot)[0]
	} else if !b.End.Zero() {
		if b.End.Counter <= s.end.Counter {
			return fmt.Errorf("position went from %d to %d", s.end.Counter, b.End.Counter)
		}
		s.end = b.End
	}
	return nil
}

// beginAnew empties the copy of the table without a key when a read of it begins. All rows of a read have one time. Marks
// do not tell: a read that begins after a crash may bring first what the read before had brought by its last mark.
func (s *subscriber) beginAnew(b *pipeline.Batch) {
	if len(b.Events) > 0 && b.TableOf(0).Name == "bag" && b.Txs[0].Time != s.readAt {
		s.readAt = b.Txs[0].Time
		clear(s.bag)
	}
	for _, p := range b.Snapshot.Tables {
		if p.Whole && p.Done && p.Rows == 0 && !s.read { // it was empty
			clear(s.bag)
		}
		s.read = s.read || p.Whole && p.Done
	}
}

// lost forgets what the source will send again.
func (s *subscriber) lost() {
	maps.DeleteFunc(s.open, func(open string, _ []func() error) bool { return !s.waits[open] })
}

func (s *subscriber) apply(op pipeline.Op, name string, before, after []string) error {
	if op == pipeline.OpSnapshot {
		s.rows++
	}
	if name == "bag" {
		if op == pipeline.OpTruncate {
			clear(s.bag)
		}
		if before != nil {
			s.bag[fmt.Sprint(before)]--
		}
		if after != nil {
			s.bag[fmt.Sprint(after)]++
		}
		return nil
	}
	rows := s.tables[name]
	if op == pipeline.OpTruncate {
		clear(rows)
		return nil
	}
	if after == nil {
		delete(rows, before[0])
		return nil
	}
	version, _ := strconv.Atoi(after[1])
	place := name + " " + after[0]
	if version < s.latest[place] {
		return fmt.Errorf("table %s, key %s: version %d comes behind %d (%s)", name, after[0], version, s.latest[place], op)
	}
	s.latest[place] = version
	base := rows[after[0]]
	if before != nil && before[0] != after[0] {
		base = rows[before[0]]
		delete(rows, before[0])
	}
	if op == pipeline.OpInsert {
		base = nil
	}
	for i := range after {
		if after[i] == pipetest.Absent && base != nil {
			after[i] = base[i]
		}
	}
	rows[after[0]] = after
	return nil
}

// history is one run of the property: a database under load, a snapshot, crashes.
type run struct {
	seed         uint64
	workers      int
	full         bool
	crashes      int
	trouble      float64
	rows, writes int
}

// Whatever the database does meanwhile, the subscriber ends with exactly its tables, and never sees a row go back.
func TestTablesEqual(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := run{
			seed: rapid.Uint64().Draw(rt, "seed"), workers: rapid.IntRange(1, 3).Draw(rt, "workers"), full: rapid.Bool().Draw(rt, "max"),
			crashes: rapid.IntRange(0, 4).Draw(rt, "crashes"), trouble: rapid.SampledFrom([]float64{0, 0, 0.02}).Draw(rt, "trouble"),
			rows: rapid.IntRange(0, 100).Draw(rt, "rows"), writes: rapid.IntRange(0, 400).Draw(rt, "writes"),
		}
		var err error
		synctest.Test(t, func(t *testing.T) { err = r.play(t) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func (r run) play(t *testing.T) error {
	w := newWorld(rand.New(rand.NewPCG(r.seed, 0)), r.rows)
	w.trouble = r.trouble
	cfg := Config{Workers: r.workers, Max: r.full, first: 6, batch: 60}
	src := New(w, w, cfg)
	writing := make(chan struct{})
	pace := rand.New(rand.NewPCG(r.seed, 2))
	go func() {
		defer close(writing)
		for range r.writes {
			time.Sleep(time.Duration(pace.IntN(4)) * time.Millisecond)
			w.transact()
		}
	}()
	s, err := newSubscriber(), error(nil)
	choice := rand.New(rand.NewPCG(r.seed, 3))
	for crash := 0; ; crash++ {
		batches := 1 << 30
		if crash < r.crashes {
			batches = choice.IntN(60)
		}
		var done bool
		if done, err = r.once(t.Context(), src, s, batches); err != nil || done {
			break
		}
		if choice.IntN(2) == 0 { // it was the process
			src = New(w, w, cfg)
		}
	}
	<-writing
	time.Sleep(time.Second) // all is visible
	if err != nil {
		return err
	}
	if err := r.drain(t.Context(), src, s, w); err != nil {
		return err
	}
	return s.same(w)
}

// once reads a stream until the job is done, or for so many batches.
func (r run) once(ctx context.Context, src pipeline.Source, s *subscriber, batches int) (done bool, err error) {
	st, err := src.Open(ctx, s.end)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	s.lost()
	st.(pipeline.Snapshotter).Start(pipeline.SnapshotJob{ID: "j1", Tables: []string{"*.*"}, Mark: s.mark})
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	for range batches {
		b, err := st.Next(ctx)
		if err != nil {
			return false, fmt.Errorf("mark %+v: %w", s.mark, err)
		}
		err = s.take(b)
		b.Release()
		if err != nil {
			return false, err
		}
		if s.mark != nil && s.mark.State.Ended() {
			if s.mark.State != pipeline.JobDone {
				return false, fmt.Errorf("ended as %s: %s", s.mark.State, s.mark.Reason)
			}
			return true, nil
		}
	}
	return false, nil
}

// drain takes what is left of the log.
func (r run) drain(ctx context.Context, src pipeline.Source, s *subscriber, w *world) error {
	st, err := src.Open(ctx, s.end)
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }()
	s.lost()
	for int(s.end.Counter) < len(w.log) {
		b, err := st.Next(ctx)
		if err != nil {
			return err
		}
		err = s.take(b)
		b.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *subscriber) same(w *world) error {
	for name, rows := range w.rows {
		if name == "bag" {
			continue
		}
		want := map[string][]string{}
		for k, r := range rows {
			want[strconv.Itoa(k)] = image(k, r)
		}
		for k, row := range want {
			if fmt.Sprint(row) != fmt.Sprint(s.tables[name][k]) {
				return fmt.Errorf("table %s, key %s: the database has %q, the subscriber %q", name, k, row, s.tables[name][k])
			}
		}
		for k, row := range s.tables[name] {
			if want[k] == nil {
				return fmt.Errorf("table %s: only the subscriber has %q", name, row)
			}
		}
	}
	want := map[string]int{}
	for k, r := range w.rows["bag"] {
		want[fmt.Sprint(image(k, r))]++
	}
	maps.DeleteFunc(s.bag, func(_ string, n int) bool { return n == 0 })
	if !maps.Equal(s.bag, want) {
		for k, n := range s.bag {
			if want[k] != n {
				return fmt.Errorf("table bag: the subscriber has %d of %s, the database %d", n, k, want[k])
			}
		}
		return fmt.Errorf("table bag: the subscriber has %d rows, the database %d", len(s.bag), len(want))
	}
	return nil
}
