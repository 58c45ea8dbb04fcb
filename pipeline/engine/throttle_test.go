package engine

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestAThrottledSourceIsReadForItsShare(t *testing.T) {
	for _, ratio := range []float64{1, 0.5, 0.1, 0} {
		synctest.Test(t, func(t *testing.T) {
			var left atomic.Value
			left.Store(ratio)
			gate := throttleGate(func() float64 { return left.Load().(float64) })
			ctx, stop := context.WithCancel(t.Context())
			var reads atomic.Int64
			done := make(chan error)
			go func() {
				for {
					if err := gate(ctx); err != nil {
						done <- err
						return
					}
					reads.Add(1)
					time.Sleep(10 * time.Millisecond)
				}
			}()
			time.Sleep(10 * time.Second)
			if got, want := float64(reads.Load()), 1000*ratio; got < want*0.98 || got > want*1.05+1 {
				t.Errorf("ratio %v: %v reads, want %v", ratio, got, want)
			}
			left.Store(float64(1))
			before := reads.Load()
			time.Sleep(throttleLook + time.Millisecond)
			if reads.Load() == before {
				t.Errorf("ratio %v lifted: nothing is read", ratio)
			}
			left.Store(float64(0))
			time.Sleep(time.Second)
			stop()
			if err := <-done; err != context.Canceled {
				t.Errorf("stopped while throttled: %v", err)
			}
		})
	}
}
