package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func filesTable() *schemas.Table {
	t := pipetest.FilesTable("files")
	t.ID, t.Version, t.Routing, t.KeySpace = 0, 0, nil, ""
	return t
}

// script returns n transactions of one insert each, positions 1 to n.
func script(n int) []pipetest.Step {
	table := filesTable()
	var steps []pipetest.Step
	for i := 1; i <= n; i++ {
		steps = append(steps, pipetest.Step{Make: func() *pipeline.Batch {
			return pipetest.Build(pipeline.Position{Counter: uint64(i), Token: fmt.Sprint("p", i)}, time.Unix(1700000000, 0),
				[]pipetest.Change{{Op: pipeline.OpInsert, Table: table, After: pipetest.Row{fmt.Sprint(i), "1", "/x"}}})
		}})
	}
	return steps
}

type rig struct {
	t      *testing.T
	dir    string
	store  *state.Store
	engine *Engine
}

func newRig(t *testing.T, again time.Duration) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	var err error
	if r.store, err = state.Open(t.Context(), filepath.Join(r.dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	r.engine = New(Config{Cursors: r.store, Store: r.store, Form: pipetest.PGForm, Again: again})
	t.Cleanup(func() {
		if err := r.engine.Stop(); err != nil {
			t.Error(err)
		}
		r.store.Close()
	})
	return r
}

func (r *rig) openLog(context.Context) (pipeline.Log, error) {
	return disklog.Open(disklog.Options{Dir: filepath.Join(r.dir, "log"), Source: "files", SegmentSize: 64 << 10})
}

func (r *rig) source(src pipeline.Source) {
	r.t.Helper()
	if err := r.engine.AddSource(r.t.Context(), Source{Name: "files", Source: src, OpenLog: r.openLog}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) subscribe(name string, sink pipeline.Sink) {
	r.t.Helper()
	err := r.engine.AddSubscription(Subscription{Deliver: deliver.Config{Name: name, Source: "files", Grace: time.Millisecond},
		OpenSink: func(context.Context) (pipeline.Sink, error) { return sink, nil }})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) wait(s *pipetest.RecordingSink, n int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Wait(ctx, func(d []pipetest.Delivered) bool { return distinct(d) >= n }); err != nil {
		r.t.Fatalf("%d of %d events: %v; %+v", distinct(s.All()), n, err, r.engine.Status())
	}
}

func distinct(d []pipetest.Delivered) int {
	seen := map[pipeline.Offset]bool{}
	for _, e := range d {
		seen[e.Offset] = true
	}
	return len(seen)
}

func TestAHungSubscriptionMovesNobody(t *testing.T) {
	r := newRig(t, time.Millisecond)
	src := pipetest.NewScriptedSource(script(500)...)
	r.source(src)
	hung, well := pipetest.NewRecordingSink(), pipetest.NewRecordingSink()
	hung.Answer = func(ctx context.Context, _ *pipeline.Delivery, _ []pipetest.Delivered) (pipeline.Outcomes, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	r.subscribe("hung", hung)
	r.subscribe("well", well)
	r.wait(well, 500)
	r.eventually("the source is confirmed", func() bool { return src.Confirmed().Counter == 500 })
	st := r.engine.Status()
	if len(st.Subscriptions) != 2 || st.Subscriptions[0].Name != "hung" || st.Subscriptions[0].Delivered != 0 || st.Sources[0].State != "streaming" {
		t.Fatalf("%+v", st)
	}
}

func TestASubscriptionGoesOnFromItsCursor(t *testing.T) {
	r := newRig(t, time.Millisecond)
	src := pipetest.NewScriptedSource(script(100)...)
	r.source(src)
	first, second := pipetest.NewRecordingSink(), pipetest.NewRecordingSink()
	r.subscribe("search", first)
	r.wait(first, 100)
	if err := r.engine.RemoveSubscription("search"); err != nil {
		t.Fatal(err)
	}
	src.Add(script(150)[100:]...)
	r.subscribe("search", second)
	r.wait(second, 50)
	// Deliveries of different keys come back in any order.
	oldest, newest := second.All()[0].Offset, pipeline.Offset(0)
	for _, e := range second.All() {
		oldest = min(oldest, e.Offset)
	}
	for _, e := range first.All() {
		newest = max(newest, e.Offset)
	}
	if oldest != newest+1 {
		t.Fatalf("went on at %d behind %d", oldest, newest)
	}
	if err := r.engine.RemoveSubscription("search"); err != nil {
		t.Fatal(err)
	}
	if err := r.engine.RemoveSubscription("search"); !errors.Is(err, ErrUnknown) {
		t.Fatalf("removed twice: %v", err)
	}
}

// failing is a log that fails once, after n appends.
type failing struct {
	pipeline.Log
	mu   sync.Mutex
	left int
}

func (f *failing) Append(ctx context.Context, b *pipeline.Batch) (uint64, error) {
	f.mu.Lock()
	f.left--
	broken := f.left < 0
	f.mu.Unlock()
	if broken {
		b.Release()
		return 0, errors.New("fsync: input/output error")
	}
	return f.Log.Append(ctx, b)
}

func TestALogThatFailedIsOpenedAgain(t *testing.T) {
	r := newRig(t, time.Millisecond)
	opened := 0
	err := r.engine.AddSource(t.Context(), Source{Name: "files", Source: pipetest.NewScriptedSource(script(200)...),
		OpenLog: func(ctx context.Context) (pipeline.Log, error) {
			l, err := r.openLog(ctx)
			if opened++; opened == 1 && err == nil {
				return &failing{Log: l, left: 77}, nil
			}
			return l, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	sink := pipetest.NewRecordingSink()
	r.subscribe("search", sink)
	r.wait(sink, 200)
	all := sink.All()
	if n := distinct(all); n != 200 {
		t.Fatalf("%d distinct events", n)
	}
	low, high := all[0].Offset, all[0].Offset
	for _, e := range all {
		low, high = min(low, e.Offset), max(high, e.Offset)
	}
	if high-low != 199 {
		t.Fatalf("200 events over offsets %d to %d", low, high)
	}
}

func TestAStoppedSourceIsTriedAgain(t *testing.T) {
	r := newRig(t, time.Hour)
	src := pipetest.NewScriptedSource(script(3)...)
	src.OpenErr = &pipeline.SourceError{Class: pipeline.Stopped, Code: "slot_lost", What: "the slot is gone"}
	var once sync.Once
	stopped := make(chan struct{})
	r.engine.cfg.Observer.SourceState = func(_, state string, _ error) {
		if state == "stopped" {
			once.Do(func() { close(stopped) })
		}
	}
	r.source(src)
	<-stopped
	if st := r.engine.Status().Sources[0]; st.State != "stopped" || st.Code != "slot_lost" {
		t.Fatalf("%+v", st)
	}
	src.Heal()
	if err := r.engine.Retry("files"); err != nil {
		t.Fatal(err)
	}
	sink := pipetest.NewRecordingSink()
	r.subscribe("search", sink)
	r.wait(sink, 3)
}

func TestWhatIsNotThereIsRefused(t *testing.T) {
	r := newRig(t, time.Millisecond)
	if err := r.engine.AddSubscription(Subscription{Deliver: deliver.Config{Name: "a", Source: "nowhere"}}); !errors.Is(err, ErrUnknown) {
		t.Fatalf("got %v", err)
	}
	r.source(pipetest.NewScriptedSource())
	if err := r.engine.AddSource(t.Context(), Source{Name: "files"}); err == nil {
		t.Fatal("one name twice")
	}
	if err := r.engine.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := r.engine.AddSource(t.Context(), Source{Name: "other"}); !errors.Is(err, ErrStopped) {
		t.Fatalf("got %v", err)
	}
}
