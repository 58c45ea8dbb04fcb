package snapshot

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
)

// stubborn is a world of which only table a is read, and not at once.
type stubborn struct {
	*world
	fails atomic.Int32 // so many reads fail
}

func (d *stubborn) Tables(ctx context.Context, globs []string) ([]Table, error) {
	all, err := d.world.Tables(ctx, globs)
	return all[:min(len(all), 1)], err
}

func (d *stubborn) Session(ctx context.Context) (Session, error) {
	s, err := d.world.Session(ctx)
	return &stubbornSession{s, d}, err
}

type stubbornSession struct {
	Session
	d *stubborn
}

func (s *stubbornSession) Read(ctx context.Context, q Query, c *Chunk) error {
	if s.d.fails.Add(-1) >= 0 {
		return errors.New("the database is away")
	}
	return s.Session.Read(ctx, q, c)
}

// A job that cannot read for a while says what it waits for, in marks that a log takes.
func TestTroubleIsLogged(t *testing.T) {
	const away = "the database is away"
	var batches []*pipeline.Batch
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(rand.New(rand.NewPCG(1, 0)), 20)
		d := &stubborn{world: w}
		d.fails.Store(6)
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		written := make(chan struct{})
		defer func() {
			<-written
			time.Sleep(time.Second) // all is visible
		}()
		go func() {
			defer close(written)
			for range 1000 {
				time.Sleep(30 * time.Millisecond)
				w.transact()
			}
		}()
		st, err := New(w, d, Config{}).Open(ctx, pipeline.Position{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = st.Close() }()
		st.(pipeline.Snapshotter).Start(pipeline.SnapshotJob{ID: "j1", Tables: []string{"*.*"}})
		for ended := false; !ended; {
			b, err := st.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if b.Snapshot == nil {
				b.Release()
				continue
			}
			batches, ended = append(batches, b), b.Snapshot.State.Ended()
		}
	})
	batches = append([]*pipeline.Batch{readAgain(t)}, batches...)
	l, err := disklog.Open(disklog.Options{Dir: t.TempDir(), Source: "files"})
	if err != nil {
		t.Fatal(err)
	}
	told, last := false, batches[len(batches)-1].Snapshot
	for _, b := range batches {
		told = told || strings.Contains(b.Snapshot.Reason, away)
		if _, err := l.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if !told || last.State != pipeline.JobDone || last.Reason != "" {
		t.Fatalf("told of %q: %v; last %s %q", away, told, last.State, last.Reason)
	}
}

// readAgain returns the mark of a job whose chunk could not be used many times in a row.
func readAgain(t *testing.T) *pipeline.Batch {
	s := newStream(nil, nil, Config{})
	defer s.end()
	j := &job{SnapshotJob: pipeline.SnapshotJob{ID: "j1"}, ratio: 1, stop: func() {}}
	tb := s.newTable(j, Table{Schema: "public", Name: "a", Key: []string{"id"}})
	tb.times = 7
	j.tables, s.jobs = []*table{tb}, []*job{j}
	s.again(&window{job: j, table: tb, void: "it changed"})
	s.deliverNotes()
	if len(s.out) != 1 || s.out[0].Snapshot.Reason != "public.a is read again: it changed" {
		t.Fatal(s.out)
	}
	return s.out[0]
}

// A table may end with a fault while another of its windows is cut.
func TestCutAfterFault(t *testing.T) {
	tb := &table{flying: map[string]bool{"k": true}, again: map[string]bool{}}
	tb.fault(&TableError{What: "gone"})
	if kept := tb.cut([][]byte{[]byte("k")}, map[string]bool{}); len(kept) > 0 || len(tb.flying) > 0 {
		t.Fatal(kept, tb.flying)
	}
}

// script is a stream of batches that wait to be taken.
type script struct{ batches []*pipeline.Batch }

func (s *script) Confirm(pipeline.Position) {}
func (s *script) Close() error              { return nil }
func (s *script) Next(context.Context) (*pipeline.Batch, error) {
	if len(s.batches) == 0 {
		return nil, io.EOF
	}
	b := s.batches[0]
	s.batches = s.batches[1:]
	return b, nil
}

// What is kept back for a read comes in order when its job is cancelled, and a fence in it is not met before.
func TestKeptBatchesAreNotPassed(t *testing.T) {
	for _, failsFirst := range []bool{false, true} {
		inner := &script{}
		for i := range uint64(5) {
			b := pipeline.NewBatch()
			b.End = pipeline.Position{Counter: i + 1}
			inner.batches = append(inner.batches, b)
		}
		inner.batches[0].Watermarks = []pipeline.Watermark{{ID: "fence"}}
		s := newStream(inner, nil, Config{Workers: 1})
		j := &job{SnapshotJob: pipeline.SnapshotJob{ID: "j1"}, ratio: 1}
		j.ctx, j.stop = context.WithCancel(s.ctx)
		tb := s.newTable(j, Table{Schema: "public", Name: "bag"})
		w := &window{job: j, table: tb, opened: true}
		w.whole = newWhole(w)
		w.whole.opened, tb.reading = true, true
		j.tables, s.jobs, s.whole = []*table{tb}, []*job{j}, w.whole
		s.register(w)
		s.busy.Store(true)
		f := &fence{passed: make(chan struct{})}
		s.fences["fence"] = f
		for range 2 { // kept back
			b, _ := inner.Next(t.Context())
			s.take(b)
		}
		if s.fenced(); len(s.out) > 0 || closed(f) {
			t.Fatalf("%d batches came, the fence is met: %v", len(s.out), closed(f))
		}
		s.Stop("j1")
		if failsFirst {
			s.failed(j, w, context.Canceled)
		}
		var ends []uint64
		for {
			b, err := s.Next(t.Context())
			if err != nil {
				break
			}
			if b.Snapshot == nil {
				ends = append(ends, b.End.Counter)
			}
			if len(ends) == 4 {
				s.failed(j, w, context.Canceled)
			}
		}
		if !slices.Equal(ends, []uint64{1, 2, 3, 4, 5}) || !closed(f) || s.busy.Load() && failsFirst {
			t.Fatalf("batches %v, the fence is met: %v", ends, closed(f))
		}
	}
}

func closed(f *fence) bool {
	select {
	case <-f.passed:
		return true
	default:
		return false
	}
}
