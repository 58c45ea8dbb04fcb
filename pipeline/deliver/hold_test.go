package deliver

import (
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

func scopeOf(key string) pipeline.Scope {
	return pipeline.Scope{Keys: []pipeline.Key{{Space: table.KeySpace, Encoded: []byte(key)}}}
}
