package deliver

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// A range of which RangeParks keys are parked pauses: one more that is given up on is a park of the whole range, from its
// oldest event on that is not done. It is held and redriven as a key is, but no copies are made, so that the log is kept
// for it as for a subscription that is behind. It names its interval of keys: splits and merges leave it alone. What was
// read when it began may come again when it goes on.

func overlap(a, b *pipeline.Range) bool {
	return (b.End == nil || string(a.Start) < string(b.End)) && (a.End == nil || string(b.Start) < string(a.End))
}

// holds reports whether a key of a table lies in the interval.
func (k *parked) holds(t *schemas.Table, key []byte) bool {
	return t != nil && k.interval.Space == t.KeySpace && k.interval.Contains(key)
}

// rangeOf returns the park of a range that holds a key of a table.
func (p *parks) rangeOf(t *schemas.Table, key []byte) *parked {
	for _, r := range p.ranges {
		if r.holds(t, key) {
			return r
		}
	}
	return nil
}

// over returns the park of the range that a park's key lies in.
func (p *parks) over(k *Park) *parked {
	for _, r := range p.ranges {
		if r.interval.Space == k.Space && r.interval.Contains(k.Key) {
			return r
		}
	}
	return nil
}

// paused is where ranges that pause want the log from.
func (p *parks) paused() (o pipeline.Offset, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o = noOffset
	for _, r := range p.ranges {
		o = min(o, r.stored)
	}
	return o, o != noOffset
}

// within counts the keys of an interval that are parked and not redriven.
func (p *parks) within(r *pipeline.Range) (n int) {
	p.all(func(k *parked) {
		if k.interval == nil && !k.Redrive && k.Space == r.Space && r.Contains([]byte(k.Key)) {
			n++
		}
	})
	return n
}

// openRanges has ranges redriven where there is room again, and with them key changes that wait for one.
func (s *Subscription) openRanges() {
	p := &s.parks
	p.mu.Lock()
	defer p.mu.Unlock()
	open := false
	for _, r := range p.ranges {
		n := p.within(r.interval)
		r.Redrive = n == 0 || 10*n < 9*s.cfg.RangeParks
		open = open || r.Redrive
	}
	for grown := open; grown; {
		grown = false
		p.all(func(k *parked) {
			if with := p.keys[k.PairHash]; k.Paired && !k.Redrive && (with == nil || with.Redrive) {
				k.Redrive, grown = true, true
			}
		})
	}
}

// holds reports whether a range that is redriven holds the event.
func (p *pass) holds(b *pipeline.Batch, i int) bool {
	e := &b.Events[i]
	return !e.Op.Barrier() && slices.ContainsFunc(p.ranges, func(r *parked) bool {
		return r.From <= b.Offset(i) && r.holds(b.TableOf(i), b.Bytes(e.Key))
	})
}

// leftToRange leaves a key whose first event is given up on to its range, if that pauses, or has to now. It is tried anew
// when the range goes on.
func (s *session) leftToRange(u *unit, k *heldKey, now time.Time) bool {
	e := k.list[0]
	b, i := e.it.batch, int(e.ev)
	t, key := b.TableOf(i), b.Bytes(e.event().Key)
	if s.cfg.Exhausted != ExhaustedPark || t == nil || e.event().Op.Barrier() || s.sub.parks.own(e.event().Hash, e.offset()) != nil {
		return false
	}
	r := s.sub.parks.rangeOf(t, key)
	if r == nil || r.Redrive || e.offset() < r.From {
		in, ok := s.full(t, key, r)
		if !ok {
			return false
		}
		if err := s.pauseRange(in, e.offset()); err != nil {
			s.unsaved(err)
			s.sub.unsure, u.due = true, now.Add(s.backoff(1, 0))
			s.held.queue(u)
			return true
		}
		r = s.sub.parks.rangeOf(t, key)
	}
	s.leave(k, r)
	s.stirred = true
	return true
}

// full returns the range that a key is in, when no more of its keys may be parked; that of r, when it pauses.
func (s *session) full(t *schemas.Table, key []byte, r *parked) (in pipeline.Range, full bool) {
	if r != nil && !r.Redrive {
		return *r.interval, true
	}
	if s.sub.parks.len() < s.cfg.RangeParks || !s.byRange.follow(s.cfg.Log) {
		return in, false
	}
	m := s.byRange.history.Last().Map(t.KeySpace)
	in = m.Ranges()[m.Find(key)]
	return in, m.Epoch > 0 && s.sub.parks.within(&in) >= s.cfg.RangeParks
}

// pauseRange makes durable that a range is held, from the given event on or from where something of it is not done.
func (s *session) pauseRange(in pipeline.Range, from pipeline.Offset) error {
	var over []Park
	for _, r := range s.sub.parks.ranges { // as wide as all that it meets: no two overlap
		if r.interval.Space != in.Space || !overlap(r.interval, &in) {
			continue
		}
		if string(r.interval.Start) < string(in.Start) {
			in.Start = r.interval.Start
		}
		if in.End != nil && (r.interval.End == nil || string(r.interval.End) > string(in.End)) {
			in.End = r.interval.End
		}
		at := r.From
		if r.Redrive && s.pass != nil {
			at = max(at, s.pass.front.Low())
		}
		from = min(from, at)
		over = append(over, r.park(s.cfg.Name))
	}
	from = min(from, s.firstOpen(&in))
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %q %q %v", in.Space, in.Start, in.End, in.End == nil)
	p := Park{Subscription: s.cfg.Name, Log: s.start.Log, Space: in.Space, Key: in.Start, Until: in.End, Interval: true, Hash: h.Sum64(), From: from,
		Since: time.Now(), Reason: fmt.Sprintf("%d keys of the range are parked", s.cfg.RangeParks)}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if err := s.cfg.Store.PutParks(ctx, []Park{p}); err != nil {
		return fmt.Errorf("store the pause of a range: %w", err)
	}
	for _, o := range over {
		s.sub.parks.remove(s.sub.parks.keys[o.Hash])
	}
	s.sub.parks.set(p)
	s.paused = true
	s.cfg.Observer.Warned("subscription "+s.cfg.Name, fmt.Sprintf("%d keys of a range of %s are parked: the range pauses from offset %d on", s.cfg.RangeParks, in.Space, from),
		fmt.Sprintf("repair the subscriber, then `leat redrive %s`; or `leat discard %s`", s.cfg.Name, s.cfg.Name))
	if over = slices.DeleteFunc(over, func(o Park) bool { return o.Hash == p.Hash }); len(over) == 0 {
		return nil
	}
	if err := s.cfg.Store.DeleteParks(ctx, over); err != nil { // what is left of them holds nothing that p does not
		return fmt.Errorf("join the pauses of ranges: %w", err)
	}
	return nil
}

// firstOpen is the oldest event of an interval that was read and is not done.
func (s *session) firstOpen(in *pipeline.Range) pipeline.Offset {
	k := parked{interval: in}
	for it := s.live.first; it != nil; it = it.after {
		for _, r := range it.runs {
			for ev := r.From; ev < r.To; ev++ {
				o, e := it.batch.Offset(int(ev)), &it.batch.Events[ev]
				if !s.front.Done(o) && !e.Op.Barrier() && k.holds(it.batch.TableOf(int(ev)), it.batch.Bytes(e.Key)) {
					return o
				}
			}
		}
	}
	return noOffset
}

// leaveAll leaves the held keys of ranges that pause to them, once one began to.
func (s *session) leaveAll() {
	if !s.paused {
		return
	}
	s.paused = false
	for _, k := range s.held.keys {
		if len(k.list) == 0 {
			continue
		}
		if r := s.sub.parks.find(k.list[0].it.batch, int(k.list[0].ev)); r != nil && r.interval != nil && !r.Redrive {
			s.leave(k, r)
		}
	}
}

// leave ends holding a key of a range that pauses, but for what is in flight and what the range does not hold.
func (s *session) leave(k *heldKey, r *parked) {
	n := k.out
	for n < len(k.list) && k.list[n].offset() < r.From {
		n++
	}
	for _, e := range k.list[n:] {
		s.passOver(e)
	}
	k.list = k.list[:n]
	s.purge(k)
	if n > 0 {
		return
	}
	k.list = nil
	s.unblock(k)
	k.calm(&s.held)
	if k.parked = true; k.awaited == 0 {
		s.drop(k)
	}
}

// expireRanges lists what retention took of ranges that pause, looked for at most once a second: they are held from there
// on where the log begins.
func (s *session) expireRanges(now time.Time) {
	if len(s.sub.parks.ranges) == 0 || s.cfg.window != nil {
		s.rangesDue = time.Time{}
		return
	}
	if now.Before(s.rangesDue) {
		return
	}
	s.rangesDue = now.Add(time.Second)
	oldest, _ := s.cfg.Log.Bounds()
	var behind []*parked
	for _, r := range s.sub.parks.ranges {
		if !r.Redrive && r.From < oldest { // what is redriven the pass lists
			behind = append(behind, r)
		}
	}
	if len(behind) == 0 {
		return
	}
	if err := s.sub.expire(behind, oldest); err != nil {
		s.unsaved(err)
	}
}

// expire lists what lies below an offset as skipped of ranges, and holds them from there on.
func (s *Subscription) expire(behind []*parked, oldest pipeline.Offset) error {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	all, err := s.full(ctx, ids(behind))
	if err != nil {
		return err
	}
	from := noOffset
	for i := range all {
		from = min(from, s.parks.keys[all[i].Hash].From)
		all[i].From = oldest
	}
	if len(all) == 0 {
		return nil
	}
	err = s.cfg.Store.PutSkip(ctx, Skip{Subscription: s.cfg.Name, Time: time.Now(), Ranges: []pipeline.OffsetRange{{From: from, To: oldest}},
		Reason: "retention removed it while ranges paused: only their events"})
	if err == nil {
		err = s.cfg.Store.PutParks(ctx, all)
	}
	if err != nil {
		return fmt.Errorf("list what retention took of ranges that pause: %w", err)
	}
	for _, p := range all {
		s.parks.set(p)
	}
	s.expired.Add(uint64(oldest - from))
	s.cfg.Observer.Warned("subscription "+s.cfg.Name, fmt.Sprintf("offsets %d to %d were removed by retention while %d ranges paused: their events in there are skipped and listed", from, oldest-1, len(all)),
		pipeline.BringRows+"; repair the subscriber and redrive sooner, or give the log more retention (log.retention)")
	return nil
}
