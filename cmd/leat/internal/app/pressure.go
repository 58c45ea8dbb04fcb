package app

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// pressureOf says how a source's database fares and what is made of it.
func pressureOf(x engine.SourceStatus) *leatv1.SourcePressure {
	v, l := x.Verdict, x.Load
	p := &leatv1.SourcePressure{Reading: v.Reading, Snapshot: v.Snapshot, Replay: v.Replay, Why: v.Why, EndsWhen: v.End, Danger: v.Danger,
		TimeToLoss: known(v.ToLoss), TimeToDrain: known(v.ToDrain), ReplicaLag: known(l.ReplicaLag), Error: x.LoadError}
	if l.Behind >= 0 {
		n := uint64(l.Behind)
		p.BehindBytes = &n
	}
	if l.Active >= 0 {
		n := uint32(l.Active)
		p.ActiveSessions = &n
	}
	return p
}

// known is nil for pipeline.Unknown.
func known(d time.Duration) *durationpb.Duration {
	if d < 0 {
		return nil
	}
	return durationpb.New(d)
}

// sourceThrottles adds to what operators have set what flags and signal tables say.
func (s *Server) sourceThrottles(x engine.SourceStatus) []*leatv1.ThrottleState {
	all := s.throttleStates(x.Name)
	for _, t := range x.Verdict.Throttles {
		if slices.ContainsFunc(all, func(o *leatv1.ThrottleState) bool { return o.Owner == t.Owner }) {
			continue
		}
		p := &leatv1.ThrottleState{Ratio: t.Ratio, Reason: t.Reason, Owner: t.Owner}
		if !t.Until.IsZero() {
			p.Until = timestamppb.New(t.Until)
		}
		all = append(all, p)
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
