package deliver

import (
	"container/heap"
	"math"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// heldKey is a key (a hash) whose events do not go the usual way: one of them failed, or waits for the
// delete of its key change. While it is held, all events of the key queue here.
type heldKey struct {
	hash uint64
	slot uint32
	// list holds its events in offset order; list[:out] are in flight.
	list   []entry
	out    int
	flight *delivery
	// limit is how many events go at the next try; 0 = what fits.
	limit int
	// unit that the key waits in; others that name it are stale.
	unit *unit
	// awaited counts events of the key in Deliveries that were out when it began to be held: until they
	// have settled nothing of the key is sent, so that nothing is sent twice or out of order.
	awaited int
	// failedAt is the lowest offset that failed: what lies above is delivered again, whatever came of it.
	failedAt pipeline.Offset

	fail     *failure // in the pass that settles now
	failed   int      // its events that failed or followed a failure in that pass
	tries    int      // failed tries, however many events went
	spent    int      // those that are known to be the first event's own
	since    time.Time
	away     time.Duration // of the outage's total at since
	attempts []pipeline.Attempt
	own      uint32 // bit i: attempts[i] is one of spent
	// aside: it is redriven; what of it the log held comes by the pass.
	aside bool
	// parked: what of it still comes home is passed over; then it is held no more.
	parked bool
	// givenUp: see there; nil most of the time.
	givenUp *givenUp
	// exhausted: attempts are spent and the subscription is blocked by it.
	exhausted bool
}

// givenUp is an event whose end could not be written: that may have been done all the same, so that the event is not
// sent again, but its end written again.
type givenUp struct {
	at     pipeline.Offset
	reason string
	spent  bool
}

// failure is what came of the first event of a key that failed.
type failure struct {
	pipeline.Outcome
	// whole: the Delivery failed as a whole, class says how; which event is at fault is unknown.
	whole bool
	class pipeline.DeliveryClass
}

// maxAttempts bounds the list of attempts that a dead letter shows: the newest.
const maxAttempts = 20

func (k *heldKey) push(e entry) { k.list = append(k.list, e) }

// insert puts an event that came back late where it belongs.
func (k *heldKey) insert(e entry) {
	o := e.offset()
	i := len(k.list)
	for i > 0 && k.list[i-1].offset() > o {
		i--
	}
	k.list = slices.Insert(k.list, i, e)
}

func (k *heldKey) pop() entry {
	e := k.list[0]
	k.list[0] = entry{}
	k.list = k.list[1:]
	return e
}

// calm forgets failures: the first event is another one now.
func (k *heldKey) calm(h *heldKeys) {
	if k.tries > 0 {
		h.failing--
	}
	k.tries, k.spent, k.since, k.attempts, k.own, k.failedAt, k.givenUp = 0, 0, time.Time{}, nil, 0, noOffset, nil
}

const noOffset = pipeline.Offset(math.MaxUint64)

// unit is what is tried again together.
type unit struct {
	keys []*heldKey
	due  time.Time
	// stage counts how often the whole has failed: once, and it is tried again as it is; twice, and it is
	// split.
	stage int
	// mix: it may share a Delivery with others like it.
	mix bool
}

// heldKeys are the held keys of a session and the units that wait or are ready.
type heldKeys struct {
	keys    map[uint64]*heldKey
	waiting unitHeap
	ready   []*unit
	aside   []*unit // ready, of keys that are redriven
	failing int     // keys with failed tries
	note    string  // about the last failure
}

func newHeldKeys() heldKeys { return heldKeys{keys: map[uint64]*heldKey{}} }

func (h *heldKeys) queue(u *unit) {
	for _, k := range u.keys {
		k.unit = u
	}
	if u.due.IsZero() {
		h.awake(u)
		return
	}
	heap.Push(&h.waiting, u)
}

// wake moves what is due.
func (h *heldKeys) wake(now time.Time) {
	for len(h.waiting) > 0 && !h.waiting[0].due.After(now) {
		h.awake(heap.Pop(&h.waiting).(*unit))
	}
}

func (h *heldKeys) awake(u *unit) {
	if len(u.keys) > 0 && u.keys[0].aside {
		h.aside = append(h.aside, u)
		return
	}
	h.ready = append(h.ready, u)
}

func (h *heldKeys) nextDue() time.Time {
	if len(h.waiting) == 0 {
		return time.Time{}
	}
	return h.waiting[0].due
}

type unitHeap []*unit

func (h unitHeap) Len() int           { return len(h) }
func (h unitHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h unitHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push and Pop are for container/heap.
func (h *unitHeap) Push(x any) { *h = append(*h, x.(*unit)) }

// Pop removes the last.
func (h *unitHeap) Pop() any {
	old := *h
	u := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return u
}

// hold begins to hold a key.
func (s *session) hold(hash uint64, slot uint32) *heldKey {
	k := &heldKey{hash: hash, slot: slot, failedAt: noOffset}
	s.held.keys[hash] = k
	s.lanes.heldIn[slot]++
	return k
}

// drop ends holding a key whose events are all done.
func (s *session) drop(k *heldKey) {
	k.calm(&s.held)
	s.unblock(k)
	k.unit = nil
	delete(s.held.keys, k.hash)
	s.lanes.heldIn[k.slot]--
}

func (s *session) unblock(k *heldKey) {
	if k.exhausted {
		k.exhausted = false
		s.blocked--
	}
}

// takeUnits gives d the retries that may go: one unit that goes alone, or as many as fit of those
// that mix.
func (s *session) takeUnits(d *delivery, from *[]*unit, now time.Time) {
	if len(*from) == 0 {
		return
	}
	units := *from
	*from = nil // what is queued meanwhile is not lost
	keep := units[:0]
	for i, u := range units {
		full := len(d.units) > 0 && !d.units[0].mix || d.Events >= s.most()
		if full {
			keep = append(keep, units[i:]...)
			break
		}
		if !s.takeUnit(d, u, now) {
			keep = append(keep, u)
		}
	}
	clear(units[len(keep):])
	*from = append(keep, *from...)
}

// takeUnit returns whether the unit has gone: with d, or because nothing of it is left.
func (s *session) takeUnit(d *delivery, u *unit, now time.Time) bool {
	u.keys = slices.DeleteFunc(u.keys, func(k *heldKey) bool { return k.unit != u })
	if len(u.keys) == 0 {
		return true
	}
	if k := u.keys[0]; k.givenUp != nil && k.awaited == 0 && len(k.list) > 0 && k.list[0].offset() == k.givenUp.at {
		s.bury(u, k, k.givenUp.reason, k.givenUp.spent, now)
		s.stirred = true
		return true
	}
	if s.blocked > 0 && !u.keys[0].exhausted || !u.mix && d.Events > 0 {
		return false
	}
	if s.outage.On() && len(u.keys) > 1 {
		if u = s.probeOf(u); u == nil {
			return false
		}
	}
	for _, k := range u.keys {
		if k.awaited > 0 || len(k.list) > 0 && k.waitsForPass(k.list[0]) {
			return false
		}
		if len(k.list) > 0 && s.waitsForPair(k.list[0]) {
			if p := s.pairPark(k.list[0]); p != nil && !p.Redrive {
				s.parkPaired(k, p, now)
				return s.takeUnit(d, u, now)
			}
			return false
		}
	}
	taken := false
	for _, k := range u.keys {
		if len(k.list) == 0 {
			s.drop(k)
			continue
		}
		n := s.takeKey(d, k, u.mix)
		if n == 0 {
			return false // only a unit of one key mixes
		}
		taken = true
		k.out, k.flight = n, d
		d.Attempt = max(d.Attempt, k.tries+1)
	}
	if taken {
		d.units = append(d.units, u)
		d.stage = max(d.stage, u.stage)
	}
	return true
}

func (s *session) takeKey(d *delivery, k *heldKey, mix bool) int {
	n := 0
	for _, e := range k.list {
		if k.limit > 0 && n == k.limit || n > 0 && s.outage.On() && !s.cfg.Whole || n > 0 && (s.waitsForPair(e) || k.waitsForPass(e)) {
			break
		}
		if s.sub.hold != nil {
			if job := s.copyOf(e); d.Events == 0 {
				d.Replay = job
			} else if d.Replay != job {
				break
			}
		}
		bytes := eventBytes(e.event())
		if (mix || k.limit == 0) && !s.fits(d, bytes) {
			break
		}
		d.add(e, bytes)
		n++
	}
	if n > 0 && s.lanes.windowed {
		s.lanes.take(d, k.slot)
	}
	return n
}
