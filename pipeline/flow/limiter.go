package flow

import (
	"fmt"
	"math"
	"time"
)

// The limiter's constants: delivery.md's, and those that the simulation of this package settled.
const (
	cutFirst    = 0.5  // the first explicit congestion, and windows of which more than cutShare failed
	cutExplicit = 0.85 // explicit congestion later
	cutSoft     = 0.9  // latency, timeouts
	cutShare    = 0.1
	cutGoal     = 1.25 // times what the delivered rate needs: no window stays larger after a cut

	paceAfterCut   = 0.95                   // of what was delivered when congestion showed
	paceWhenFull   = 1.25                   // when it showed with a full window, which then does the work
	paceAfterProbe = 0.97                   // of the last pace that was good
	probeStep      = 0.04                   // first step up after a hold; doubles while steps stay clean, up to 1
	probeEvery     = 400 * time.Millisecond // between steps; at least a round
	probeFar       = 1.0                    // from this step on window and pace grow together
	holdRequests   = 100                    // a hold lasts for so many requests,
	holdMin        = 2 * time.Second        // at least
	holdMax        = 5 * time.Second        // and at most
	paceForget     = time.Minute            // without congestion, the pace is forgotten
	paceBlind      = 1.0                    // requests per second while nothing gets through
	paceBurst      = 10 * time.Millisecond

	dropShare = 0.5 // of the time at which requests time out: what takes longer is too near to it,
	dropLeast = 1.5 // and times the least that they took
)

// Signal is what a request's end says about congestion.
type Signal uint8

const (
	// Accepted: it was answered; whether the answer was a good one is not the limiter's business.
	Accepted Signal = iota
	// Congested: 429, 503, RESOURCE_EXHAUSTED.
	Congested
	// TimedOut: no answer within the deadline: a drop, not a sample of latency.
	TimedOut
	// Silent: says nothing (cut off by ourselves, connection refused: see Outage).
	Silent
)

// Ticket is what Done must be given back for a request.
type Ticket struct {
	seq  uint64
	sent time.Time
	full bool // the window was full with it
}

// Limiter bounds the requests in flight, and their rate, by what the endpoint shows that it can take.
// Its owner asks Permits before each request, says Sent for each that goes and Done for each that ends.
// Not for concurrent use.
type Limiter struct {
	max    float64
	rand   func() float64
	window float64                        // requests in flight; from 1 to max
	pacer  Pacer                          // rate 0: none
	slow   bool                           // no congestion seen since the start: the window doubles per clean round
	blind  bool                           // nothing gets through
	goal   float64                        // what the window grows back to soon after a cut
	good   struct{ window, rate float64 } // before the last step up
	grow   float64                        // share of the next step up
	held   time.Time
	wider  bool      // the last step up made the window larger
	probed time.Time // when a step up failed last
	step   time.Time // when the next step up may be made
	cutAt  time.Time // the last cut; zero: none yet
	reason string

	inflight  int
	seq       uint64 // of the next request
	cutSeq    uint64 // requests before it say nothing new about congestion
	round     round
	latency   latency
	drops     float64 // seconds after which a request timed out; 0: none has
	least     float64 // seconds that requests took where they took least
	delivered rate
}

// round is about one round trip: it ends with the first request that was sent in it, once half of the
// window has come back.
type round struct {
	seq         uint64
	need        int // requests that must come back before it ends
	done        int
	bad         int
	recovery    bool    // begun by a cut
	factor      float64 // of that cut
	byWindow    bool    // work waited for the window
	byPace      bool    // work waited for the pace
	n           int     // samples of
	took, limit float64 // seconds: sums of what the requests took and might have taken
}

// roundSamples are needed for a judgement of latency; smaller rounds are judged together.
const roundSamples = 16

// NewLimiter begins with one request in flight and grows up to max. rand returns numbers in [0, 1) and
// spreads the probes of many limiters over time.
func NewLimiter(max int, rand func() float64) *Limiter {
	l := &Limiter{max: float64(max), rand: rand}
	l.Restart()
	return l
}

// Restart begins with one request again and a slow start: after an outage. Requests in flight still
// count.
func (l *Limiter) Restart() {
	l.window, l.slow, l.blind, l.pacer, l.reason = 1, true, false, Pacer{}, ""
	l.cutSeq, l.cutAt = l.seq, time.Time{}
	l.round = round{seq: l.seq}
	l.delivered = rate{}
}

// Permits reports whether a request may go now.
func (l *Limiter) Permits(now time.Time) bool {
	return l.inflight < l.Limit() && l.pacer.Permits(now)
}

// Waiting says that there is work which Permits refuses: only then does more room mean anything.
func (l *Limiter) Waiting(now time.Time) {
	if l.inflight >= l.Limit() {
		l.round.byWindow = true
	} else if !l.pacer.Permits(now) {
		l.round.byPace = true
	}
}

// Due is when the pace permits the next request; the zero time when it does not bind.
func (l *Limiter) Due() time.Time { return l.pacer.Due() }

// Limit is how many requests may be in flight, at least 1.
func (l *Limiter) Limit() int { return max(1, int(l.window+1e-9)) }

// InFlight counts requests that were sent and are not done.
func (l *Limiter) InFlight() int { return l.inflight }

// Blind reports whether nothing gets through.
func (l *Limiter) Blind() bool { return l.blind }

// Rate is the pace in requests per second, 0 when there is none.
func (l *Limiter) Rate() float64 { return l.pacer.Rate() }

// Reason says, for people, why the limit is what it is; empty while nothing was ever cut.
func (l *Limiter) Reason() string { return l.reason }

// Sent notes a request.
func (l *Limiter) Sent(now time.Time) Ticket {
	if l.inflight == 0 && l.delivered.idle(now) {
		l.delivered = rate{} // a pause says nothing about what gets through
		l.delivered.advance(now)
	}
	l.inflight++
	t := Ticket{l.seq, now, l.inflight >= l.Limit()}
	l.seq++
	l.pacer.Sent(1, now)
	return t
}

// Done notes that a request of size bytes (or events; any measure that its duration depends on) ended.
func (l *Limiter) Done(t Ticket, size int, s Signal, now time.Time) {
	l.inflight--
	r := &l.round
	switch s {
	case Accepted:
		l.delivered.add(now)
		took := now.Sub(t.sent).Seconds()
		r.took += took
		r.limit += l.latency.observe(size, took, l.window, r.bad > 0 || r.n >= roundSamples/2 && r.took > r.limit)
		r.n++
	case Congested, TimedOut:
		r.bad++
		if s == TimedOut {
			l.drops = now.Sub(t.sent).Seconds()
		}
		if t.seq >= l.cutSeq {
			l.cut(t, s, now)
			r = &l.round
		}
	case Silent:
		return
	}
	r.done++
	if t.seq >= r.seq && r.done >= r.need {
		l.endRound(now)
	}
}

// tooLong reports whether requests come near the time at which they were seen to time out, and did not where few were
// sent: the usual follows a queue that grows slowly, until all of it times out.
func (l *Limiter) tooLong(r round) bool {
	took := r.took / float64(r.n)
	if l.least == 0 || took < l.least || l.Limit() == 1 {
		l.least = took
	}
	return l.drops > 0 && took > max(dropShare*l.drops, dropLeast*l.least)
}

// cut answers to a refused or dropped request, once per round.
func (l *Limiter) cut(t Ticket, s Signal, now time.Time) {
	factor := cutExplicit
	switch {
	case s == TimedOut:
		factor = cutSoft
	case l.slow:
		factor = cutFirst
	}
	why := "the endpoint refuses more (429 or 503)"
	if s == TimedOut {
		why = "requests time out"
	}
	l.reduce(factor, t.full && s == Congested, false, why, now)
	l.round.bad = 1
}

// reduce makes the window smaller and paces by what got through. full: it is the window that was too
// large, as far as one can know. soft: nothing was refused; then no pace begins, as a queue needs none, and one moment
// in which all is slow (our own machine's, perhaps) would hold the rate down for seconds.
func (l *Limiter) reduce(factor float64, full, soft bool, why string, now time.Time) {
	probing := !l.slow && !l.blind && (!now.Before(l.held) || now.Sub(l.probed) < probeEvery)
	if probing && !now.Before(l.held) {
		l.probed = now
	}
	got := l.delivered.perSecond(now)
	goal := math.Round(got * l.latency.usual()) // Little's law
	pace := paceAfterCut
	if soft {
		pace = paceWhenFull
	} else if full && l.Limit() > 1 {
		if pace = 1; probing || l.slow {
			pace = paceWhenFull
		}
	}
	next := pace * got
	if l.slow && l.latency.usual() > 0 {
		goal = max(goal, l.good.window)
		next = max(next, paceAfterCut*l.good.window/l.latency.usual())
	}
	if probing { // the last step was one too many
		goal = max(goal, l.good.window)
		if l.wider { // the window may have been it, and is back
			next = max(next, l.good.rate)
		} else {
			next = max(next, paceAfterProbe*l.good.rate)
		}
	}
	l.goal = max(1, min(goal, l.window))
	l.window = max(1, min(l.window*factor, cutGoal*l.goal))
	if probing {
		l.window = min(l.window, l.goal)
	}
	l.slow = false
	l.cutAt, l.cutSeq = now, l.seq
	l.begin()
	l.round.recovery, l.round.factor = true, factor
	l.grow = probeStep
	l.good.window, l.good.rate = l.goal, next
	if l.blind = got == 0; l.blind {
		l.pacer.SetRate(paceBlind, paceBurst)
		l.held = now
	} else {
		if !soft || l.pacer.Rate() > 0 {
			l.pacer.SetRate(max(paceBlind, next), paceBurst)
		}
		hold := min(max(time.Duration(holdRequests/got*float64(time.Second)), holdMin), holdMax)
		l.held = now.Add(time.Duration(float64(hold) * (0.9 + 0.2*l.rand())))
	}
	l.step = l.held
	l.reason = fmt.Sprintf("%s: %d in flight", why, l.Limit())
	if rate := l.pacer.Rate(); rate > 0 {
		l.reason += fmt.Sprintf(", %.1f requests per second", rate)
	}
}

// begin starts a round.
func (l *Limiter) begin() {
	l.round = round{seq: l.seq, need: min(l.Limit(), l.inflight) / 2}
}

// endRound draws the conclusions of a round and begins the next.
func (l *Limiter) endRound(now time.Time) {
	r := l.round
	l.begin()
	if r.bad > 0 {
		if r.recovery && float64(r.bad) > 1+cutShare*float64(r.done) && r.factor > cutFirst {
			l.window = max(1, l.window*cutFirst/r.factor)
		}
		return
	}
	if r.recovery { // what came back was sent before the cut
		return
	}
	bound := r.byWindow || r.byPace
	if r.n < roundSamples {
		l.round.n, l.round.took, l.round.limit = r.n, r.took, r.limit
	} else if long := l.tooLong(r); (long || bound && r.took > r.limit) && l.Limit() > 1 && l.slower(long, now) {
		return
	}
	switch {
	case l.blind: // it is back
		l.blind, l.slow, l.pacer, l.reason = false, true, Pacer{}, ""
		fallthrough
	case l.slow:
		if bound {
			l.good.window = l.window
			l.window = min(l.max, 2*l.window)
		}
	case now.Before(l.held):
		if l.window < l.goal {
			l.window = min(l.goal, l.max, l.window+max(1, l.window/8))
		}
	case bound && !now.Before(l.step):
		l.up(r, now)
	case !bound && now.Sub(l.cutAt) > paceForget:
		l.pacer, l.reason = Pacer{}, ""
	}
}

// up makes a step.
func (l *Limiter) up(r round, now time.Time) {
	l.good.window, l.good.rate = l.window, l.pacer.Rate()
	if r.took > dropShare/2*l.drops*float64(r.n) && l.drops > 0 { // half way to what is too long
		l.grow = probeStep
	}
	far := l.grow >= probeFar // neither is near its bound
	if r.byPace || far && l.pacer.Rate() > 0 {
		l.pacer.SetRate(l.pacer.Rate()*(1+l.grow), paceBurst)
	}
	if l.wider = r.byWindow || far; l.wider {
		l.window = min(l.max, l.window+max(1, l.grow*l.window))
	}
	l.grow = min(1, 2*l.grow)
	l.step = now.Add(max(probeEvery, time.Duration(min(l.drops, 1)*1.1*float64(time.Second))))
}

// slower answers to requests that took longer than usual; false: there is nothing to do.
func (l *Limiter) slower(long bool, now time.Time) bool {
	rate := l.pacer.Rate()
	if long {
		l.goal = min(l.goal, l.window*cutSoft)
		l.good.window = min(l.good.window, l.goal)
	}
	if now.Before(l.held) && rate > 0 && l.delivered.perSecond(now) > 0.9*rate {
		// All that is sent gets through: what is too much waits in the endpoint's queue, and drains.
		if least := max(l.goal, 1); l.window > least {
			l.window = max(least, l.window*cutSoft)
			return true
		}
		return false
	}
	l.reduce(cutSoft, false, true, "requests take longer than usual", now)
	return true
}
