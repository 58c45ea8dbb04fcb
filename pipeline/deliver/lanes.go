package deliver

import (
	"slices"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// entry is one event that is not done.
type entry struct {
	it *item
	ev uint32
	as pipeline.Op
}

func (e entry) event() *pipeline.Event  { return &e.it.batch.Events[e.ev] }
func (e entry) offset() pipeline.Offset { return e.it.batch.Offset(int(e.ev)) }

// eventBytes is what an event counts for in Batch.Bytes.
func eventBytes(e *pipeline.Event) int {
	n := 0
	for _, s := range [...]pipeline.Span{e.Key, e.Before, e.After} {
		if s.Present() {
			n += int(s.Len)
		}
	}
	return n
}

// stream is what was read and not scanned yet: items in log order, and a place in the first.
type stream struct {
	items []*item
	head  int
	run   int
	ev    uint32 // next event of that run; 0 = its first
	begun bool   // ev counts
	pos   pipeline.Offset
	ready int       // events not scanned
	since time.Time // when it was last empty
}

func (t *stream) empty() bool { return t.head == len(t.items) }

func (t *stream) push(it *item) {
	if t.head > 64 && t.head > len(t.items)/2 {
		n := copy(t.items, t.items[t.head:])
		clear(t.items[n:])
		t.items, t.head = t.items[:n], 0
	}
	t.items = append(t.items, it)
	t.ready += it.left
}

// drop takes the last item out, if it is not the first: nothing of it was scanned. Nil: there is none.
func (t *stream) drop() *item {
	if len(t.items)-t.head < 2 {
		return nil
	}
	n := len(t.items) - 1
	it := t.items[n]
	t.items[n], t.items = nil, t.items[:n]
	t.ready -= it.left
	return it
}

// peek returns the run in front, what is left of it.
func (t *stream) peek() (*item, pipeline.Run) {
	it := t.items[t.head]
	r := it.runs[t.run]
	if t.begun {
		r.From = t.ev
	}
	return it, r
}

// advance passes over n events of the run in front.
func (t *stream) advance(n uint32) {
	it, r := t.peek()
	t.ready -= int(n)
	t.ev, t.begun = r.From+n, true
	t.pos = it.batch.Offset(int(t.ev))
	if t.ev < r.To {
		return
	}
	t.run, t.begun = t.run+1, false
	if t.run == len(it.runs) {
		t.pos = it.next
		t.run = 0
		t.items[t.head] = nil
		t.head++
		if t.head == len(t.items) {
			t.items, t.head = t.items[:0], 0
		}
	}
}

// due is when Batch.Wait has passed for what is there; zero when nothing waits for it.
func (t *stream) due(c *Config) time.Time {
	if c.Batch.Wait == 0 || t.empty() {
		return time.Time{}
	}
	return t.since.Add(c.Batch.Wait)
}

// lanes keep the order of keys. Keys are told apart by slot, a part of their hash: two keys of one slot
// delay each other, nothing more.
type lanes struct {
	order Order
	// windowed: an Ordered sink; any number of Deliveries may hold a key, they settle in order.
	windowed bool
	// exclusive: a slot is held by one Delivery at a time; what comes meanwhile queues in the slot.
	exclusive bool
	mask      uint64
	slots     []slot
	ready     []uint32 // slots with a queue that nobody holds
	readyHead int
	heldIn    []uint16 // how many held keys a slot has
	window    []*delivery
	barrier   bool // a barrier is out: nothing follows until it is done
}

// slot is small, as there may be many: what few of them have stands behind a pointer.
type slot struct {
	holder  *delivery
	waiting *waiting // nil: nothing queues
}

// waiting is a queue: list[head:], never empty while a slot has it.
type waiting struct {
	list []entry
	head int
}

var queues = sync.Pool{New: func() any { return new(waiting) }}

func (s *slot) push(e entry) {
	if s.waiting == nil {
		s.waiting = queues.Get().(*waiting)
	}
	s.waiting.list = append(s.waiting.list, e)
}

// queued is what waits in the slot; it stays the slot's.
func (s *slot) queued() []entry {
	if s.waiting == nil {
		return nil
	}
	return s.waiting.list[s.waiting.head:]
}

// keep replaces what waits in the slot by the first n of it.
func (s *slot) keep(n int) {
	q := s.waiting
	if q == nil {
		return
	}
	clear(q.list[q.head+n:])
	if q.list = q.list[:q.head+n]; n == 0 {
		q.list, q.head = q.list[:0], 0
		s.waiting = nil
		if cap(q.list) <= 1024 {
			queues.Put(q)
		}
	}
}

func newLanes(c *Config, ordered bool) lanes {
	l := lanes{order: c.Order, windowed: ordered && c.Order != OrderNone, exclusive: !ordered && c.Order != OrderNone}
	n, most := uint64(64), uint64(8192)
	if l.exclusive { // large Deliveries side by side: few of the next one's keys are to meet those that are out
		most = 1 << 16
	}
	if c.Order != OrderSource {
		for n < most && n < uint64(c.MaxInFlight)*uint64(c.Batch.Events)*2 {
			n *= 2
		}
	}
	l.mask = n - 1
	if l.exclusive {
		l.slots = make([]slot, n)
	}
	l.heldIn = make([]uint16, n)
	return l
}

// hash is what orders the event: events of different hashes may overtake each other.
func (l *lanes) hash(e entry) uint64 {
	switch l.order {
	case OrderKey:
		return e.event().Hash
	case OrderNone:
		return uint64(e.offset())
	default:
		return 0
	}
}

func (l *lanes) slot(hash uint64) uint32 { return uint32(hash * 0x9e3779b97f4a7c15 >> 40 & l.mask) }

// admit decides whether a scanned event may go with d now. If not, it is queued in its slot.
func (l *lanes) admit(d *delivery, n uint32, e entry) bool {
	if !l.exclusive {
		return true
	}
	s := &l.slots[n]
	if s.waiting != nil || s.holder != nil && s.holder != d {
		s.push(e)
		return false
	}
	return true
}

// take makes d the holder of the slot.
func (l *lanes) take(d *delivery, n uint32) {
	switch {
	case l.windowed:
		d.bits[n/64] |= 1 << (n % 64)
	case l.exclusive && l.slots[n].holder == nil:
		l.slots[n].holder = d
		d.slots = append(d.slots, n)
	}
}

// release frees the slots of d.
func (l *lanes) release(d *delivery) {
	for _, n := range d.slots {
		s := &l.slots[n]
		s.holder = nil
		if s.waiting != nil {
			l.ready = append(l.ready, n)
		}
	}
	d.slots = d.slots[:0]
}

// nextReady returns a slot with a queue that nobody holds.
func (l *lanes) nextReady() (uint32, bool) {
	if l.readyHead == len(l.ready) {
		l.ready, l.readyHead = l.ready[:0], 0
		return 0, false
	}
	n := l.ready[l.readyHead]
	l.readyHead++
	return n, true
}

func (s *slot) pop() (entry, bool) {
	q := s.waiting
	if q == nil {
		return entry{}, false
	}
	e := q.list[q.head]
	q.list[q.head] = entry{}
	q.head++
	switch left := len(q.list) - q.head; {
	case left == 0:
		s.keep(0)
	case q.head > 64 && q.head > left:
		copy(q.list, q.list[q.head:])
		q.head = 0
		s.keep(left)
	}
	return e, true
}

// unpop gives the first entry back.
func (s *slot) unpop(e entry) {
	if s.waiting == nil {
		s.push(e)
		return
	}
	if q := s.waiting; q.head > 0 {
		q.head--
		q.list[q.head] = e
	} else {
		q.list = slices.Insert(q.list, 0, e)
	}
}
