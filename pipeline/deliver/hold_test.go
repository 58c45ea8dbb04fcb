package deliver

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// TestARewindThatParksSaysSo: keys that fail again, and keys that were parked before, are not brought; the job's end
// says how many, and only those that it is about.
func TestARewindThatParksSaysSo(t *testing.T) {
	for name, x := range map[string]struct {
		before bool // key 1 is parked before the rewind, else by it
		scope  pipeline.Scope
		want   string
	}{
		"parked by it":   {false, pipeline.Scope{}, "parked keys keep what they hold of it (1): leat redrive sub brings that"},
		"parked before":  {true, pipeline.Scope{}, "parked keys keep what they hold of it (1): leat redrive sub brings that"},
		"by key":         {true, scopeOf("key-1"), "parked keys keep what they hold of it (1): leat redrive sub brings that"},
		"of another key": {true, scopeOf("key-2"), ""},
		"nothing fails":  {false, scopeOf("key-2"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Fatal)
				refuse := func() { sink.mu.Lock(); sink.refuses[first] = pipeline.Fatal; sink.mu.Unlock() }
				if x.before {
					refuse()
				}
				r := start(t, parkConfig(l, m, sink))
				appendTo(t, l, keys(1, 2, 1)...)
				time.Sleep(10 * time.Second)
				refuse()
				j := pipeline.Job{ID: "r1", Subscription: "sub", Log: "log", Kind: pipeline.JobRewind, State: pipeline.JobRunning, From: first, Scope: x.scope}
				if err := r.Rewind(t.Context(), j); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				r.end()
				if got := m.jobs["r1"]; got.State != pipeline.JobDone || got.Reason != x.want || strings.Contains(name, "by it") != (got.Dead > 0) {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// TestASeekLeavesOutWhatARewindHolds: a seek is for keys that were taken back too; what they had not been brought for
// the first time is listed.
func TestASeekLeavesOutWhatARewindHolds(t *testing.T) {
	for name, scope := range map[string]pipeline.Scope{"all": {}, "a key": scopeOf("key-1"), "from a key's first event": {Filter: `op == "update"`}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Fatal)
				c := config(l, m, sink)
				c.Rand = func() float64 { return 0.1 } // no handover while the window is being delivered
				r := start(t, c)
				appendTo(t, l, keys(1, 2, 1)...)
				time.Sleep(10 * time.Second)
				wantOffsets(t, sink.took(), 0, 1, 2)
				sink.mu.Lock()
				sink.refuses[first] = pipeline.Defer
				sink.mu.Unlock()
				j := pipeline.Job{ID: "r1", Subscription: "sub", Log: "log", Kind: pipeline.JobRewind, State: pipeline.JobRunning, From: first, Scope: scope}
				if err := r.Rewind(t.Context(), j); err != nil {
					t.Fatal(err)
				}
				appendTo(t, l, keys(1, 1)...)
				time.Sleep(time.Minute)
				sink.took()
				if err := r.Seek(t.Context(), Start{Latest: true}, "not wanted"); err != nil {
					t.Fatal(err)
				}
				appendTo(t, l, keys(2, 1)...)
				time.Sleep(time.Minute)
				wantOffsets(t, sink.took(), 5, 6)
				if replaying(r) || m.jobs["r1"].State != pipeline.JobDone {
					t.Errorf("%+v", m.jobs["r1"])
				}
				r.end()
				var listed []string
				for _, s := range m.skips {
					listed = append(listed, fmt.Sprint(s.Ranges, s.Reason))
				}
				if got, want := strings.Join(listed, "; "), fmt.Sprint([]pipeline.OffsetRange{{From: first, To: first + 5}})+"not wanted: only the events of the keys that job r1 held"; got != want {
					t.Errorf("listed %s, want %s", got, want)
				}
			})
		})
	}
}

func scopeOf(key string) pipeline.Scope {
	return pipeline.Scope{Keys: []pipeline.Key{{Space: table.KeySpace, Encoded: []byte(key)}}}
}
