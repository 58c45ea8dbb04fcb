package engine

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// TestReplaysDoNotHoldAFullDisk: from 80 % on, what an aside wants is no longer kept for it.
func TestReplaysDoNotHoldAFullDisk(t *testing.T) {
	r := newRig(t, time.Millisecond)
	var free atomic.Uint64
	free.Store(15) // nothing is replayed, so that the job stays
	err := r.engine.AddSource(t.Context(), Source{Name: "files", Source: pipetest.NewScriptedSource(script(20)...), OpenLog: r.openLog,
		Disk: func() (uint64, uint64, error) { return free.Load(), 100, nil }})
	if err != nil {
		t.Fatal(err)
	}
	sink := newCopies()
	sink.fail = func(d *pipeline.Delivery) error {
		if d.Replay != "" {
			return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "not yet"}
		}
		return nil
	}
	r.subscribe("a", sink)
	r.wait(sink.RecordingSink, 20)
	oldest, next := r.bounds()
	for end := time.Now().Add(time.Minute); r.engine.Status().Subscriptions[0].Low < next && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	u, err := r.engine.unit("files")
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); u.governor.now().Replay > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the disk's stage is not seen")
		}
	}
	if _, _, err := r.engine.StartReplay(t.Context(), ReplayRequest{Subscription: "a", Kind: pipeline.JobAside, From: Point{Offset: oldest}, Owner: "test"}); err != nil {
		t.Fatal(err)
	}
	floor := func(want pipeline.Offset) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			got, ok := u.floor(u.currentLog())
			if ok && got == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("floor %d %v, want %d", got, ok, want)
			}
		}
	}
	floor(next)
	free.Store(50)
	floor(oldest)
}
