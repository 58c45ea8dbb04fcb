package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/pipeline/state"
)

// nothing takes all.
type nothing struct{}

func (nothing) Deliver(context.Context, *pipeline.Delivery) (pipeline.Outcomes, error) {
	return nil, nil
}
func (nothing) Close() error { return nil }

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIdle: what fifty subscriptions of 64 ranges take when there is nothing to do, in percent of a core; and
// when each second brings one event and a look at the status.
func BenchmarkIdle(b *testing.B) {
	for _, drip := range []bool{false, true} {
		b.Run(fmt.Sprintf("drip=%v", drip), func(b *testing.B) { idle(b, drip) })
	}
}

func idle(b *testing.B, drip bool) {
	dir := b.TempDir()
	store, err := state.Open(b.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		b.Fatal(err)
	}
	e := New(Config{Cursors: store, Store: store, Form: pipetest.PGForm})
	b.Cleanup(func() { e.Stop(); store.Close() })
	events := script(3000)
	src := pipetest.NewScriptedSource(events[:2000]...)
	err = e.AddSource(b.Context(), Source{Name: "files", Source: src, OpenLog: func(context.Context) (pipeline.Log, error) {
		return disklog.Open(disklog.Options{Dir: filepath.Join(dir, "log"), Source: "files"})
	}})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 50 {
		err := e.AddSubscription(Subscription{Deliver: deliver.Config{Name: fmt.Sprint("s", i), Source: "files", Resolved: time.Second},
			OpenSink: func(context.Context) (pipeline.Sink, error) { return nothing{}, nil }})
		if err != nil {
			b.Fatal(err)
		}
	}
	settled(e)
	split64(b, e)
	time.Sleep(2 * time.Second)
	cpu, start, n := cpuTime(), time.Now(), 2000
	for b.Loop() {
		time.Sleep(time.Second)
		if drip && n < len(events) {
			src.Add(events[n])
			n++
			e.Status()
		}
	}
	b.ReportMetric(100*(cpuTime()-cpu).Seconds()/time.Since(start).Seconds(), "%core")
}

// settled waits until all is delivered.
func settled(e *Engine) {
	for {
		time.Sleep(50 * time.Millisecond)
		done := 0
		for _, s := range e.Status().Subscriptions {
			if s.Low == s.Next && s.Delivered >= 2000 {
				done++
			}
		}
		if done == 50 {
			return
		}
	}
}

func split64(b *testing.B, e *Engine) {
	for i := range 63 {
		log, err := e.Log("files")
		if err != nil {
			b.Fatal(err)
		}
		h, err := partition.NewHistory(log.Ranges())
		if err != nil {
			b.Fatal(err)
		}
		at := encoded(b, int64(10+30*i))
		m := h.Last().Map("public.files")
		if _, err := e.Split(b.Context(), "files", "public.files", m.Ranges()[m.Find(at)].ID, at, "bench"); err != nil {
			b.Fatal(err)
		}
	}
}
