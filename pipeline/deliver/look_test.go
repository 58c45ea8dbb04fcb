package deliver

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// TestRetrying: what is tried again is told with its attempts, and what waits behind it; what is done is not, nor anything
// while nothing is delivered.
func TestRetrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), newPicky(pipeline.Retry, first)
		c := config(l, m, sink)
		c.Retry = Retry{Initial: time.Minute, Max: time.Hour, Attempts: 5}
		r := start(t, c)
		appendTo(t, l, keys(1, 2, 1)...)
		time.Sleep(90 * time.Second)
		ask := func(o pipeline.Offset, key uint64) *Retrying { return r.Retrying(t.Context(), o, key) }
		got := ask(first, 1)
		if got == nil || got.First != first || got.Tries != 2 || len(got.Attempts) != 2 || !got.Until.After(time.Now()) {
			t.Fatalf("%+v", got)
		}
		if behind := ask(first+2, 1); behind == nil || behind.First != first {
			t.Errorf("behind it: %+v", behind)
		}
		if done := ask(first+1, 2); done != nil {
			t.Errorf("it was delivered: %+v", done)
		}
		if err := r.Pause(t.Context(), "me"); err != nil {
			t.Fatal(err)
		}
		if got := ask(first, 1); got != nil {
			t.Errorf("paused: %+v", got)
		}
		r.end()
		if got := ask(first, 1); got != nil {
			t.Errorf("ended: %+v", got)
		}
	})
}
