package app

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/telemetry"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/engine"
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

// status never blocks on IO.
func (s *Server) status() *leatv1.StatusResponse {
	st := s.engine.Status()
	s.mu.Lock()
	cfg, gone, full := s.cfg, maps.Clone(s.gone), maps.Clone(s.logFull)
	s.mu.Unlock()
	r := &leatv1.StatusResponse{Version: s.o.Version, Started: timestamppb.New(s.started), MemoryBudget: uint64(s.o.Config.Memory)}
	r.MemoryUsed, _ = telemetry.AnonymousMemory()
	for _, x := range st.Sources {
		p := s.sourceStatus(x)
		p.LogFull = full[x.Name]
		if src := cfg.Sources[x.Name]; src != nil {
			p.Kind = sourceKind(src)
		}
		r.Sources = append(r.Sources, p)
	}
	for _, x := range st.Subscriptions {
		p := s.subscriptionStatus(x)
		if sub := cfg.Subscriptions[x.Name]; sub != nil {
			p.Kind = sub.Deliver.Kind()
		}
		r.Subscriptions = append(r.Subscriptions, p)
	}
	for _, name := range slices.Sorted(maps.Keys(gone)) {
		r.Subscriptions = append(r.Subscriptions, &leatv1.SubscriptionStatus{Name: name, Source: gone[name].Source, Kind: gone[name].Spec, State: "gone",
			Reason: "not in the file: kept, paused; leat apply --drop " + name + " forgets it"})
	}
	return r
}

var noticeKinds = map[pipeline.NoticeKind]string{pipeline.NoticeQuarantined: "quarantined", pipeline.NoticeReleased: "released", pipeline.NoticeGap: "gap"}

func (s *Server) sourceStatus(x engine.SourceStatus) *leatv1.SourceStatus {
	p := &leatv1.SourceStatus{Name: x.Name, State: x.State, Reason: x.Reason, Code: x.Code, Since: timestamppb.New(x.Since), LogId: x.LogID,
		Oldest: uint64(x.Oldest), Next: uint64(x.Next), Position: x.End.Token, Tables: uint32(x.Tables)}
	p.EventsPerSecond, p.BytesPerSecond = s.tel.SourceRate(x.Name)
	if log, err := s.engine.Log(x.Name); err == nil {
		if sized, ok := log.(interface{ Bytes() int64 }); ok {
			p.LogBytes = uint64(sized.Bytes())
		}
	}
	for _, n := range x.Notices {
		p.Notices = append(p.Notices, &leatv1.Notice{Kind: noticeKinds[n.Kind], Code: n.Code, Table: n.Table, Position: n.Position, Reason: n.Reason,
			Cure: n.Cure, Time: timestamppb.New(n.Time)})
	}
	return p
}

func (s *Server) subscriptionStatus(x engine.SubscriptionStatus) *leatv1.SubscriptionStatus {
	p := &leatv1.SubscriptionStatus{Name: x.Name, Source: x.Source, State: x.State, Reason: x.Reason, Low: uint64(x.Low), Read: uint64(x.Read),
		Next: uint64(x.Next), Persisted: uint64(x.Persisted), Resolved: uint64(x.Resolved), InFlight: uint32(x.InFlight), Open: uint32(x.Open),
		Held: uint32(x.Held), BufferedBytes: uint64(x.Buffered), Delivered: x.Delivered, Failed: x.Failed, Dead: x.Dead, SaveError: x.SaveError}
	if !x.Until.IsZero() {
		p.Until = timestamppb.New(x.Until)
	}
	if x.Next > x.Low && x.Low > 0 {
		p.LagEvents = uint64(x.Next - x.Low)
		if !x.Commit.IsZero() {
			p.Lag = durationpb.New(max(0, time.Since(x.Commit)))
		}
	}
	p.EventsPerSecond, _ = s.tel.SubscriptionRate(x.Name)
	return p
}
