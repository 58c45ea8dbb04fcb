package deliver

import (
	"context"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// conclude decides for each key that settled in this pass how it goes on.
func (s *session) conclude(d *delivery, lower []uint64, now time.Time) {
	for _, u := range d.units {
		for _, k := range u.keys {
			if k.flight != d || lower != nil && lower[k.slot/64]&(1<<(k.slot%64)) != 0 {
				continue
			}
			k.flight, k.out = nil, 0
			if k.fail == nil {
				s.succeeded(k, len(u.keys) == 1)
			}
		}
	}
	if len(d.keys) == 0 {
		return
	}
	var whole []*heldKey
	var class pipeline.DeliveryClass
	for _, k := range d.keys {
		f := k.fail
		if f.whole && f.class == pipeline.Retriable && s.outage.On() {
			f.class = pipeline.Unavailable // no attempt
		}
		if f.whole && d.Events > 1 || f.whole && f.class != pipeline.Retriable {
			whole, class = append(whole, k), f.class
			continue
		}
		s.failedKey(k, d, now)
	}
	if len(whole) > 0 {
		s.failedWhole(whole, class, d, now)
	}
	for _, k := range d.keys {
		k.fail, k.failed = nil, 0
	}
	clear(d.keys)
	d.keys = d.keys[:0]
}

// succeeded goes on with a key whose events in flight are done.
func (s *session) succeeded(k *heldKey, alone bool) {
	s.unblock(k)
	k.calm(&s.held)
	if len(k.list) == 0 {
		s.drop(k)
		return
	}
	stage := 0
	if !alone {
		k.limit = 0
	}
	if k.limit > 0 { // one of its events is at fault and was not among these: look further
		k.limit, stage = 2*k.limit, 1
	}
	if k.limit > len(k.list) {
		k.limit, stage = 0, 0
	}
	s.held.queue(&unit{keys: []*heldKey{k}, stage: stage, mix: k.limit == 0})
}

// failedWhole plans for keys of which it is not known whose event is at fault.
func (s *session) failedWhole(keys []*heldKey, class pipeline.DeliveryClass, d *delivery, now time.Time) {
	for _, k := range keys {
		k.limit = k.failed
	}
	switch class {
	case pipeline.Unavailable, pipeline.Gone:
		// As it was, once the endpoint is there: the same events, the same webhook-id.
		s.held.queue(&unit{keys: keys, stage: d.stage})
	case pipeline.TooLarge, pipeline.Poison:
		if d.Events > 1 {
			s.split(keys, d.stage, time.Time{})
			return
		}
		f := keys[0].fail
		f.Class = pipeline.Fatal
		if class == pipeline.TooLarge {
			f.Reason = "too large for the subscriber: " + f.Reason
		}
		s.failedKey(keys[0], d, now)
	default:
		for _, k := range keys {
			s.tried(k, d, now)
		}
		if d.stage == 0 {
			s.held.queue(&unit{keys: keys, stage: 1, due: now.Add(s.backoff(1, keys[0].fail.Delay))})
			return
		}
		s.split(keys, d.stage, now.Add(s.backoff(1, 0)))
	}
}

// split halves a group by key, and a single key's events in number.
func (s *session) split(keys []*heldKey, stage int, due time.Time) {
	if len(keys) == 1 {
		k := keys[0]
		k.limit = max(1, k.limit/2)
		s.held.queue(&unit{keys: keys, stage: stage, due: due})
		return
	}
	total, n, i := 0, 0, 0
	for _, k := range keys {
		total += k.limit
	}
	for i < len(keys)-1 && (i == 0 || n+keys[i].limit <= total/2) {
		n += keys[i].limit
		i++
	}
	s.held.queue(&unit{keys: keys[:i:i], stage: stage, due: due})
	s.held.queue(&unit{keys: keys[i:], stage: stage, due: due})
}

// failedKey plans for a key whose first event is known to have failed.
func (s *session) failedKey(k *heldKey, d *delivery, now time.Time) {
	u := &unit{keys: []*heldKey{k}, mix: true}
	k.limit = 0
	if k.fail.whole { // alone, so that it stays known
		k.limit, u.mix, u.stage = 1, false, 1
	}
	switch k.fail.Class {
	case pipeline.Fatal:
		s.tried(k, d, now)
		if s.leftToRange(u, k, now) {
			return
		}
		if !s.parksFull() {
			s.bury(u, k, k.fail.Reason, false, now)
			return
		}
		s.block(u, k)
		u.due = now.Add(s.jitter(s.cfg.Retry.Max))
		s.held.queue(u)
		return
	case pipeline.Defer:
		u.due = now.Add(s.backoff(1, k.fail.Delay))
		s.held.queue(u)
		return
	}
	s.tried(k, d, now)
	k.spent++
	k.own |= 1 << (len(k.attempts) - 1)
	age := max(0, now.Sub(k.since)-(s.outage.Away(now)-k.away))
	attempts := s.cfg.Retry.Attempts
	if k.aside {
		attempts = min(attempts, passAttempts)
	}
	if k.spent < attempts && age < s.cfg.Retry.Age {
		u.due = now.Add(s.backoff(k.spent, min(k.fail.Delay, maxRetryAfter)))
		s.held.queue(u)
		return
	}
	if s.leftToRange(u, k, now) {
		return
	}
	if s.cfg.Exhausted != ExhaustedBlock && !s.parksFull() {
		s.bury(u, k, fmt.Sprintf("given up after %d attempts in %s: %s", k.tries, age.Round(time.Second), k.fail.Reason), true, now)
		return
	}
	s.block(u, k)
	u.due = now.Add(s.jitter(s.cfg.Retry.Max))
	s.held.queue(u)
}

// block lets nothing but the key's first event go.
func (s *session) block(u *unit, k *heldKey) {
	if !k.exhausted {
		k.exhausted = true
		s.blocked++
	}
	o := k.list[0].offset()
	what := fmt.Sprintf("event %s failed %d times (%s): it is tried again every %s and nothing else is delivered",
		pipeline.EventID(s.cfg.Source, o), k.tries, k.fail.Reason, s.cfg.Retry.Max)
	if s.parksFull() {
		s.held.note = fmt.Sprintf("parks are full (%d): %s; make room with `leat redrive %s` or `leat discard %s`", maxParks, what, s.cfg.Name, s.cfg.Name)
	} else {
		s.held.note = fmt.Sprintf("%s; to leave it out: `leat seek %s --to %d`", what, s.cfg.Name, o+1)
	}
	u.mix, k.limit, u.stage = false, 1, 1
}

// tried notes an attempt that counts.
func (s *session) tried(k *heldKey, d *delivery, now time.Time) {
	if k.tries == 0 {
		s.held.failing++
		k.since, k.away = now, s.outage.Away(now)
	}
	k.tries++
	if len(k.attempts) == maxAttempts {
		k.attempts = append(k.attempts[:0:0], k.attempts[1:]...)
		k.own >>= 1
	}
	k.attempts = append(k.attempts, pipeline.Attempt{Time: d.sent, Took: d.took, Reason: k.fail.Reason})
	if s.blocked == 0 {
		s.held.note = fmt.Sprintf("event %s: %s", pipeline.EventID(s.cfg.Source, k.list[0].offset()), k.fail.Reason)
	}
}

// bury makes the key's first event a dead letter, and parks the key or lets it go on. Only when that is
// durable is the event done. spent: for attempts that were spent, not for a refusal for good.
func (s *session) bury(u *unit, k *heldKey, reason string, spent bool, now time.Time) {
	e := k.list[0]
	pass := e.it.pass
	letter := deadLetter(s.cfg, e.it.batch, int(e.ev), e.as, reason, k.attempts)
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	var err error
	if s.cfg.Exhausted == ExhaustedPark {
		p := s.parkOf(e, reason, letter.KeyJSON, k.tries)
		p.Spent = spent
		err = s.park(k, p, &letter)
	} else if err = s.cfg.Store.PutDeadLetters(ctx, []pipeline.DeadLetter{letter}); err != nil {
		err = fmt.Errorf("store a dead letter: %w", err)
	}
	if err != nil {
		s.unsaved(err)
		s.sub.unsure, k.givenUp = true, &givenUp{at: e.offset(), reason: reason, spent: spent}
		u.due = now.Add(s.backoff(1, 0))
		s.held.queue(u)
		return
	}
	s.sub.dead.Add(1)
	s.cfg.Observer.DeadLettered(s.cfg.Name, letter)
	if s.cfg.Exhausted == ExhaustedPark {
		s.counted(letter.Offset, pass, true)
		return
	}
	k.pop()
	s.taken(e)
	s.unblock(k)
	k.calm(&s.held)
	k.failedAt = letter.Offset // events behind it that are still out come home to the list
	if len(k.list) == 0 && k.awaited == 0 {
		s.drop(k)
		return
	}
	k.limit = 0
	s.held.queue(&unit{keys: u.keys, mix: true})
}

// maxRetryAfter bounds what an event's own answer may ask for.
const maxRetryAfter = 15 * time.Minute

// backoff before the next try after n failed ones; asked is the subscriber's own wish.
func (s *session) backoff(n int, asked time.Duration) time.Duration {
	if asked > 0 {
		return asked
	}
	wait := s.cfg.Retry.Initial
	for i := 1; i < n && wait < s.cfg.Retry.Max; i++ {
		wait *= 2
	}
	return s.jitter(min(wait, s.cfg.Retry.Max))
}

func (s *session) jitter(d time.Duration) time.Duration { return jitter(d, s.cfg.Rand) }

// jitter spreads d by 20 % either way.
func jitter(d time.Duration, rand func() float64) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand()))
}
