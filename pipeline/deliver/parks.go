package deliver

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
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

// parked is a park as the running subscription knows it.
type parked struct {
	Park
	// at is the lowest event that the pass has not delivered; From until the pass begins.
	at pipeline.Offset
	// stored is the From on disk; a dead letter is there, if there is one.
	stored pipeline.Offset
	// spent: it comes of attempts that were spent, not of a refusal for good.
	spent bool
	// copied as Park.Copied; the copier moves it, from a goroutine of its own.
	copied atomic.Uint64
}

// parks of a subscription. Only Run's goroutine writes, under mu; it reads without.
type parks struct {
	mu   sync.Mutex
	keys map[uint64]*parked
	one  map[pipeline.Offset]*parked // Single
}

func (p *parks) len() int { return len(p.keys) + len(p.one) }

// find returns the park that holds an event, nil when none does. While a key is parked all of its events are
// passed over: those below From were done before it was parked.
func (p *parks) find(hash uint64, o pipeline.Offset) *parked {
	if k := p.keys[hash]; k != nil {
		return k
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
	n := &parked{Park: k, at: k.From, stored: k.From}
	was := p.keys[k.Hash]
	if k.Single {
		was = p.one[k.From]
		p.one[k.From] = n
	} else {
		p.keys[k.Hash] = n
	}
	n.copied.Store(uint64(k.Copied))
	if was != nil { // parked again, perhaps further on: its copies stay
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
	}
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

// list returns copies, the oldest From first.
func (p *parks) list() []Park {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Park, 0, p.len())
	p.all(func(k *parked) { out = append(out, k.Park) })
	slices.SortFunc(out, func(a, b Park) int { return int(int64(a.From - b.From)) })
	return out
}

// floor returns the lowest event that is parked, on disk; ok is false when none is.
func (p *parks) floor() (o pipeline.Offset, ok bool) {
	p.all(func(k *parked) {
		if !ok || k.stored < o {
			o, ok = k.stored, true
		}
	})
	return o, ok
}

// loadParks reads what is parked. Parks of another log hold nothing of this one.
func (s *Subscription) loadParks(ctx context.Context) error {
	all, err := s.cfg.Store.Parks(ctx, s.cfg.Name)
	if err != nil {
		return fmt.Errorf("read the parks: %w", err)
	}
	s.parks.mu.Lock()
	s.parks.keys, s.parks.one = map[uint64]*parked{}, map[pipeline.Offset]*parked{}
	s.parks.mu.Unlock()
	for _, p := range all {
		if p.Log == s.cfg.Log.ID() {
			s.parks.set(p)
		}
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

// Parked lists what is held, the oldest first. It never blocks for long; before Run it is empty.
func (s *Subscription) Parked() []Park { return s.parks.list() }

// Wanted returns the offset from which parked keys hold events, and whether there are any: so far the log has
// to be kept for them to be redriven. known is false until they were read.
func (s *Subscription) Wanted() (o pipeline.Offset, ok, known bool) {
	if !s.parked.Load() {
		return 0, false, false
	}
	s.parks.mu.Lock()
	defer s.parks.mu.Unlock()
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
	var out []*parked
	s.parks.all(func(p *parked) {
		if keys == nil || slices.ContainsFunc(keys, func(k ParkKey) bool { return k.Space == p.Space && bytes.Equal(k.Key, p.Key) }) {
			out = append(out, p)
		}
	})
	slices.SortFunc(out, func(a, b *parked) int { return cmp.Compare(a.From, b.From) })
	return out
}

// redrive marks parks; the next session makes the pass.
func (s *Subscription) redrive(ctx context.Context, keys []ParkKey) (int, error) {
	return s.mark(ctx, s.chosen(keys))
}

// mark has parks redriven by the next session's pass, and with them key changes that wait for one of them.
func (s *Subscription) mark(ctx context.Context, chosen []*parked) (int, error) {
	if err := s.strike(ctx); err != nil {
		return 0, err
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
	marked := make([]Park, len(chosen))
	for i, p := range chosen {
		marked[i] = p.Park
		marked[i].Redrive = true
	}
	if err := s.cfg.Store.PutParks(ctx, marked); err != nil {
		return 0, fmt.Errorf("redrive: save the parks: %w", err)
	}
	for _, p := range marked {
		s.parks.set(p)
	}
	return len(marked), nil
}

// discard lists what parks hold below the cursor's High as skipped and forgets them.
func (s *Subscription) discard(ctx context.Context, cur pipeline.Cursor, keys []ParkKey, by string) (int, error) {
	chosen := s.chosen(keys)
	gone := make([]Park, len(chosen))
	for i, p := range chosen {
		gone[i] = p.Park
		name := p.KeyJSON
		if name == "" {
			name = fmt.Sprintf("%x", p.Key)
		}
		to := max(cur.Low, cur.High, p.From+1)
		if p.Single {
			to = p.From + 1
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
