package app

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/cmd/leat/internal/telemetry"
	"github.com/leat-cdc/leat/cmd/leat/internal/waits"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/disklog"
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

// status reads at most one batch for each subscription whose cursor moved since.
func (s *Server) status() *leatv1.StatusResponse {
	st := s.engine.Status()
	s.mu.Lock()
	cfg, gone, lost, full := s.cfg, maps.Clone(s.gone), maps.Clone(s.lost), maps.Clone(s.logFull)
	s.mu.Unlock()
	r := &leatv1.StatusResponse{Version: s.o.Version, Started: timestamppb.New(s.started), MemoryBudget: uint64(s.o.Config.Memory)}
	r.MemoryUsed, _ = telemetry.AnonymousMemory()
	for _, c := range st.Gate.Classes {
		r.Turns = append(r.Turns, &leatv1.PriorityTurns{Priority: c.Class.String(), Taken: c.Granted, Waited: c.Waited, Wait: durationpb.New(c.Wait)})
	}
	for _, x := range st.Sources {
		p := s.sourceStatus(x)
		p.LogFull, p.Throttles, p.Pressure, p.Disk = full[x.Name], s.throttles.SourceStates(x.Name, x.Verdict.Throttles), pressureOf(x), diskStages[x.Disk]
		if src := cfg.Sources[x.Name]; src != nil {
			p.Kind = parts.Kind(src)
		}
		p.Waits = waits.OfSource(p)
		r.Sources = append(r.Sources, p)
	}
	for _, x := range st.Subscriptions {
		p := s.subscriptionStatus(x)
		p.Throttles, p.Laggard = s.throttles.States(x.Name), laggardOf(x)
		if sub := cfg.Subscriptions[x.Name]; sub != nil {
			p.Kind = sub.Deliver.Kind()
		}
		s.hosts(p)
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

var noticeKinds = map[pipeline.NoticeKind]string{pipeline.NoticeQuarantined: "quarantined", pipeline.NoticeReleased: "released", pipeline.NoticeGap: "gap"}

func (s *Server) sourceStatus(x engine.SourceStatus) *leatv1.SourceStatus {
	p := &leatv1.SourceStatus{Name: x.Name, State: x.State, Reason: x.Reason, Code: x.Code, Since: timestamppb.New(x.Since), LogId: x.LogID,
		Oldest: uint64(x.Oldest), Next: uint64(x.Next), Position: shown(x.End.Token), Tables: uint32(x.Tables)}
	p.EventsPerSecond, p.BytesPerSecond = s.tel.SourceRate(x.Name)
	if log, ok := s.diskLog(x.Name); ok {
		p.LogBytes = uint64(log.Bytes())
		s.sourceLag(p, log)
	}
	for _, n := range x.Notices {
		p.Notices = append(p.Notices, &leatv1.Notice{Kind: noticeKinds[n.Kind], Code: n.Code, Table: n.Table, Position: n.Position, Reason: n.Reason,
			Cure: n.Cure, Time: timestamppb.New(n.Time)})
	}
	return p
}

// shown is the part of a source's resume token that its users write themselves: an LSN, a GTID set,
// file:position. The rest tells servers apart.
func shown(token string) string {
	fields := strings.Fields(token)
	switch {
	case len(fields) >= 3 && fields[1] == "gtid":
		return fields[2]
	case len(fields) >= 5 && fields[1] == "file":
		return fields[4] + ":" + fields[3]
	case len(fields) > 0:
		return fields[0]
	}
	return ""
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

// arrival is when a source's newest events were ingested and became durable; zero while they are not.
type arrival struct{ ingested, durable time.Time }

// sourceLag is the time from commit to durable of the newest event.
func (s *Server) sourceLag(p *leatv1.SourceStatus, log *disklog.Log) {
	s.mu.Lock()
	at := s.arrivals[p.Name].durable
	s.mu.Unlock()
	_, next := log.Bounds()
	if at.IsZero() || next == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	if commit, err := log.CommittedAt(ctx, next-1); err == nil && !commit.IsZero() {
		p.Lag = durationpb.New(max(0, at.Sub(commit)))
	}
}

// commitAt is when the event at an offset was committed.
type commitAt struct {
	low  pipeline.Offset
	time time.Time
}

// lookTime bounds the wait for a commit time.
const lookTime = 100 * time.Millisecond

// lag says how far a subscription is behind, in events, bytes and time.
func (s *Server) lag(p *leatv1.SubscriptionStatus, x engine.SubscriptionStatus) {
	log, ok := s.diskLog(x.Source)
	if !ok {
		return
	}
	events, bytes := log.Behind(x.Low)
	p.LagEvents, p.LagBytes = events, uint64(bytes)
	if events == 0 {
		return
	}
	s.mu.Lock()
	known, ok := s.commits[x.Name]
	s.mu.Unlock()
	if !ok || known.low != x.Low {
		ctx, cancel := context.WithTimeout(context.Background(), lookTime)
		defer cancel()
		at, err := log.CommittedAt(ctx, x.Low)
		if err != nil || at.IsZero() { // its commit is far away, as in a large transaction: rather older than the truth
			at = log.CommittedSince(x.Low)
		}
		s.mu.Lock()
		s.commits[x.Name] = commitAt{low: x.Low, time: at}
		s.mu.Unlock()
		known.time = at
	}
	if !known.time.IsZero() {
		p.Lag = durationpb.New(max(0, time.Since(known.time)))
	}
}

func (s *Server) subscriptionStatus(x engine.SubscriptionStatus) *leatv1.SubscriptionStatus {
	p := &leatv1.SubscriptionStatus{Name: x.Name, Source: x.Source, State: x.State, Reason: x.Reason, Low: uint64(x.Low), Read: uint64(x.Read),
		Next: uint64(x.Next), Persisted: uint64(x.Persisted), Resolved: uint64(x.Resolved), InFlight: uint32(x.InFlight), Open: uint32(x.Open),
		Held: uint32(x.Held), BufferedBytes: uint64(x.Buffered), Delivered: x.Delivered, Failed: x.Failed, Dead: x.Dead, SaveError: x.SaveError, Parked: uint64(x.Parked),
		Limit: uint32(x.Limit), MaxInFlight: uint32(x.Max), Pace: x.Pace, Flow: x.Flow, Lanes: lanesOf(x.Lanes)}
	if !x.Until.IsZero() {
		p.Until = timestamppb.New(x.Until)
	}
	if x.Next > x.Low && x.Low > 0 {
		s.lag(p, x)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	// Those that are kept, also from before this start; what was counted since then when nobody can say.
	if kept, err := s.store.CountDeadLetters(ctx, x.Name); err == nil {
		p.Dead = kept
	}
	p.EventsPerSecond, _ = s.tel.SubscriptionRate(x.Name)
	return p
}

// maxLanes bounds what a status lists: those that wait longest.
const maxLanes = 256

func lanesOf(all []deliver.Lane) (out []*leatv1.Lane) {
	if len(all) > maxLanes {
		all = slices.Clone(all)
		slices.SortStableFunc(all, func(a, b deliver.Lane) int { return cmp.Compare(a.Low, b.Low) })
		all = all[:maxLanes]
	}
	for _, x := range all {
		p := &leatv1.Lane{Space: x.Space, Range: x.ID, Low: uint64(x.Low), Open: uint32(x.Open), Parked: uint32(x.Parked)}
		if !x.Oldest.IsZero() {
			p.Lag = durationpb.New(max(0, time.Since(x.Oldest)))
		}
		out = append(out, p)
	}
	return out
}

// hosts adds those of a webhook.
func (s *Server) hosts(p *leatv1.SubscriptionStatus) {
	s.mu.Lock()
	w := s.webhooks[p.Name]
	s.mu.Unlock()
	if w == nil || p.Kind != "webhook" {
		return
	}
	list, panicking := w.Hosts()
	p.HostsPanic = panicking
	for _, h := range list {
		x := &leatv1.Host{Name: h.ID, Rank: uint32(h.Rank), Requests: h.Requests, UnderWay: uint32(h.Under), Ejected: h.Ejected, Reason: h.Why}
		if h.Ejected && !h.Until.IsZero() {
			x.Until = timestamppb.New(h.Until)
		}
		p.Hosts = append(p.Hosts, x)
	}
}
