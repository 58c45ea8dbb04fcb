package telemetry

import (
	"sync"
	"time"
)

// window of a Rate, in seconds.
const window = 10

// Rate counts events and bytes over the last ten seconds. The zero Rate is ready. Safe for concurrent use;
// neither method allocates.
type Rate struct {
	mu    sync.Mutex
	first time.Time
	ring  [window + 1]struct {
		second        int64
		events, bytes int64
	}
}

// Add counts what happened now.
func (r *Rate) Add(events, bytes int) {
	now := time.Now()
	second := now.Unix()
	r.mu.Lock()
	if r.first.IsZero() {
		r.first = now
	}
	b := &r.ring[second%int64(len(r.ring))]
	if b.second != second {
		b.second, b.events, b.bytes = second, 0, 0
	}
	b.events += int64(events)
	b.bytes += int64(bytes)
	r.mu.Unlock()
}

// PerSecond is the mean over the last ten seconds, or since the first Add where that is less, but over a
// second at least. The second at the far end counts by the part of it that lies in the window.
func (r *Rate) PerSecond() (events, bytes float64) {
	now := time.Now()
	second := now.Unix()
	part := 1 - float64(now.Nanosecond())/1e9
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first.IsZero() {
		return 0, 0
	}
	for i := range r.ring {
		b := &r.ring[i]
		weight := 1.0
		switch age := second - b.second; {
		case age < 0 || age > window:
			continue
		case age == window:
			weight = part
		}
		events += float64(b.events) * weight
		bytes += float64(b.bytes) * weight
	}
	over := min(max(now.Sub(r.first).Seconds(), 1), window)
	return events / over, bytes / over
}
