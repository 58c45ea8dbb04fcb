package cli_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/waits"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// base is the first offset of the backend's logs.
const base = 1877212358656000

// backend is a small installation: two sources, four subscriptions, a log of three events.
type backend struct {
	mu     sync.Mutex
	status *leatv1.StatusResponse
	parked []*leatv1.ParkedKey // of search
	jobs   []*leatv1.Job
}

func at(d time.Duration) *timestamppb.Timestamp   { return timestamppb.New(now.Add(d)) }
func long(d time.Duration) *durationpb.Duration   { return durationpb.New(d) }
func (b *backend) Ready() (ok bool, why []string) { return true, nil }

func newBackend() *backend {
	return &backend{parked: []*leatv1.ParkedKey{
		{Key: `{"id":42}`, Partitionkey: "[77]", First: fmt.Sprintf("files-%d", base+200), Held: 12, Attempts: 12, Reason: "503 from search.internal", Since: at(-time.Hour)},
		{Key: `{"id":43}`, Partitionkey: "[78]", First: fmt.Sprintf("files-%d", base+300), Held: 1, Attempts: 1, Reason: "422 from search.internal", Since: at(-time.Minute)},
	}, status: &leatv1.StatusResponse{
		Version: "v0.0.1", Started: at(-3*time.Hour - 12*time.Minute), MemoryBudget: 512 << 20, MemoryUsed: 212 << 20,
		Turns: []*leatv1.PriorityTurns{{Priority: "normal", Taken: 80_000, Waited: 20_000, Wait: durationpb.New(60 * time.Second)}, {Priority: "critical"},
			{Priority: "low", Taken: 500}},
		Sources: []*leatv1.SourceStatus{
			{Name: "files", Kind: "postgres", State: "streaming", Since: at(-time.Hour), LogId: "6f1d2c3b-0000-4000-8000-000000000001",
				Oldest: base, Next: base + 81204, Position: "0/16B3748", LogBytes: 1288490188, Tables: 12, EventsPerSecond: 1204.4, BytesPerSecond: 321000,
				Pressure: &leatv1.SourcePressure{Reading: 1, Snapshot: 0.5, Why: "9 sessions are at work, max_active is 8", EndsWhen: "it stays under 80 % of the limit for 10s",
					ActiveSessions: new(uint32(9)), BehindBytes: new(uint64(40 << 10)), HeadroomBytes: new(uint64(2 << 30)), WalStatus: "extended", CatalogXminAge: new(uint64(3_200_000)), TimeToLoss: long(72 * time.Hour), TimeToDrain: long(time.Second)},
				Lag: long(12 * time.Millisecond), Notices: []*leatv1.Notice{
					{Kind: "gap", Code: "joined", Table: "public.late", Position: "0/16B0000", Reason: "the table joined late", Cure: "leat backfill brings them", Time: at(-time.Minute)},
					{Kind: "quarantined", Code: "structure", Table: "public.odd\x1b[31m", Reason: "its shape is not known"},
				}},
			{Name: "orders", Kind: "mysql", State: "stopped", Code: "binlog_purged", Since: at(-5 * time.Minute), Oldest: base, Next: base + 10, LogFull: true,
				Reason:   "the server no longer has binlog.000003; remove the source and begin anew",
				Position: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,4e11fa47-71ca-11e1-9e33-c80aa9429562:1-77", LogBytes: 16 << 20},
		},
		Subscriptions: []*leatv1.SubscriptionStatus{
			{Name: "audit", Source: "orders", Kind: "file", State: "gone", Low: base + 10, Next: base + 10},
			{Name: "features", Source: "files", Kind: "pull", State: "running", Low: base + 81204, Read: base + 81204, Next: base + 81204, Persisted: base + 81000, EventsPerSecond: 1204.4, Delivered: 81204},
			{Name: "search", Source: "files", Kind: "webhook", State: "retrying", Reason: "503 from search.internal", Until: at(8 * time.Second), Low: base + 80000, Read: base + 80100,
				Next: base + 81204, Persisted: base + 80000, InFlight: 3, Open: 100, Held: 12, BufferedBytes: 40960, Delivered: 80000, Failed: 7, Dead: 2, LagEvents: 1204,
				Lag: long(3200 * time.Millisecond), LagBytes: 300 << 10, SaveError: "disk full", Limit: 3, MaxInFlight: 64, Pace: 12.5, Flow: "requests time out: 3 in flight, 12.5 requests per second",
				Hosts: []*leatv1.Host{{Name: "https://search.internal/leat 10.0.0.1", Requests: 812, UnderWay: 3},
					{Name: "https://search.internal/leat 10.0.0.2", Rank: 2, Requests: 40, Ejected: true, Until: at(20 * time.Second), Reason: "connection refused"}},
				Lanes: []*leatv1.Lane{{Space: "public.files", Range: 1, Low: base + 80000, Open: 90, Parked: 2, Lag: long(3200 * time.Millisecond)}, {Space: "public.files", Range: 2, Low: base + 80100}}},
		},
	}}
}

func (b *backend) Types(_ context.Context, name string) (string, error) {
	if b.find(name) == nil {
		return "", api.Errorf(api.NotFound, "no subscription %q", name)
	}
	return "export type AnyEvent = 1;\n", nil
}

func (b *backend) find(name string) *leatv1.SubscriptionStatus {
	for _, s := range b.status.Subscriptions {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func none(name string) error { return api.Errorf(api.NotFound, "no source or subscription %q", name) }

func (b *backend) Status(_ context.Context, name string) (*leatv1.StatusResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := proto.CloneOf(b.status)
	for _, s := range all.Sources {
		s.Waits = waits.OfSource(s)
	}
	for _, s := range all.Subscriptions {
		s.Waits = waits.OfSubscription(s)
	}
	if name == "" {
		return all, nil
	}
	one := &leatv1.StatusResponse{Version: all.Version, Started: all.Started}
	for _, s := range all.Sources {
		if s.Name == name {
			one.Sources = append(one.Sources, s)
		}
	}
	for _, s := range all.Subscriptions {
		if s.Name == name {
			one.Subscriptions = append(one.Subscriptions, s)
		}
	}
	if len(one.Sources)+len(one.Subscriptions) == 0 {
		return nil, none(name)
	}
	return one, nil
}

// Plan refuses what this environment cannot expand, as the real one does.
func (b *backend) Plan(_ context.Context, r *leatv1.PlanRequest) (*leatv1.PlanResponse, error) {
	env := func(name string) (string, bool) { return "server-side-secret", name == "PGPASSWORD" }
	cfg, err := config.Parse(r.Name, r.Config, config.Options{Env: env, Dir: "/"})
	if err != nil {
		return nil, api.Errorf(api.Invalid, "%w", err)
	}
	p := &leatv1.PlanResponse{}
	if strings.Contains(string(r.Config), "same") {
		return p, nil
	}
	p.Changes = []*leatv1.Change{
		{Kind: "added", Path: "subscriptions.trace"},
		{Kind: "changed", Path: "subscriptions.search.batch.events", Before: "100", After: "500"},
		{Kind: "keep", Path: "subscriptions.audit", Note: "not in the file: kept, paused"},
		{Kind: "removed", Path: "log.retention.age", Before: "72h"},
	}
	for name, s := range cfg.Subscriptions {
		if s.Filter != "" && !strings.Contains(s.Filter, "==") {
			p.Errors = append(p.Errors, cfg.Errorf("subscriptions."+name+".filter", "the filter does not compile").Error())
		}
	}
	return p, nil
}

func (b *backend) Apply(ctx context.Context, r *leatv1.ApplyRequest) (*leatv1.ApplyResponse, error) {
	p, err := b.Plan(ctx, &leatv1.PlanRequest{Name: r.Name, Config: r.Config})
	if err != nil {
		return nil, err
	}
	if len(p.Errors) > 0 {
		return nil, api.Errorf(api.Invalid, "%s", p.Errors[0])
	}
	for _, d := range r.Drop {
		if d != "audit" {
			return nil, api.Errorf(api.NotFound, "nothing called %q is kept here", d)
		}
		p.Changes = append(p.Changes, &leatv1.Change{Kind: "remove", Path: d, Note: "subscription forgotten"})
	}
	return &leatv1.ApplyResponse{Changes: p.Changes}, nil
}

func (b *backend) Pause(_ context.Context, r *leatv1.PauseRequest) error {
	return b.set(r.Subscription, "paused", r.Reason)
}

func (b *backend) Resume(_ context.Context, r *leatv1.ResumeRequest) error {
	return b.set(r.Subscription, "running", "")
}

func (b *backend) set(name, state, reason string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.find(name)
	if s == nil {
		return none(name)
	}
	s.State, s.Reason, s.Until = state, reason, nil
	return nil
}

func (b *backend) Seek(_ context.Context, r *leatv1.SeekRequest) (*leatv1.SeekResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.find(r.Subscription)
	if s == nil {
		return nil, none(r.Subscription)
	}
	to := s.Next
	switch p := r.To.(type) {
	case *leatv1.SeekRequest_Offset:
		to = p.Offset
	case *leatv1.SeekRequest_Time:
		to = base + 80500
	}
	if to < s.Low {
		return nil, api.Errorf(api.Precondition, "offset %d is behind the cursor at %d: seek only moves forward", to, s.Low)
	}
	resp := &leatv1.SeekResponse{From: s.Low, To: to, Skipped: to - s.Low}
	if !r.DryRun {
		s.Low, s.LagEvents, s.Reason = to, s.Next-to, "seek: "+r.Reason
	}
	return resp, nil
}

func (b *backend) Parked(_ context.Context, r *leatv1.ParkedRequest) (*leatv1.ParkedResponse, error) {
	if r.Subscription != "search" {
		return &leatv1.ParkedResponse{}, nil
	}
	d := &leatv1.DeadLetter{Id: fmt.Sprintf("files-%d", base+123), Offset: base + 123, Table: "public.files", Key: `{"id":42}`, Reason: "422 from search.internal: no such field",
		Time: at(-time.Hour), Attempts: []*leatv1.Attempt{{Time: at(-time.Hour), Took: long(120 * time.Millisecond), Reason: "422 from search.internal"}}}
	switch {
	case len(r.Ids) == 0:
		b.mu.Lock()
		defer b.mu.Unlock()
		return proto.CloneOf(&leatv1.ParkedResponse{Dead: []*leatv1.DeadLetter{d}, Total: 2, Parked: b.parked, ParkedTotal: 3}), nil
	case r.Ids[0] == d.Id:
		d.Event = []byte(`{"id":"` + d.Id + `","data":{"op":"insert"}}`)
		return &leatv1.ParkedResponse{Dead: []*leatv1.DeadLetter{d}, Total: 2}, nil
	}
	return &leatv1.ParkedResponse{Total: 2}, nil
}

func (b *backend) RemoveSource(_ context.Context, r *leatv1.RemoveSourceRequest) (*leatv1.RemoveSourceResponse, error) {
	if r.Name != "files" {
		return nil, none(r.Name)
	}
	return &leatv1.RemoveSourceResponse{Done: []string{"dropped slot leat_files and publication leat_files", "removed the log logs/files"}}, nil
}

func (b *backend) choose(name string, keys []string, all bool) (chosen []*leatv1.ParkedKey, err error) {
	switch {
	case b.find(name) == nil:
		return nil, none(name)
	case len(b.parked) == 0:
		return nil, api.Errorf(api.Precondition, "%q has no parked keys", name)
	case all:
		return b.parked, nil
	}
	for _, k := range keys {
		i := slices.IndexFunc(b.parked, func(p *leatv1.ParkedKey) bool { return k == p.Key || k == p.Partitionkey || k == p.First })
		if i < 0 {
			return nil, api.Errorf(api.Precondition, "key %s of %q is not parked; leat parked %s lists those that are", k, name, name)
		}
		chosen = append(chosen, b.parked[i])
	}
	return chosen, nil
}

func (b *backend) Redrive(_ context.Context, r *leatv1.RedriveRequest) (*leatv1.RedriveResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	chosen, err := b.choose(r.Subscription, r.Keys, r.All)
	for _, p := range chosen {
		p.Redriving = true
	}
	return &leatv1.RedriveResponse{Keys: uint64(len(chosen))}, err
}

func (b *backend) Discard(_ context.Context, r *leatv1.DiscardRequest) (*leatv1.DiscardResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	chosen, err := b.choose(r.Subscription, r.Keys, r.All)
	resp := &leatv1.DiscardResponse{Keys: uint64(len(chosen))}
	for _, p := range chosen {
		resp.Events += p.Held
	}
	if !r.DryRun {
		b.parked = slices.DeleteFunc(slices.Clone(b.parked), func(p *leatv1.ParkedKey) bool { return slices.Contains(chosen, p) })
	}
	return resp, err
}

func (b *backend) Explain(_ context.Context, r *leatv1.ExplainRequest) (*leatv1.ExplainResponse, error) {
	dead := &leatv1.Explained{Id: fmt.Sprintf("files-%d", base+123), Offset: base + 123, Table: "public.files", Op: "update", Key: `{"id":42}`, Partitionkey: "[77]",
		Transaction: "751", Sequence: 2, Position: "0/16B3748", Committed: at(-2 * time.Hour), State: "parked", Reason: "503 from search.internal",
		Attempts: []*leatv1.Attempt{{Time: at(-time.Hour), Took: long(120 * time.Millisecond), Reason: "503 from search.internal"}}}
	flying := &leatv1.Explained{Id: fmt.Sprintf("files-%d", base+200), Offset: base + 200, Table: "public.files", Op: "delete", Key: `{"id":42}`, Partitionkey: "[77]",
		Transaction: "752", Sequence: 1, Position: "0/16B3800", Committed: at(-time.Hour), State: "in_flight", Reason: "it is being delivered", Until: at(8 * time.Second)}
	switch {
	case r.Subscription != "search":
		return nil, none(r.Subscription)
	case r.EventId == dead.Id:
		return &leatv1.ExplainResponse{Events: []*leatv1.Explained{dead}}, nil
	case r.Key == dead.Key || r.Key == dead.Partitionkey:
		return &leatv1.ExplainResponse{Events: []*leatv1.Explained{dead, flying}, More: true}, nil
	case r.Key != "":
		return &leatv1.ExplainResponse{}, nil
	}
	return nil, api.Errorf(api.NotFound, "the log of \"files\" has no event %s", r.EventId)
}

func (b *backend) Throttle(ctx context.Context, r *leatv1.ThrottleRequest) (*leatv1.ThrottleResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.find(r.Name)
	switch {
	case s == nil:
		return nil, none(r.Name)
	case r.Off && len(s.Throttles) == 0:
		return nil, api.Errorf(api.Precondition, "%q is not throttled by hand: nothing was changed", r.Name)
	case r.Off:
		s.Throttles = nil
	default:
		t := &leatv1.ThrottleState{Ratio: r.GetRatio(), Reason: r.Reason, Owner: api.Actor(ctx), Since: at(0)}
		if r.Duration != nil {
			t.Until = at(r.Duration.AsDuration())
		}
		s.Throttles = []*leatv1.ThrottleState{t}
	}
	return &leatv1.ThrottleResponse{Throttles: s.Throttles}, nil
}

func (b *backend) Audit(context.Context, api.Change) {}

func (b *backend) AuditLog(_ context.Context, r *leatv1.AuditLogRequest) (*leatv1.AuditLogResponse, error) {
	all := []*leatv1.AuditEntry{
		{Time: at(-48 * time.Hour), Actor: "ops", Action: "apply", Target: "leat.yaml", Arguments: "{}", Outcome: "done", Detail: "2 changes"},
		{Time: at(-time.Hour), Actor: "ops", Action: "pause", Target: "search", Arguments: `{"reason":"index rebuild"}`, Outcome: "done"},
		{Time: at(-time.Minute), Actor: "ci", Action: "seek", Target: "search", Arguments: `{"to":5}`, Outcome: "refused", Detail: "offset 5 is behind the cursor"},
		{Time: at(-time.Second), Actor: "ops", Action: "remove", Target: "files", Arguments: "{}", Outcome: "failed", Detail: "the database\x1b[2J is away"},
	}
	resp := &leatv1.AuditLogResponse{}
	for _, e := range all {
		if (r.Target == "" || r.Target == e.Target) && !e.Time.AsTime().Before(r.Since.AsTime()) {
			resp.Entries = append(resp.Entries, e)
		}
	}
	if n := len(resp.Entries) - int(r.Limit); r.Limit > 0 && n > 0 {
		resp.Entries = resp.Entries[n:]
	}
	return resp, nil
}

func (b *backend) Tail(ctx context.Context, r *leatv1.TailRequest, send func([][]byte) error) error {
	if r.Name != "files" {
		return none(r.Name)
	}
	if r.Filter == "broken" {
		return api.Errorf(api.Invalid, "filter: undeclared reference to 'broken'")
	}
	if o, ok := r.From.(*leatv1.TailRequest_Offset); ok && o.Offset < base {
		return api.Errorf(api.Gone, "offset %d is older than the log keeps (oldest %d)", o.Offset, uint64(base))
	}
	const head = `{"specversion":"1.0","id":"files-%d","source":"/sources/files","type":"leat.%s","subject":"public.files","time":"2026-11-21T10:15:30.123456Z","data":`
	events := [][]byte{
		fmt.Appendf(nil, head+`{"op":"insert","table":"public.files","key":{"id":42},"before":null,"after":{"id":42,"path":"/a","size":9007199254740993}}}`, base+1, "insert"),
		fmt.Appendf(nil, head+`{"op":"update","table":"public.files","key":{"id":42},"before":{"id":42,"path":"/a"},"after":{"id":42,"path":"/b\u001b[2J\u009b"}}}`, base+2, "update"),
		fmt.Appendf(nil, head+`{"op":"delete","table":"public.files","key":{"id":42},"before":{"id":42},"after":null}}`, base+3, "delete"),
	}
	if _, latest := r.From.(*leatv1.TailRequest_Latest); !latest {
		if err := send(events); err != nil {
			return err
		}
	}
	if r.NoFollow {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (b *backend) Events(ctx context.Context, _ api.EventsRequest, _ func([]api.Event) error) error {
	<-ctx.Done()
	return nil
}

func (b *backend) Schema(string, string, uint32) (*schemas.Table, bool) { return nil, false }

func (b *backend) Ranges(_ context.Context, r *leatv1.RangesRequest) (*leatv1.RangesResponse, error) {
	low := &leatv1.RangeState{Id: 1, Space: "public.files", EndText: "500", End: []byte{0x16, 1, 0xf4}, Parents: []uint64{0}, Opened: base, Load: 12.5, Reason: "ops: hot"}
	high := &leatv1.RangeState{Id: 2, Space: "public.files", StartText: "500", Start: []byte{0x16, 1, 0xf4}, Parents: []uint64{0}, Opened: base, Unsplittable: "one key has 93 % of the load"}
	all := []*leatv1.RangeState{low, high}
	if r.GetLineage() {
		all = append([]*leatv1.RangeState{{Space: "public.files", Closed: base, Children: []uint64{1, 2}}}, all...)
	}
	return &leatv1.RangesResponse{Ranges: all}, nil
}

func (b *backend) SplitRange(_ context.Context, r *leatv1.SplitRangeRequest) (*leatv1.SplitRangeResponse, error) {
	if r.GetKey() != `{"id":500}` {
		return nil, api.Errorf(api.Precondition, "the key is not in range 1")
	}
	all, _ := b.Ranges(context.Background(), &leatv1.RangesRequest{})
	return &leatv1.SplitRangeResponse{Ranges: all.GetRanges()}, nil
}

func (b *backend) MergeRanges(_ context.Context, r *leatv1.MergeRangesRequest) (*leatv1.MergeRangesResponse, error) {
	return &leatv1.MergeRangesResponse{Ranges: []*leatv1.RangeState{{Id: 3, Space: "public.files", Parents: r.GetRanges()}}}, nil
}
