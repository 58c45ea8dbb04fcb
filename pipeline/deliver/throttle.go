package deliver

import (
	"math"
	"sync/atomic"
	"time"
)

// Throttle is how much of its speed an operator leaves to a subscription. The zero Throttle leaves all of
// it. Safe for concurrent use; one may serve a subscription through many runs.
type Throttle struct {
	taken   atomic.Uint64 // 1 - ratio, the bits of a float64
	changed chan struct{}
}

// NewThrottle returns one that leaves all.
func NewThrottle() *Throttle { return &Throttle{changed: make(chan struct{}, 1)} }

// Set leaves ratio of the speed, from 0 (nothing is sent) to 1 (all). It acts at once on what is not sent yet.
func (t *Throttle) Set(ratio float64) {
	t.taken.Store(math.Float64bits(1 - min(max(ratio, 0), 1)))
	select {
	case t.changed <- struct{}{}:
	default: // the session will see this one as well
	}
}

// ratio is what is left; all of it without a throttle.
func (t *Throttle) ratio() float64 {
	if t == nil {
		return 1
	}
	return 1 - math.Float64frombits(t.taken.Load())
}

// wake tells when the ratio was set; nil, for ever, without a throttle.
func (t *Throttle) wake() <-chan struct{} {
	if t == nil {
		return nil
	}
	return t.changed
}

// throttlePeriod is the time over which a share of one Delivery in flight is made of all or nothing.
const throttlePeriod = time.Second

// share of limit Deliveries in flight that ratio leaves at a moment, and when that changes by itself (zero:
// never). The part of a Delivery that is left over is one Delivery for that part of each period.
func share(limit int, ratio float64, now time.Time) (n int, until time.Time) {
	if ratio >= 1 {
		return limit, time.Time{}
	}
	whole, part := math.Modf(float64(limit) * ratio)
	n = int(whole)
	if part < 1e-9 {
		return n, time.Time{}
	}
	begin := now.Truncate(throttlePeriod)
	if end := begin.Add(time.Duration(part * float64(throttlePeriod))); now.Before(end) {
		return n + 1, end
	}
	return n, begin.Add(throttlePeriod)
}
