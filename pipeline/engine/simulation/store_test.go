package simulation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
)

// store is the state on disk: what an answered call changed outlives every crash. The driver's goroutine owns it.
type store struct {
	cursors map[string]pipeline.Cursor
	dead    map[string]map[pipeline.Offset]pipeline.DeadLetter
	parks   map[string]map[pipeline.ParkID]pipeline.Park
	paused  map[string]string
	skips   map[string][]pipeline.Skip
	held    map[string][]pipeline.Held // copies of what parks hold, by offset
	jobs    []pipeline.Job             // the oldest first

	tablesMu sync.Mutex
	tables   map[[2]uint32]pipeline.HeldTable
}

func newStore() *store {
	return &store{cursors: map[string]pipeline.Cursor{}, dead: map[string]map[pipeline.Offset]pipeline.DeadLetter{},
		parks: map[string]map[pipeline.ParkID]pipeline.Park{}, paused: map[string]string{}, skips: map[string][]pipeline.Skip{},
		held: map[string][]pipeline.Held{}, tables: map[[2]uint32]pipeline.HeldTable{}}
}

// parked returns the subscription's, by From.
func (s *store) parked(sub string) []pipeline.Park {
	return slices.SortedFunc(maps.Values(s.parks[sub]), func(a, b pipeline.Park) int {
		return strings.Compare(fmt.Sprintf("%020d %d", a.From, a.Hash), fmt.Sprintf("%020d %d", b.From, b.Hash))
	})
}

// access is the store as one process sees it.
type access struct{ p *process }

func (a access) ask(ctx context.Context, sub, what string, apply func() error) error {
	x := &call{kind: callStore, name: sub + " " + what, life: a.p.life, sub: a.p.w.sub(sub), apply: apply}
	return a.p.w.calls.ask(ctx, x)
}

// Load implements pipeline.Cursors.
func (a access) Load(ctx context.Context, sub string) (c pipeline.Cursor, ok bool, err error) {
	s := a.p.w.store
	err = a.ask(ctx, sub, "load cursor", func() error {
		c, ok = s.cursors[sub]
		ok = ok && !a.p.w.plant.forgets
		return nil
	})
	return c, ok, err
}

// Save implements pipeline.Cursors.
func (a access) Save(ctx context.Context, sub string, c pipeline.Cursor) error {
	s := a.p.w.store
	c.Pending = slices.Clone(c.Pending)
	if f := a.p.w.plant.save; f != nil {
		f(&c)
	}
	x := &call{kind: callStore, name: sub + " save cursor", life: a.p.life, sub: a.p.w.sub(sub), cursor: &c}
	x.apply = func() error {
		if old, ok := s.cursors[sub]; ok && old.Log == c.Log && (c.Low < old.Low || c.Resolved < old.Resolved) {
			return fmt.Errorf("a cursor never goes back: %+v after %+v", c, old)
		}
		s.cursors[sub] = c
		return nil
	}
	return a.p.w.calls.ask(ctx, x)
}

// PutDeadLetters implements deliver.Store.
func (a access) PutDeadLetters(ctx context.Context, d []pipeline.DeadLetter) error {
	s, sub := a.p.w.store, d[0].Subscription
	what := "bury " + d[0].ID
	if strings.HasPrefix(d[0].Reason, "replay ") {
		what += " of a replay"
	}
	return a.ask(ctx, sub, what, func() error {
		for _, l := range d {
			a.p.w.sub(sub).buried[a.p.w.index(l.Offset)] = true
		}
		if a.p.w.plant.buries {
			return nil
		}
		if s.dead[sub] == nil {
			s.dead[sub] = map[pipeline.Offset]pipeline.DeadLetter{}
		}
		for _, l := range d {
			s.dead[sub][l.Offset] = l
		}
		return nil
	})
}

// DeleteDeadLetters implements deliver.Store.
func (a access) DeleteDeadLetters(ctx context.Context, sub string, offsets []pipeline.Offset) error {
	s := a.p.w.store
	offsets = slices.Sorted(slices.Values(offsets))
	return a.ask(ctx, sub, fmt.Sprintf("unbury %v", offsets), func() error {
		for _, o := range offsets {
			delete(s.dead[sub], o)
		}
		return nil
	})
}

// DeadOffsets implements deliver.Store.
func (a access) DeadOffsets(ctx context.Context, sub string, from pipeline.Offset) (all []pipeline.Offset, err error) {
	s := a.p.w.store
	err = a.ask(ctx, sub, fmt.Sprintf("buried from %d", from), func() error {
		all = slices.DeleteFunc(slices.Sorted(maps.Keys(s.dead[sub])), func(o pipeline.Offset) bool { return o < from })
		return nil
	})
	return all, err
}

// PutSkip implements deliver.Store.
func (a access) PutSkip(ctx context.Context, k deliver.Skip) error {
	s := a.p.w.store
	return a.ask(ctx, k.Subscription, fmt.Sprintf("skip %v %s", k.Ranges, k.Reason), func() error {
		s.skips[k.Subscription] = append(s.skips[k.Subscription], k)
		return nil
	})
}

// Paused implements deliver.Store.
func (a access) Paused(ctx context.Context, sub string) (paused bool, reason string, err error) {
	s := a.p.w.store
	err = a.ask(ctx, sub, "paused", func() error {
		reason, paused = s.paused[sub]
		return nil
	})
	return paused, reason, err
}

// SetPaused implements deliver.Store.
func (a access) SetPaused(ctx context.Context, sub string, paused bool, reason string) error {
	s := a.p.w.store
	return a.ask(ctx, sub, fmt.Sprintf("set paused %v", paused), func() error {
		if delete(s.paused, sub); paused {
			s.paused[sub] = reason
		}
		return nil
	})
}

func ids(parks []pipeline.Park) string {
	all := make([]string, len(parks))
	for i, p := range parks {
		all[i] = fmt.Sprintf("%x@%d", p.Hash, p.From)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// PutParks implements deliver.Store.
func (a access) PutParks(ctx context.Context, parks []pipeline.Park) error {
	if len(parks) == 0 {
		return nil
	}
	s, sub := a.p.w.store, parks[0].Subscription
	parks = slices.Clone(parks)
	return a.ask(ctx, sub, "park "+ids(parks), func() error {
		if s.parks[sub] == nil {
			s.parks[sub] = map[pipeline.ParkID]pipeline.Park{}
		}
		for _, p := range parks {
			s.parks[sub][p.ID()] = p
			a.p.w.sub(sub).everParked[p.Space+"/"+string(p.Key)] = true
		}
		return nil
	})
}

// Bury implements deliver.Store.
func (a access) Bury(ctx context.Context, d pipeline.DeadLetter, p pipeline.Park) error {
	s, sub := a.p.w.store, d.Subscription
	return a.ask(ctx, sub, "bury "+d.ID+" and park "+ids([]pipeline.Park{p}), func() error {
		a.p.w.sub(sub).buried[a.p.w.index(d.Offset)] = true
		if s.parks[sub] == nil {
			s.parks[sub] = map[pipeline.ParkID]pipeline.Park{}
		}
		s.parks[sub][p.ID()] = p
		a.p.w.sub(sub).everParked[p.Space+"/"+string(p.Key)] = true
		if a.p.w.plant.buries {
			return nil
		}
		if s.dead[sub] == nil {
			s.dead[sub] = map[pipeline.Offset]pipeline.DeadLetter{}
		}
		s.dead[sub][d.Offset] = d
		return nil
	})
}

// DeleteParks implements deliver.Store.
func (a access) DeleteParks(ctx context.Context, parks []pipeline.Park) error {
	if len(parks) == 0 {
		return nil
	}
	s, sub := a.p.w.store, parks[0].Subscription
	parks = slices.Clone(parks)
	return a.ask(ctx, sub, "unpark "+ids(parks), func() error {
		if a.p.w.plant.forgetParks {
			clear(s.parks[sub])
		}
		for _, p := range parks {
			delete(s.parks[sub], p.ID())
			s.held[sub] = slices.DeleteFunc(s.held[sub], func(h pipeline.Held) bool { return h.Park == p.ID() })
		}
		return nil
	})
}

// EachPark implements deliver.Store.
func (a access) EachPark(ctx context.Context, sub, log string, f func(*pipeline.Park)) error {
	all, err := a.Parks(ctx, sub)
	for i := range all {
		if all[i].Log == log {
			f(&all[i])
		}
	}
	return err
}

// Parks implements deliver.Store.
func (a access) Parks(ctx context.Context, sub string) (all []pipeline.Park, err error) {
	s := a.p.w.store
	err = a.ask(ctx, sub, "parks", func() error {
		all = s.parked(sub)
		return nil
	})
	return all, err
}
