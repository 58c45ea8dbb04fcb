package deliver

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// slowSink takes its time.
type slowSink struct {
	*pipetest.RecordingSink
	takes time.Duration
}

func (s slowSink) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	time.Sleep(s.takes)
	return s.RecordingSink.Deliver(ctx, d)
}

// A subscription is left with the share of its speed that was said, whether its rate or its concurrency bounds it.
func TestThrottleLeavesItsShare(t *testing.T) {
	for name, x := range map[string]struct {
		inFlight int
		rate     float64
		full     float64 // events per second
	}{"concurrency": {inFlight: 4, full: 400}, "one at a time": {inFlight: 1, full: 100}, "rate": {inFlight: 64, rate: 50, full: 50}} {
		for _, ratio := range []float64{1, 0.5, 0.1, 0} {
			synctest.Test(t, func(t *testing.T) {
				l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), pipetest.NewRecordingSink()
				c := config(l, m, slowSink{sink, 10 * time.Millisecond})
				c.MaxInFlight, c.Rate, c.Batch.Events, c.Throttle = x.inFlight, x.rate, 1, NewThrottle()
				c.Throttle.Set(ratio)
				var all []change
				for k := range uint64(6000) {
					all = append(all, change{key: k})
				}
				appendTo(t, l, all...)
				r := start(t, c)
				time.Sleep(10 * time.Second)
				got, want := float64(len(sink.All()))/10, x.full*ratio
				if math.Abs(got-want) > 0.06*x.full*max(ratio, 0.1) {
					t.Errorf("%s, ratio %v: %.1f events/s, want %.1f", name, ratio, got, want)
				}
				c.Throttle.Set(1) // wakes a session that nothing else would
				before := len(sink.All())
				time.Sleep(time.Second)
				if n := float64(len(sink.All()) - before); math.Abs(n-x.full) > 0.15*x.full {
					t.Errorf("%s, ratio %v lifted: %v events in a second, want %v", name, ratio, n, x.full)
				}
				r.end()
			})
		}
	}
}

func TestThrottleIsBounded(t *testing.T) {
	th := NewThrottle()
	for set, want := range map[float64]float64{-1: 0, 0: 0, 0.25: 0.25, 1: 1, 7: 1} {
		th.Set(set)
		if got := th.ratio(); got != want {
			t.Errorf("ratio %v set: %v", set, got)
		}
	}
	var none *Throttle
	if none.ratio() != 1 || none.wake() != nil {
		t.Error("no throttle is none")
	}
	at := time.Unix(1_700_000_000, 0)
	if n, until := share(4, 0.5, at); n != 2 || !until.IsZero() {
		t.Errorf("a whole share: %d %v", n, until)
	}
	if n, until := share(3, 0.5, at.Add(400*time.Millisecond)); n != 2 || !until.Equal(at.Add(500*time.Millisecond)) {
		t.Errorf("the first half of a period: %d %v", n, until)
	}
	if n, until := share(3, 0.5, at.Add(600*time.Millisecond)); n != 1 || !until.Equal(at.Add(time.Second)) {
		t.Errorf("the second half of a period: %d %v", n, until)
	}
}
