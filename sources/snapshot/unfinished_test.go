package snapshot

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// counted is a world whose reads are counted.
type counted struct {
	*world
	reads atomic.Int32
}

// Tables: those with a key.
func (d *counted) Tables(ctx context.Context, globs []string) ([]Table, error) {
	all, err := d.world.Tables(ctx, globs)
	return slices.DeleteFunc(all, func(t Table) bool { return t.Key == nil }), err
}

func (d *counted) Session(ctx context.Context) (Session, error) {
	s, err := d.world.Session(ctx)
	return &countedSession{s, d}, err
}

type countedSession struct {
	Session
	d *counted
}

func (s *countedSession) Read(ctx context.Context, q Query, c *Chunk) error {
	if q.Keys == nil && !q.Scout {
		s.d.reads.Add(1)
	}
	return s.Session.Read(ctx, q, c)
}

// Transactions that travel in chunks, prepared ones too, do not keep a snapshot from its end, nor does a reconnect or
// another process have it begin again.
func TestPreparedTransactionsStarveNothing(t *testing.T) {
	for name, process := range map[string]bool{"reconnect": false, "process": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const rows = 600
				w := newWorld(rand.New(rand.NewPCG(5, 0)), rows)
				w.xa = true
				w.rows["bag"] = map[int]record{}
				cfg := Config{first: 50, batch: 60}
				d := &counted{world: w}
				src := New(w, d, cfg)
				stop, stopped := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(stopped)
					for {
						select {
						case <-stop:
							return
						case <-time.After(2 * time.Millisecond):
							w.transact()
						}
					}
				}()
				rest := sync.OnceFunc(func() {
					close(stop)
					<-stopped
					time.Sleep(time.Second) // all is visible
				})
				defer rest()
				s, r := newSubscriber(), run{}
				opened := 0
				for done := false; !done; opened++ {
					if opened > 100 {
						t.Fatalf("no end: %+v", s.mark.Tables)
					}
					var err error
					if done, err = r.once(t.Context(), src, s, 500); err != nil {
						t.Fatal(err)
					}
					if process {
						src = New(w, d, cfg)
					}
				}
				rest()
				if err := r.drain(t.Context(), src, s, w); err != nil {
					t.Fatal(err)
				}
				if err := s.same(w); err != nil {
					t.Fatal(err)
				}
				if opened < 3 {
					t.Fatalf("%d streams are too few to tell", opened)
				}
				t.Logf("%d streams, %d chunks", opened, d.reads.Load())
				if n := int(d.reads.Load()); n > 2*rows/50+2+2*opened {
					t.Fatalf("%d chunks were read with %d streams", n, opened)
				}
			})
		})
	}
}

// What a mark does not name may have changed anything; what it names is known, in bounds.
func TestPreparedInMarks(t *testing.T) {
	s := newStream(nil, nil, Config{})
	defer s.end()
	newJob := func(id string, opens map[string]*unfinished, m *pipeline.SnapshotMark) *job {
		j := &job{SnapshotJob: pipeline.SnapshotJob{ID: id, Mark: m}, opens: opens, stop: func() {}}
		j.resume(func(t Table) *table { return s.newTable(j, t) })
		return j
	}
	j := newJob("j1", map[string]*unfinished{}, nil)
	j.loaded = true
	j.add(s.newTable(j, Table{Schema: "public", Name: "a", Key: []string{"id"}}))
	few, many := newUnfinished(), newUnfinished()
	few.prepared, many.prepared = true, true
	few.of("public.a").rows["k"] = touchedWhole | touchedPartial
	few.of("public.a").again["again"] = []byte("old")
	for i := range mostPrepared + 1 {
		many.of("public.a").rows[strings.Repeat("x", i)] = touchedWhole
	}
	j.opens["few"] = few
	again := newJob("j1", map[string]*unfinished{}, j.mark(pipeline.JobRunning, ""))
	u := again.opens["few"]
	if u == nil || u.tables["public.a"].rows["k"] != touchedWhole|touchedPartial || string(u.tables["public.a"].again["again"]) != "old" || !u.told["j1"] {
		t.Fatalf("%+v", u)
	}
	j.opens["many"] = many
	again = newJob("j1", map[string]*unfinished{}, j.mark(pipeline.JobRunning, ""))
	if u = again.opens["many"]; u == nil || u.tables["public.a"].unknown == "" && again.opens["few"].tables["public.a"].unknown == "" || u.tables["public.a"].restart {
		t.Fatalf("%+v", u)
	}
	other := newJob("j2", again.opens, nil)
	s.jobs = []*job{again, other}
	other.add(s.newTable(other, Table{Schema: "public", Name: "b"}))
	if len(other.prepared()) > 0 {
		t.Fatal("a job tells what it does not know")
	}
	if s.anything(u); !u.tables["public.b"].restart || u.tables["public.a"].restart {
		t.Fatalf("%+v", u.tables)
	}
}

// A job whose tables are not loaded when a transaction is prepared does not tell that it touches none of them: it may
// have changed any row, once another process has loaded them.
func TestPreparedBeforeTheTablesAreLoaded(t *testing.T) {
	start := func(m *pipeline.SnapshotMark) (*stream, *job) {
		s := newStream(nil, nil, Config{})
		t.Cleanup(s.end)
		s.busy.Store(true)
		j := &job{SnapshotJob: pipeline.SnapshotJob{ID: "j1", Mark: m}, opens: s.opens, stop: func() {}}
		j.resume(func(t Table) *table { return s.newTable(j, t) })
		s.jobs = []*job{j}
		return s, j
	}
	of := Table{Schema: "public", Name: "a", Key: []string{"id"}}
	s, _ := start(nil)
	s.opens["few"] = newUnfinished()
	s.opens["few"].of("public.a").rows["k"] = touchedWhole
	s.take(&pipeline.Batch{Kind: pipeline.BatchPrepared, Open: "few"})
	if len(s.out) != 2 || s.out[0].Snapshot == nil {
		t.Fatalf("%d batches", len(s.out))
	}
	next, j := start(s.out[0].Snapshot)
	j.load([]Table{of}, func(t Table) *table { return next.newTable(j, t) })
	a := j.named["public.a"]
	a.begun = true
	w := &window{table: a}
	a.windows = []*window{w}
	next.recordCommit(&pipeline.Batch{Kind: pipeline.BatchCommit, Open: "few"})
	if w.void == "" {
		t.Fatal("a chunk that was read beside the commit would be emitted behind it")
	}
}
