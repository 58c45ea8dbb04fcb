package deliver

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/selection"
)

// hold is a rewind or a fenced replay that has begun: the live session passes over the events of its keys from
// offset Live on, as over those of parked keys, while the pass delivers the window again and then, for the first
// time, what was passed over. At the end of the pass the keys go live. So a park, a rewind and a fenced replay are
// one mechanism; what differs is who is held, and from where the pass begins.
//
// Which keys are held is decided by key alone: tables and filters narrow what is delivered again, but the events
// of a key stay in order whatever their table.
type hold struct {
	// job as it stands. The session's goroutine writes At, High, Done, Dead; commands the rest, between sessions.
	// Both under Subscription.mu; Run's goroutine reads without.
	job   pipeline.Job
	scope *selection.Scope
	// spaces are the key spaces of the named tables; nil: all.
	spaces map[string]bool
	order  Order
	// stored is At on disk.
	stored pipeline.Offset
	// given is how far the pass has given out; 0: not known, as it began in another process. High on disk is never
	// below it: reserved in advance, by as much as is given out in about a second.
	given    pipeline.Offset
	reserve  pipeline.Offset
	reserved time.Time
}

const (
	leastReserve = 256
	mostReserve  = 1 << 20
)

func newHold(c *Config, j pipeline.Job) (*hold, error) {
	scope, err := selection.Compile(j.Scope, c.Form)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", j.ID, err)
	}
	h := &hold{job: j, scope: scope, order: c.Order, stored: j.At}
	if len(j.Scope.Tables) > 0 {
		h.spaces = map[string]bool{}
		for _, t := range c.Log.Tables() {
			if scope.HasTable(t) {
				h.spaces[t.KeySpace] = true
			}
		}
	}
	return h, nil
}

// covers reports whether the live session leaves the event to the pass.
func (h *hold) covers(b *pipeline.Batch, i int) bool {
	switch h.order {
	case OrderSource:
		return true
	case OrderNone:
		return false // nothing has to wait
	}
	if h.scope.ByKey() {
		return h.scope.HasKey(b, i)
	}
	if h.spaces == nil {
		return true
	}
	t := b.TableOf(i)
	return t != nil && h.spaces[t.KeySpace]
}

// stops reports whether the live session cannot go on over the event: a truncate takes rows away that the pass is
// still to deliver, and is not the pass's, as it is about other keys too.
func (h *hold) stops(b *pipeline.Batch, i int) bool {
	return h.order == OrderKey && b.Events[i].Op == pipeline.OpTruncate && h.scope.ByKey() && h.scope.HasSpace(b.TableOf(i))
}

// follows: what is delivered again is chosen by key: from a key's first event that is meant on, all of them, so that
// each ends with its newest version.
func (h *hold) follows() bool {
	return h.order != OrderNone && (h.scope.Filters() || h.job.Stop > 0)
}

// from is where the pass begins to read: what it follows is found anew.
func (h *hold) from() pipeline.Offset {
	if h.follows() {
		return min(h.job.From, h.job.At)
	}
	return h.job.At
}

// running: the pass is to go on.
func (h *hold) running() bool { return h.job.State == pipeline.JobRunning }

// selector of what is delivered again below Live.
func (h *hold) selector(c *Config) *selection.Selector {
	s := selection.New(c.Name, nil, h.scope) // the pass has applied the subscription's own filter
	if h.follows() {
		until := h.job.Live
		if h.job.Stop > 0 {
			until = h.job.Stop
		}
		s.Follow(c.Order == OrderSource, until)
	}
	return s
}

// resolvedTo is below what has not been delivered for the first time.
func (h *hold) resolvedTo() pipeline.Offset { return max(h.job.Live, h.job.At) }

// takeHold passes over an event of a key that is held, or lets it wait for the pass. on false: nothing goes on yet.
func (s *session) takeHold(e entry) (held, on bool) {
	h := s.sub.hold
	b, i := e.it.batch, int(e.ev)
	if h.stops(b, i) {
		return true, false
	}
	handed := s.pass != nil && s.pass.hold != nil && s.pass.handover > 0 && e.offset() >= s.pass.handover
	if !h.covers(b, i) {
		return false, true // the insert half of a key change may wait for its delete: see waitsForHold
	}
	if handed && e.event().Op.Barrier() {
		return true, false
	}
	s.stream.advance(1)
	s.open++
	if handed {
		s.join(e)
	} else {
		s.passOver(e)
	}
	return true, true
}

// waitsForHold: the delete half before e is the pass's, and not delivered yet. An insert half of a key that is not
// held waits in memory, and what follows of its key.
func (s *session) waitsForHold(e entry) bool {
	h, p := s.sub.hold, s.pass
	if e.ev == 0 {
		return false
	}
	o := e.offset() - 1
	if e.it.pass && !p.front.Done(o) {
		return true
	}
	if h == nil || o < h.job.Live || !h.covers(e.it.batch, int(e.ev)-1) {
		return false
	}
	if p == nil || p.hold == nil {
		return true // it is paused
	}
	if p.handover > 0 && o >= p.handover {
		return false // a live event: the frontier knows
	}
	return !p.front.Done(o)
}

// copyOf is the job that an event is a copy of, empty when it is none.
func (s *session) copyOf(e entry) string {
	h := s.sub.hold
	if h == nil || !e.it.pass || h.job.Kind != pipeline.JobFenced || e.offset() >= h.job.Live || s.first(e) {
		return ""
	}
	return h.job.ID
}

// first: the event was not delivered before, as its key is parked.
func (s *session) first(e entry) bool {
	p := s.sub.parks.find(e.it.batch, int(e.ev))
	return p != nil && e.offset() >= p.From
}

// passReason is why a Delivery of the pass is made, by its first event.
func (s *session) passReason(d *delivery) pipeline.Reason {
	h := s.sub.hold
	e := entry{it: d.items[0], ev: d.Runs[0].From}
	switch {
	case h == nil || s.first(e):
		return pipeline.ReasonRedrive
	case e.offset() < h.job.Live:
		return pipeline.ReasonReplay
	}
	return pipeline.ReasonFirst
}

// counted notes an event of the window that the pass has delivered, or given up on.
func (s *session) counted(o pipeline.Offset, pass, dead bool) {
	h := s.sub.hold
	if h == nil || !pass || o >= h.job.Live {
		return
	}
	s.sub.mu.Lock()
	defer s.sub.mu.Unlock()
	if h.job.Done++; dead {
		h.job.Dead++
	}
	h.job.Total = max(h.job.Total, h.job.Done)
}

// progress brings the job up to what the pass has delivered.
func (s *session) progress() {
	h, p := s.sub.hold, s.pass
	if h == nil || p == nil || p.hold == nil {
		return
	}
	if h.given > 0 {
		h.given = max(h.given, p.front.End())
	}
	at := max(h.job.At, p.front.Low())
	if at == h.job.At {
		return
	}
	s.sub.mu.Lock()
	h.job.At = at
	s.sub.mu.Unlock()
}

// reserve makes durable how far the pass may give out, before it does: a key that was taken back is known after a
// crash too.
func (s *session) reserve(to pipeline.Offset, now time.Time) error {
	h := s.sub.hold
	if h == nil || s.pass.hold == nil || to <= h.job.High {
		return nil
	}
	if now.Sub(h.reserved) < time.Second {
		h.reserve = min(2*h.reserve, mostReserve)
	} else {
		h.reserve = h.reserve / 2
	}
	h.reserve, h.reserved = max(h.reserve, leastReserve), now
	s.sub.mu.Lock()
	h.job.High = to + h.reserve
	s.sub.mu.Unlock()
	return s.saveHold()
}

// takeHoldStore waits for its turn to store the job: an older state never comes behind a newer one.
func (s *Subscription) takeHoldStore(ctx context.Context) error {
	select {
	case s.holdStore <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("save a job: the one before is not done: %w", ctx.Err())
	}
}

func (s *Subscription) giveHoldStore() { <-s.holdStore }

// storeHold makes the job durable as it stands.
func (s *Subscription) storeHold(ctx context.Context) error {
	if err := s.takeHoldStore(ctx); err != nil {
		return err
	}
	defer s.giveHoldStore()
	s.mu.Lock()
	h := s.hold
	if h == nil {
		s.mu.Unlock()
		return nil
	}
	j := h.job
	s.mu.Unlock()
	if err := s.cfg.Jobs.PutJob(ctx, j); err != nil {
		return fmt.Errorf("save job %s: %w", j.ID, err)
	}
	s.mu.Lock()
	h.stored = j.At
	s.mu.Unlock()
	return nil
}

// saveHold makes the job durable with the session's end.
func (s *session) saveHold() error {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	return s.sub.storeHold(ctx)
}

// endHold ends the job: all that was held is delivered, or waits in memory for its turn.
func (s *session) endHold(ctx context.Context) error {
	h := s.sub.hold
	if h == nil || s.pass.hold == nil {
		return nil
	}
	j := h.job
	j.State, j.Ended, j.Reason = pipeline.JobDone, time.Now(), ""
	if j.Stop > 0 {
		j.State, j.Reason = pipeline.JobCancelled, h.job.Reason
	}
	if n := s.heldBack(h); n > 0 {
		j.Reason = strings.TrimPrefix(fmt.Sprintf("%s; parked keys keep what they hold of it (%d): leat redrive %s brings that", j.Reason, n, s.cfg.Name), "; ")
	}
	j.At = max(j.At, j.Live)
	if err := s.sub.takeHoldStore(ctx); err != nil {
		return err
	}
	defer s.sub.giveHoldStore()
	s.sub.mu.Lock()
	h.job = j // when it cannot be told whether the end is durable, nothing older is stored behind it
	s.sub.mu.Unlock()
	if err := s.cfg.Jobs.PutJob(ctx, j); err != nil {
		return fmt.Errorf("end job %s: %w", j.ID, err)
	}
	s.sub.setHold(nil)
	return nil
}

// heldBack counts the parks that hold keys of the job: those that failed again, and those that had been parked.
func (s *session) heldBack(h *hold) (n int) {
	s.sub.parks.all(func(k *parked) {
		if !k.Redrive && k.interval == nil && h.means(k) {
			n++
		}
	})
	return n
}

// means reports whether a parked key is one that the job is about.
func (h *hold) means(k *parked) bool {
	if k.Single && (k.From < h.job.From || k.From >= h.job.Live) {
		return false
	}
	if h.scope.ByKey() {
		return h.scope.Names(k.Space, []byte(k.Key))
	}
	return h.spaces == nil || h.spaces[k.Space]
}

func (s *Subscription) setHold(h *hold) {
	s.mu.Lock()
	s.hold = h
	s.mu.Unlock()
	if h == nil {
		select {
		case s.holdEnded <- struct{}{}:
		default:
		}
	}
}
