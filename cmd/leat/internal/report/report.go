// Package report says how sources and subscriptions fare: their status in the API's words, from the engine's figures
// and what was observed on the way, and their changes of state for the status sources.
package report

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/webhook"
)

// Options of a Report.
type Options struct {
	Store *state.Store
	// Log of a source; false while it is not open.
	Log func(source string) (*disklog.Log, bool)
	// SourceRate and SubscriptionRate are events and bytes per second.
	SourceRate, SubscriptionRate func(name string) (events, bytes float64)
	// Lacking lists the subscriptions that need a backfill of a notice's table.
	Lacking func(ctx context.Context, source string, n pipeline.Notice) []string
}

// Report keeps what status is made of beside the engine's figures. Safe for concurrent use.
type Report struct {
	o Options

	mu       sync.Mutex
	commits  map[string]commitAt // by subscription
	arrivals map[string]arrival  // by source
	logFull  map[string]bool
}

// New has observed nothing yet.
func New(o Options) *Report {
	return &Report{o: o, commits: map[string]commitAt{}, arrivals: map[string]arrival{}, logFull: map[string]bool{}}
}

// Observe adds to an observer that is filled what a report is made of.
func (r *Report) Observe(obs pipeline.Observer) pipeline.Observer {
	full := obs.LogFull
	obs.LogFull = func(log string, is bool) {
		r.mu.Lock()
		r.logFull[log] = is
		r.mu.Unlock()
		full(log, is)
	}
	ingested, synced := obs.Ingested, obs.Synced
	obs.Ingested = func(source string, events, bytes int, end pipeline.Position) {
		if events > 0 {
			r.mu.Lock()
			a := r.arrivals[source]
			a.ingested = time.Now()
			r.arrivals[source] = a
			r.mu.Unlock()
		}
		ingested(source, events, bytes, end)
	}
	obs.Synced = func(log string, batches, bytes int, took time.Duration) {
		r.mu.Lock()
		if a := r.arrivals[log]; a.ingested.After(a.durable) {
			a.durable = time.Now()
			r.arrivals[log] = a
		}
		r.mu.Unlock()
		synced(log, batches, bytes, took)
	}
	return obs
}

var noticeKinds = map[pipeline.NoticeKind]string{pipeline.NoticeQuarantined: "quarantined", pipeline.NoticeReleased: "released", pipeline.NoticeGap: "gap", pipeline.NoticeFilled: "filled"}

// Source is the status of one, but for its kind, throttles and waits.
func (r *Report) Source(x engine.SourceStatus) *leatv1.SourceStatus {
	p := &leatv1.SourceStatus{Name: x.Name, State: x.State, Reason: x.Reason, Code: x.Code, Since: timestamppb.New(x.Since), LogId: x.LogID,
		Oldest: uint64(x.Oldest), Next: uint64(x.Next), Position: shown(x.End.Token), Tables: uint32(x.Tables)}
	p.EventsPerSecond, p.BytesPerSecond = r.o.SourceRate(x.Name)
	p.Pressure, p.Disk = pressureOf(x), diskStages[x.Disk]
	if u := x.Unended; u.Open+u.Prepared > 0 {
		p.Open = &leatv1.OpenTransactions{RunningBytes: uint64(u.Open), PreparedBytes: uint64(u.Prepared), BoundBytes: uint64(u.Bound)}
	}
	r.mu.Lock()
	p.LogFull = r.logFull[x.Name]
	r.mu.Unlock()
	if log, ok := r.o.Log(x.Name); ok {
		p.LogBytes = uint64(log.Bytes())
		r.sourceLag(p, log)
	}
	for _, n := range x.Notices {
		p.Notices = append(p.Notices, &leatv1.Notice{Kind: noticeKinds[n.Kind], Code: n.Code, Table: n.Table, Position: n.Position, Reason: n.Reason,
			Cure: r.cure(x.Name, n), Time: timestamppb.New(n.Time)})
	}
	return p
}

// cure is a notice's with the commands that end it, where a backfill does.
func (r *Report) cure(source string, n pipeline.Notice) string {
	text, ok := strings.CutSuffix(n.Cure, pipeline.BringRows)
	if !ok && n.Kind != pipeline.NoticeQuarantined {
		return n.Cure
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	lacking := r.o.Lacking(ctx, source, n)
	if len(lacking) == 0 {
		return n.Cure
	}
	if !ok {
		text += "; then "
	}
	var commands []string
	for _, name := range lacking[:min(len(lacking), maxCommands)] {
		commands = append(commands, "leat backfill "+name+" --table '"+n.Table+"'")
	}
	text += strings.Join(commands, "; ")
	if more := len(lacking) - len(commands); more > 0 {
		text += fmt.Sprintf("; and so for %d more subscriptions", more)
	}
	return text
}

// maxCommands bounds how many of a cure are spelled out.
const maxCommands = 4

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

// arrival is when a source's newest events were ingested and became durable; zero while they are not.
type arrival struct{ ingested, durable time.Time }

// sourceLag is the time from commit to durable of the newest event.
func (r *Report) sourceLag(p *leatv1.SourceStatus, log *disklog.Log) {
	r.mu.Lock()
	at := r.arrivals[p.Name].durable
	r.mu.Unlock()
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
func (r *Report) lag(p *leatv1.SubscriptionStatus, x engine.SubscriptionStatus) {
	log, ok := r.o.Log(x.Source)
	if !ok {
		return
	}
	events, bytes := log.Behind(x.Low)
	p.LagEvents, p.LagBytes = events, uint64(bytes)
	if events == 0 {
		return
	}
	r.mu.Lock()
	known, ok := r.commits[x.Name]
	r.mu.Unlock()
	if !ok || known.low != x.Low {
		ctx, cancel := context.WithTimeout(context.Background(), lookTime)
		defer cancel()
		at, err := log.CommittedAt(ctx, x.Low)
		if err != nil || at.IsZero() { // its commit is far away, as in a large transaction: rather older than the truth
			at = log.CommittedSince(x.Low)
		}
		r.mu.Lock()
		r.commits[x.Name] = commitAt{low: x.Low, time: at}
		r.mu.Unlock()
		known.time = at
	}
	if !known.time.IsZero() {
		p.Lag = durationpb.New(max(0, time.Since(known.time)))
	}
}

// Subscription is the status of one, but for its kind, throttles and waits.
func (r *Report) Subscription(x engine.SubscriptionStatus) *leatv1.SubscriptionStatus {
	p := &leatv1.SubscriptionStatus{Name: x.Name, Source: x.Source, State: x.State, Reason: x.Reason, Low: uint64(x.Low), Read: uint64(x.Read),
		Next: uint64(x.Next), Persisted: uint64(x.Persisted), Resolved: uint64(x.Resolved), InFlight: uint32(x.InFlight), Open: uint32(x.Open),
		Held: uint32(x.Held), BufferedBytes: uint64(x.Buffered), Delivered: x.Delivered, Failed: x.Failed, Dead: x.Dead, SaveError: x.SaveError, Parked: uint64(x.Parked),
		Limit: uint32(x.Limit), MaxInFlight: uint32(x.Max), Pace: x.Pace, Flow: x.Flow, Lanes: lanesOf(x.Lanes), Laggard: laggardOf(x)}
	if !x.Until.IsZero() {
		p.Until = timestamppb.New(x.Until)
	}
	if x.Next > x.Low && x.Low > 0 {
		r.lag(p, x)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	// Those that are kept, also from before this start; what was counted since then when nobody can say.
	if kept, err := r.o.Store.CountDeadLetters(ctx, x.Name); err == nil {
		p.Dead = kept
	}
	p.EventsPerSecond, _ = r.o.SubscriptionRate(x.Name)
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
		p := &leatv1.Lane{Space: x.Space, Range: x.ID, Low: uint64(x.Low), Open: uint32(x.Open), Parked: uint32(x.Parked), PausedFrom: uint64(x.Paused)}
		if !x.Oldest.IsZero() {
			p.Lag = durationpb.New(max(0, time.Since(x.Oldest)))
		}
		out = append(out, p)
	}
	return out
}

// Hosts of a webhook.
func Hosts(p *leatv1.SubscriptionStatus, w *webhook.Sink) {
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
