package flow

import (
	"math"
	"math/bits"
	"time"
)

// latency knows what requests usually take, by size: a larger one may take longer.
type latency struct {
	buckets [32]usual // by the size's number of bits
	mean    float64   // of all, seconds
}

type usual struct {
	n         int
	mean, dev float64 // seconds
}

const (
	latencyDevs   = 2     // deviations above the mean that are still usual
	latencySpread = 0.25  // of the mean, at least
	latencyLeast  = 0.020 // seconds, at least: a busy machine of our own adds as much
	latencyRounds = 8     // rounds over which the mean follows
	latencyDoubt  = 16    // how much slower it follows what is above the limit
	latencyWarm   = 4     // samples before a bucket says anything
)

// observe takes a sample and returns up to what it would have been usual. doubt: what came with it was
// unusual as a whole (a single sample may be: the mean of a long tail needs its tail).
func (l *latency) observe(size int, took, window float64, doubt bool) (limit float64) {
	b := &l.buckets[min(len(l.buckets)-1, bits.Len(uint(max(0, size))))]
	limit = took
	alpha := max(1/float64(b.n+1), 1/(latencyRounds*max(1, window)))
	if b.n >= latencyWarm {
		limit = b.mean + max(latencyDevs*b.dev, latencySpread*b.mean, latencyLeast)
		if doubt {
			alpha /= latencyDoubt // congestion must not soon become the usual
		}
	}
	if b.n < 1<<20 {
		b.n++
	}
	diff := took - b.mean
	b.mean += alpha * diff
	b.dev += alpha * (math.Abs(diff) - b.dev)
	if b.n == 1 {
		b.dev = took / 2
	}
	if l.mean == 0 {
		l.mean = took
	}
	l.mean += alpha * (took - l.mean)
	return limit
}

// usual is the mean over all sizes, in seconds.
func (l *latency) usual() float64 { return l.mean }

// rate counts what got through over the last seconds.
type rate struct {
	buckets [rateBuckets]int32
	at      int64 // number of the newest bucket
	since   int64 // number of the first
}

const (
	rateBuckets = 40
	rateBucket  = 50 * time.Millisecond
	rateLeast   = 4  // buckets looked at, at least
	rateEnough  = 64 // requests that make looking further back needless
)

func (r *rate) advance(now time.Time) {
	at := now.UnixNano() / int64(rateBucket)
	if r.since == 0 {
		r.at, r.since = at, at
	}
	for n := 0; r.at < at && n < rateBuckets; n++ {
		r.at++
		r.buckets[r.at%rateBuckets] = 0
	}
	r.at = max(r.at, at)
}

// idle reports whether nothing was counted for a while.
func (r *rate) idle(now time.Time) bool { return now.UnixNano()/int64(rateBucket)-r.at > rateLeast }

func (r *rate) add(now time.Time) {
	r.advance(now)
	r.buckets[r.at%rateBuckets]++
}

// perSecond looks back as far as needed, at most two seconds, at least 0.2.
func (r *rate) perSecond(now time.Time) float64 {
	r.advance(now)
	n, span := 0, time.Duration(now.UnixNano()%int64(rateBucket))
	n += int(r.buckets[r.at%rateBuckets])
	for i := int64(1); i < rateBuckets && r.at-i >= r.since && (i <= rateLeast || n < rateEnough); i++ {
		n += int(r.buckets[(r.at-i)%rateBuckets])
		span += rateBucket
	}
	return float64(n) / max(span, rateBucket).Seconds()
}
