package engine

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// TestTheFloorIsWhatSomebodyWants: the log's end without subscriptions; unknown while a cursor is not read; the
// lowest cursor, also of one that is paused or does not run here.
func TestTheFloorIsWhatSomebodyWants(t *testing.T) {
	r := newRig(t, time.Millisecond)
	var held atomic.Uint64
	err := r.engine.AddSource(t.Context(), Source{Name: "files", Source: pipetest.NewScriptedSource(script(20)...), OpenLog: r.openLog,
		Hold: func() (pipeline.Offset, bool) { o := held.Load(); return pipeline.Offset(o), o > 0 }})
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.engine.unit("files")
	if err != nil {
		t.Fatal(err)
	}
	log := u.currentLog()
	first, _ := log.Bounds()
	well := pipetest.NewRecordingSink()
	r.subscribe("well", well)
	r.wait(well, 20)
	if err := r.engine.RemoveSubscription("well"); err != nil {
		t.Fatal(err)
	}
	want := func(what string, o pipeline.Offset, known bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; {
			got, ok := u.floor(log)
			if got == o && ok == known {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: floor %d, known %v; want %d, %v", what, got, ok, o, known)
			}
		}
	}
	want("no subscription", first+20, true)
	held.Store(uint64(first + 3))
	want("one that does not run here", first+3, true)
	held.Store(0)

	for _, name := range []string{"paused", "skips"} {
		if err := r.store.SetPaused(t.Context(), name, true, "rebuild"); err != nil {
			t.Fatal(err)
		}
	}
	skips := Subscription{Deliver: deliver.Config{Name: "skips", Source: "files", Laggard: deliver.LaggardSkip},
		OpenSink: func(context.Context) (pipeline.Sink, error) { return pipetest.NewRecordingSink(), nil }}
	if err := r.engine.AddSubscription(skips); err != nil {
		t.Fatal(err)
	}
	want("one that lets retention take what it wants", first+20, true)
	r.subscribe("paused", pipetest.NewRecordingSink())
	want("one that is paused", first, true)
	broken := Subscription{Deliver: deliver.Config{Name: "broken", Source: "files"},
		OpenSink: func(context.Context) (pipeline.Sink, error) { return nil, errors.New("no such folder") }}
	if err := r.engine.AddSubscription(broken); err != nil {
		t.Fatal(err)
	}
	want("one that never started", 0, false)
}

// TestOpeningALogHoldsNobodyUp: Status and Stop go on while a log recovers; Stop returns once it is closed again.
func TestOpeningALogHoldsNobodyUp(t *testing.T) {
	r := newRig(t, time.Millisecond)
	opening, open := make(chan struct{}), make(chan struct{})
	added := make(chan error, 1)
	go func() {
		added <- r.engine.AddSource(context.Background(), Source{Name: "files", Source: pipetest.NewScriptedSource(), OpenLog: func(ctx context.Context) (pipeline.Log, error) {
			close(opening)
			<-open
			return r.openLog(ctx)
		}})
	}()
	<-opening
	if st := r.engine.Status(); len(st.Sources) != 0 {
		t.Fatalf("%+v", st)
	}
	if err := r.engine.AddSource(t.Context(), Source{Name: "files"}); err == nil {
		t.Fatal("one name twice")
	}
	stopped := make(chan error, 1)
	go func() { stopped <- r.engine.Stop() }()
	for {
		if err := r.engine.AddSource(t.Context(), Source{Name: "files"}); errors.Is(err, ErrStopped) {
			break
		}
	}
	for range 1000 {
		select {
		case <-stopped:
			t.Fatal("stopped while a log was being opened")
		default:
			runtime.Gosched()
		}
	}
	close(open)
	if err := <-added; !errors.Is(err, ErrStopped) {
		t.Fatalf("added: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	l, err := r.openLog(t.Context()) // nobody holds its lock
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestALogThatComesWithAnErrorIsClosed: else its lock would be held for ever.
func TestALogThatComesWithAnErrorIsClosed(t *testing.T) {
	r := newRig(t, time.Millisecond)
	failed := errors.New("the state cannot be written")
	spec := Source{Name: "files", Source: pipetest.NewScriptedSource(script(1)...), OpenLog: func(ctx context.Context) (pipeline.Log, error) {
		l, err := r.openLog(ctx)
		return l, errors.Join(err, failed)
	}}
	if err := r.engine.AddSource(t.Context(), spec); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	spec.OpenLog = r.openLog
	if err := r.engine.AddSource(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
}

// closing counts how often it was closed.
type closing struct {
	pipeline.Sink
	closed atomic.Int32
}

func (c *closing) Close() error { c.closed.Add(1); return c.Sink.Close() }

func TestASinkIsClosedWithItsSubscription(t *testing.T) {
	r := newRig(t, time.Millisecond)
	r.source(pipetest.NewScriptedSource(script(1)...))
	rec := pipetest.NewRecordingSink()
	sink := &closing{Sink: rec}
	r.subscribe("search", sink)
	r.wait(rec, 1)
	if err := r.engine.RemoveSubscription("search"); err != nil {
		t.Fatal(err)
	}
	if n := sink.closed.Load(); n != 1 {
		t.Fatalf("closed %d times", n)
	}
}
