package deliver

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/flow"
	"github.com/leat-cdc/leat/pipeline/sched"
)

// delivery is a Delivery with what the session knows about it.
type delivery struct {
	pipeline.Delivery
	items []*item // of Runs
	slots []uint32
	bits  []uint64 // windowed: the slots of its events that have not settled
	units []*unit  // retries that it carries
	// stage counts how often exactly these events have failed as a whole.
	stage   int
	aside   bool // of the pass
	back    bool // it returned
	gone    bool // and all of it has settled
	settled []uint64
	keys    []*heldKey // scratch of settle
	unsure  int
	grant   sched.Grant
	handed  func()          // ends grant; kept when d is used again
	last    pipeline.Offset // of the last event added; sorted while it grows
	mixed   bool            // events are not in order of offset yet

	sent     time.Time
	took     time.Duration
	ticket   flow.Ticket
	outcomes pipeline.Outcomes
	err      error
}

var deliveries = sync.Pool{New: func() any { return new(delivery) }}

func (s *session) newDelivery() *delivery {
	d := deliveries.Get().(*delivery)
	d.Subscription, d.Source, d.Attempt = s.cfg.Name, s.cfg.Source, 1
	if s.lanes.windowed {
		words := int(s.lanes.mask+1) / 64
		d.bits = slices.Grow(d.bits[:0], words)[:words]
		clear(d.bits)
	}
	return d
}

func (d *delivery) recycle() {
	clear(d.Runs)
	clear(d.items)
	clear(d.units)
	clear(d.keys)
	*d = delivery{Delivery: pipeline.Delivery{Runs: d.Runs[:0]}, handed: d.handed, items: d.items[:0], slots: d.slots[:0], bits: d.bits[:0],
		units: d.units[:0], settled: d.settled[:0], keys: d.keys[:0]}
	deliveries.Put(d)
}

// fits reports whether n more bytes may go with d; a first event always does.
func (s *session) fits(d *delivery, n int) bool { return s.room(d, n) || s.rounds(d, n) }

func (s *session) room(d *delivery, n int) bool {
	return d.Events == 0 || d.Events < s.most() && d.Bytes+n <= s.maxBytes
}

// add appends one event.
func (d *delivery) add(e entry, bytes int) {
	o := e.offset()
	d.mixed = d.mixed || d.Events > 0 && o < d.last
	d.last = o
	d.Events++
	d.Bytes += bytes
	if n := len(d.Runs); n > 0 {
		if r := &d.Runs[n-1]; r.Batch == e.it.batch && r.To == e.ev && r.As == e.as {
			r.To++
			return
		}
	}
	d.addRun(e.it, pipeline.Run{Batch: e.it.batch, From: e.ev, To: e.ev + 1, As: e.as})
}

func (d *delivery) addRun(it *item, r pipeline.Run) {
	d.Runs = append(d.Runs, r)
	d.items = append(d.items, it)
}

// Len, Less, Swap sort runs by offset, with their items.
func (d *delivery) Len() int { return len(d.Runs) }
func (d *delivery) Less(i, j int) bool {
	return cmp.Less(d.Runs[i].Batch.Offset(int(d.Runs[i].From)), d.Runs[j].Batch.Offset(int(d.Runs[j].From)))
}
func (d *delivery) Swap(i, j int) {
	d.Runs[i], d.Runs[j] = d.Runs[j], d.Runs[i]
	d.items[i], d.items[j] = d.items[j], d.items[i]
}

// dispatch sends what may go now.
func (s *session) dispatch(ctx context.Context, now time.Time) {
	if waits := s.sendAll(ctx, now); !waits {
		s.turn.entry.Rest(now)
	}
}

// sendAll reports whether it stopped because it is not the session's turn.
func (s *session) sendAll(ctx context.Context, now time.Time) (waits bool) {
	ratio := s.cfg.Throttle.ratio()
	limit, until := share(s.limit(), ratio, now)
	s.throttled = time.Time{}
	limit = s.besides(limit, ratio, now)
	s.gentle = s.turn.entry.Gentle(now)
	for s.pace.permits(now) {
		if s.inflight >= limit || s.staged.busy {
			s.throttled = until
			s.wants(now)
			return false
		}
		if !s.flows(now) {
			return false
		}
		if n := s.deliverable(now); n == 0 || !s.turn.entry.Ask(min(n, limit-s.inflight), now) {
			return n > 0
		}
		d := s.next(now)
		if d == nil {
			return false
		}
		s.pace.sent(d.Events, ratio, now)
		s.send(ctx, d, now)
	}
	return false
}

// next cuts the next Delivery, nil when there is nothing to send.
func (s *session) next(now time.Time) *delivery {
	if !s.outage.Permits(now) {
		return nil
	}
	s.held.wake(now)
	aside := s.mayPass(false)
	if aside && !s.asideLast { // by turns, when there is room for one only
		if d := s.cut(true, now); d != nil {
			return d
		}
	}
	if d := s.cut(false, now); d != nil || aside && !s.asideLast || !s.mayPass(true) {
		return d
	}
	return s.cut(true, now)
}

// cut cuts a Delivery of the pass, or one of all else.
func (s *session) cut(aside bool, now time.Time) *delivery {
	d := s.newDelivery()
	if d.aside = aside; aside {
		s.takeUnits(d, &s.held.aside, now)
	} else {
		if s.outage.On() { // by what has failed it is tried last: that may be what is wrong, and would fail again and again
			s.takeFresh(d, now)
		}
		if d.Events == 0 && !now.Before(s.freshUntil()) {
			s.takeUnits(d, &s.held.ready, now)
		}
		if d.Events == 0 {
			s.takeFresh(d, now)
		}
	}
	if d.Events == 0 {
		s.lanes.release(d)
		d.recycle()
		return nil
	}
	return d
}

// takeFresh gives d what has not been tried yet.
func (s *session) takeFresh(d *delivery, now time.Time) {
	if s.blocked > 0 || s.passes() {
		return
	}
	s.takeSlots(d)
	if s.lanes.order != OrderSource || len(s.held.keys) == 0 {
		s.takeStream(d, now)
	}
}

// takeSlots takes what queued in slots that are free again.
func (s *session) takeSlots(d *delivery) {
	l := &s.lanes
	for {
		n, ok := l.nextReady()
		if !ok {
			return
		}
		sl := &l.slots[n]
		for {
			e, ok := sl.pop()
			if !ok {
				break
			}
			bytes := eventBytes(e.event())
			if !s.fits(d, bytes) {
				sl.unpop(e)
				break
			}
			if s.offer(d, n, e) {
				d.add(e, bytes)
			}
		}
		if sl.holder == nil && sl.waiting != nil { // d is full before the slot got a place in it
			l.readyHead--
			l.ready[l.readyHead] = n
			return
		}
	}
}

// offer makes d the holder of the event's slot, unless the event's key is held: then the event joins
// its key.
func (s *session) offer(d *delivery, n uint32, e entry) bool {
	hash := s.lanes.hash(e)
	if s.lanes.heldIn[n] > 0 {
		if k := s.held.keys[hash]; k != nil {
			k.push(e)
			return false
		}
	}
	if s.waitsForPair(e) {
		k := s.hold(hash, n)
		k.push(e)
		k.awaited = s.outstanding(d, hash, n)
		s.held.queue(&unit{keys: []*heldKey{k}, mix: true})
		s.stirred = s.stirred || s.pairPark(e) != nil // it is to be parked too
		return false
	}
	s.lanes.take(d, n)
	return true
}

// takeStream scans what was read, in log order, until d is full.
func (s *session) takeStream(d *delivery, now time.Time) {
	if s.lanes.barrier {
		if s.open > 0 {
			return
		}
		s.lanes.barrier = false
	}
	t := &s.stream
	if due := t.due(s.cfg); t.ready < s.most() && now.Before(due) {
		return
	}
	full := false
	for !t.empty() && (d.Events == 0 || d.Events < s.most() || s.cfg.Whole) {
		it, r := t.peek()
		if !full && !it.special && !s.lanes.exclusive && len(s.held.keys) == 0 && s.sub.hold == nil {
			to := min(int(r.To), int(r.From)+s.most()) // no more can go at once
			if n := s.sub.parks.free(it.batch.Events[r.From:to]); n > 0 {
				r.To = r.From + uint32(n)
				if full = !s.takeRun(d, it, r); full && !s.cfg.Whole {
					return
				}
				continue
			}
		}
		e := entry{it, r.From, r.As}
		if s.sub.parks.any() {
			if p := s.sub.parks.find(it.batch, int(e.ev)); p != nil {
				if !s.takeParked(e, p) {
					return
				}
				continue
			}
		}
		if s.sub.hold != nil {
			if held, on := s.takeHold(e); !on {
				return
			} else if held {
				continue
			}
		}
		bytes := eventBytes(e.event())
		if !s.fits(d, bytes) {
			return
		}
		if e.event().Op.Barrier() && s.lanes.order != OrderSource {
			s.takeBarrier(d, e, bytes)
			return
		}
		t.advance(1)
		s.open++
		n := s.lanes.slot(s.lanes.hash(e))
		if s.lanes.admit(d, n, e) && s.offer(d, n, e) {
			d.add(e, bytes)
		}
	}
}

// takeParked passes over an event of a parked key, or lets it wait for the pass. False: nothing goes on yet.
func (s *session) takeParked(e entry, p *parked) bool {
	handed := p.Redrive && s.pass != nil && s.pass.handover > 0 && e.offset() >= s.pass.handover
	if handed && e.event().Op.Barrier() {
		return false // what waits for all waits for the pass
	}
	s.stream.advance(1)
	s.open++
	if handed {
		s.join(e)
	} else {
		s.passOver(e)
	}
	return true
}

// takeRun takes a stretch of events that needs no look at each key. False: d is full.
func (s *session) takeRun(d *delivery, it *item, r pipeline.Run) bool {
	events := it.batch.Events
	to := r.From
	for ; to < r.To; to++ {
		n := eventBytes(&events[to])
		if !s.room(d, n) {
			break
		}
		d.Events++
		d.Bytes += n
	}
	if to == r.From {
		return false
	}
	if s.lanes.windowed {
		for i := r.From; i < to; i++ {
			n := s.lanes.slot(s.lanes.hash(entry{it, i, r.As}))
			d.bits[n/64] |= 1 << (n % 64)
		}
	}
	s.stream.advance(to - r.From)
	s.open += int(to - r.From)
	d.last = it.batch.Offset(int(to - 1))
	full := to < r.To
	r.To = to
	d.addRun(it, r)
	return !full
}

// takeBarrier sends a table-wide event alone, once everything scanned before it is done, and lets
// nothing pass it. Other tables of the subscription wait too: tables may share keys' order, and
// such events are rare.
func (s *session) takeBarrier(d *delivery, e entry, bytes int) {
	if s.open > 0 || d.Events > 0 {
		return
	}
	s.stream.advance(1)
	s.open++
	s.lanes.barrier = true
	s.lanes.take(d, s.lanes.slot(s.lanes.hash(e)))
	d.add(e, bytes)
}

// send starts the Delivery.
func (s *session) send(ctx context.Context, d *delivery, now time.Time) {
	if d.mixed {
		sort.Sort(d)
	}
	s.number++
	d.Number = s.number
	first := d.Runs[0].Batch.Offset(int(d.Runs[0].From))
	if s.asideLast = d.aside; d.aside {
		s.passing++
	}
	w := s.cfg.window
	if w != nil {
		d.Replay = w.job
		w.live.beside.charged.Add(int64(d.Events))
	}
	switch {
	case d.aside:
		d.Reason = s.passReason(d)
	case d.Attempt > 1:
		d.Reason = pipeline.ReasonRetry
	case w != nil:
		d.Reason = pipeline.ReasonReplay
	case first < s.start.High:
		d.Reason = pipeline.ReasonReclaim
	}
	if d.Aside = d.aside; s.cfg.Whole {
		d.Ends = d.ends()
	}
	if s.cfg.Timeout > 0 {
		d.Deadline = now.Add(s.cfg.Timeout)
	}
	d.sent = now
	s.turn.begin(d, now)
	s.inflight++
	s.outage.Sent(d.Number)
	if s.limiter != nil {
		d.ticket = s.limiter.Sent(now)
	}
	if s.lanes.windowed {
		s.lanes.window = append(s.lanes.window, d)
	}
	s.wg.Go(func() {
		if s.cfg.Admit != nil {
			d.err = s.cfg.Admit(&d.Delivery)
		}
		if d.err == nil {
			d.outcomes, d.err = s.cfg.Sink.Deliver(ctx, &d.Delivery)
		}
		end := time.Now()
		d.took = end.Sub(d.sent)
		d.grant.Done(d.Bytes, end)
		s.results <- d
	})
}
