package deliver

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/pipeline/sched"
)

// toiler encodes for a while, and answers later.
type toiler struct {
	encode, answer time.Duration
	events         atomic.Int64
}

func (s *toiler) Deliver(_ context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	time.Sleep(s.encode)
	d.HandOver()
	time.Sleep(s.answer)
	s.events.Add(int64(d.Events))
	return nil, nil
}

func (*toiler) Close() error { return nil }

// contend runs subscriptions of these classes over one endless log and one gate for that long, and returns what
// each delivered. Each Delivery takes a millisecond of the gate.
func contend(t *testing.T, g *sched.Gate, inFlight int, d time.Duration, priorities ...sched.Class) []float64 {
	t.Helper()
	got := make([]float64, len(priorities))
	var runs []*run
	var sinks []*toiler
	for _, p := range priorities {
		sink := &toiler{encode: time.Millisecond, answer: 5 * time.Millisecond}
		c := config(&endless{pipetest.NewMemoryLog("log", first), 1 << 40}, newMemory(), sink)
		c.Gate, c.Priority, c.MaxInFlight = g, p, inFlight
		sinks, runs = append(sinks, sink), append(runs, start(t, c))
	}
	time.Sleep(d)
	for i, s := range sinks {
		got[i] = float64(s.events.Load())
	}
	for _, r := range runs {
		r.end()
	}
	return got
}

// TestPriority: while subscriptions compete for the gate, they get their class's share; alone, one gets all.
func TestPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := sched.NewGate(2)
		got := contend(t, g, 16, 2*time.Second, sched.Critical, sched.Normal, sched.Normal, sched.Low)
		all := 2 * 2000.0 * 100
		for i, want := range []float64{16. / 21, 2. / 21, 2. / 21, 1. / 21} {
			if share := got[i] / all; share < 0.9*want || share > 1.1*want {
				t.Errorf("subscription %d got %.3f of all, want %.3f", i, share, want)
			}
		}
		if got := contend(t, g, 16, 2*time.Second, sched.Low); got[0] < 0.95*all {
			t.Errorf("alone it got %.0f of %.0f", got[0], all)
		}
		if st := g.Stats(); st.Used != 0 || st.Waiting != 0 {
			t.Errorf("all is over, and there is %+v", st)
		}
	})
}
