package deliver

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Park is a key that is held by offset: see [pipeline.Park].
type Park = pipeline.Park

// ParkKey names a parked key: its key space and the encoded key.
type ParkKey struct {
	Space string
	Key   []byte
}

// maxParks of a subscription: beyond it the next event whose attempts are spent blocks.
const maxParks = 10_000

// parked is a park as the running subscription knows it: there may be very many, so what only people read stays in
// the store.
type parked struct {
	Hash, PairHash          uint64
	Space, Key              string
	From                    pipeline.Offset
	Single, Paired, Redrive bool
	// spent: it comes of attempts that were spent, not of a refusal for good.
	spent bool
	since int64 // microseconds
	// at is the lowest event that the pass has not delivered; From until the pass begins.
	at pipeline.Offset
	// stored is the From on disk.
	stored pipeline.Offset
	// interval: it is of all these keys; nil: of one.
	interval *pipeline.Range
	// copied as Park.Copied; the copier moves it, from a goroutine of its own.
	copied atomic.Uint64
}

// parks of a subscription. Only Run's goroutine writes, under mu; it reads without.
type parks struct {
	mu   sync.Mutex
	keys map[uint64]*parked
	one  map[pipeline.Offset]*parked // Single
	// ranges that pause, which keys has too; they do not overlap.
	ranges []*parked
	// sieve has a bit set for each hash in keys, and perhaps others; nil: nothing is parked.
	sieve  []uint64
	spaces map[string]string
	low    pipeline.Offset // the lowest stored
	lowOK  bool            // low is known
}

// sieveBits is a power of two: ten for each of the most parks, so that few events of other keys are looked up.
const sieveBits = 1 << 17

// maybe reports whether events of the hash may be held; false is certain, but for singles.
func (p *parks) maybe(hash uint64) bool {
	if p.sieve == nil {
		return false
	}
	bit := hash * 0x9e3779b97f4a7c15 >> 47
	return p.sieve[bit/64]&(1<<(bit%64)) != 0
}

// free returns how many events from one on are held by nobody, as far as can be told at once.
func (p *parks) free(events []pipeline.Event) int {
	if len(p.one)+len(p.ranges) > 0 {
		return 0
	}
	if p.sieve == nil {
		return len(events)
	}
	for i := range events {
		if p.maybe(events[i].Hash) {
			return i
		}
	}
	return len(events)
}

func (p *parks) any() bool { return len(p.keys)+len(p.one) > 0 }

// len is how many keys are parked.
func (p *parks) len() int { return len(p.keys) + len(p.one) - len(p.ranges) }

// find returns the park that holds an event, nil when none does. While a key or a range is parked all of its events are
// passed over: those below From were done before it was parked.
func (p *parks) find(b *pipeline.Batch, i int) *parked {
	e := &b.Events[i]
	k := p.own(e.Hash, b.Offset(i))
	if len(p.ranges) == 0 || e.Op.Barrier() || k != nil && k.From <= b.Offset(i) {
		return k
	}
	if r := p.rangeOf(b.TableOf(i), b.Bytes(e.Key)); r != nil {
		return r
	}
	return k
}

// own is the park of the key, or of the single event.
func (p *parks) own(hash uint64, o pipeline.Offset) *parked {
	if p.maybe(hash) {
		if k := p.keys[hash]; k != nil && k.interval == nil {
			return k
		}
	}
	if len(p.one) > 0 {
		return p.one[o]
	}
	return nil
}

// set adds a park or replaces that of the same ID.
func (p *parks) set(k Park) *parked {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spaces == nil {
		p.spaces = map[string]string{}
	}
	space, ok := p.spaces[k.Space]
	if !ok {
		space = strings.Clone(k.Space)
		p.spaces[space] = space
	}
	n := &parked{Hash: k.Hash, PairHash: k.PairHash, Space: space, Key: string(k.Key), From: k.From, Single: k.Single, Paired: k.Paired, Redrive: k.Redrive, spent: k.Spent,
		since: k.Since.UnixMicro(), at: k.From, stored: k.From}
	if k.Interval {
		n.interval = &pipeline.Range{Space: space, Start: slices.Clone(k.Key), End: slices.Clone(k.Until)}
	}
	p.lowOK = false
	was := p.keys[k.Hash]
	if k.Single {
		was = p.one[k.From]
		p.one[k.From] = n
	} else {
		if p.keys[k.Hash] = n; k.Interval {
			p.ranges = append(slices.DeleteFunc(p.ranges, func(r *parked) bool { return r == was }), n)
		}
		if p.sieve == nil {
			p.sieve = make([]uint64, sieveBits/64)
		}
		bit := k.Hash * 0x9e3779b97f4a7c15 >> 47
		p.sieve[bit/64] |= 1 << (bit % 64)
	}
	n.copied.Store(uint64(k.Copied))
	if was != nil && was.From <= k.From { // parked again, perhaps further on: its copies stay
		n.copied.Store(max(uint64(k.Copied), was.copied.Load()))
	}
	return n
}

func (p *parks) remove(k *parked) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.Single {
		delete(p.one, k.From)
	} else {
		delete(p.keys, k.Hash)
		p.ranges = slices.DeleteFunc(p.ranges, func(r *parked) bool { return r == k })
	}
	if p.lowOK = false; len(p.keys) == 0 {
		p.sieve = nil
	}
}

// park is what names k in the store.
func (k *parked) park(subscription string) Park {
	return Park{Subscription: subscription, Hash: k.Hash, Single: k.Single, From: k.From}
}

// all calls f for each.
func (p *parks) all(f func(*parked)) {
	for _, k := range p.keys {
		f(k)
	}
	for _, k := range p.one {
		f(k)
	}
}

// floor returns the lowest event that is parked, on disk; ok is false when none is.
func (p *parks) floor() (o pipeline.Offset, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.lowOK {
		p.low, p.lowOK = noOffset, true
		p.all(func(k *parked) { p.low = min(p.low, k.stored) })
	}
	return p.low, p.low != noOffset
}

// loadParks reads what is parked. Parks of another log hold nothing of this one.
func (s *Subscription) loadParks(ctx context.Context) error {
	s.parks.mu.Lock()
	s.parks.keys, s.parks.one, s.parks.ranges, s.parks.sieve, s.parks.lowOK = map[uint64]*parked{}, map[pipeline.Offset]*parked{}, nil, nil, false
	s.parks.mu.Unlock()
	if err := s.cfg.Store.EachPark(ctx, s.cfg.Name, s.cfg.Log.ID(), func(p *Park) { s.parks.set(*p) }); err != nil {
		return fmt.Errorf("read the parks: %w", err)
	}
	s.parked.Store(true)
	return nil
}

// forgetParks: their offsets say nothing about the log as it is now.
func (s *Subscription) forgetParks(ctx context.Context) error {
	all, err := s.cfg.Store.Parks(ctx, s.cfg.Name)
	if err != nil {
		return fmt.Errorf("read the parks: %w", err)
	}
	if len(all) == 0 {
		return nil
	}
	if err := s.cfg.Store.DeleteParks(ctx, all); err != nil {
		return fmt.Errorf("forget the parks: %w", err)
	}
	s.cfg.Observer.Warned("subscription "+s.cfg.Name, fmt.Sprintf("%d parked keys belonged to a log that is no longer there: what they held is lost, and they go on live", len(all)), pipeline.BringRows)
	return s.loadParks(ctx)
}

// Parked lists what is held, the oldest first, out of the store; before Run it is empty, as it is when the store does
// not answer.
func (s *Subscription) Parked() []Park {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	all, _ := s.full(ctx, nil)
	all = slices.DeleteFunc(all, func(p Park) bool { return p.Interval })
	slices.SortFunc(all, func(a, b Park) int { return int(int64(a.From - b.From)) })
	return all
}

// full reads the parks of which only is true (nil: all that are known) out of the store, as they are by now.
func (s *Subscription) full(ctx context.Context, only map[pipeline.ParkID]bool) ([]Park, error) {
	all, err := s.cfg.Store.Parks(ctx, s.cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("read the parks: %w", err)
	}
	s.parks.mu.Lock()
	defer s.parks.mu.Unlock()
	return slices.DeleteFunc(all, func(p Park) bool {
		k := s.parks.keys[p.Hash]
		if p.Single {
			k = s.parks.one[p.From]
		}
		return k == nil || only != nil && !only[p.ID()]
	}), nil
}

// ids of parks.
func ids(list []*parked) map[pipeline.ParkID]bool {
	m := make(map[pipeline.ParkID]bool, len(list))
	for _, k := range list {
		p := k.park("")
		m[p.ID()] = true
	}
	return m
}

// Wanted returns the offset from which parked keys hold events, and whether there are any: so far the log has
// to be kept for them to be redriven. known is false until they were read.
func (s *Subscription) Wanted() (o pipeline.Offset, ok, known bool) {
	if !s.parked.Load() {
		return 0, false, false
	}
	o, ok = s.parks.floor()
	return o, ok, true
}

// Redrive delivers again what parked keys hold, in order, the event that failed first included; then they go
// on live. A key that fails again is parked again at that event. It returns how many parks it is about once
// that is durable; it does not wait for the deliveries. keys nil = all. Keys whose key change waits for one of
// them come along. ErrNotRunning outside Run.
func (s *Subscription) Redrive(ctx context.Context, keys []ParkKey) (n int, err error) {
	return s.counted(ctx, command{kind: cmdRedrive, keys: keys})
}

// Discard gives up what parked keys hold: it is listed as skipped, by whom, and the keys go on live. It
// returns how many parks it was. keys nil = all. ErrNotRunning outside Run.
func (s *Subscription) Discard(ctx context.Context, keys []ParkKey, by string) (n int, err error) {
	return s.counted(ctx, command{kind: cmdDiscard, keys: keys, reason: by})
}

func (s *Subscription) counted(ctx context.Context, c command) (int, error) {
	c.n = new(int)
	if err := s.command(ctx, c); err != nil { // and perhaps it is being obeyed still
		return 0, err
	}
	return *c.n, nil
}

// chosen returns the parks of keys, the oldest first; nil = all.
func (s *Subscription) chosen(keys []ParkKey) []*parked {
	type name struct{ space, key string }
	wanted := map[name]bool{}
	for _, k := range keys {
		wanted[name{k.Space, string(k.Key)}] = true
	}
	var out []*parked
	s.parks.all(func(p *parked) {
		if p.interval == nil && (keys == nil || wanted[name{p.Space, p.Key}]) {
			out = append(out, p)
		}
	})
	slices.SortFunc(out, func(a, b *parked) int { return cmp.Compare(a.From, b.From) })
	return out
}

// redrive marks parks; the next session makes the pass.
func (s *Subscription) redrive(ctx context.Context, keys []ParkKey) (int, error) {
	marked, err := s.mark(ctx, s.chosen(keys))
	for _, p := range marked {
		s.parks.set(p)
	}
	return len(marked), err
}

// mark makes durable that parks are redriven, and with them key changes that wait for one of them. Set among the parks,
// they are the next session's pass.
func (s *Subscription) mark(ctx context.Context, chosen []*parked) ([]Park, error) {
	if err := s.strike(ctx); err != nil {
		return nil, err
	}
	in := map[uint64]bool{}
	for _, p := range chosen {
		in[p.Hash] = true
	}
	for grown := true; grown; {
		grown = false
		s.parks.all(func(p *parked) {
			if p.Paired && in[p.PairHash] && !in[p.Hash] {
				in[p.Hash], grown = true, true
				chosen = append(chosen, p)
			}
		})
	}
	marked, err := s.full(ctx, ids(chosen))
	if err != nil {
		return nil, fmt.Errorf("redrive: %w", err)
	}
	for i := range marked {
		p := &marked[i]
		if k := s.parks.keys[p.Hash]; k != nil && !p.Single {
			p.From = k.From // where an earlier pass came to
		}
		p.Redrive = true
	}
	if err := s.cfg.Store.PutParks(ctx, marked); err != nil {
		return nil, fmt.Errorf("redrive: save the parks: %w", err)
	}
	return marked, nil
}

// discard lists what parks hold below the cursor's High as skipped and forgets them.
func (s *Subscription) discard(ctx context.Context, cur pipeline.Cursor, keys []ParkKey, by string) (int, error) {
	chosen := s.chosen(keys)
	gone, err := s.full(ctx, ids(chosen))
	if err != nil {
		return 0, fmt.Errorf("discard: %w", err)
	}
	for _, p := range gone {
		name := p.KeyJSON
		if name == "" {
			name = fmt.Sprintf("%x", p.Key)
		}
		to := max(cur.Low, cur.High, p.From+1)
		if p.Single {
			to = p.From + 1
		}
		if r := s.parks.over(&p); r != nil { // from there on the range holds the key, and brings its events
			to = min(to, r.From)
		}
		if to <= p.From {
			continue
		}
		skip := Skip{Subscription: s.cfg.Name, Ranges: []pipeline.OffsetRange{{From: p.From, To: to}}, Time: time.Now(),
			Reason: fmt.Sprintf("discarded by %s: only the events of key %s in %s", by, name, p.Space)}
		if err := s.cfg.Store.PutSkip(ctx, skip); err != nil {
			return 0, fmt.Errorf("discard: list what is skipped: %w", err)
		}
	}
	if err := s.cfg.Store.DeleteParks(ctx, gone); err != nil {
		return 0, fmt.Errorf("discard: forget the parks: %w", err)
	}
	for _, p := range chosen {
		s.parks.remove(p)
	}
	return len(gone), nil
}
