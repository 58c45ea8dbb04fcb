package engine

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/pipeline/state"
)

// nowhere is a subscriber that takes everything at once.
type nowhere struct{}

func (nowhere) Deliver(context.Context, *pipeline.Delivery) (pipeline.Outcomes, error) {
	return nil, nil
}
func (nowhere) Close() error { return nil }

// BenchmarkReplayAside: logged events per second to a null subscriber when nothing else runs. Dry run and copies.
func BenchmarkReplayAside(b *testing.B) {
	const events, each = 4_000_000, 1000
	dir := b.TempDir()
	open := func(context.Context) (pipeline.Log, error) {
		return disklog.Open(disklog.Options{Dir: filepath.Join(dir, "log"), Source: "files"})
	}
	log, err := open(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	fill(b, log, events, each)
	first, next := log.Bounds()
	store, err := state.Open(b.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	if err := store.Save(b.Context(), "sub", pipeline.Cursor{Log: log.ID(), Low: next, High: next}); err != nil {
		b.Fatal(err)
	}
	if err := log.Close(); err != nil {
		b.Fatal(err)
	}
	e := New(Config{Cursors: store, Store: store, Form: pipetest.PGForm})
	defer func() { _ = e.Stop() }()
	if err := e.AddSource(b.Context(), Source{Name: "files", Source: pipetest.NewScriptedSource(), OpenLog: open}); err != nil {
		b.Fatal(err)
	}
	if err := e.AddSubscription(Subscription{Deliver: deliver.Config{Name: "sub", Source: "files"},
		OpenSink: func(context.Context) (pipeline.Sink, error) { return nowhere{}, nil }}); err != nil {
		b.Fatal(err)
	}
	for e.Status().Subscriptions[0].State != deliver.StateRunning {
		time.Sleep(time.Millisecond)
	}
	var planned, copied time.Duration
	for b.Loop() {
		began := time.Now()
		j, p, err := e.StartReplay(b.Context(), ReplayRequest{Subscription: "sub", Kind: pipeline.JobAside, From: Point{Offset: first}, Owner: "bench"})
		if err != nil || p.Events != events {
			b.Fatal(p, err)
		}
		planned += time.Since(began)
		began = time.Now()
		for done := false; !done; time.Sleep(5 * time.Millisecond) {
			jobs, err := e.Jobs(b.Context(), "sub")
			if err != nil {
				b.Fatal(err)
			}
			last := jobs[len(jobs)-1]
			if done = last.ID == j.ID && last.State.Ended(); done && last.State != pipeline.JobDone {
				b.Fatalf("%+v", last)
			}
		}
		copied += time.Since(began)
	}
	b.ReportMetric(float64(b.N)*events/planned.Seconds(), "planned/s")
	b.ReportMetric(float64(b.N)*events/copied.Seconds(), "copied/s")
}

// fill appends inserts of different keys.
func fill(b *testing.B, log pipeline.Log, events, each int) {
	b.Helper()
	table := pipetest.FilesTable("files")
	var last uint64
	for n := 0; n < events; n += each {
		batch := pipetest.Build(pipeline.Position{Counter: uint64(n + 1), Token: "p"}, time.Now(), make([]pipetest.Change, each))
		ti, err := batch.TableIndex(table)
		if err != nil {
			b.Fatal(err)
		}
		after := pipeline.Span{Off: uint32(len(batch.Arena))}
		batch.Arena = pipetest.AppendTuple(batch.Arena, pipetest.Row{"1234567", "77", "/home/someone/file"})
		after.Len = uint32(len(batch.Arena)) - after.Off
		for i := range batch.Events {
			e := &batch.Events[i]
			e.Op, e.Table, e.After = pipeline.OpInsert, ti, after
			e.Hash = uint64(n+i) * 0x9e3779b97f4a7c15
			e.Key = batch.Put(binary.BigEndian.AppendUint64(nil, uint64(n+i)))
		}
		if last, err = log.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := log.Synced(b.Context(), last-1); err != nil {
		b.Fatal(err)
	}
}
