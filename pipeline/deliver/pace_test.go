package deliver

import (
	"testing"
	"time"
)

func TestPaceHoldsTheRateOverAnySecond(t *testing.T) {
	p := newPace(1000)
	now := time.Unix(1_700_000_000, 0)
	sent := map[int64]int{}
	for range 5000 { // offers a Delivery of 30 each millisecond
		if p.permits(now) {
			p.sent(30, 1, now)
			sent[now.Unix()] += 30
		}
		now = now.Add(time.Millisecond)
	}
	for second, n := range sent {
		if n < 970 || n > 1000+100+30 { // the allowance kept and the Delivery that crosses the line
			t.Errorf("second %d: %d events", second-1_700_000_000, n)
		}
	}
	var none pace
	for range 10 {
		none.sent(1000, 1, now)
		if !none.permits(now) {
			t.Fatal("no rate bounds nothing")
		}
	}
}
