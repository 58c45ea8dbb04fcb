package flow

import (
	"fmt"
	"slices"
	"time"
)

// The outage rule's constants (delivery.md).
const (
	outageWindow  = 30 * time.Second
	outageCalls   = 20
	outageKeys    = 5
	outageVotes   = 3 // of at most five probes decide
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
	// Away: the endpoint cannot be reached, says itself that it is not there for us (401, 403, 404, 3xx), or
	// names a time (Retry-After).
	Away
	// Mute says nothing: cut off by ourselves, or nothing was sent.
	Mute
	// Partly: it took a part of what counts as a whole only, so that the next part may go at once.
	Partly
)

// Change is what a call changed.
type Change uint8

const (
	// Same: nothing.
	Same Change = iota
	// Suspected: so much failed that it may be the endpoint; calls about one event each find out.
	Suspected
	// Cleared: it was not the endpoint but what was sent.
	Cleared
	// Began: the endpoint is away, and what failed since Since is no attempt.
	Began
	// Ended: it is there again.
	Ended
)

// Outage knows whether the endpoint as a whole is away: when it cannot be reached or said so; or when over half of
// at least 20 calls across at least 5 keys failed within 30 s, or nearly all of the last 20 whenever they were (where
// one key after the other is tried to its end, the keys are those since anything worked), and the majority of up to
// five probes fails too. A call about many events may fail by one of them, and then all calls
// do while each key by itself works: so probes are to be about one event each, of different keys. While it is on,
// one call at a time probes: at once while it is suspected, then from 1 s to 60 s apart or when the endpoint asked
// for; what failed since Since is to be refunded. Not for concurrent use.
type Outage struct {
	rand    func() float64
	on      bool
	sure    bool
	since   time.Time
	until   time.Time
	backoff time.Duration
	probing bool
	probe   uint64
	number  uint64 // calls up to this one were sent before it began: they say nothing new
	last    uint64
	reason  string
	total   time.Duration // of earlier outages
	votes   struct{ worked, failed int }
	spared  time.Time // until then the rule does not apply: it was cleared

	seconds [outageWindow / time.Second]outageSecond
	recent  [outageCalls]outageCall // ring of the newest calls
	calls   int
	streak  keySet // of those that failed since anything worked
}

type outageSecond struct {
	at            int64
	calls, failed int
	keys          keySet // of those that failed
}

type outageCall struct {
	at     time.Time
	key    uint64
	failed bool
}

// keySet counts different keys, up to outageKeys.
type keySet struct {
	keys [outageKeys]uint64
	n    int
}

func (s *keySet) add(key uint64) {
	if s.n < len(s.keys) && !slices.Contains(s.keys[:s.n], key) {
		s.keys[s.n] = key
		s.n++
	}
}

// NewOutage begins with an endpoint that is there. rand returns numbers in [0, 1).
func NewOutage(rand func() float64) Outage { return Outage{rand: rand} }

// On reports whether only probes may go: the endpoint is away, or may be.
func (o *Outage) On() bool { return o.on }

// Sure reports whether the endpoint is away.
func (o *Outage) Sure() bool { return o.on && o.sure }

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
	if o.Sure() {
		return o.total + now.Sub(o.since)
	}
	return o.total
}

// Hurry lets the next probe go now: somebody says that the endpoint is there again.
func (o *Outage) Hurry() { o.until, o.backoff = time.Time{}, probeFirst }

// Sent notes a call; numbers rise.
func (o *Outage) Sent(number uint64) {
	o.last = number
	if o.on {
		o.probing, o.probe = true, number
	}
}

// Done notes what came of a call about a key (of several: any one of them). retryAfter is what
// the endpoint asked for, 0 if nothing; reason is for people.
func (o *Outage) Done(number, key uint64, r Result, retryAfter time.Duration, reason string, now time.Time) Change {
	if o.on {
		return o.during(number, r, retryAfter, reason, now)
	}
	if r == Mute {
		return Same
	}
	o.note(key, r != Worked && r != Partly, now)
	switch {
	case r == Worked || r == Partly:
		return Same
	case r == Away:
		o.begin(o.failing(now))
		o.sure, o.backoff, o.reason = true, probeFirst, "the endpoint is unavailable: "+reason
		o.wait(retryAfter, now)
		return Began
	case now.Before(o.spared):
		return Same
	}
	calls, failed, since := o.broken(now)
	if calls == 0 {
		return Same
	}
	o.begin(since)
	o.reason = fmt.Sprintf("%d of the last %d calls failed: %s", failed, calls, reason)
	return Suspected
}

// begin lets only probes go.
func (o *Outage) begin(since time.Time) {
	*o = Outage{rand: o.rand, on: true, since: since, number: o.last, last: o.last, total: o.total}
}

// end lets everything go; what was counted says nothing about what comes.
func (o *Outage) end() { *o = Outage{rand: o.rand, last: o.last, total: o.total} }

// during takes what comes while the outage is on.
func (o *Outage) during(number uint64, r Result, retryAfter time.Duration, reason string, now time.Time) Change {
	mine := o.probing && number == o.probe
	if mine {
		o.probing = false
	}
	switch {
	case r == Mute:
		if mine && o.sure {
			o.wait(0, now)
		}
		return Same
	case r == Partly:
		if mine {
			o.until = time.Time{} // the outage has not ended, so its backoff goes on
		}
		return Same
	case !o.sure:
		return o.vote(mine, r, retryAfter, reason, now)
	case r == Worked:
		if number <= o.number {
			return Same
		}
		o.total += now.Sub(o.since)
		o.end()
		return Ended
	case mine:
		o.backoff = min(2*o.backoff, probeMax)
		o.reason = "the endpoint is unavailable: " + reason
	case retryAfter == 0:
		return Same
	}
	o.wait(retryAfter, now)
	return Same
}

// vote counts what a probe says while the outage is suspected.
func (o *Outage) vote(mine bool, r Result, retryAfter time.Duration, reason string, now time.Time) Change {
	switch {
	case r == Worked && mine:
		if o.votes.worked++; o.votes.worked == outageVotes {
			o.end()
			o.spared = now.Add(outageWindow)
			return Cleared
		}
		return Same
	case r == Away:
		o.reason = "the endpoint is unavailable: " + reason
	case r == Broke && mine:
		if o.votes.failed++; o.votes.failed < outageVotes {
			return Same
		}
	default:
		return Same
	}
	o.sure, o.backoff, o.number = true, probeFirst, o.last
	o.wait(retryAfter, now)
	return Began
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
		o.streak = keySet{}
		return
	}
	s.failed++
	s.keys.add(key)
	o.streak.add(key)
}

// failing is when the newest calls, which all failed, began to.
func (o *Outage) failing(now time.Time) (since time.Time) {
	since = now
	for i := o.calls - 1; i >= max(0, o.calls-len(o.recent)); i-- {
		c := &o.recent[i%len(o.recent)]
		if !c.failed {
			break
		}
		since = c.at
	}
	return since
}

// broken applies the rule to the last 30 s; and a stricter one (nine of ten) to the last 20 calls, since at a
// high rate the first would take 15 s to notice, and where each call hangs for its timeout 30 s never see 20.
// calls is 0 when neither holds.
func (o *Outage) broken(now time.Time) (calls, failed int, since time.Time) {
	var keys keySet
	since = now
	for i := range min(o.calls, len(o.recent)) {
		calls++
		if c := &o.recent[i]; c.failed {
			failed++
			keys.add(c.key)
			if c.at.Before(since) {
				since = c.at
			}
		}
	}
	if calls >= outageCalls && failed*10 >= calls*9 && max(keys.n, o.streak.n) >= outageKeys {
		return calls, failed, since
	}
	calls, failed, since, keys = 0, 0, now, keySet{}
	for i := range o.seconds {
		s := &o.seconds[i]
		if now.Unix()-s.at >= int64(len(o.seconds)) {
			continue
		}
		calls += s.calls
		failed += s.failed
		for _, k := range s.keys.keys[:s.keys.n] {
			keys.add(k)
		}
		if first := time.Unix(s.at, 0); s.failed > 0 && first.Before(since) {
			since = first
		}
	}
	if calls >= outageCalls && failed*2 > calls && keys.n >= outageKeys {
		return calls, failed, since
	}
	return 0, 0, time.Time{}
}
