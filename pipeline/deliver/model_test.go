package deliver

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/pipeline/sched"
)

// world is a subscriber that fails at random, and remembers what it is to remember.
type world struct {
	mu       sync.Mutex
	rand     *rand.Rand
	order    Order
	ordered  bool
	trouble  float64 // share of Deliveries that go wrong
	poison   map[pipeline.Offset]bool
	log      []seen
	flying   map[string]int
	overlap  string
	resolved pipeline.Offset
	back     string
	told     int // epoch of resolved
	epoch    int
	out      map[uint64]*flight
	accepted map[pipeline.Offset]bool
	memory   *memory
	memlog   *pipetest.MemoryLog
	barriers map[pipeline.Offset]bool
	ranges   bool     // some may pause
	parks    bool     // dead letters are parked: all is accepted in the end
	hashes   []uint64 // of the events, from first on
	ops      []pipeline.Op
	replays  []replay
}

// parked: held by offset.
func (w *world) parked(o pipeline.Offset) bool {
	w.memory.mu.Lock()
	defer w.memory.mu.Unlock()
	for _, id := range []pipeline.ParkID{{Hash: w.hashes[o-first]}, {Hash: w.hashes[o-first], Single: o}} {
		if _, ok := w.memory.parks[id]; ok {
			return true
		}
	}
	for _, p := range w.memory.parks {
		key := fmt.Sprintf("key-%d", w.hashes[o-first])
		if p.Interval && o >= p.From && !w.ops[o-first].Barrier() && (pipeline.Range{Start: p.Key, End: p.Until}).Contains([]byte(key)) {
			return true
		}
	}
	return false
}

// done: accepted, or a dead letter.
func (w *world) done(o pipeline.Offset) bool {
	w.memory.mu.Lock()
	defer w.memory.mu.Unlock()
	_, dead := w.memory.dead[o]
	return dead && !w.parks || w.accepted[o]
}

// arrives checks an event that is sent now against what must be done first.
func (w *world) arrives(b *pipeline.Batch, i int) {
	o, e := b.Offset(i), &b.Events[i]
	if w.order == OrderSource {
		return
	}
	if e.Flags&pipeline.FlagKeyChange != 0 && e.Op == pipeline.OpInsert && !w.done(o-1) {
		w.overlap = fmt.Sprintf("insert %d of a key change was sent before its delete was done", o)
	}
	for barrier := range w.barriers {
		if barrier < o && !w.done(barrier) && !w.parked(barrier) {
			w.overlap = fmt.Sprintf("%d was sent before barrier %d was done", o, barrier)
		}
	}
	if e.Op.Barrier() {
		w.barriers[o] = true
		for before := first; before < o; before++ {
			if !w.done(before) && !w.parked(before) {
				w.overlap = fmt.Sprintf("barrier %d was sent before %d was done", o, before)
			}
		}
	}
}

// seen is one event of one Delivery.
type seen struct {
	epoch  int
	number uint64
	offset pipeline.Offset
	key    string
	ok     bool
	job    string
}

// flight is a Delivery that is out; revoked are the keys of it that failed earlier, from an offset on.
type flight struct {
	events  []seen
	revoked map[string]pipeline.Offset
}

func (w *world) key(b *pipeline.Batch, i int) string {
	switch w.order {
	case OrderSource:
		return "all"
	case OrderNone:
		return fmt.Sprint(b.Offset(i))
	default:
		if w.ranges && b.Events[i].Op.Barrier() { // no range holds it, though here it has a key
			return fmt.Sprint("barrier ", b.Offset(i))
		}
		return string(b.Bytes(b.Events[i].Key))
	}
}

// Deliver takes a random time and answers at random.
func (w *world) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	w.mu.Lock()
	delay := time.Duration(w.rand.IntN(300)) * time.Millisecond
	if w.rand.IntN(8) == 0 { // now and then longer than a retry waits
		delay *= 20
	}
	dice, class := w.rand.Float64(), w.rand.IntN(8)
	in := map[string]bool{}
	var events []seen
	last := map[string]pipeline.Offset{}
	_ = d.Each(func(_ int, b *pipeline.Batch, i int, _ pipeline.Op) error {
		k := w.key(b, i)
		if o, ok := last[k]; ok && o >= b.Offset(i) {
			w.overlap = fmt.Sprintf("%d after %d within a Delivery", b.Offset(i), o)
		}
		last[k] = b.Offset(i)
		in[k] = true
		w.arrives(b, i)
		if d.Replay != "" && !w.done(b.Offset(i)) {
			w.overlap = fmt.Sprintf("%d came as a copy for the first time", b.Offset(i))
		}
		events = append(events, seen{w.epoch, d.Number, b.Offset(i), k, false, d.Replay})
		return nil
	})
	if len(events) != d.Events {
		w.overlap = fmt.Sprintf("Events says %d, there are %d", d.Events, len(events))
	}
	for k := range in {
		if w.flying[k]++; w.flying[k] > 1 && !w.ordered {
			w.overlap = "two Deliveries with key " + k
		}
	}
	f := &flight{events, map[string]pipeline.Offset{}}
	w.out[d.Number] = f
	w.mu.Unlock()
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := range in {
		w.flying[k]--
	}
	delete(w.out, d.Number)
	var out pipeline.Outcomes
	err := ctx.Err()
	if err == nil {
		out, err = w.answer(d, events, dice, class)
	}
	if w.ordered && err == nil && len(out) == len(events) {
		w.revoke(f, out)
	}
	for n := range events {
		events[n].ok = err == nil && (out == nil || len(out) == len(events) && out[n].Class == pipeline.OK)
		w.accepted[events[n].offset] = w.accepted[events[n].offset] || events[n].ok
		if w.ordered && !events[n].ok {
			for _, other := range w.out {
				other.revoke(events[n])
			}
		}
	}
	w.log = append(w.log, events...)
	return out, err
}

func (f *flight) revoke(e seen) {
	if at, ok := f.revoked[e.key]; !ok || e.offset < at {
		f.revoked[e.key] = e.offset
	}
}

// revoke keeps the contract of pipeline.Ordered: when an event failed, no later one of its key is taken.
func (w *world) revoke(f *flight, out pipeline.Outcomes) {
	for n, e := range f.events {
		if at, ok := f.revoked[e.key]; ok && e.offset > at && out[n].Class == pipeline.OK {
			out[n] = pipeline.Outcome{Class: pipeline.Retry, Reason: "an earlier event failed"}
		}
		if out[n].Class != pipeline.OK {
			f.revoke(e)
		}
	}
}

func (w *world) answer(d *pipeline.Delivery, events []seen, dice float64, class int) (pipeline.Outcomes, error) {
	bad := func(c pipeline.DeliveryClass) error { return &pipeline.DeliveryError{Class: c, Reason: "dice"} }
	poisoned := slices.ContainsFunc(events, func(e seen) bool { return w.poison[e.offset] })
	if dice < w.trouble {
		switch class {
		case 0, 1:
			return nil, bad(pipeline.Retriable)
		case 2:
			return nil, bad(pipeline.Unavailable)
		case 3:
			if d.Events > 1 {
				return nil, bad(pipeline.TooLarge)
			}
		case 4:
			return pipeline.Outcomes{{Class: pipeline.Retry}, {}, {}}[:w.rand.IntN(2)*2+1], nil // often malformed
		}
	}
	if poisoned && w.rand.IntN(2) == 0 {
		return nil, bad(pipeline.Retriable)
	}
	out := make(pipeline.Outcomes, len(events))
	for n, e := range events {
		switch {
		case w.poison[e.offset]:
			out[n] = pipeline.Outcome{Class: pipeline.Retry, Reason: "poison"}
		case dice < w.trouble && w.rand.IntN(3) == 0:
			out[n] = pipeline.Outcome{Class: pipeline.Class(w.rand.IntN(3)) + pipeline.Retry, Delay: time.Duration(w.rand.IntN(2)) * time.Second, Reason: "dice"}
			if out[n].Class == pipeline.Fatal && w.rand.IntN(4) > 0 {
				out[n].Class = pipeline.Defer
			}
		}
	}
	return out, nil
}

// Resolve takes a random time, fails now and then, and not at all while the process is dead.
func (w *world) Resolve(ctx context.Context, o pipeline.Offset, _ time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o < w.resolved || o == w.resolved && w.epoch == w.told {
		w.back = fmt.Sprintf("resolved %d after %d", o, w.resolved)
	}
	took, fails := time.Duration(w.rand.IntN(1000))*time.Millisecond, w.rand.IntN(8) == 0
	w.mu.Unlock()
	t := time.NewTimer(took)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	w.mu.Lock()
	if ctx.Err() != nil || fails {
		return fmt.Errorf("not taken")
	}
	w.resolved, w.told = o, w.epoch
	for below := first; below < o; below++ {
		if !w.done(below) {
			w.back = fmt.Sprintf("resolved %d, but %d was not delivered", o, below)
		}
	}
	return nil
}

func (w *world) Close() error { return nil }

// check looks for what must never be.
func (w *world) check(total int, m *memory) error {
	if w.overlap != "" {
		return fmt.Errorf("%s", w.overlap)
	}
	if w.back != "" {
		return fmt.Errorf("%s", w.back)
	}
	done := map[pipeline.Offset]bool{}
	offsets := map[string][]pipeline.Offset{}
	slices.SortStableFunc(w.log, func(a, b seen) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.number, b.number))
	})
	for _, e := range w.log {
		done[e.offset] = done[e.offset] || e.ok
		if i, ok := slices.BinarySearch(offsets[e.key], e.offset); !ok {
			offsets[e.key] = slices.Insert(offsets[e.key], i, e.offset)
		}
	}
	for o := first; o < first+pipeline.Offset(total); o++ {
		if _, dead := m.dead[o]; !done[o] && (!dead || w.parks) {
			return fmt.Errorf("offset %d was neither accepted nor dead-lettered", o)
		}
	}
	return w.checkOrder(offsets, m)
}

// checkOrder: what is sent of a key begins anywhere at or before what was sent already, and goes on
// from there without leaving anything out.
func (w *world) checkOrder(offsets map[string][]pipeline.Offset, m *memory) error {
	last := map[string]pipeline.Offset{}
	for _, e := range w.log {
		for _, o := range offsets[e.key] {
			if _, dead := m.dead[o]; o > last[e.key] && o < e.offset && (!dead || w.parks) {
				return fmt.Errorf("key %s: %d was sent after %d, %d lies between: %v", e.key, e.offset, last[e.key], o, w.log)
			}
		}
		last[e.key] = e.offset
	}
	for k, all := range offsets {
		if _, dead := m.dead[all[len(all)-1]]; last[k] != all[len(all)-1] && (!dead || w.parks) {
			return fmt.Errorf("key %s ends with %d, its newest is %d", k, last[k], all[len(all)-1])
		}
	}
	return nil
}

// plan is one random history.
type plan struct {
	seed             uint64
	order            Order
	ordered          bool
	events, keys     int
	batch, inFlight  int
	trouble          float64
	poison           int
	crashes          int
	barriers, pairs  bool
	exhausted        Exhausted
	wait             time.Duration
	tinyBudget, skip bool
	redrives         int
	retains          int
	rewinds          int
	rangeParks       int // 0: no range was split
}

func drawPlan(t *rapid.T) plan {
	p := plan{
		seed: rapid.Uint64().Draw(t, "seed"), order: Order(rapid.IntRange(0, 2).Draw(t, "order")), ordered: rapid.Bool().Draw(t, "ordered"),
		events: rapid.IntRange(1, 120).Draw(t, "events"), keys: rapid.IntRange(1, 12).Draw(t, "keys"),
		batch: rapid.IntRange(1, 12).Draw(t, "batch"), inFlight: rapid.IntRange(1, 6).Draw(t, "inFlight"),
		trouble: float64(rapid.IntRange(0, 6).Draw(t, "trouble")) / 10, poison: rapid.IntRange(0, 3).Draw(t, "poison"),
		crashes: rapid.IntRange(0, 3).Draw(t, "crashes"), barriers: rapid.Bool().Draw(t, "barriers"), pairs: rapid.Bool().Draw(t, "pairs"),
		wait: time.Duration(rapid.IntRange(0, 1).Draw(t, "wait")) * 50 * time.Millisecond, tinyBudget: rapid.Bool().Draw(t, "tiny"),
		exhausted: ExhaustedSkip,
	}
	if p.order != OrderSource && rapid.IntRange(0, 2).Draw(t, "park") > 0 {
		p.exhausted, p.redrives = ExhaustedPark, rapid.IntRange(0, 3).Draw(t, "redrives")
		p.retains = rapid.IntRange(0, 4).Draw(t, "retains")
		p.rangeParks = rapid.IntRange(0, 3).Draw(t, "rangeParks")
	}
	p.rewinds = rapid.IntRange(0, 3).Draw(t, "rewinds")
	return p
}

// TestRandomHistories: whatever the subscriber answers and however often the process dies, every event is
// accepted or a dead letter, keys keep their order, resolved never goes back, memory comes back.
func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		var err error
		synctest.Test(t, func(t *testing.T) { err = simulate(t, p) })
		if err != nil {
			rt.Fatalf("%+v: %v", p, err)
		}
	})
}

func simulate(t *testing.T, p plan) error {
	r := rand.New(rand.NewPCG(p.seed, 1))
	w := &world{rand: rand.New(rand.NewPCG(p.seed, 2)), order: p.order, ordered: p.ordered, trouble: p.trouble,
		poison: map[pipeline.Offset]bool{}, flying: map[string]int{}, out: map[uint64]*flight{}}
	for range p.poison {
		w.poison[first+pipeline.Offset(r.IntN(p.events))] = true
	}
	l, m := pipetest.NewMemoryLog("log", first), newMemory()
	w.memlog = l
	w.memory, w.accepted, w.barriers = m, map[pipeline.Offset]bool{}, map[pipeline.Offset]bool{}
	c := config(l, m, w)
	if p.ordered {
		c.Sink = orderedWorld{w}
	}
	c.Order, c.MaxInFlight, c.Batch = p.order, p.inFlight, Batch{Events: p.batch, Wait: p.wait}
	c.Retry, c.Exhausted, c.Resolved = Retry{Initial: time.Second, Max: 10 * time.Second, Attempts: 5}, p.exhausted, time.Second
	w.parks = p.exhausted == ExhaustedPark
	if p.tinyBudget {
		c.Budget = 1
	}
	if p.seed%2 == 0 { // hardly ever its turn
		c.Gate = sched.NewGate(1)
	}
	press := func() {}
	if p.seed%3 == 0 { // somebody else wants most of the memory, at times
		c.Memory, c.Credit = NewMemory(4000), 1
		press = pressure(t, c.Memory, r)
	}
	total := 0
	var maps *partition.Maps
	if p.rangeParks > 0 {
		w.ranges = true
		c.RangeParks, maps = p.rangeParks, reshape(t, l, new(partition.Maps), r)
	}
	sub := start(t, c)
	for total < p.events {
		var changes []change
		for range min(1+r.IntN(20), p.events-total) {
			ch := change{key: uint64(r.IntN(p.keys))}
			switch {
			case p.barriers && r.IntN(20) == 0:
				ch.op = pipeline.OpTruncate
			case p.pairs && r.IntN(5) == 0 && total+len(changes)+2 <= p.events:
				changes = append(changes, change{key: ch.key, op: pipeline.OpDelete, pair: true})
				ch = change{key: uint64(r.IntN(p.keys)), op: pipeline.OpInsert, pair: true}
			}
			changes = append(changes, ch)
		}
		if len(changes) > p.events-total {
			changes = changes[:p.events-total]
		}
		total += len(changes)
		w.mu.Lock()
		for _, ch := range changes {
			w.hashes, w.ops = append(w.hashes, ch.key), append(w.ops, ch.op)
		}
		w.mu.Unlock()
		appendTo(t, l, changes...)
		if maps != nil && r.IntN(4) == 0 {
			maps = reshape(t, l, maps, r)
		}
		press()
		if p.seed%3 == 0 && r.IntN(2) == 0 {
			synctest.Wait()
			signal(sub.asked)
		}
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond) // virtual
		if p.crashes > 0 && r.IntN(4) == 0 {
			p.crashes--
			if r.IntN(2) == 0 { // with a write of dead letters or parks, if there comes one
				m.mu.Lock()
				m.buries = 1 + r.IntN(3)
				m.mu.Unlock()
				time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
			}
			sub = crash(sub, c, m, w, t)
		}
		if p.redrives > 0 && r.IntN(4) == 0 {
			p.redrives--
			if err := redrive(sub, r); err != nil {
				return err
			}
		}
		if p.retains > 0 && r.IntN(3) == 0 {
			p.retains--
			sub = retain(sub, l, c, m, w, r, t)
		}
		if p.rewinds > 0 && r.IntN(3) == 0 {
			p.rewinds--
			if err := w.rewind(sub, l, r, p); err != nil {
				return err
			}
		}
		if err := w.meddle(sub, r); err != nil {
			return err
		}
	}
	w.resume(sub)
	deadline := time.Now().Add(24 * time.Hour)
	for sub.Status().Low < first+pipeline.Offset(total) || replaying(sub) {
		if time.Now().After(deadline) {
			st := sub.Status()
			sub.end()
			return fmt.Errorf("stuck: %+v", st)
		}
		time.Sleep(time.Second)
	}
	if w.parks {
		var err error
		if sub, err = cure(t, p, r, w, sub, c, m); err != nil {
			return err
		}
	}
	for told := pipeline.Offset(0); told < first+pipeline.Offset(total) && time.Now().Before(deadline); {
		time.Sleep(3 * time.Second)
		w.mu.Lock()
		told = w.resolved
		w.mu.Unlock()
	}
	st := sub.Status()
	sub.end()
	if st.Open != 0 || st.Held != 0 || st.Buffered != 0 || st.InFlight != 0 || st.State != StateRunning {
		return fmt.Errorf("not at rest: %+v", st)
	}
	if cur := m.cursor("sub"); cur.Low != first+pipeline.Offset(total) || cur.Resolved > cur.Low {
		return fmt.Errorf("cursor %+v of %d", cur, total)
	}
	if w.resolved != first+pipeline.Offset(total) {
		return fmt.Errorf("resolved %d of %d", w.resolved, total)
	}
	if len(m.skips) > 0 || len(m.held) > 0 {
		return fmt.Errorf("retention took what was wanted: %v; %d copies are left", m.skips, len(m.held))
	}
	if err := w.checkReplays(m, p); err != nil {
		return err
	}
	return w.check(total, m)
}

// reshape splits a range, or merges two.
func reshape(t *testing.T, l pipeline.Log, maps *partition.Maps, r *rand.Rand) *partition.Maps {
	t.Helper()
	space := table.KeySpace
	have := maps.Map(space).Ranges()
	n := r.IntN(len(have))
	c, err := maps.Split(space, have[n].ID, []byte(fmt.Sprintf("key-%d", r.IntN(12))), "")
	if len(have) > 2 && r.IntN(2) == 0 {
		n = r.IntN(len(have) - 1)
		c, err = maps.Merge(space, []uint64{have[n].ID, have[n+1].ID}, "")
	}
	if err != nil { // not in it
		return maps
	}
	next, err := maps.Apply(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(context.Background(), pipetest.Changed(c)); err != nil {
		t.Fatal(err)
	}
	return next
}

// retain is what the engine does: what parks hold is copied, then retention takes the log below; the process may die
// before, between and after, or half-way.
func retain(s *run, l *pipetest.MemoryLog, c Config, m *memory, w *world, r *rand.Rand, t *testing.T) *run {
	below := m.cursor("sub").Low
	if o, ok := s.Progress(); ok {
		below = min(below, o)
	}
	if _, wanted, ok := s.Replaying(); ok {
		below = min(below, wanted)
	}
	if oldest, _ := l.Bounds(); below <= oldest {
		return s
	}
	dies := r.IntN(6)
	if dies == 0 {
		m.mu.Lock()
		m.dies = 1 + r.IntN(3)
		m.mu.Unlock()
	}
	err := CopyHeld(context.Background(), below, s.Subscription)[0]
	m.mu.Lock()
	m.dies = 0
	m.mu.Unlock()
	if err != nil || dies == 1 {
		s = crash(s, c, m, w, t)
		if CopyHeld(context.Background(), below, s.Subscription)[0] != nil {
			return s
		}
	}
	l.Truncate(below)
	if dies == 2 {
		s = crash(s, c, m, w, t)
	}
	return s
}

// redrive asks for all parks, or for one.
func redrive(s *run, r *rand.Rand) error {
	var some []ParkKey
	if ps := s.Parked(); len(ps) > 0 && r.IntN(2) == 0 {
		some = []ParkKey{{Space: ps[0].Space, Key: ps[0].Key}}
	}
	_, err := s.Redrive(context.Background(), some)
	return err
}

// cure makes the subscriber well and redrives, dying now and then: in the end nothing is parked.
func cure(t *testing.T, p plan, r *rand.Rand, w *world, sub *run, c Config, m *memory) (*run, error) {
	w.mu.Lock()
	for o := first; o < first+pipeline.Offset(len(w.hashes)); o++ {
		if !w.done(o) && !w.parked(o) {
			w.overlap = fmt.Sprintf("%d is neither delivered nor parked", o)
		}
	}
	w.trouble, w.poison = 0, nil
	w.mu.Unlock()
	deadline := time.Now().Add(24 * time.Hour)
	for n := 0; m.parked() > 0; n++ {
		if time.Now().After(deadline) {
			st := sub.Status()
			sub.end()
			return sub, fmt.Errorf("stuck: %+v %+v", st, sub.Parked())
		}
		if p.retains > 0 && r.IntN(4) == 0 {
			p.retains--
			sub = retain(sub, w.memlog, c, m, w, r, t)
		}
		if n%60 == 0 {
			if err := redrive(sub, r); err != nil {
				return sub, err
			}
		}
		time.Sleep(time.Duration(r.IntN(1000)) * time.Millisecond)
		if p.crashes > 0 && r.IntN(2) == 0 {
			p.crashes--
			sub = crash(sub, c, m, w, t)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.dead) > 0 {
		return sub, fmt.Errorf("all was redriven, and dead letters are listed: %v", m.dead)
	}
	return sub, nil
}

// crash loses what was not saved: the next Run sees the state of this moment.
func crash(s *run, c Config, m *memory, w *world, t *testing.T) *run {
	saved := m.cursor("sub")
	m.setFail(fmt.Errorf("the process is dead"))
	s.stop()
	<-s.done
	m.setFail(nil)
	m.mu.Lock()
	m.cursors["sub"], m.buries = saved, 0
	m.mu.Unlock()
	w.epoch++
	return start(t, c)
}

// orderedWorld marks the world's sink, and lets it be a Resolver still.
type orderedWorld struct{ *world }

func (orderedWorld) Ordered() {}
