package deliver

import (
	"container/heap"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/flow"
)

// judge draws the conclusions about the endpoint as a whole.
func (s *session) judge(d *delivery, failed *pipeline.DeliveryError, now time.Time) {
	var reason string
	var after time.Duration
	if failed != nil {
		reason, after = clipReason(failed.Reason), failed.RetryAfter
	}
	first, verdict := d.Runs[0], s.verdict(d, failed)
	change := s.outage.Done(d.Number, first.Batch.Events[first.From].Hash, verdict, after, reason, now)
	if verdict == flow.Worked {
		s.sub.worked, s.sub.works = now, true
	}
	if s.stopping {
		return
	}
	switch change {
	case flow.Suspected:
		s.suspected = now
	case flow.Began:
		s.refund()
	case flow.Ended:
		if s.limiter != nil && s.limiter.Rate() == 0 {
			s.limiter.Restart() // slowly, as nothing is known of what it takes now
		}
	}
	switch {
	case failed == nil:
		if s.clean++; s.clean%20 == 0 && s.maxBytes < s.cfg.Batch.Bytes {
			s.maxBytes = min(s.cfg.Batch.Bytes, s.maxBytes+s.maxBytes/10+1)
		}
	case failed.Class == pipeline.Gone:
		reason := "the subscriber asked to stop"
		if failed.Reason != "" {
			reason += ": " + failed.Reason
		}
		s.end = &pauseError{reason}
	case failed.Class == pipeline.TooLarge && d.Events > 1:
		s.maxBytes, s.clean = max(1, min(s.maxBytes, d.Bytes)/2), 0
	}
}

// freshWait is how long, while an outage is only suspected, a key is waited for that has not failed.
const freshWait = time.Second

// freshUntil is until when what has failed is not tried; zero: it may be.
func (s *session) freshUntil() time.Time {
	if !s.outage.On() || s.outage.Sure() {
		return time.Time{}
	}
	return s.suspected.Add(freshWait)
}

// verdict is what a Delivery says about the endpoint as a whole.
func (s *session) verdict(d *delivery, failed *pipeline.DeliveryError) flow.Result {
	deferred := func(o pipeline.Outcome) bool { return o.Class == pipeline.Defer }
	switch {
	case s.stopping:
		return flow.Mute
	case failed == nil && len(d.outcomes) > 0 && !slices.ContainsFunc(d.outcomes, func(o pipeline.Outcome) bool { return !deferred(o) }):
		return flow.Mute // perhaps nothing was sent
	case failed == nil && !d.aside && s.staged.from > 0:
		return flow.Partly // what follows may fail again and again, and all of it come again each time
	case failed == nil:
		return flow.Worked
	case failed.Class == pipeline.Retriable:
		return flow.Broke
	case failed.Class != pipeline.Unavailable:
		return flow.Worked
	case s.limiter == nil || !failed.Congested || failed.RetryAfter > 0 || s.limiter.Blind() || s.outage.Sure():
		return flow.Away
	case s.outage.On():
		return flow.Broke
	}
	return flow.Mute // it only takes less than it was given, and does take something
}

// most is how many events a Delivery may have: few, when it is of copies beside what is live; a probe has one, so that
// no other's fault is taken for the endpoint's.
func (s *session) most() int {
	switch {
	case s.outage.On() && !s.cfg.Whole: // which says itself what is at fault
		return 1
	case s.gentle:
		return min(asideSlice, s.cfg.Batch.Events)
	}
	return s.cfg.Batch.Events
}

// probeOf takes a key that may go out of a unit of several; the others wait for the next probe. Nil: none may.
func (s *session) probeOf(u *unit) *unit {
	i := slices.IndexFunc(u.keys, func(k *heldKey) bool {
		return k.awaited == 0 && len(k.list) > 0 && !k.waitsForPass(k.list[0]) && !s.waitsForPair(k.list[0])
	})
	if i < 0 {
		return nil
	}
	one := &unit{keys: []*heldKey{u.keys[i]}, stage: u.stage, mix: u.mix}
	one.keys[0].unit = one
	s.held.queue(&unit{keys: slices.Delete(u.keys, i, i+1), stage: u.stage, mix: u.mix})
	return one
}

// refund takes back the attempts that the outage cost before it was known; what failed by it waits for nothing
// else, and keys that were parked by it are to be redriven, by the next session.
func (s *session) refund() {
	since := s.outage.Since()
	for _, k := range s.held.keys {
		k.refund(since)
		if k.spent < s.cfg.Retry.Attempts {
			s.unblock(k)
		}
	}
	waiting := s.held.waiting
	s.held.waiting = nil
	for _, u := range waiting {
		if slices.ContainsFunc(u.keys, func(k *heldKey) bool { return k.unit == u && k.failedSince(since) }) {
			s.held.awake(u)
		} else {
			heap.Push(&s.held.waiting, u)
		}
	}
	s.redrives = s.sub.redriveOutage()
	s.stopping = s.redrives != nil
}

// failedSince reports whether an attempt of the key failed then or later.
func (k *heldKey) failedSince(t time.Time) bool {
	n := len(k.attempts)
	return n > 0 && !k.attempts[n-1].Time.Add(k.attempts[n-1].Took).Before(t)
}

// refund takes back what was spent since t.
func (k *heldKey) refund(t time.Time) {
	for i, a := range k.attempts {
		if k.own&(1<<i) != 0 && !a.Time.Add(a.Took).Before(t) {
			k.own &^= 1 << i
			k.spent--
		}
	}
}

// during reports whether a park comes of attempts that were spent since t.
func (p *parked) during(t time.Time) bool { return p.spent && !p.Redrive && p.since >= t.UnixMicro() }

// redriveOutage marks, on disk, the parks that an outage made; nil when there are none.
func (s *Subscription) redriveOutage() []Park {
	since := s.outage.Since()
	if !s.works { // it began in a process before this one
		since = s.worked
	}
	var chosen []*parked
	s.parks.all(func(p *parked) {
		if p.during(since) {
			chosen = append(chosen, p)
		}
	})
	if len(chosen) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	marked, err := s.mark(ctx, chosen)
	if err != nil {
		s.unsure = true
		s.cfg.Observer.Warned("subscription "+s.cfg.Name, err.Error(), fmt.Sprintf("see that the data folder has space and can be written, then `leat redrive %s`", s.cfg.Name))
		return nil
	}
	return marked
}
