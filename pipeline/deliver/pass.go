package deliver

import (
	"context"
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
	// least is the lowest handover: up to it a sink of whole transactions may have committed, before a crash, what lies
	// about the keys' events, and would take them for done when they came live.
	least pipeline.Offset
	again time.Time // when what failed is tried again
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
	if s.cfg.Whole {
		_, p.least = s.cfg.Log.Bounds()
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
	early := at < p.least
	switch {
	case p.handover > 0 || p.fed >= at && !early:
		if !now.Before(p.again) {
			s.endPass(now)
		}
		return
	case at-p.fed <= s.sub.passTail || p.rounds >= passRounds:
		if early || !s.between() {
			return
		}
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
	if p.left == 0 && !s.between() {
		return
	}
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
