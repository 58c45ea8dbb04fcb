// Package throttles keeps who slows a source or a subscription, and how much: operators, by name and for a time, and
// a source's flag file and flag URL. The lowest ratio counts; each has an owner whom status names.
package throttles

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/flow"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Set is those that operators have set, by name of source or subscription. Safe for concurrent use; its lock is a
// leaf, so it may be asked under any other.
type Set struct {
	mu     sync.Mutex
	set    map[string]state.Throttle
	expire map[string]*time.Timer
	// handles of subscriptions, made when first asked for: they outlive what runs under the name.
	handles map[string]*deliver.Throttle

	asker *asker
}

// NewSet is empty; Stop ends its timers, and what its flags ask.
func NewSet() *Set {
	return &Set{set: map[string]state.Throttle{}, expire: map[string]*time.Timer{}, handles: map[string]*deliver.Throttle{}, asker: newAsker()}
}

// Handle is what a subscription of that name is slowed by.
func (t *Set) Handle(name string) *deliver.Throttle {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.handle(name)
}

func (t *Set) handle(name string) *deliver.Throttle {
	h := t.handles[name]
	if h == nil {
		h = deliver.NewThrottle()
		t.handles[name] = h
	}
	return h
}

// Get returns the throttle of that name.
func (t *Set) Get(name string) (state.Throttle, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x, is := t.set[name]
	return x, is
}

// Of a source, in the engine's words.
func (t *Set) Of(source string) []flow.Throttle {
	x, is := t.Get(source)
	if !is {
		return nil
	}
	return []flow.Throttle{{Owner: x.Owner, Reason: x.Reason, Ratio: x.Ratio, Until: x.Until}}
}

// Put sets a throttle in the place of another of its name; over is called when its time is over, by a goroutine of
// its own.
func (t *Set) Put(x state.Throttle, over func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(x.Name)
	t.set[x.Name] = x
	t.handle(x.Name).Set(x.Ratio)
	if !x.Until.IsZero() {
		t.expire[x.Name] = time.AfterFunc(time.Until(x.Until), over)
	}
}

// Drop ends a throttle.
func (t *Set) Drop(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(name)
}

func (t *Set) drop(name string) {
	if timer := t.expire[name]; timer != nil {
		timer.Stop()
	}
	delete(t.expire, name)
	delete(t.set, name)
	t.handle(name).Set(1)
}

// Expire ends a throttle whose time is over; false when another one took its place, or the set was stopped.
func (t *Set) Expire(x state.Throttle) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, is := t.set[x.Name]
	if !is || now != x || t.expire[x.Name] == nil {
		return false
	}
	t.drop(x.Name)
	return true
}

// Stop ends the timers, and what flags ask; what is set stays set.
func (t *Set) Stop() {
	t.asker.stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, timer := range t.expire {
		timer.Stop()
		delete(t.expire, name)
	}
}

// States of a name as status shows them: at most one.
func (t *Set) States(name string) []*leatv1.ThrottleState {
	x, is := t.Get(name)
	if !is {
		return nil
	}
	p := stateOf(flow.Throttle{Ratio: x.Ratio, Reason: x.Reason, Owner: x.Owner, Until: x.Until})
	p.Since = timestamppb.New(x.Since)
	return []*leatv1.ThrottleState{p}
}

func stateOf(t flow.Throttle) *leatv1.ThrottleState {
	p := &leatv1.ThrottleState{Ratio: t.Ratio, Reason: valid(t.Reason), Owner: valid(t.Owner)}
	if !t.Until.IsZero() {
		p.Until = timestamppb.New(t.Until)
	}
	return p
}

// SourceStates adds to what operators have set what flags and signal tables say (also), the lowest ratio first.
func (t *Set) SourceStates(name string, also []flow.Throttle) []*leatv1.ThrottleState {
	all := t.States(name)
	for _, o := range also {
		if !slices.ContainsFunc(all, func(p *leatv1.ThrottleState) bool { return p.Owner == o.Owner }) {
			all = append(all, stateOf(o))
		}
	}
	slices.SortStableFunc(all, func(a, b *leatv1.ThrottleState) int {
		switch {
		case a.Ratio < b.Ratio:
			return -1
		case a.Ratio > b.Ratio:
			return 1
		}
		return 0
	})
	return all
}
