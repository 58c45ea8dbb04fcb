package deliver

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver/frontier"
	"github.com/leat-cdc/leat/pipeline/flow"
	"github.com/leat-cdc/leat/pipeline/selection"
)

// session is one run of a subscription from a cursor on. Its loop's goroutine owns every field; the
// reader, the saver and the Deliveries are goroutines that only talk to it by channels.
type session struct {
	sub *Subscription
	cfg *Config

	share   *holding
	budget  *budget
	reading reading
	items   chan *item
	results chan *delivery
	wg      sync.WaitGroup // Deliveries

	front   frontier.Frontier
	start   pipeline.Cursor
	byRange laneCount
	live    itemList // items that are not done
	lanes   lanes
	stream  stream
	held    heldKeys
	outage  *flow.Outage // the subscription's
	// suspected is since when that is only that.
	suspected time.Time
	turn      *turn
	staged    staged
	pass      *pass // nil: none
	// passing counts Deliveries of the pass that are out; asideLast: the last one sent was one.
	passing   int
	asideLast bool
	gentle    bool // a replay beside what is live: see sched.Entry
	pace      pace
	speed     speed
	// limiter is the subscription's: what it learned outlives the session; nil: MaxInFlight alone counts.
	limiter *flow.Limiter
	// throttled until then, when a share of a Delivery is made of all or nothing.
	throttled time.Time
	save      saving

	open     int // events scanned (given out, deferred or held) and not done
	inflight int
	number   uint64 // of the last Delivery
	blocked  int    // keys whose attempts are spent
	maxBytes int    // of a Delivery: Config.Batch.Bytes, less after TooLarge
	clean    int    // Deliveries since the last TooLarge
	stirred  bool   // a key was parked: what waited for it may go on
	stopping bool
	paused   bool // a range began to pause: see leaveAll
	// rangesDue is when to see again whether retention passed a range that pauses; zero: none does.
	rangesDue time.Time
	end       error // why the session ends by itself
	// redrives are the parks of an outage, for the next session.
	redrives []Park

	delivered, failed uint64
	commit            int64 // commit time of the newest event delivered
}

func newSession(s *Subscription, cur pipeline.Cursor) *session {
	c := &s.cfg
	_, ordered := c.Sink.(pipeline.Ordered)
	sh := c.Memory.hold(c, s.asked)
	return &session{
		share: sh, sub: s, cfg: c, limiter: s.limiter, outage: &s.outage, number: s.number, start: cur, front: *frontier.New(cur.Low), maxBytes: c.Batch.Bytes,
		budget: sh.budget(c.Budget), items: make(chan *item, 64), results: make(chan *delivery, c.MaxInFlight),
		staged: staged{committed: make(chan error, 1)}, lanes: newLanes(c, ordered), stream: stream{pos: cur.Low}, held: newHeldKeys(), pace: newPace(c.Rate), turn: newTurn(c),
	}
}

// run is the session's loop. It returns the cursor to go on from (exact, though perhaps not saved), and
// what ended the session: ctx, a command that is still to be obeyed, or an error.
func (s *session) run(ctx context.Context) (pipeline.Cursor, *command, error) {
	sendCtx, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	if r, ok := s.cfg.Sink.(pipeline.Resumer); ok && s.cfg.window == nil {
		r.Resume(s.start)
	}
	s.reading.begin(ctx, s.reader())
	s.save.begin(s.sub, s.start)
	s.pass = newPass(s)

	timer := time.NewTimer(0)
	defer timer.Stop()
	var cmd *command
	for !s.stopping {
		now := time.Now()
		s.stepPass(sendCtx, now)
		s.leaveAll()
		s.turn.place(s.cfg)
		s.dispatch(sendCtx, now)
		s.commitRest(sendCtx)
		if s.stirred {
			s.stirred = false
			continue
		}
		s.persist(now)
		s.countLanes(now)
		s.expireRanges(now)
		s.publish()
		s.arm(timer, now)
		select {
		case it := <-s.items:
			s.arrived(it)
		case in := <-s.passed():
			s.passArrived(in)
		case d := <-s.results:
			s.returned(d, time.Now())
		case err := <-s.save.saved:
			s.save.noted(err)
		case err := <-s.staged.committed:
			s.isCommitted(err)
		case <-timer.C:
		case <-s.cfg.Throttle.wake():
		case <-s.turn.entry.Wake():
		case <-s.sub.beside.nudge:
		case c := <-s.sub.commands:
			cmd, s.stopping = &c, true
		case l := <-s.sub.looks:
			l.reply <- s.look(l)
		case <-s.share.asked:
			s.giveBack()
		case err := <-s.reading.err:
			s.reading.ended, s.stopping, s.end = true, true, err
		case <-ctx.Done():
			s.stopping = true
		}
		s.drain()
		if w := s.cfg.window; w != nil && s.end == nil && s.front.Low() >= w.to {
			s.end = errWindowDone
		}
		if s.end != nil {
			s.stopping = true
		}
	}
	s.reading.stop()
	s.turn.entry.Rest(time.Now())
	s.finish(abandon)
	s.reading.join()
	cur, err := s.close()
	if s.end == nil {
		s.end = err
	}
	return cur, cmd, s.end
}

func (s *session) reader() *reader {
	r := &reader{cfg: s.cfg, behind: &s.turn.behind, budget: s.budget, out: s.items, dead: &s.sub.dead, expired: &s.sub.expired, pos: s.start.Low,
		high: max(s.start.Low, s.start.High), pending: s.start.Pending}
	switch w := s.cfg.window; {
	case w != nil:
		r.only = selection.New(s.cfg.Name, s.cfg.Filter, w.scope)
	case s.cfg.Filter != nil:
		r.filter = s.cfg.Filter.New()
	}
	return r
}

// drain takes what else is there, so that Deliveries grow under load.
func (s *session) drain() {
	for {
		select {
		case it := <-s.items:
			s.arrived(it)
		case d := <-s.results:
			s.returned(d, time.Now())
		default:
			return
		}
	}
}

func (s *session) arrived(it *item) {
	s.save.dirty = true
	if !it.part {
		s.staged.closed = it.next
	}
	if it.left == 0 {
		s.front.Skip(it.next)
		if s.stream.empty() {
			s.stream.pos = it.next
		}
		it.release(s.budget, false)
		return
	}
	s.front.Skip(it.batch.Base)
	it.id = s.front.Add(it.next)
	// What lies between the runs was not selected, or was done before.
	at := s.base(it)
	for _, r := range it.runs {
		s.front.Mark(it.id, at, r.Batch.Offset(int(r.From)))
		at = r.Batch.Offset(int(r.To))
	}
	s.front.Mark(it.id, at, it.next)
	if s.stream.empty() {
		s.stream.since = time.Now()
	}
	s.stream.push(it)
	s.live.add(it)
}

// base is where the item's stretch of the frontier begins.
func (s *session) base(it *item) pipeline.Offset {
	return s.front.From(it.id)
}

// done marks events [from, to) of the item and lets it go with its last one.
func (s *session) done(it *item, from, to uint32) {
	if it.pass {
		p := s.pass
		it.left -= int(to - from)
		p.front.Mark(it.id, it.batch.Offset(int(from)), it.batch.Offset(int(to)))
		s.save.dirty = true
		if p.left -= int(to - from); it.left == 0 {
			p.items.remove(it)
			it.release(p.budget, true)
		}
		return
	}
	n := s.front.Mark(it.id, it.batch.Offset(int(from)), it.batch.Offset(int(to)))
	s.open -= n
	it.left -= n
	s.save.dirty = true
	if it.left == 0 {
		s.live.remove(it)
		it.release(s.budget, true)
	}
}

// arm sets the timer to the next moment at which something is due.
func (s *session) arm(t *time.Timer, now time.Time) {
	var next time.Time
	for _, due := range [...]time.Time{s.save.due, s.save.resolvedDue, s.held.nextDue(), s.outage.Due(), s.freshUntil(), s.stream.due(s.cfg), s.pace.free, s.throttled, s.flowDue(), s.byRange.due, s.rangesDue, s.passDue()} {
		// What was due and could not go waits for something else than time.
		if due.After(now) && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	if next.IsZero() {
		t.Stop()
		return
	}
	t.Reset(next.Sub(now))
}

// finish lets the Deliveries in flight end: by themselves within the grace, then abandoned.
func (s *session) finish(abandon func()) {
	grace := time.NewTimer(s.cfg.Grace)
	defer grace.Stop()
	if d, ok := s.cfg.Sink.(pipeline.Drainer); ok {
		d.Drain(true)
		defer d.Drain(false)
	}
	for s.inflight > 0 || s.staged.busy {
		select {
		case err := <-s.staged.committed:
			s.isCommitted(err)
		case d := <-s.results:
			s.returned(d, time.Now())
		case it := <-s.items: // read again next time
			it.release(s.budget, false)
		case <-grace.C:
			abandon()
		}
	}
	s.wg.Wait()
}

// close saves the cursor and gives back all memory.
func (s *session) close() (pipeline.Cursor, error) {
	s.settleWindow(time.Now())
	s.giveUp()
	cur := s.cursor()
	s.publish()
	err := s.save.finish(cur)
	s.dropPass()
	err = errors.Join(err, s.saveHold())
	s.sub.number = s.number
	for _, p := range s.redrives {
		s.sub.parks.set(p)
	}
	for s.live.first != nil {
		it := s.live.first
		s.live.remove(it)
		it.release(s.budget, false)
	}
	for {
		select {
		case it := <-s.items:
			it.release(s.budget, false)
		default:
			s.share.close()
			return cur, err
		}
	}
}

// publish tells Status where the session stands.
func (s *session) publish() {
	state, reason, until := s.state()
	sub := s.sub
	sub.mu.Lock()
	st := &sub.status
	st.Low, st.Read = s.low(), s.front.End()
	if s.staged.from > 0 {
		st.Read = st.Low // the log has to keep it
	}
	st.InFlight, st.Open, st.Held, st.Buffered = s.inflight, s.open, len(s.held.keys), s.budget.used.Load()
	st.Parked = sub.parks.len()
	s.tellFlow(st)
	sub.beside.speed = s.speed.rate()
	st.Delivered += s.delivered
	st.Failed += s.failed
	st.Dead = sub.dead.Load()
	if s.commit > 0 {
		st.Commit = time.UnixMicro(s.commit).UTC()
	}
	same := st.State == state
	st.Reason, st.Until = reason, until
	sub.mu.Unlock()
	sub.beside.oldest.Store(s.oldest())
	s.delivered, s.failed = 0, 0
	if !same {
		sub.setState(state, reason, until)
	}
}

// oldest is the commit time of the oldest event that is open, 0 when none is.
func (s *session) oldest() int64 {
	it := s.live.first
	if it == nil {
		return 0
	}
	return it.batch.Txs[it.batch.Events[it.runs[0].From].Tx].Time
}

func (s *session) state() (state, reason string, until time.Time) {
	switch {
	case s.blocked > 0:
		return StateBlocked, s.held.note, s.retryDue()
	case s.outage.Sure():
		return StateWaiting, s.outage.Reason(), s.outage.Until()
	case s.held.failing > 0:
		return StateRetrying, s.held.note, s.held.nextDue()
	}
	return StateRunning, "", time.Time{}
}

// retryDue is when something is tried again: not while the endpoint is away.
func (s *session) retryDue() time.Time {
	due := s.held.nextDue()
	if s.outage.On() && s.outage.Until().After(due) {
		return s.outage.Until()
	}
	return due
}
