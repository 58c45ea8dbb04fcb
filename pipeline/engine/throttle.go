package engine

import (
	"context"
	"time"
)

const (
	// throttlePeriod is the time of which a throttled source is read in a part.
	throttlePeriod = time.Second
	// throttleLook is how soon a throttle that was lifted is seen.
	throttleLook = 100 * time.Millisecond
)

// throttleGate lets a source be read for the part of each period that ratio leaves: 1 all of the time, 0 never.
// The connection stays; the database keeps what is not read.
func throttleGate(ratio func() float64) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			wait := throttleWait(ratio(), time.Now())
			if wait == 0 {
				return nil
			}
			t := time.NewTimer(min(wait, throttleLook))
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			}
		}
	}
}

// throttleWait is how long reading waits now; for ever is a period.
func throttleWait(ratio float64, now time.Time) time.Duration {
	into := now.Sub(now.Truncate(throttlePeriod))
	if ratio >= 1 || float64(into) < ratio*float64(throttlePeriod) {
		return 0
	}
	return throttlePeriod - into
}
