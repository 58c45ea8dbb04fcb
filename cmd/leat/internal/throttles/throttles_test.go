package throttles

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline/flow"
	"github.com/leat-cdc/leat/pipeline/state"
)

// A throttle ends when its time is over, unless another one took its place meanwhile.
func TestExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet()
		if got := s.Of("files"); got != nil {
			t.Fatalf("throttles %v, want none", got)
		}
		var ended atomic.Int32
		put := func(x state.Throttle) { s.Put(x, func() { ended.Add(1); s.Expire(x) }) }
		first := state.Throttle{Name: "files", Ratio: 0.5, Owner: "ann", Until: time.Now().Add(time.Minute)}
		put(first)
		second := first
		second.Ratio, second.Until = 0.2, time.Now().Add(time.Hour)
		put(second)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s.Expire(first) || ended.Load() != 0 || s.Of("files")[0].Ratio != 0.2 {
			t.Fatal("the one that was replaced ended the other")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := s.States("files"); len(got) != 0 || ended.Load() != 1 {
			t.Fatalf("states %v, ended %d times; want none, once", got, ended.Load())
		}
	})
}

// Every owner is shown once, the lowest ratio first.
func TestSourceStates(t *testing.T) {
	s := NewSet()
	s.Put(state.Throttle{Name: "files", Ratio: 0.5, Owner: "ann"}, nil)
	got := s.SourceStates("files", []flow.Throttle{{Owner: "ann", Ratio: 0.5}, {Owner: "flag file slow", Ratio: 0.1}})
	if len(got) != 2 || got[0].Owner != "flag file slow" || got[1].Owner != "ann" {
		t.Fatalf("%v", got)
	}
}
