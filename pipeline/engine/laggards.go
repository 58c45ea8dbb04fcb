package engine

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/flow"
)

// watchLaggards judges how near each subscription is to what retention removes, and tells what changed.
func (u *unit) watchLaggards(log pipeline.Log, now time.Time) {
	k, ok := log.(pipeline.Keeper)
	if !ok {
		return
	}
	u.mu.Lock()
	runners := slices.Collect(maps.Values(u.runners))
	u.mu.Unlock()
	for _, r := range runners {
		r.watch(k, now)
	}
}

func (r *runner) watch(k pipeline.Keeper, now time.Time) {
	s := r.current()
	if s == nil {
		return
	}
	at, ok := s.Place()
	if !ok {
		return
	}
	c := &r.spec.Deliver
	sample := flow.LagSample{At: now, Depth: k.Depth(at.Low), Held: c.Laggard != deliver.LaggardSkip, Lost: at.Expired}
	if sample.Depth.Gone && at.Read > at.Low {
		sample.Depth.Gone = k.Depth(at.Read).Gone
	}
	r.mu.Lock()
	was := r.behind
	r.behind = r.lag.Measured(sample)
	is := r.behind
	r.mu.Unlock()
	if is.Stage != was.Stage {
		r.cfg.Observer.SubscriptionLag(c.Name, is.Stage.String(), c.Laggard.String(), is.Why)
	}
}

func (r *runner) verdict() flow.LagVerdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.behind
}

// keepParks copies what parked keys hold before retention takes it.
func (u *unit) keepParks(ctx context.Context, k pipeline.Keeper) {
	each(ctx, parksPhase, func() {
		if doomed := k.Doomed(); doomed > 0 && u.copyHeld(ctx, doomed) {
			k.Guard(doomed)
		}
	})
}

// Phases of what is done each second: what looks at the work of others does so between them, not at the same moment.
const (
	floorPhase = 250 * time.Millisecond
	parksPhase = 500 * time.Millisecond
)

// each calls f every second, phase after it was called, until ctx ends.
func each(ctx context.Context, phase time.Duration, f func()) {
	t := time.NewTimer(phase)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		f()
		t.Reset(time.Second)
	}
}

// copyHeld reports whether retention may take all below an offset.
func (u *unit) copyHeld(ctx context.Context, below pipeline.Offset) bool {
	u.mu.Lock()
	runners := slices.Collect(maps.Values(u.runners))
	u.mu.Unlock()
	slices.SortFunc(runners, func(a, b *runner) int { return cmp.Compare(a.spec.Deliver.Name, b.spec.Deliver.Name) })
	all := true
	var subs []*deliver.Subscription
	var names []string
	for _, r := range runners {
		if s := r.current(); s != nil {
			subs, names = append(subs, s), append(names, r.spec.Deliver.Name)
		} else {
			all = false
		}
	}
	for i, err := range deliver.CopyHeld(ctx, below, subs...) {
		if err == nil {
			continue
		}
		all = false
		if !errors.Is(err, deliver.ErrParksUnknown) && ctx.Err() == nil {
			u.cfg.Observer.Warned("subscription "+names[i], err.Error()+"; retention waits half a minute for it, then what parked keys hold is lost, and listed when they are redriven",
				"see that the data folder has space and can be written")
		}
	}
	return all
}
