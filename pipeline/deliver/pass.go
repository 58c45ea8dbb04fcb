package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver/frontier"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/selection"
)

const (
	// passAttempts of an event in a pass: then its key is parked again, so that it holds up no other for long.
	passAttempts = 3
	// passTail is how far behind the live reading a pass may be when the keys are handed over: what comes in
	// meanwhile waits in memory. passRounds bounds how often it tries to come nearer first.
	passTail   = 4096
	passRounds = 16
	// passShare of MaxInFlight, and of Budget, is what a pass may have.
	passShare, passBudget = 10, 8
)

// pass delivers again what parked keys and a hold hold. It begins with a session and reads the log once for all keys to
// be redriven, from the lowest From, in rounds: each up to where the live reading stood when it began. The
// live session passes the keys over all the while. A round that ends where the live reading still stands is
// the last; or, the pass being near, offset handover is fixed: live events of the keys from there on wait in
// memory until the pass has delivered all below. Then the parks are forgotten, first on disk.
type pass struct {
	name   string                       // of the subscription
	keys   map[uint64]pipeline.Offset   // From by hash
	one    map[pipeline.Offset]struct{} // Single
	ranges []*parked                    // that pause; as they were when the round began
	parks  *parks
	filter *filter.Filter
	fails  []filter.Failure

	// hold is the session's, unless it is paused; only picks what of its window is meant. The reader looks at
	// what of the job does not change: live, and at as it was.
	hold     *hold
	only     *selection.Selector
	live, at pipeline.Offset
	clipped  []pipeline.Run

	front   frontier.Frontier // what of that was read is done
	budget  *budget
	arrived chan passed
	cancel  context.CancelFunc // of the round's reader
	items   itemList
	dead    []pipeline.Offset // letters that may be struck off, in order; once listed
	listed  bool
	rest    rest // what of an item waits behind a barrier
	barrier bool // one is out: nothing follows until it is done

	fed     pipeline.Offset // all below was read
	to      pipeline.Offset // and will be when the round ends
	reading bool
	left    int // events that were given to their keys and are not done
	rounds  int
	// handover: see pass; 0 = not yet.
	handover pipeline.Offset
	again    time.Time // when what failed is tried again
}

// passed is what a round's reader sends: an item, that there was none up to an offset, or its end.
type passed struct {
	it   *item
	upTo pipeline.Offset
	err  error
}

// rest is the runs of an item from one on.
type rest struct {
	it  *item
	run int
}

// passMark is after how many batches a round's reader says how far it is.
const passMark = 64

// newPass returns nil when no park is to be redriven and nothing is held, or what is held is paused.
func newPass(s *session) *pass {
	p := &pass{name: s.cfg.Name, parks: &s.sub.parks, fed: noOffset, budget: s.share.budget(max(1, s.cfg.Budget/passBudget)), arrived: make(chan passed)}
	if h := s.sub.hold; h != nil && !h.running() {
		return nil // a key that it took back would run ahead of what it is still to be brought
	}
	s.sub.openRanges()
	s.sub.parks.all(func(k *parked) {
		if k.Redrive {
			p.fed = min(p.fed, k.From)
		}
	})
	if h := s.sub.hold; h != nil {
		p.hold, p.only, p.live, p.at = h, h.selector(s.cfg), h.job.Live, h.job.At
		p.fed = min(p.fed, h.from())
	}
	if p.fed == noOffset {
		return nil
	}
	p.front = *frontier.New(p.fed)
	if s.cfg.Filter != nil {
		p.filter = s.cfg.Filter.New()
	}
	return p
}

// choose notes which keys are redriven: some may have been parked since the last round.
func (p *pass) choose(s *session) {
	p.keys, p.one = map[uint64]pipeline.Offset{}, map[pipeline.Offset]struct{}{}
	p.ranges = nil
	s.sub.parks.all(func(k *parked) {
		switch {
		case !k.Redrive:
		case k.Single:
			p.one[k.From] = struct{}{}
		case k.interval != nil:
			p.ranges = append(p.ranges, &parked{interval: k.interval, From: k.From})
		default:
			p.keys[k.Hash] = k.From
		}
	})
}

// scanned is where live events begin that were not given out yet.
func (s *session) scanned() pipeline.Offset { return max(s.stream.pos, s.start.High) }

// passed is where a round's reader sends to; nil when there is no pass.
func (s *session) passed() chan passed {
	if p := s.pass; p == nil || p.rest.it != nil || p.barrier {
		return nil
	}
	return s.pass.arrived
}

func (s *session) passDue() time.Time {
	if s.pass == nil {
		return time.Time{}
	}
	return s.pass.again
}

// stepPass does what is next for the pass.
func (s *session) stepPass(ctx context.Context, now time.Time) {
	p := s.pass
	if p != nil && p.left == 0 {
		if p.barrier = false; p.rest.it != nil {
			s.feed()
		}
	}
	if p == nil || p.reading || p.left > 0 || !s.listed(now) {
		return
	}
	at := s.scanned()
	switch {
	case p.handover > 0 || p.fed >= at:
		if !now.Before(p.again) {
			s.endPass(now)
		}
		return
	case at-p.fed <= s.sub.passTail || p.rounds >= passRounds:
		p.handover = at
	default:
		p.rounds++
	}
	p.choose(s)
	p.to, p.reading = at, true
	ctx, p.cancel = context.WithCancel(ctx)
	go p.read(ctx, s.cfg, p.fed, p.to)
}

// endPass lets the keys go live: all that was held below is delivered.
func (s *session) endPass(now time.Time) {
	var gone []Park
	var over []*parked
	s.sub.parks.all(func(k *parked) {
		if k.Redrive {
			gone, over = append(gone, k.park(s.cfg.Name)), append(over, k)
			// A crash may have come between the park and the cursor: then live has its event still before it.
			if _, dead := slices.BinarySearch(s.pass.dead, k.stored); dead && k.interval == nil && k.at <= k.stored && !slices.Contains(s.sub.cured, k.stored) {
				s.sub.cured = append(s.sub.cured, k.stored)
			}
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	err := s.sub.strike(ctx)
	if err == nil {
		err = s.cfg.Store.DeleteParks(ctx, gone)
	}
	if err != nil {
		s.sub.unsure = true
		s.unsaved(fmt.Errorf("forget parks: %w", err))
		s.pass.again = now.Add(s.backoff(1, 0))
		return
	}
	s.progress()
	if err := s.endHold(ctx); err != nil {
		s.unsaved(err)
		s.sub.unsure = true
		s.pass.again = now.Add(s.backoff(1, 0))
		return
	}
	for _, k := range over {
		s.sub.parks.remove(k)
	}
	for _, k := range s.held.keys {
		k.aside = false
	}
	s.held.ready, s.held.aside = append(s.held.ready, s.held.aside...), nil
	s.save.dirty = true // resolved may move
	s.pass = nil
}

// passArrived takes what a round's reader sent.
func (s *session) passArrived(in passed) {
	p := s.pass
	switch {
	case in.it != nil:
	case in.upTo > 0:
		p.front.Skip(in.upTo)
		s.save.dirty = true
		return
	default:
		p.cancel()
		if p.reading = false; in.err != nil {
			s.end = fmt.Errorf("redrive: read the log: %w", in.err)
			return
		}
		p.fed = p.to
		p.front.Skip(p.to)
		return
	}
	it := in.it
	p.items.add(it)
	if err := s.reserve(it.next, time.Now()); err != nil {
		s.end = err
		return
	}
	p.front.Skip(it.batch.Base)
	at := p.front.End()
	it.id = p.front.Add(it.next)
	for _, r := range it.runs { // what lies between is nobody's
		p.front.Mark(it.id, at, it.batch.Offset(int(r.From)))
		at = it.batch.Offset(int(r.To))
	}
	p.front.Mark(it.id, at, it.next)
	p.rest = rest{it: it}
	s.feed()
}

// feed gives the events of the item in front to their keys, up to a table-wide event: that goes when all before it
// is done, and what follows when it is.
func (s *session) feed() {
	p := s.pass
	it, runs := p.rest.it, p.rest.it.runs // a run is one event
	for n := p.rest.run; n < len(runs); n++ {
		e := entry{it, runs[n].From, runs[n].As}
		last := n == len(runs)-1
		barrier := s.lanes.order == OrderKey && e.event().Op.Barrier()
		if barrier && p.left > 0 {
			p.rest.run = n
			return
		}
		p.left++
		if s.parkedAgain(e) {
			barrier = false
			s.passOver(e) // with the last one the item may be gone
		} else {
			s.join(e)
		}
		if barrier {
			if p.rest, p.barrier = (rest{it: it, run: n + 1}), true; last {
				p.rest = rest{}
			}
			return
		}
		if last {
			break
		}
	}
	p.rest = rest{}
}

// parkedAgain: the event's key was parked since the event was chosen, or is not redriven.
func (s *session) parkedAgain(e entry) bool {
	k := s.sub.parks.find(e.it.batch, int(e.ev))
	if k == nil {
		return s.pass.hold == nil
	}
	return !k.Redrive && (s.pass.hold == nil || e.offset() >= k.From)
}

// join gives an event to its key, which is held.
func (s *session) join(e entry) {
	hash := s.lanes.hash(e)
	k := s.held.keys[hash]
	if k == nil {
		k = s.hold(hash, s.lanes.slot(hash))
		k.aside = true
		s.held.queue(&unit{keys: []*heldKey{k}, mix: true})
	}
	k.insert(e)
}

// waitsForPass: a live event of a key that is handed over goes when the pass has ended.
func (k *heldKey) waitsForPass(e entry) bool { return k.aside && !e.it.pass }

// mayPass: a Delivery of the pass may go. A hold's has a fifth of the limit, and while the live session has nothing
// to send all but one.
func (s *session) mayPass(idle bool) bool {
	if len(s.held.aside) == 0 {
		return false
	}
	limit := s.cfg.MaxInFlight / passShare
	if s.pass != nil && s.pass.hold != nil {
		if limit = int(asideShare * float64(s.cfg.MaxInFlight)); idle {
			limit = s.limit() - 1
		}
	}
	return s.passing < max(1, limit)
}

// dropPass ends it with the session; the next one goes on where each key stands.
func (s *session) dropPass() {
	p := s.pass
	if p == nil {
		return
	}
	if p.reading {
		p.cancel()
		for in := range p.arrived {
			if in.it == nil {
				break
			}
			in.it.release(p.budget, false)
		}
	}
	for p.items.first != nil {
		it := p.items.first
		p.items.remove(it)
		it.release(p.budget, false)
	}
	s.progress()
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if err := s.sub.strike(ctx); err != nil {
		s.unsaved(err)
	}
	s.sub.parks.mu.Lock()
	defer s.sub.parks.mu.Unlock()
	s.sub.parks.all(func(k *parked) {
		switch {
		case k.interval != nil && k.Redrive:
			k.From = max(k.From, p.front.Low())
		case k.interval == nil && s.lanes.order != OrderNone:
			k.From = k.at
		}
	})
}

// read is the goroutine of one round.
func (p *pass) read(ctx context.Context, c *Config, from, to pipeline.Offset) {
	err := p.each(ctx, c, &from, to)
	for gone := (*pipeline.TruncatedError)(nil); ctx.Err() == nil && errors.As(err, &gone); {
		if err = p.fromCopies(ctx, c, &from, min(gone.Oldest, to)); err == nil {
			err = p.each(ctx, c, &from, to)
		}
	}
	if ctx.Err() != nil {
		err = nil
	}
	p.arrived <- passed{err: err} // the loop takes it, or dropPass
}

func (p *pass) each(ctx context.Context, c *Config, from *pipeline.Offset, to pipeline.Offset) error {
	if *from >= to {
		return nil
	}
	lr, err := c.Log.Read(*from)
	if err != nil {
		return err
	}
	defer lr.Close()
	for read := 1; *from < to; read++ {
		if err := p.budget.wait(ctx, true); err != nil {
			return err
		}
		b, err := lr.Next(ctx)
		if err != nil {
			return err
		}
		next := max(*from, b.Next())
		if err := p.hand(ctx, b, max(*from, b.Base), min(to, next)); err != nil { // and b is no longer ours
			return err
		}
		*from = next
		if read%passMark != 0 {
			continue
		}
		select {
		case p.arrived <- passed{upTo: min(*from, to)}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// hand sends what the keys hold of a batch, whose reference it takes over.
func (p *pass) hand(ctx context.Context, b *pipeline.Batch, from, to pipeline.Offset) error {
	it, err := p.item(ctx, b, from, to)
	if err != nil || it == nil {
		b.Release()
		return err
	}
	select {
	case p.arrived <- passed{it: it}:
		return nil
	case <-ctx.Done():
		it.release(p.budget, false)
		return ctx.Err()
	}
}

// item picks what the keys hold of a batch; nil when that is nothing.
func (p *pass) item(ctx context.Context, b *pipeline.Batch, from, to pipeline.Offset) (*item, error) {
	if from >= to || !b.Meant(p.name) {
		return nil, nil
	}
	it := items.Get().(*item)
	lo := max(0, int(from-b.Base)-1) // an insert half looks at its delete
	if p.filter != nil {
		// What the filter fails on became a dead letter when it was read live.
		it.selected, p.fails = p.filter.Select(b, lo, int(to-b.Base), it.selected, p.fails[:0])
	} else {
		it.selected = append(it.selected, pipeline.Run{Batch: b, From: uint32(lo), To: uint32(to - b.Base)})
	}
	p.clip(b, it.selected)
	clip := 0
	for _, r := range it.selected {
		for ev := r.From; ev < r.To; ev++ {
			o := b.Offset(int(ev))
			for clip < len(p.clipped) && p.clipped[clip].To <= ev {
				clip++
			}
			if o < from {
				continue
			}
			at, held := p.keys[b.Events[ev].Hash]
			if held = held && at <= o; !held {
				_, held = p.one[o]
			}
			if !held && len(p.ranges) > 0 {
				held = p.holds(b, int(ev))
			}
			if !held && p.hold != nil && o >= p.at {
				held = o >= p.live && p.hold.covers(b, int(ev)) || clip < len(p.clipped) && p.clipped[clip].From <= ev
			}
			if held {
				it.runs = append(it.runs, pipeline.Run{Batch: b, From: ev, To: ev + 1, As: r.As})
				it.left++
			}
		}
	}
	if it.left == 0 {
		it.release(p.budget, false)
		return nil, nil
	}
	size := int64(b.Size())
	if err := p.budget.take(ctx, size, true); err != nil {
		it.release(p.budget, false)
		return nil, err
	}
	it.pass, it.batch, it.next, it.size = true, b, min(to, b.Next()), size
	return it, nil
}

// clip finds what of the hold's window is in runs.
func (p *pass) clip(b *pipeline.Batch, runs []pipeline.Run) {
	p.clipped = p.clipped[:0]
	if p.hold == nil || b.Base >= p.live {
		return
	}
	for _, r := range runs {
		if r.To = uint32(min(b.Offset(int(r.To)), p.live) - b.Base); r.From < r.To {
			p.clipped = p.only.Narrow(b, r, p.clipped)
		}
	}
}

// lost lists what retention took of what parked keys held.
func (p *pass) lost(ctx context.Context, c *Config, from, oldest pipeline.Offset) error {
	s := Skip{Subscription: c.Name, Time: time.Now(), Ranges: []pipeline.OffsetRange{{From: from, To: oldest}},
		Reason: "retention removed it before parked keys were redriven: only their events"}
	if err := c.Store.PutSkip(ctx, s); err != nil {
		return fmt.Errorf("list what is skipped: %w", err)
	}
	c.Observer.Warned("subscription "+c.Name, fmt.Sprintf("offsets %d to %d were removed by retention before %d parked keys and %d ranges that paused were redriven: their events in there are skipped and listed",
		from, oldest-1, len(p.keys)+len(p.one), len(p.ranges)), pipeline.BringRows+"; redrive sooner, or give the log more retention (log.retention)")
	return nil
}
