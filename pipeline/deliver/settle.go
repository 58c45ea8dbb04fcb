package deliver

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// returned takes a Delivery back from the sink.
func (s *session) returned(d *delivery, now time.Time) {
	s.inflight--
	if d.aside {
		s.passing--
	}
	s.save.deliveries++
	d.back = true
	if d.err == nil && d.outcomes != nil && len(d.outcomes) != d.Events {
		d.err = &pipeline.DeliveryError{Class: pipeline.Retriable, Reason: fmt.Sprintf("%d outcomes for %d events", len(d.outcomes), d.Events)}
	}
	var failed *pipeline.DeliveryError
	if d.err != nil {
		failed = pipeline.AsDeliveryError(d.err)
		if s.stopping && failed.Class != pipeline.Gone {
			// Cut off by us, perhaps: no judgement. The events stay pending in the cursor.
			failed = &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: failed.Reason}
		}
		d.err = failed
	}
	switch {
	case failed == nil && s.cfg.Whole:
		s.staged.returned(d)
	case failed != nil && failed.Class == pipeline.Undone:
		s.end, s.stopping = errUndone, true
	}
	s.learn(d, failed, now)
	s.judge(d, failed, now)
	s.report(d, failed, now)
	if !s.lanes.windowed {
		s.settle(d, nil, now)
		s.lanes.release(d)
		d.recycle()
		return
	}
	s.settleOne(d, now)
}

// report tells the observer, once per Delivery.
func (s *session) report(d *delivery, failed *pipeline.DeliveryError, now time.Time) {
	last := d.Runs[len(d.Runs)-1]
	commit := last.Batch.Txs[last.Batch.Events[last.To-1].Tx].Time
	class := "ok"
	switch {
	case failed != nil:
		class = failed.Class.String()
		s.failed++
	case d.outcomes != nil && slices.ContainsFunc(d.outcomes, func(o pipeline.Outcome) bool { return o.Class != pipeline.OK }):
		class = "partial"
		s.failed++
	default:
		s.commit = max(s.commit, commit)
		s.speed.took(d.Events, d.took)
	}
	s.cfg.Observer.Delivered(s.cfg.Name, class, d.Events, d.Bytes, d.took, now.Sub(time.UnixMicro(commit)))
}

// settleOne settles what a windowed Delivery that just returned allows: everything when no earlier one
// is out, else the events whose slot no earlier one has. An event settles only after all earlier ones
// of its key: so what was acknowledged above a failure is delivered again, in order.
func (s *session) settleOne(d *delivery, now time.Time) {
	l := &s.lanes
	if l.window[0] == d {
		for _, w := range l.window {
			if !w.back {
				break
			}
			w.gone = s.settle(w, nil, now)
		}
	} else {
		var lower []uint64
		for _, w := range l.window {
			if w == d {
				break
			}
			lower = merge(lower, w.bits)
		}
		d.gone = s.settle(d, lower, now)
	}
	l.shrink()
}

// settleWindow settles what can be; what settleOne leaves behind a slow Delivery is found here, once
// a second.
func (s *session) settleWindow(now time.Time) {
	var lower []uint64
	for _, w := range s.lanes.window {
		if w.back {
			w.gone = s.settle(w, lower, now)
		}
		if !w.gone {
			lower = merge(lower, w.bits)
		}
	}
	s.lanes.shrink()
}

// shrink lets go of Deliveries that have settled; not earlier, as settling looks at the whole window.
func (l *lanes) shrink() {
	l.window = slices.DeleteFunc(l.window, func(w *delivery) bool {
		if w.gone {
			w.recycle()
			return true
		}
		return false
	})
}

func merge(a, b []uint64) []uint64 {
	if a == nil {
		a = make([]uint64, len(b))
	}
	for i := range b {
		a[i] |= b[i]
	}
	return a
}

// settle does what the outcome of each event asks for, save for events whose slot is in lower; it
// returns whether none is left. Each event settles once.
func (s *session) settle(d *delivery, lower []uint64, now time.Time) bool {
	if d.err == nil && d.outcomes == nil && lower == nil && len(d.settled) == 0 && len(s.held.keys) == 0 {
		for i, r := range d.Runs {
			s.delivered += uint64(r.To - r.From)
			s.done(d.items[i], r.From, r.To)
		}
		return true
	}
	if len(d.settled) == 0 {
		d.settled = slices.Grow(d.settled[:0], (d.Events+63)/64)[:(d.Events+63)/64]
		clear(d.settled)
	}
	n, rest := 0, false
	for i, r := range d.Runs {
		it := d.items[i]
		for ev := r.From; ev < r.To; ev, n = ev+1, n+1 {
			if d.settled[n/64]&(1<<(n%64)) != 0 {
				continue
			}
			e := entry{it, ev, r.As}
			hash := s.lanes.hash(e)
			slot := s.lanes.slot(hash)
			if lower != nil && lower[slot/64]&(1<<(slot%64)) != 0 {
				rest = true
				continue
			}
			d.settled[n/64] |= 1 << (n % 64)
			s.settleEvent(d, n, e, hash, slot)
		}
	}
	if rest { // what has settled holds nothing up any more
		for i := range d.bits {
			d.bits[i] &= lower[i]
		}
	}
	s.conclude(d, lower, now)
	return !rest
}

func (s *session) settleEvent(d *delivery, n int, e entry, hash uint64, slot uint32) {
	fail := d.failure(n)
	var k *heldKey
	if s.lanes.heldIn[slot] > 0 {
		k = s.held.keys[hash]
	}
	switch {
	case k == nil && fail == nil:
		s.delivered++
		s.taken(e)
		return
	case k != nil && k.parked: // whatever came of it, it is delivered again
		s.passOver(e)
		if k.awaited--; k.awaited == 0 {
			s.drop(k)
		}
		return
	case k == nil:
		k = s.hold(hash, slot)
		k.awaited = s.outstanding(d, hash, slot)
		k.push(e)
	case k.flight == d:
		if fail == nil && k.fail == nil {
			s.delivered++
			k.out--
			k.pop()
			s.taken(e)
			return
		}
	default:
		k.awaited--
		if e.offset() < k.failedAt && fail == nil {
			s.delivered++
			s.taken(e)
			return
		}
		o := e.offset()
		k.insert(e)
		if k.fail == nil && o > k.failedAt { // failed in an earlier pass; this one only comes home
			return
		}
		if o < k.failedAt && k.fail != nil {
			k.fail = nil // a lower one decides; cannot happen while passes go by offset
		}
	}
	k.failed++
	if k.fail == nil {
		k.fail, k.failedAt = fail, e.offset()
		d.keys = append(d.keys, k)
	}
}

// failure returns what came of event n, nil when it is done.
func (d *delivery) failure(n int) *failure {
	if d.err != nil {
		e := d.err.(*pipeline.DeliveryError)
		return &failure{whole: true, class: e.Class, Outcome: pipeline.Outcome{Class: pipeline.Retry, Delay: e.RetryAfter, Reason: clipReason(e.Reason)}}
	}
	if d.outcomes == nil || d.outcomes[n].Class == pipeline.OK {
		return nil
	}
	f := &failure{Outcome: d.outcomes[n]}
	f.Reason = clipReason(f.Reason)
	return f
}

// clipReason keeps a subscriber's words short, and text.
func clipReason(s string) string {
	if len(s) > 400 {
		return strings.ToValidUTF8(s[:400], "") + "…"
	}
	return strings.ToValidUTF8(s, "�")
}

// outstanding counts the events of a key that are out and have not settled: in d, and in the window.
func (s *session) outstanding(d *delivery, hash uint64, slot uint32) int {
	n := s.count(d, hash)
	for _, w := range s.lanes.window {
		if w != d && !w.gone && w.bits[slot/64]&(1<<(slot%64)) != 0 {
			n += s.count(w, hash)
		}
	}
	return n
}

func (s *session) count(d *delivery, hash uint64) int {
	n, found := 0, 0
	for i, r := range d.Runs {
		for ev := r.From; ev < r.To; ev, n = ev+1, n+1 {
			if len(d.settled) > 0 && d.settled[n/64]&(1<<(n%64)) != 0 {
				continue
			}
			if s.lanes.hash(entry{d.items[i], ev, r.As}) == hash {
				found++
			}
		}
	}
	return found
}
