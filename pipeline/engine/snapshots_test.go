package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// filesWith returns a scripted source of events transactions whose table has rows rows.
func filesWith(events, rows, per int) *pipetest.SnapshotSource {
	s := &pipetest.SnapshotSource{Source: pipetest.NewScriptedSource(script(events)...), Table: filesTable(), Per: per}
	for i := range rows {
		s.Rows = append(s.Rows, pipetest.Row{fmt.Sprint(1000 + i), "1", fmt.Sprint("/row", i)})
	}
	return s
}

func (r *rig) eventually(what string, f func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			all, err := r.engine.Snapshots(context.Background())
			r.t.Fatalf("never: %s: %+v %v", what, all, err)
		}
	}
}

func (r *rig) add(s Source, subs ...Subscription) {
	r.t.Helper()
	s.Name, s.OpenLog = "files", r.openLog
	if err := r.engine.AddSource(r.t.Context(), s); err != nil {
		r.t.Fatal(err)
	}
	for _, sub := range subs {
		if err := r.engine.AddSubscription(sub); err != nil {
			r.t.Fatal(err)
		}
	}
}

func subscriptionOf(name string, sink pipeline.Sink, from deliver.Start) Subscription {
	return Subscription{Deliver: deliver.Config{Name: name, Source: "files", Grace: time.Millisecond, From: from},
		OpenSink: func(context.Context) (pipeline.Sink, error) { return sink, nil }}
}

func (r *rig) restart() {
	r.t.Helper()
	if err := r.engine.Stop(); err != nil {
		r.t.Fatal(err)
	}
	r.engine = New(Config{Cursors: r.store, Store: r.store, Form: pipetest.PGForm, Again: time.Millisecond})
}

// snapshot returns the n-th job.
func (r *rig) snapshot(n int) pipeline.Snapshot {
	r.t.Helper()
	all, err := r.engine.Snapshots(r.t.Context())
	if err != nil || len(all) <= n {
		r.t.Fatal(all, err)
	}
	return all[n].Snapshot
}

func (r *rig) ended(n int) func() bool {
	return func() bool {
		all, err := r.engine.Snapshots(r.t.Context())
		return err == nil && len(all) > n && all[n].State.Ended()
	}
}

func rowsOf(ds []pipetest.Delivered) (n int) {
	for _, d := range ds {
		if d.Op == pipeline.OpSnapshot {
			n++
		}
	}
	return n
}

// A new log begins with the rows that are there, for all, once.
func TestInitialSnapshot(t *testing.T) {
	r := newRig(t, time.Millisecond)
	src := filesWith(20, 100, 7)
	a, b := pipetest.NewRecordingSink(), pipetest.NewRecordingSink()
	r.add(Source{Source: src, Initial: true}, subscriptionOf("a", a, deliver.Start{}), subscriptionOf("b", b, deliver.Start{}))
	r.wait(a, 120)
	r.wait(b, 120)
	r.eventually("its end", r.ended(0))
	j := r.snapshot(0)
	if done, total := j.Rows(); j.State != pipeline.JobDone || j.Cause != pipeline.CauseInitial || done != 100 || total != 100 || rowsOf(a.All()) != 100 {
		t.Fatalf("%+v; %d rows came", j, rowsOf(a.All()))
	}
	r.restart()
	again := filesWith(21, 100, 7)
	r.add(Source{Source: again, Initial: true}, subscriptionOf("a", a, deliver.Start{}))
	r.wait(a, 121)
	if all, _ := r.engine.Snapshots(t.Context()); len(all) != 1 || again.Read(j.ID) != 0 {
		t.Fatalf("it began again: %+v", all)
	}
}

// A subscription that begins with a snapshot gets the rows and what comes behind; who was there sees none of it.
func TestSnapshotForOne(t *testing.T) {
	r := newRig(t, time.Millisecond)
	src := filesWith(50, 200, 9)
	old, new := pipetest.NewRecordingSink(), pipetest.NewRecordingSink()
	r.add(Source{Source: src}, subscriptionOf("old", old, deliver.Start{}))
	r.wait(old, 50)
	if err := r.engine.AddSubscription(subscriptionOf("new", new, deliver.Start{Snapshot: true})); err != nil {
		t.Fatal(err)
	}
	r.wait(new, 200)
	src.Source.(*pipetest.ScriptedSource).Add(script(60)[50:]...)
	r.wait(new, 210)
	r.wait(old, 60)
	r.eventually("its end", r.ended(0))
	if rowsOf(old.All()) != 0 || rowsOf(new.All()) != 200 || len(new.All()) != 210 {
		t.Fatalf("the old one has %d rows, the new one %d of %d", rowsOf(old.All()), rowsOf(new.All()), len(new.All()))
	}
	r.eventually("the old one's cursor behind what is for the other", func() bool {
		for _, s := range r.engine.Status().Subscriptions {
			if s.Persisted != s.Next {
				return false
			}
		}
		return true
	})
}

// A job is paused, goes on over a restart where the log says that it was, and is cancelled.
func TestSnapshotPausesResumesAndIsCancelled(t *testing.T) {
	r := newRig(t, time.Millisecond)
	const rows, per = 3000, 10
	src := filesWith(5, rows, per)
	src.Takes = 2 * time.Millisecond // not all is read before it is paused
	sink := pipetest.NewRecordingSink()
	sub := func() Subscription { return subscriptionOf("a", sink, deliver.Start{}) }
	r.add(Source{Source: src}, sub())
	r.wait(sink, 5)
	s, err := r.engine.Backfill(t.Context(), BackfillRequest{Subscription: "a", Tables: []string{"public.files"}, Owner: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.engine.PauseJob(t.Context(), s.ID, "lunch"); err != nil {
		t.Fatal(err)
	}
	if src.PaceOf(s.ID) != 0 {
		t.Fatal(src.PaceOf(s.ID))
	}
	r.restart()
	again := filesWith(5, rows, per)
	again.Takes = src.Takes
	r.add(Source{Source: again}, sub())
	r.eventually("it is known", func() bool { return len(r.engine.Status().Sources[0].Snapshots) == 1 })
	if j := r.snapshot(0); j.State != pipeline.JobPaused || j.Reason != "lunch" {
		t.Fatalf("%+v", j)
	}
	if err := r.engine.ResumeJob(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	r.eventually("its end", r.ended(0))
	if n := src.Read(s.ID) + again.Read(s.ID); n < rows || n > rows+per {
		t.Fatalf("%d rows were read of %d", n, rows)
	}
	r.wait(sink, rows+5)

	if s, err = r.engine.Backfill(t.Context(), BackfillRequest{Subscription: "a", Owner: "me"}); err != nil {
		t.Fatal(err)
	}
	if err := r.engine.CancelJob(t.Context(), s.ID, "me"); err != nil {
		t.Fatal(err)
	}
	if j := r.snapshot(1); j.State != pipeline.JobCancelled || j.Reason != "cancelled by me" {
		t.Fatalf("%+v", j)
	}
	var refused *ReplayError
	if err := r.engine.ResumeJob(t.Context(), s.ID); !errors.As(err, &refused) {
		t.Fatal(err)
	}
	log, err := r.engine.Log("files")
	if err != nil {
		t.Fatal(err)
	}
	r.eventually("the log keeps no mark of it as under way", func() bool {
		return !slices.ContainsFunc(log.Snapshots(), func(m pipeline.SnapshotMark) bool { return m.State == pipeline.JobRunning })
	})
	if _, err := r.engine.Backfill(t.Context(), BackfillRequest{Subscription: "nobody"}); !errors.As(err, &refused) {
		t.Fatal(err)
	}
}

// A job that is cancelled while its source is away leaves no mark behind.
func TestCancelledWhileTheSourceIsAway(t *testing.T) {
	r := newRig(t, time.Millisecond)
	src := filesWith(5, 100_000, 10)
	sink := pipetest.NewRecordingSink()
	r.add(Source{Source: src}, subscriptionOf("a", sink, deliver.Start{}))
	r.wait(sink, 5)
	s, err := r.engine.Backfill(t.Context(), BackfillRequest{Subscription: "a"})
	if err != nil {
		t.Fatal(err)
	}
	log, _ := r.engine.Log("files")
	r.eventually("a mark", func() bool { return len(log.Snapshots()) == 1 })
	r.restart()
	away := pipetest.NewScriptedSource()
	away.OpenErr = &pipeline.SourceError{Class: pipeline.Transient, Code: "away", What: "it is away"}
	r.add(Source{Source: away}, subscriptionOf("a", sink, deliver.Start{}))
	r.eventually("it is known", func() bool { return len(r.engine.Status().Sources[0].Snapshots) == 1 })
	if err := r.engine.CancelJob(t.Context(), s.ID, "me"); err != nil {
		t.Fatal(err)
	}
	log, _ = r.engine.Log("files")
	r.eventually("its end in the log", func() bool { m := log.Snapshots(); return len(m) == 1 && m[0].State == pipeline.JobCancelled })
}

// What a subscriber does not take holds its own job up, and nothing else.
func TestUndeliveredRowsHoldTheJobUp(t *testing.T) {
	r := newRig(t, time.Millisecond)
	src := filesWith(5, 20_000, 100)
	src.Takes = 2 * time.Millisecond
	hung, well := pipetest.NewRecordingSink(), pipetest.NewRecordingSink()
	open := make(chan struct{})
	hung.Answer = func(ctx context.Context, _ *pipeline.Delivery, ds []pipetest.Delivered) (pipeline.Outcomes, error) {
		select {
		case <-open:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r.add(Source{Source: src, SnapshotRoom: func() int64 { return 100 << 10 }}, subscriptionOf("hung", hung, deliver.Start{Latest: true}), subscriptionOf("well", well, deliver.Start{}))
	r.wait(well, 5)
	first, err := r.engine.Backfill(t.Context(), BackfillRequest{Subscription: "hung"})
	if err != nil {
		t.Fatal(err)
	}
	r.eventually("it is held up", func() bool { return src.PaceOf(first.ID) == 0 && src.Read(first.ID) > 0 })
	if _, err = r.engine.Backfill(t.Context(), BackfillRequest{Subscription: "well"}); err != nil {
		t.Fatal(err)
	}
	r.eventually("the other's end", r.ended(1))
	if n := src.Read(first.ID); n == 20_000 {
		t.Fatal("all was read for one that takes nothing")
	}
	close(open)
	r.eventually("its end", r.ended(0))
	r.wait(hung, 20_000)
}

// A gap of a table is filled when each that takes it got a snapshot of it; a fault is told, and fills nothing.
func TestASnapshotFillsAGap(t *testing.T) {
	r := newRig(t, time.Millisecond)
	src := filesWith(5, 50, 10)
	src.Source.(*pipetest.ScriptedSource).Add(pipetest.Step{Make: func() *pipeline.Batch {
		b := pipetest.Build(pipeline.Position{Counter: 6, Token: "p6"}, time.Unix(1700000000, 0))
		b.Notices = append(b.Notices, pipeline.Notice{Kind: pipeline.NoticeGap, Table: "public.files", Reason: "it joined late", Time: time.Unix(1700000000, 0)})
		return b
	}})
	a, b := pipetest.NewRecordingSink(), pipetest.NewRecordingSink()
	r.add(Source{Source: src}, subscriptionOf("a", a, deliver.Start{}), subscriptionOf("b", b, deliver.Start{}))
	gaps := func() int { return len(r.engine.Status().Sources[0].Notices) }
	r.eventually("a gap", func() bool { return gaps() == 1 })
	for n, name := range []string{"a", "b"} {
		if n == 1 && gaps() != 1 {
			t.Fatal("the gap is filled for one that got nothing")
		}
		if _, err := r.engine.Backfill(t.Context(), BackfillRequest{Subscription: name}); err != nil {
			t.Fatal(err)
		}
		r.eventually("its end", r.ended(n))
	}
	r.eventually("the gap is filled", func() bool { return gaps() == 0 })
}

// Who asks for a quarantined table ends that: the table is read again, the job brings what was missed, and the gap of the
// others that take it stays until they asked too.
func TestBackfillOfAQuarantinedTable(t *testing.T) {
	r := newRig(t, time.Millisecond)
	src := filesWith(3, 50, 7)
	script := src.Source.(*pipetest.ScriptedSource)
	sink, other := pipetest.NewRecordingSink(), pipetest.NewRecordingSink()
	r.add(Source{Source: src}, subscriptionOf("a", sink, deliver.Start{}), subscriptionOf("b", other, deliver.Start{}))
	r.wait(sink, 3)
	subject := filesTable().Subject()
	script.Add(pipetest.Step{Make: func() *pipeline.Batch {
		b := pipetest.Build(pipeline.Position{Counter: 4, Token: "p4"}, time.Unix(1700000000, 0), nil)
		b.Notices = []pipeline.Notice{{Kind: pipeline.NoticeQuarantined, Code: "statement", Table: subject, Reason: "by statement", Cure: "set it to ROW; then " + pipeline.BringRows}}
		return b
	}})
	r.eventually("its quarantine", func() bool { return len(r.engine.Quarantined("files")) == 1 })
	was := r.engine.Status().Sources[0].Notices[0]
	if who := r.engine.Lacking(t.Context(), "files", was); !slices.Equal(who, []string{"a", "b"}) {
		t.Fatalf("%v", who)
	}
	if _, err := r.engine.Backfill(t.Context(), BackfillRequest{Subscription: "a", Tables: []string{"other.*"}}); err != nil {
		t.Fatal(err)
	}
	r.eventually("the end of a job that is not about it", r.ended(0))
	if len(r.engine.Quarantined("files")) != 1 {
		t.Fatal("it ended, and nobody asked for the table")
	}
	if _, err := r.engine.Backfill(t.Context(), BackfillRequest{Subscription: "a", Tables: []string{subject}}); err != nil {
		t.Fatal(err)
	}
	if n := r.engine.Status().Sources[0].Notices; len(n) != 1 || n[0].Kind != pipeline.NoticeGap || n[0].Code != "statement" {
		t.Fatalf("%+v", n)
	}
	r.eventually("its end", r.ended(1))
	if j := r.snapshot(1); j.State != pipeline.JobDone || !j.Progress[0].Done {
		t.Fatalf("%+v", j)
	}
	r.eventually("its rows", func() bool { return rowsOf(sink.All()) == 50 })
	n := r.engine.Status().Sources[0].Notices
	if len(n) != 1 {
		t.Fatalf("the gap went with b's not filled: %+v", n)
	}
	if who := r.engine.Lacking(t.Context(), "files", n[0]); !slices.Equal(who, []string{"b"}) || rowsOf(other.All()) != 0 {
		t.Fatalf("%v lack it, and b got %d rows", who, rowsOf(other.All()))
	}
	if _, err := r.engine.Backfill(t.Context(), BackfillRequest{Subscription: "b"}); err != nil {
		t.Fatal(err)
	}
	r.eventually("all is filled", func() bool { return len(r.engine.Status().Sources[0].Notices) == 0 })
}

// While a source is not read, nothing changes.
func TestNoQuarantineEndsWhereNothingIsRead(t *testing.T) {
	r := newRig(t, time.Hour)
	src := filesWith(3, 50, 7)
	subject := filesTable().Subject()
	script := src.Source.(*pipetest.ScriptedSource)
	script.Add(pipetest.Step{Make: func() *pipeline.Batch {
		b := pipetest.Build(pipeline.Position{Counter: 4, Token: "p4"}, time.Unix(1700000000, 0), nil)
		b.Notices = []pipeline.Notice{{Kind: pipeline.NoticeQuarantined, Code: "statement", Table: subject}}
		return b
	}}, pipetest.Step{Err: &pipeline.SourceError{Class: pipeline.Stopped, Code: "gone", What: "gone"}})
	sink := pipetest.NewRecordingSink()
	r.add(Source{Source: src}, subscriptionOf("a", sink, deliver.Start{}))
	r.eventually("its stop", func() bool {
		return r.engine.Status().Sources[0].State == "stopped" && len(r.engine.Quarantined("files")) == 1
	})
	_, err := r.engine.Backfill(t.Context(), BackfillRequest{Subscription: "a", Tables: []string{subject}})
	if re := (*ReplayError)(nil); !errors.As(err, &re) || !strings.Contains(err.Error(), "not being read now") {
		t.Fatal(err)
	}
	if len(r.engine.Quarantined("files")) != 1 {
		t.Fatal("it ended")
	}
}
