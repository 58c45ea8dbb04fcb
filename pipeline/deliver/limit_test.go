package deliver

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// narrow refuses what goes beyond a number of Deliveries side by side.
type narrow struct {
	room, busy, refused, done atomic.Int64
}

func (n *narrow) Deliver(context.Context, *pipeline.Delivery) (pipeline.Outcomes, error) {
	defer n.busy.Add(-1)
	if n.busy.Add(1) > n.room.Load() {
		n.refused.Add(1)
		return nil, &pipeline.DeliveryError{Class: pipeline.Unavailable, Congested: true, Reason: "429"}
	}
	time.Sleep(20 * time.Millisecond)
	n.done.Add(1)
	return nil, nil
}

func (*narrow) Close() error { return nil }

// TestAdaptiveFollowsTheEndpoint: the limit falls to what the endpoint takes and rises again; refusals
// stop nothing, spend no attempt and lose nothing.
func TestAdaptiveFollowsTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &narrow{}
		sink.room.Store(32)
		l := pipetest.NewMemoryLog("log", first)
		c := config(l, newMemory(), sink)
		c.Adaptive, c.MaxInFlight, c.Batch.Events, c.Retry.Attempts = true, 64, 1, 1
		c.Rand = func() float64 { return 0.5 }
		r := start(t, c)
		fill := func(n int) {
			changes := make([]change, n)
			for i := range changes {
				changes[i].key = uint64(i) * 0x9e3779b97f4a7c15
			}
			appendTo(t, l, changes...)
		}
		for _, room := range []int64{32, 4, 32} {
			sink.room.Store(room)
			fill(int(room) * 50 * 20)
			time.Sleep(10 * time.Second)
			before, refused := sink.done.Load(), sink.refused.Load()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			done := sink.done.Load() - before
			if most := room * 50 * 5; done < most*8/10 || done > most*11/10 {
				t.Errorf("room for %d: %d done, %d are possible; %+v", room, done, most, r.Status())
			}
			if n := sink.refused.Load() - refused; n*50 > done {
				t.Errorf("room for %d: %d of %d were refused", room, n, done)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if st := r.Status(); st.Low != st.Next || st.Dead != 0 || st.State != StateRunning {
				t.Fatalf("room for %d: %+v", room, st)
			}
		}
	})
}
