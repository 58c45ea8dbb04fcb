package engine

import (
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
