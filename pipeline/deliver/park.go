package deliver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// storeTimeout bounds what the loop waits for the state.
const storeTimeout = 30 * time.Second

// parksFull: what is given up on blocks, as there is no room to park it.
func (s *session) parksFull() bool {
	return s.cfg.Exhausted == ExhaustedPark && s.sub.parks.len() >= maxParks
}

// parkOf describes the park of an event.
func (s *session) parkOf(e entry, reason, keyJSON string, attempts int) Park {
	ev, b := e.event(), e.it.batch
	p := Park{Subscription: s.cfg.Name, Log: s.start.Log, Key: slices.Clone(b.Bytes(ev.Key)), KeyJSON: keyJSON, Hash: ev.Hash,
		From: e.offset(), Single: s.lanes.order == OrderNone, Reason: reason, Attempts: attempts, Since: time.Now()}
	if t := b.TableOf(int(e.ev)); t != nil {
		p.Space = t.KeySpace
	}
	return p
}

// park holds a key by offset from its first event on, which becomes the dead letter, if there is one. Both are
// durable before any of these events counts as done.
func (s *session) park(k *heldKey, p Park, letter *pipeline.DeadLetter) error {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if err := s.sub.strike(ctx); err != nil {
		return err
	}
	put := func() error { return s.cfg.Store.PutParks(ctx, []Park{p}) }
	if letter != nil {
		put = func() error { return s.cfg.Store.Bury(ctx, *letter, p) }
	}
	if err := put(); err != nil {
		return fmt.Errorf("store a park: %w", err)
	}
	if was := s.sub.parks.own(p.Hash, p.From); was != nil && was.stored > p.From { // it comes again behind this one
		s.sub.cured = append(s.sub.cured, was.stored)
	}
	s.sub.parks.set(p)
	s.stirred = true
	for _, e := range k.list {
		s.passOver(e)
	}
	k.list = nil
	s.unblock(k)
	k.calm(&s.held)
	s.purge(k)
	if k.parked = true; k.awaited == 0 {
		s.drop(k)
	}
	return nil
}

// strike takes what was redriven off the list of dead letters; before any park of it moves on, so that a crash
// between redrives once more and strikes then.
func (s *Subscription) strike(ctx context.Context) error {
	if len(s.cured) == 0 {
		return nil
	}
	if err := s.cfg.Store.DeleteDeadLetters(ctx, s.cfg.Name, s.cured); err != nil {
		return fmt.Errorf("forget dead letters that were redriven: %w", err)
	}
	s.cured = nil
	return nil
}

// listed reads which dead letters may be struck off: nothing is redriven before that is known, as letters of what is
// delivered would stay.
func (s *session) listed(now time.Time) bool {
	p := s.pass
	if p.listed || now.Before(p.again) {
		return p.listed
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	dead, err := s.cfg.Store.DeadOffsets(ctx, s.cfg.Name, p.fed)
	if err != nil {
		s.unsaved(fmt.Errorf("read the dead letters: %w", err))
		p.again = now.Add(s.backoff(1, 0))
		return false
	}
	p.dead, p.listed, p.again = dead, true, time.Time{}
	return true
}

// purge takes a parked key's events out of its slot's queue: they are older than what is read later.
func (s *session) purge(k *heldKey) {
	if !s.lanes.exclusive {
		return
	}
	sl := &s.lanes.slots[k.slot]
	kept := slices.DeleteFunc(sl.queued(), func(e entry) bool {
		if s.lanes.hash(e) != k.hash {
			return false
		}
		s.passOver(e)
		return true
	})
	sl.keep(len(kept))
}

// passOver is what happens to an event that is held by offset: for this session it is done.
func (s *session) passOver(e entry) { s.done(e.it, e.ev, e.ev+1) }

// taken notes an event as delivered.
func (s *session) taken(e entry) {
	if e.it.pass {
		if p := s.sub.parks.find(e.it.batch, int(e.ev)); p != nil && p.Redrive && p.interval == nil {
			p.at = max(p.at, e.offset()+1)
			if _, dead := slices.BinarySearch(s.pass.dead, e.offset()); dead {
				s.sub.cured = append(s.sub.cured, e.offset())
			}
		}
	}
	s.counted(e.offset(), e.it.pass, false)
	s.done(e.it, e.ev, e.ev+1)
}

// insertHalf: the second half of a key change.
func insertHalf(e *pipeline.Event) bool {
	return e.Flags&pipeline.FlagKeyChange != 0 && e.Op == pipeline.OpInsert
}

// waitsForPair: the insert half of a key change goes when its delete is done; a table-wide event that was
// parked goes when the live reading is done with what lies before.
func (s *session) waitsForPair(e entry) bool {
	if s.lanes.order == OrderSource {
		return false
	}
	if e.it.pass && e.event().Op.Barrier() {
		return s.front.Low() < e.offset()
	}
	if !insertHalf(e.event()) {
		return false
	}
	return !s.front.Done(e.offset()-1) || s.pairPark(e) != nil || s.waitsForHold(e)
}

// pairPark returns the park that holds the delete half of an insert half.
func (s *session) pairPark(e entry) *parked {
	if e.ev == 0 || !s.sub.parks.any() || !insertHalf(e.event()) {
		return nil
	}
	p := s.sub.parks.find(e.it.batch, int(e.ev)-1)
	if p == nil || p.at >= e.offset() {
		return nil
	}
	if e.it.pass && p.Redrive && s.pass.front.Done(e.offset()-1) {
		return nil // retention took the delete: it never comes
	}
	selected := e.it.runs
	switch {
	case e.it.pass:
		selected = e.it.selected
	case e.offset() <= s.start.High: // after a restart runs are what was not done, not all that was selected
		return p
	}
	if !slices.ContainsFunc(selected, func(r pipeline.Run) bool { return r.From < e.ev && e.ev <= r.To }) {
		return nil // nobody is to see the delete
	}
	return p
}

// parkPaired parks a key whose first event is the insert half of a key change whose delete is parked.
func (s *session) parkPaired(k *heldKey, with *parked, now time.Time) {
	e := k.list[0]
	name, key := fmt.Sprintf("%x", with.Key), ""
	if s.cfg.Render != nil {
		_, key = s.cfg.Render(e.it.batch, int(e.ev), e.as)
		_, name = s.cfg.Render(e.it.batch, int(e.ev)-1, pipeline.OpNone)
	}
	p := s.parkOf(e, "it waits for the delete of key "+name+", which is parked", key, 0)
	p.Paired, p.PairHash = true, e.it.batch.Events[e.ev-1].Hash
	if err := s.park(k, p, nil); err != nil {
		s.unsaved(err)
		s.held.queue(&unit{keys: []*heldKey{k}, due: now.Add(s.backoff(1, 0)), mix: true})
	}
}

// unsaved tells about state that could not be written; what depends on it is tried again.
func (s *session) unsaved(err error) {
	s.held.note = err.Error()
	s.cfg.Observer.Warned("subscription "+s.cfg.Name, s.held.note, "see that the data folder has space and can be written")
}
