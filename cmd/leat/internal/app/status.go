package app

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/cmd/leat/internal/replays"
	"github.com/leat-cdc/leat/cmd/leat/internal/report"
	"github.com/leat-cdc/leat/cmd/leat/internal/telemetry"
	"github.com/leat-cdc/leat/cmd/leat/internal/waits"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Status implements api.Backend.
func (s *Server) Status(ctx context.Context, name string) (*leatv1.StatusResponse, error) {
	all := s.status()
	if name == "" {
		return all, nil
	}
	all.Sources = slices.DeleteFunc(all.Sources, func(x *leatv1.SourceStatus) bool { return x.Name != name })
	all.Subscriptions = slices.DeleteFunc(all.Subscriptions, func(x *leatv1.SubscriptionStatus) bool { return x.Name != name })
	if len(all.Sources)+len(all.Subscriptions) == 0 {
		return nil, api.Errorf(api.NotFound, "no source or subscription %q", name)
	}
	return all, nil
}

// status reads at most one batch for each subscription whose cursor moved since.
func (s *Server) status() *leatv1.StatusResponse {
	st := s.engine.Status()
	s.mu.Lock()
	cfg, gone, lost, webhooks := s.cfg, maps.Clone(s.gone), maps.Clone(s.lost), maps.Clone(s.webhooks)
	s.mu.Unlock()
	r := &leatv1.StatusResponse{Version: s.o.Version, Started: timestamppb.New(s.started), MemoryBudget: uint64(s.o.Config.Memory)}
	r.MemoryUsed, _ = telemetry.AnonymousMemory()
	for _, c := range st.Gate.Classes {
		r.Turns = append(r.Turns, &leatv1.PriorityTurns{Priority: c.Class.String(), Taken: c.Granted, Waited: c.Waited, Wait: durationpb.New(c.Wait)})
	}
	for _, x := range st.Sources {
		p := s.report.Source(x)
		p.Throttles = s.throttles.SourceStates(x.Name, x.Verdict.Throttles)
		if src := cfg.Sources[x.Name]; src != nil {
			p.Kind = parts.Kind(src)
		}
		for _, j := range x.Snapshots {
			p.Snapshots = append(p.Snapshots, replays.SnapshotOf(j))
		}
		p.Waits = waits.OfSource(p)
		r.Sources = append(r.Sources, p)
	}
	for _, x := range st.Subscriptions {
		p := s.report.Subscription(x)
		p.Throttles = s.throttles.States(x.Name)
		if sub := cfg.Subscriptions[x.Name]; sub != nil {
			p.Kind = sub.Deliver.Kind()
		}
		if w := webhooks[x.Name]; w != nil && p.Kind == "webhook" {
			report.Hosts(p, w)
		}
		p.Waits = waits.OfSubscription(p)
		r.Subscriptions = append(r.Subscriptions, p)
	}
	for _, name := range slices.Sorted(maps.Keys(lost)) {
		p := &leatv1.SourceStatus{Name: name, Kind: lost[name].Spec, State: "gone", LogId: lost[name].Log, Reason: goneSource(name)}
		p.Waits = waits.OfSource(p)
		r.Sources = append(r.Sources, p)
	}
	for _, name := range slices.Sorted(maps.Keys(gone)) {
		p := &leatv1.SubscriptionStatus{Name: name, Source: gone[name].Source, Kind: gone[name].Spec, State: "gone", Reason: "not in the file: kept, paused"}
		p.Waits = waits.OfSubscription(p)
		r.Subscriptions = append(r.Subscriptions, p)
	}
	return r
}

func goneSource(name string) string {
	return "not in the file: kept, not read, and its database keeps what it has not read; leat apply --drop " + name + " forgets it"
}

func (s *Server) diskLog(source string) (*disklog.Log, bool) {
	log, err := s.engine.Log(source)
	if err != nil {
		return nil, false
	}
	l, ok := log.(*disklog.Log)
	return l, ok
}
