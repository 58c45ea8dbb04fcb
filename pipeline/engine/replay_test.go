package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// copies is a subscriber that tells copies of replays from live events.
type copies struct {
	*pipetest.RecordingSink
	mu   sync.Mutex
	of   map[string][]pipeline.Offset // by job; "" = live
	fail func(d *pipeline.Delivery) error
}

func newCopies() *copies {
	c := &copies{RecordingSink: pipetest.NewRecordingSink(), of: map[string][]pipeline.Offset{}}
	c.Answer = func(_ context.Context, d *pipeline.Delivery, events []pipetest.Delivered) (pipeline.Outcomes, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.fail != nil {
			if err := c.fail(d); err != nil {
				return nil, err
			}
		}
		for _, e := range events {
			c.of[d.Replay] = append(c.of[d.Replay], e.Offset)
		}
		return nil, nil
	}
	return c
}

func (c *copies) got(job string) []pipeline.Offset {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(slices.Values(c.of[job]))
}

func (r *rig) bounds() (oldest, next pipeline.Offset) {
	r.t.Helper()
	log, err := r.engine.Log("files")
	if err != nil {
		r.t.Fatal(err)
	}
	return log.Bounds()
}

// job waits until a job is in one of the states.
func (r *rig) job(id string, states ...pipeline.JobState) JobStatus {
	r.t.Helper()
	var last JobStatus
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		jobs, err := r.engine.Jobs(r.t.Context(), "")
		if err != nil {
			r.t.Fatal(err)
		}
		for _, j := range jobs {
			if last = j; j.ID == id && slices.Contains(states, j.State) {
				return j
			}
		}
	}
	r.t.Fatalf("job %s is not %v: %+v; %+v", id, states, last, r.engine.Status().Subscriptions)
	return last
}

func (r *rig) replay(q ReplayRequest) (pipeline.Job, ReplayPlan) {
	r.t.Helper()
	q.Subscription, q.Owner = "sub", "me"
	j, p, err := r.engine.StartReplay(r.t.Context(), q)
	if err != nil {
		r.t.Fatal(err)
	}
	return j, p
}

func span(from, to pipeline.Offset) []pipeline.Offset {
	var all []pipeline.Offset
	for ; from < to; from++ {
		all = append(all, from)
	}
	return all
}

func TestReplayAside(t *testing.T) {
	r := newRig(t, time.Millisecond)
	sink := newCopies()
	r.source(pipetest.NewScriptedSource(script(500)...))
	r.subscribe("sub", sink)
	r.wait(sink.RecordingSink, 500)
	first, next := r.bounds()
	q := ReplayRequest{Subscription: "sub", Kind: pipeline.JobAside, From: Point{Offset: first + 100}, To: Point{Offset: first + 250}}
	r.settled("sub", next)
	p, err := r.engine.PlanReplay(t.Context(), q)
	if err != nil || p.From != first+100 || p.To != first+250 || p.Events != 150 || p.Keys != 150 || p.KeysAbout || p.Bytes == 0 || !p.Oldest.Equal(time.Unix(1700000000, 0)) || !p.Newest.Equal(p.Oldest) || p.Takes <= 0 {
		t.Fatalf("%+v %v", p, err)
	}
	if jobs, err := r.engine.Jobs(t.Context(), ""); len(jobs) != 0 || err != nil {
		t.Fatal("a dry run made a job", jobs, err)
	}
	before, _, _ := r.store.Load(t.Context(), "sub")
	j, _ := r.replay(q)
	if done := r.job(j.ID, pipeline.JobDone); done.Done != 150 || done.Total != 150 || done.Dead != 0 || done.At != first+250 || done.Ended.IsZero() || done.Owner != "me" {
		t.Fatalf("%+v", done)
	}
	if got := sink.got(j.ID); !slices.Equal(got, span(first+100, first+250)) {
		t.Fatalf("copies %v", got)
	}
	if got := sink.got(""); !slices.Equal(got, span(first, next)) {
		t.Fatalf("live %v", got)
	}
	if after, _, _ := r.store.Load(t.Context(), "sub"); after.Low != before.Low || after.High != before.High {
		t.Fatalf("the live cursor went from %+v to %+v", before, after)
	}

	q.Scope.Filter, q.To = `after.id % 100 == 0 && op == "insert"`, Point{}
	narrow, plan := r.replay(q)
	r.job(narrow.ID, pipeline.JobDone)
	if got := sink.got(narrow.ID); len(got) != 4 || plan.Events != 4 || plan.To != next {
		t.Fatalf("copies %v, plan %+v", got, plan)
	}
	if narrow.ID == j.ID {
		t.Fatal("an id came again")
	}

	q.Scope.Filter = "after.nosuch == 1"
	if p, err = r.engine.PlanReplay(t.Context(), q); err != nil || len(p.Notes) != 1 || !strings.Contains(p.Notes[0], fmt.Sprintf("fails on %d events", p.Events)) || !strings.Contains(p.Notes[0], "nosuch") {
		t.Fatalf("a filter that fails on all: %+v, %v", p, err)
	}
}

// settled waits until the subscription's status shows that it has all below o.
func (r *rig) settled(name string, o pipeline.Offset) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, s := range r.engine.Status().Subscriptions {
			if s.Name == name && s.Persisted >= o {
				return
			}
		}
	}
	r.t.Fatalf("%s is not at %d: %+v", name, o, r.engine.Status().Subscriptions)
}

// TestAsideGoesOnAfterARestart: from its own cursor, and with what was paused, paused.
func TestAsideGoesOnAfterARestart(t *testing.T) {
	r := newRig(t, time.Millisecond)
	sink := newCopies()
	r.source(pipetest.NewScriptedSource(script(500)...))
	r.subscribe("sub", sink)
	r.wait(sink.RecordingSink, 500)
	first, next := r.bounds()
	r.settled("sub", next)
	copied := make(chan bool, 1000)
	sink.fail = func(d *pipeline.Delivery) error {
		if last := d.Runs[len(d.Runs)-1]; d.Replay != "" && last.Batch.Offset(int(last.To)) > first+200 {
			copied <- true
			return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "away"}
		}
		return nil
	}
	j, _ := r.replay(ReplayRequest{Kind: pipeline.JobAside, From: Point{Offset: first}, To: Point{Offset: first + 400}})
	second, _ := r.replay(ReplayRequest{Kind: pipeline.JobAside, From: Point{Offset: first}, To: Point{Offset: first + 10}})
	<-copied
	if s := r.job(second.ID, pipeline.JobWaiting); s.Reason != "job "+j.ID+" runs first" || s.Ends != "that job has ended" {
		t.Fatalf("%+v", s)
	}
	if err := r.engine.PauseJob(t.Context(), j.ID, "lunch"); err != nil {
		t.Fatal(err)
	}
	if s := r.job(j.ID, pipeline.JobPaused); s.Reason != "lunch" || s.At > first+200 {
		t.Fatalf("%+v", s)
	}
	r.job(second.ID, pipeline.JobDone) // it is its turn now
	if err := r.engine.RemoveSource("files"); err != nil {
		t.Fatal(err)
	}
	if s := r.job(j.ID, pipeline.JobPaused); s.At > first+200 {
		t.Fatalf("%+v", s)
	}
	if err := r.engine.ResumeJob(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	if s := r.job(j.ID, pipeline.JobWaiting); !strings.Contains(s.Reason, "does not run here") {
		t.Fatalf("%+v", s)
	}
	sink.mu.Lock()
	sink.fail = nil
	sink.mu.Unlock()
	r.source(pipetest.NewScriptedSource(script(500)...))
	r.subscribe("sub", sink)
	r.job(j.ID, pipeline.JobDone)
	if got := slices.Compact(sink.got(j.ID)); !slices.Equal(got, span(first, first+400)) {
		t.Fatalf("copies %v", got)
	}
}

// TestCancel: a job that runs, one that waits, one that has ended.
func TestCancel(t *testing.T) {
	r := newRig(t, time.Millisecond)
	sink := newCopies()
	r.source(pipetest.NewScriptedSource(script(100)...))
	r.subscribe("sub", sink)
	r.wait(sink.RecordingSink, 100)
	first, next := r.bounds()
	r.settled("sub", next)
	sink.fail = func(d *pipeline.Delivery) error {
		if d.Replay != "" {
			return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "away"}
		}
		return nil
	}
	q := ReplayRequest{Kind: pipeline.JobAside, From: Point{Offset: first}}
	one, _ := r.replay(q)
	two, _ := r.replay(q)
	r.job(one.ID, pipeline.JobRunning)
	for _, id := range []string{two.ID, one.ID} {
		if err := r.engine.CancelJob(t.Context(), id, "ci"); err != nil {
			t.Fatal(err)
		}
		if s := r.job(id, pipeline.JobCancelled); s.Reason != "cancelled by ci" || s.Ended.IsZero() {
			t.Fatalf("%+v", s)
		}
	}
	for _, err := range []error{r.engine.CancelJob(t.Context(), one.ID, "ci"), r.engine.ResumeJob(t.Context(), two.ID), r.engine.PauseJob(t.Context(), "nope", "")} {
		if re := (*ReplayError)(nil); !errors.As(err, &re) {
			t.Fatal(err)
		}
	}
}

// TestRewindAndFenced: the window comes again, tagged or not, and the live cursor does not move back; both outlive a
// restart while they are paused.
func TestRewindAndFenced(t *testing.T) {
	r := newRig(t, time.Millisecond)
	sink := newCopies()
	r.source(pipetest.NewScriptedSource(script(300)...))
	r.subscribe("sub", sink)
	r.wait(sink.RecordingSink, 300)
	first, next := r.bounds()
	r.settled("sub", next)
	plain := len(sink.got(""))
	rewind, plan := r.replay(ReplayRequest{Kind: pipeline.JobRewind, From: Point{Offset: first + 100}})
	if j := r.job(rewind.ID, pipeline.JobDone); j.Done != 200 || j.Total != 200 || plan.Events != 200 || j.At != next || j.Live != next {
		t.Fatalf("%+v %+v", j, plan)
	}
	if got := sink.got(""); len(got) != plain+200 || len(sink.got(rewind.ID)) != 0 {
		t.Fatalf("%d came", len(got)-plain)
	}
	away := func(away bool) {
		sink.mu.Lock()
		defer sink.mu.Unlock()
		if sink.fail = nil; away {
			sink.fail = func(*pipeline.Delivery) error {
				return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "away"}
			}
		}
	}
	away(true)
	fenced, plan := r.replay(ReplayRequest{Kind: pipeline.JobFenced, From: Point{Offset: first + 250}, Scope: pipeline.Scope{Filter: "after.id == 280"}})
	second, _ := r.replay(ReplayRequest{Kind: pipeline.JobRewind, From: Point{Offset: first}})
	for began := false; !began; {
		j := r.job(fenced.ID, pipeline.JobRunning, pipeline.JobWaiting)
		began = j.Live > 0
	}
	if err := r.engine.PauseJob(t.Context(), fenced.ID, "lunch"); err != nil {
		t.Fatal(err)
	}
	if s := r.job(second.ID, pipeline.JobWaiting); !strings.Contains(s.Reason, "holds keys") {
		t.Fatalf("%+v", s)
	}
	if err := r.engine.RemoveSource("files"); err != nil {
		t.Fatal(err)
	}
	if re := (*ReplayError)(nil); !errors.As(r.engine.CancelJob(t.Context(), fenced.ID, "ci"), &re) {
		t.Fatal("a replay that holds keys was cancelled while nothing runs")
	}
	away(false)
	r.source(pipetest.NewScriptedSource(script(300)...))
	r.subscribe("sub", sink)
	r.settled("sub", next)
	if err := r.engine.ResumeJob(t.Context(), fenced.ID); err != nil {
		t.Fatal(err)
	}
	if j := r.job(fenced.ID, pipeline.JobDone); j.Done != 1 || plan.Events != 1 {
		t.Fatalf("%+v %+v", j, plan)
	}
	if got := sink.got(fenced.ID); !slices.Equal(got, []pipeline.Offset{first + 279}) {
		t.Fatalf("copies %v", got)
	}
	r.job(second.ID, pipeline.JobDone)
	if err := r.engine.CancelJob(t.Context(), second.ID, "ci"); err == nil || !strings.Contains(err.Error(), "it is done") {
		t.Fatal(err)
	}
	u, err := r.engine.unit("files")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		floor, known := u.floor(u.currentLog())
		if known && floor == next {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the log is held at %d of %d", floor, next)
		}
	}
}

// TestRefusedReplays: what is asked for wrongly says why, and changes nothing.
func TestRefusedReplays(t *testing.T) {
	r := newRig(t, time.Millisecond)
	sink := newCopies()
	r.source(pipetest.NewScriptedSource(script(100)...))
	r.subscribe("sub", sink)
	r.wait(sink.RecordingSink, 100)
	first, next := r.bounds()
	r.settled("sub", next)
	at := func(o pipeline.Offset) Point { return Point{Offset: o} }
	old := time.Unix(1600000000, 0)
	for name, c := range map[string]struct {
		q    ReplayRequest
		want string
	}{
		"no subscription":  {ReplayRequest{Subscription: "other", Kind: pipeline.JobAside, From: at(first)}, `no subscription "other"`},
		"no kind":          {ReplayRequest{From: at(first)}, "aside, fenced or rewind"},
		"no start":         {ReplayRequest{Kind: pipeline.JobAside}, "say from where"},
		"ends before":      {ReplayRequest{Kind: pipeline.JobAside, From: at(first + 5), To: at(first + 5)}, "where it starts"},
		"ends beyond":      {ReplayRequest{Kind: pipeline.JobAside, From: at(first), To: at(next + 1)}, "beyond the end of the log"},
		"ends in future":   {ReplayRequest{Kind: pipeline.JobAside, From: at(first), To: Point{Time: time.Now().Add(time.Hour)}}, "beyond the end of the log"},
		"starts beyond":    {ReplayRequest{Kind: pipeline.JobAside, From: at(next + 1)}, "beyond the end of the log"},
		"nothing there":    {ReplayRequest{Kind: pipeline.JobAside, From: at(next)}, "nothing to deliver again"},
		"too old":          {ReplayRequest{Kind: pipeline.JobAside, From: at(first - 1)}, fmt.Sprintf("history is there from offset %d (2023-11-14T22:13:20Z)", first)},
		"time too old":     {ReplayRequest{Kind: pipeline.JobRewind, From: Point{Time: old}}, fmt.Sprintf("history is there from offset %d", first)},
		"position too old": {ReplayRequest{Kind: pipeline.JobRewind, From: Point{Position: "0/0"}}, fmt.Sprintf("history is there from offset %d", first)},
		"no position":      {ReplayRequest{Kind: pipeline.JobRewind, From: Point{Position: "here"}}, "no position of a source"},
		"position beyond":  {ReplayRequest{Kind: pipeline.JobRewind, From: Point{Position: "1/0"}}, "beyond the end"},
		"end of a rewind":  {ReplayRequest{Kind: pipeline.JobRewind, From: at(first), To: at(next)}, "it has no end"},
		"bad filter":       {ReplayRequest{Kind: pipeline.JobAside, From: at(first), Scope: pipeline.Scope{Filter: "op =="}}, "filter"},
		"bad glob":         {ReplayRequest{Kind: pipeline.JobAside, From: at(first), Scope: pipeline.Scope{Tables: []string{"files"}}}, "table glob"},
		"no table":         {ReplayRequest{Kind: pipeline.JobAside, From: at(first), Scope: pipeline.Scope{Tables: []string{"public.none"}}}, "no table that matches"},
		"no key space":     {ReplayRequest{Kind: pipeline.JobAside, From: at(first), Scope: pipeline.Scope{Keys: []pipeline.Key{{Space: "none"}}}}, `no key space "none"`},
		"no range":         {ReplayRequest{Kind: pipeline.JobAside, From: at(first), RangeIDs: []RangeID{{ID: 7}}}, "no range 7"},
		"empty range":      {ReplayRequest{Kind: pipeline.JobAside, From: at(first), Scope: pipeline.Scope{Ranges: []pipeline.KeyInterval{{Space: "public.files", Start: []byte{2}, End: []byte{2}}}}}, "ends where it starts"},
		"no event":         {ReplayRequest{Kind: pipeline.JobAside, From: at(first), Scope: pipeline.Scope{Filter: `op == "delete"`}}, "no event that is meant"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.q.Subscription == "" {
				c.q.Subscription = "sub"
			}
			for _, f := range []func() error{
				func() error { _, err := r.engine.PlanReplay(t.Context(), c.q); return err },
				func() error { _, _, err := r.engine.StartReplay(t.Context(), c.q); return err },
			} {
				err := f()
				if re := (*ReplayError)(nil); !errors.As(err, &re) || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("%v, want %q", err, c.want)
				}
			}
		})
	}
	if jobs, err := r.engine.Jobs(t.Context(), ""); len(jobs) != 0 || err != nil {
		t.Fatal(jobs, err)
	}
}

// TestPositions: the first event at or behind it, in each form.
func TestPositions(t *testing.T) {
	build := func(positions ...string) pipeline.Log {
		log := pipetest.NewMemoryLog("log", 1000)
		for _, p := range positions {
			b := pipeline.NewBatch()
			b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString("x"), Position: b.PutString(p), Ends: true})
			for range 2 {
				b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpMessage, Table: pipeline.NoTable, Key: pipeline.Nowhere, Before: pipeline.Nowhere, After: pipeline.Nowhere})
			}
			if _, err := log.Append(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		return log
	}
	lsn := build("0/F0", "0/100", "1/0", "A/1")
	file := build("bin.000009:400", "bin.000010:4", "bin.000010:90")
	gtid := build("aa-1:1", "aa-1:2", "bb-2:7", "aa-1:3", "bb-2:9")
	domain := build("0-1-5", "1-1-3", "0-2-6", "1-1-4")
	for _, c := range []struct {
		log  pipeline.Log
		at   string
		want pipeline.Offset
		err  string
	}{
		{lsn, "0/F0", 1000, ""}, {lsn, "0/F1", 1002, ""}, {lsn, "0/100", 1002, ""}, {lsn, "0/200", 1004, ""}, {lsn, "a/1", 1006, ""},
		{lsn, "0/1", 0, errBeforeLog.Error()}, {lsn, "A/2", 0, "beyond"}, {lsn, "bin.1:4", 0, "beyond"},
		{file, "bin.000009:400", 1000, ""}, {file, "bin.000009:401", 1002, ""}, {file, "bin.000010:5", 1004, ""}, {file, "bin.000011:4", 0, "beyond"},
		{gtid, "AA-1:2", 1002, ""}, {gtid, "bb-2:7", 1004, ""}, {gtid, "bb-2:8", 1008, ""}, {gtid, "aa-1:3", 1006, ""}, {gtid, "bb-2:10", 0, "beyond"},
		{domain, "0-1-6", 1004, ""}, {domain, "1-9-4", 1006, ""},
	} {
		o, err := findPosition(t.Context(), c.log, c.at)
		if c.err == "" && (err != nil || o != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %d, %v; want %d, %q", c.at, o, err, c.want, c.err)
		}
	}
}

// TestKeyCount: exact while few, within 5 % when many.
func TestKeyCount(t *testing.T) {
	for _, n := range []uint64{0, 1, 1000, exactKeys, 300_000, 2_000_000} {
		var c keyCount
		for range 2 {
			for k := range n {
				c.add(k*k + 1<<40)
			}
		}
		got, about := c.count()
		if about != (n > exactKeys) || !about && got != n || about && (float64(got) < 0.95*float64(n) || float64(got) > 1.05*float64(n)) {
			t.Errorf("%d of %d, about %v", got, n, about)
		}
	}
}

// TestJobsBegunAtOnceHaveIDsOfTheirOwn: two subscriptions' jobs are not one, though neither is stored when the other
// gets its id.
func TestJobsBegunAtOnceHaveIDsOfTheirOwn(t *testing.T) {
	r := newRig(t, time.Millisecond)
	one, other := newCopies(), newCopies()
	r.source(pipetest.NewScriptedSource(script(20)...))
	r.subscribe("sub", one)
	r.subscribe("other", other)
	r.wait(one.RecordingSink, 20)
	r.wait(other.RecordingSink, 20)
	first, next := r.bounds()
	r.settled("sub", next)
	r.settled("other", next)
	var all sync.WaitGroup
	for range 10 {
		for _, name := range []string{"sub", "other"} {
			all.Go(func() {
				q := ReplayRequest{Subscription: name, Kind: pipeline.JobAside, From: Point{Offset: first}, To: Point{Offset: first + 1}}
				if _, _, err := r.engine.StartReplay(t.Context(), q); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if jobs, err := r.engine.Jobs(t.Context(), ""); err != nil || len(jobs) != 20 {
		t.Errorf("20 jobs were begun, %d are there: %v", len(jobs), err)
	}
}
