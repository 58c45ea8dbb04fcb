package flow

import (
	"fmt"
	"time"
)

// The outage rule's constants (delivery.md).
const (
	outageWindow  = 30 * time.Second
	outageCalls   = 20
	outageKeys    = 5
	outageRefused = 5 // connections refused in a row
	probeFirst    = time.Second
	probeMax      = time.Minute
	retryAfterMax = 15 * time.Minute
)

// Result of a call, as Outage sees it.
type Result uint8

const (
	// Worked: the endpoint answered as an endpoint that is well does (per-event refusals too).
	Worked Result = iota
	// Broke: 5xx, timeout, reset, an answer that cannot be read.
	Broke
	// Refused: no connection, no healthy host.
	Refused
	// Away: the endpoint says itself that it is not there for us (401, 403, 404, 3xx), or names a time
	// (Retry-After).
	Away
)

// Outage knows whether the endpoint as a whole is away: when over half of at least 20 calls across at
// least 5 keys failed within 30 s (or nearly all of the last 20), 5 connections in a row were refused, or it said so. While
// it is on, one call at a time probes, from 1 s to 60 s apart or when the endpoint asked for; what
// failed since Since is to be refunded. Not for concurrent use.
type Outage struct {
	rand    func() float64
	on      bool
	since   time.Time
	until   time.Time
	began   time.Time // when On turned true
	backoff time.Duration
	probing bool
	probe   uint64
	number  uint64 // calls up to this one were sent before it began: they say nothing new
	last    uint64
	reason  string
	total   time.Duration // of earlier outages
	refused int           // in a row

	seconds [30]outageSecond
	recent  [outageCalls]outageCall // ring of the newest calls
	calls   int
}

type outageSecond struct {
	at            int64
	calls, failed int
	keys          [outageKeys]uint64 // distinct ones that failed
	n             int
}

type outageCall struct {
	at     time.Time
	key    uint64
	failed bool
}

// NewOutage begins with an endpoint that is there. rand returns numbers in [0, 1).
func NewOutage(rand func() float64) Outage { return Outage{rand: rand} }

// On reports whether the endpoint is away.
func (o *Outage) On() bool { return o.on }

// Since is when the first of the calls that showed it failed: attempts since then are no attempts.
func (o *Outage) Since() time.Time { return o.since }

// Until is when the next probe may go; meaningful while On.
func (o *Outage) Until() time.Time { return o.until }

// Reason says, for people, why it is on.
func (o *Outage) Reason() string { return o.reason }

// Permits reports whether a call may go.
func (o *Outage) Permits(now time.Time) bool {
	return !o.on || !o.probing && !now.Before(o.until)
}

// Due is when Permits turns true by time alone; else the zero time.
func (o *Outage) Due() time.Time {
	if !o.on || o.probing {
		return time.Time{}
	}
	return o.until
}

// Away is how long it was away, all in all.
func (o *Outage) Away(now time.Time) time.Duration {
	if o.on {
		return o.total + now.Sub(o.since)
	}
	return o.total
}

// Sent notes a call; numbers rise.
func (o *Outage) Sent(number uint64) {
	o.last = number
	if o.on {
		o.probing, o.probe = true, number
	}
}

// Done notes what came of a call about a key (of several: any one of them). retryAfter is what
// the endpoint asked for, 0 if nothing; reason is for people. It returns whether the outage began or
// ended with it.
func (o *Outage) Done(number, key uint64, r Result, retryAfter time.Duration, reason string, now time.Time) (began, ended bool) {
	if o.on {
		return false, o.during(number, r, retryAfter, reason, now)
	}
	if r == Refused {
		o.refused++
	} else {
		o.refused = 0
	}
	o.note(key, r != Worked, now)
	var why string
	since := now
	switch {
	case r == Away:
		why = "the endpoint is unavailable: " + reason
	case o.refused >= outageRefused:
		why = "the endpoint cannot be reached: " + reason
	case r == Worked:
		return false, false
	default:
		var calls, failed int
		if calls, failed, since = o.broken(now); calls == 0 {
			return false, false
		}
		why = fmt.Sprintf("%d of the last %d calls failed: %s", failed, calls, reason)
	}
	o.on, o.since, o.began, o.backoff, o.number, o.reason = true, since, now, probeFirst, o.last, why
	o.probing, o.until = false, time.Time{}
	o.wait(retryAfter, now)
	return true, false
}

// during takes what comes while the outage is on.
func (o *Outage) during(number uint64, r Result, retryAfter time.Duration, reason string, now time.Time) (ended bool) {
	mine := o.probing && number == o.probe
	if r == Worked {
		if number <= o.number {
			return false
		}
		o.total += now.Sub(o.since)
		*o = Outage{rand: o.rand, last: o.last, total: o.total}
		return true
	}
	switch {
	case mine:
		o.probing = false
		o.backoff = min(2*o.backoff, probeMax)
		o.reason = "the endpoint is unavailable: " + reason
	case retryAfter == 0:
		return false
	}
	o.wait(retryAfter, now)
	return false
}

// wait sets when the next probe goes.
func (o *Outage) wait(retryAfter time.Duration, now time.Time) {
	until := now.Add(time.Duration(float64(o.backoff) * (0.8 + 0.4*o.rand())))
	if retryAfter > 0 {
		d := min(retryAfter, retryAfterMax)
		until = now.Add(d + time.Duration(0.2*o.rand()*float64(d)))
	}
	if until.After(o.until) {
		o.until = until
	}
}

// note counts a call.
func (o *Outage) note(key uint64, failed bool, now time.Time) {
	o.recent[o.calls%len(o.recent)] = outageCall{now, key, failed}
	o.calls++
	at := now.Unix()
	s := &o.seconds[at%int64(len(o.seconds))]
	if s.at != at {
		*s = outageSecond{at: at}
	}
	s.calls++
	if !failed {
		return
	}
	s.failed++
	for _, k := range s.keys[:s.n] {
		if k == key {
			return
		}
	}
	if s.n < len(s.keys) {
		s.keys[s.n] = key
		s.n++
	}
}

// broken applies the rule to the last 30 s, and a stricter one (nine of ten) to the last 20 calls, since at a
// high rate the first would take 15 s to notice. calls is 0 when neither holds.
func (o *Outage) broken(now time.Time) (calls, failed int, since time.Time) {
	keys := map[uint64]struct{}{}
	since = now
	for i := range min(o.calls, len(o.recent)) {
		c := &o.recent[i]
		if now.Sub(c.at) >= outageWindow {
			continue
		}
		calls++
		if c.failed {
			failed++
			keys[c.key] = struct{}{}
			if c.at.Before(since) {
				since = c.at
			}
		}
	}
	if calls >= outageCalls && failed*10 >= calls*9 && len(keys) >= outageKeys {
		return calls, failed, since
	}
	calls, failed, since = 0, 0, now
	for i := range o.seconds {
		s := &o.seconds[i]
		if now.Unix()-s.at >= int64(len(o.seconds)) {
			continue
		}
		calls += s.calls
		failed += s.failed
		for _, k := range s.keys[:s.n] {
			keys[k] = struct{}{}
		}
		if first := time.Unix(s.at, 0); s.failed > 0 && first.Before(since) {
			since = first
		}
	}
	if calls >= outageCalls && failed*2 > calls && len(keys) >= outageKeys {
		return calls, failed, since
	}
	return 0, 0, time.Time{}
}
