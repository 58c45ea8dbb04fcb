package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/cmd/leat/internal/rebuilds"
	"github.com/leat-cdc/leat/cmd/leat/internal/report"
	"github.com/leat-cdc/leat/cmd/leat/internal/telemetry"
	"github.com/leat-cdc/leat/cmd/leat/internal/throttles"
	"github.com/leat-cdc/leat/cmd/leat/internal/verify"
	"github.com/leat-cdc/leat/cmd/leat/internal/views"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/flow"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/form"
	"github.com/leat-cdc/leat/schemas/registry"
	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/encode/records"
	"github.com/leat-cdc/leat/sinks/pull"
	"github.com/leat-cdc/leat/sinks/webhook"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// Server is a running installation. Safe for concurrent use.
type Server struct {
	o         Options
	tel       *telemetry.Telemetry
	store     *state.Store
	registry  *registry.Embedded
	schemas   records.Schemas // the registry of records: ours, or another
	engine    *engine.Engine
	hub       *pull.Hub
	http      *api.Server // set before it serves
	share     *encode.Share
	started   time.Time
	publicURL string
	forms     form.Cache

	ended error      // of quiesce
	apply sync.Mutex // one change of the configuration at a time

	mu        sync.Mutex
	cfg       *config.Config // what runs
	databases map[string]parts.Database
	rows      map[string]snapshot.Database  // of those that can be copied
	was       map[string]*config.Source     // sources that were taken out of the file since the start
	removed   map[string]bool               // sources of cfg that were removed since
	gone      map[string]state.Subscription // kept, but not in the file
	lost      map[string]state.Source       // sources that are kept, but not in the file
	holds     map[string]pipeline.Offset    // by source: the lowest offset that one which does not run wants
	fetches   *views.Fetches
	webhooks  map[string]*webhook.Sink // by subscription, as opened last
	throttles *throttles.Set
	feeds     *report.Feeds
	report    *report.Report
	rebuilds  *rebuilds.Watcher
}

// shareOf the memory budget: what sinks encode for one another, the logs' tails, their queues, and the
// rest for what subscriptions hold.
func (s *Server) shareOf(percent int) int64 { return int64(s.o.Config.Memory) * int64(percent) / 100 }

func newServer(ctx context.Context, o Options, tel *telemetry.Telemetry, addr net.Addr) (*Server, error) {
	if st, err := os.Stat(o.Config.Data); err == nil && !st.IsDir() {
		return nil, fmt.Errorf("data folder: %s is a file, not a folder: move the file away, or name another place as data: in the config", o.Config.Data)
	}
	if err := os.MkdirAll(o.Config.Data, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	store, err := state.Open(ctx, stateFile(o.Config.Data))
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, tel: tel, store: store, hub: pull.NewHub(), started: time.Now(), cfg: o.Config,
		databases: map[string]parts.Database{}, rows: map[string]snapshot.Database{}, was: map[string]*config.Source{}, removed: map[string]bool{}, gone: map[string]state.Subscription{}, lost: map[string]state.Source{}, holds: map[string]pipeline.Offset{},
		webhooks: map[string]*webhook.Sink{}, throttles: throttles.NewSet(), feeds: report.NewFeeds()}
	s.publicURL = strings.TrimSuffix(o.Config.PublicURL, "/")
	if strings.HasSuffix(s.publicURL, ":0") { // the port was the system's choice
		scheme, _, _ := strings.Cut(s.publicURL, "://")
		s.publicURL = scheme + "://" + addr.String()
	}
	s.hub.Authorize = api.MaySubscribe
	s.hub.Fetch = s.fetch
	s.hub.Starting = func(name string) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		sub := s.cfg.Subscriptions[name]
		return sub != nil && sub.Deliver.Pull != nil
	}
	s.fetches = views.NewFetches(views.FetchOptions{Memory: int64(o.Config.Memory), PublicURL: s.publicURL, Form: s.forms.Of,
		Log: func(source string) (pipeline.Log, error) { return s.engine.Log(source) }})
	s.share = encode.NewShare(int(s.shareOf(25)))
	s.report = report.New(report.Options{Store: store, Log: s.diskLog, SourceRate: tel.SourceRate, SubscriptionRate: tel.SubscriptionRate,
		Lacking: func(ctx context.Context, source string, n pipeline.Notice) []string {
			return s.engine.Lacking(ctx, source, n)
		}})
	s.engine = engine.New(engine.Config{Cursors: store, Store: store, Memory: deliver.NewMemory(s.shareOf(50)), Form: s.forms.Of, Observer: s.observer()})
	if s.registry, err = parts.Embedded(ctx, o.Config, store); err == nil {
		s.schemas, err = parts.Registry(o.Config, s.registry)
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	s.rebuilds = s.watchRebuilds()
	tel.Collect(s.status)
	return s, nil
}

// observer adds to the telemetry's what status shows and status sources tell.
func (s *Server) observer() pipeline.Observer {
	return s.report.Observe(s.feeds.Observe(s.tel.Observer().Fill()))
}

// begin starts what the file names.
func (s *Server) begin(ctx context.Context) error {
	if err := verify.Sweep(s.o.Config.Data); err != nil {
		return err
	}
	if err := s.holdAll(ctx); err != nil {
		return err
	}
	if err := s.loadThrottles(ctx); err != nil {
		return err
	}
	s.feeds.Open(s.cfg)
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Sources)) {
		if err := s.startSource(ctx, s.cfg, name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Subscriptions)) {
		if err := s.startSubscription(ctx, s.cfg, name); err != nil {
			return err
		}
	}
	return s.refreshGone(ctx, s.cfg)
}

// quiesce stops reading and delivering; the API still answers.
func (s *Server) quiesce() { s.ended = s.engine.Stop() }

func (s *Server) stop() error {
	s.stopThrottles()
	s.rebuilds.Close()
	s.fetches.Close()
	defer parts.CloseRegistry(s.schemas)
	return errors.Join(s.ended, s.engine.Stop(), s.store.Close())
}

func (s *Server) startSource(ctx context.Context, cfg *config.Config, name string) error {
	src := cfg.Sources[name]
	n := int64(max(1, len(cfg.Sources)))
	obs := s.observer()
	db, err := parts.Source(name, src, obs, func() []*schemas.Table { return s.tables(name) })
	if err != nil {
		return cfg.Errorf("sources."+name, "%v", err)
	}
	if src.Status != nil {
		db = s.feeds.Of(name)
	}
	with, rows, err := parts.Snapshots(name, src, db)
	if err != nil {
		return cfg.Errorf("sources."+name+".snapshot", "%v", err)
	}
	flags := s.throttles.Flags(src.Load, func(why string) { s.flagRefused(name, why) })
	spec := engine.Source{Name: name, Source: with, Routes: parts.Routes(src), Ranges: rangePolicy,
		Initial: src.Snapshot.Mode == "initial", SnapshotRoom: func() int64 { return snapshotRoom(s.retention()) },
		OpenLog: func(ctx context.Context) (pipeline.Log, error) {
			l, err := disklog.Open(disklog.Options{Dir: logFolder(s.o.Config.Data, name), Source: name, Observer: obs, FS: s.o.FS,
				Retention: s.retention(),
				Memory:    s.shareOf(15) / n, Queue: s.shareOf(10) / n, SegmentSize: segmentSize(int64(cfg.Log.Retention.Size))})
			if err != nil {
				return nil, err
			}
			return l, s.store.PutSource(ctx, state.Source{Name: name, Log: l.ID(), Spec: parts.Kind(src)})
		},
		Hold: func() (pipeline.Offset, bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			o, ok := s.holds[name]
			return o, ok
		},
		Throttles: func() []flow.Throttle { return append(s.throttles.Of(name), flags.Now()...) },
		Disk:      func() (free, total uint64, err error) { return s.o.Space(s.o.Config.Data) },
		DiskStage: func(st flow.DiskStage) {
			obs.Warned("log of "+name, report.DiskWarnings[st], "free space in "+s.o.Config.Data+", or lower log.retention.size and `leat apply`")
		}}
	if src.Load != nil {
		spec.Limits = flow.Limits{MaxActive: src.Load.MaxActive, MaxReplicaLag: src.Load.MaxReplicaLag.D()}
	}
	if err := s.engine.AddSource(ctx, spec); err != nil {
		return err
	}
	s.mu.Lock()
	s.databases[name] = db
	if delete(s.rows, name); rows != nil {
		s.rows[name] = rows
	}
	delete(s.removed, name)
	s.mu.Unlock()
	return nil
}

// snapshotRoom is what may be undelivered of a snapshot: it never evicts live history.
func snapshotRoom(r disklog.Retention) int64 {
	const most = 1 << 30
	if r.Size <= 0 {
		return most
	}
	return min(most, r.Size/20)
}

func retentionOf(cfg *config.Config) disklog.Retention {
	return disklog.Retention{Age: cfg.Log.Retention.Age.D(), Size: int64(cfg.Log.Retention.Size)}
}

// retention in force: a log that is opened again takes what was applied since.
func (s *Server) retention() disklog.Retention {
	s.mu.Lock()
	defer s.mu.Unlock()
	return retentionOf(s.cfg)
}

// segmentSize lets a small log have at least eight segments, so that retention by size is not coarse.
func segmentSize(retention int64) int64 {
	return min(128<<20, max(1<<20, retention/8))
}

func (s *Server) startSubscription(ctx context.Context, cfg *config.Config, name string) error {
	sub := cfg.Subscriptions[name]
	if err := s.store.PutSubscription(ctx, state.Subscription{Name: name, Source: sub.Source, Spec: sub.Deliver.Kind()}); err != nil {
		return err
	}
	c, err := parts.Subscription(cfg, name, s.forms.Of)
	if err != nil {
		return err
	}
	c.Throttle, c.Grace = s.throttles.Handle(name), s.o.Grace
	c.Budget, c.Credit = max(4<<20, s.shareOf(50)/4), min(4<<20, max(64<<10, s.shareOf(50)/int64(4*max(1, len(cfg.Subscriptions)))))
	render := encode.JSON(parts.Encoding(sub, s.publicURL, s.forms.Of))
	c.Render = func(b *pipeline.Batch, i int, as pipeline.Op) ([]byte, string) {
		key, _, err := render.Key(b, i)
		if err != nil {
			key = "null"
		}
		text, err := render.Append(nil, b, i, as)
		if err != nil {
			return nil, key // the letter's reason says why
		}
		return text, key
	}
	err = s.engine.AddSubscription(engine.Subscription{Deliver: c, Tables: sub.Tables, OpenSink: s.sinks().Open(cfg, name)})
	if err != nil {
		return fmt.Errorf("subscription %q: %w", name, err)
	}
	return nil
}

// tables are those that a source's log knows.
func (s *Server) tables(source string) []*schemas.Table {
	if l, err := s.engine.Log(source); err == nil {
		return l.Tables()
	}
	return nil
}

// sinks is what ours have in common.
func (s *Server) sinks() parts.Sinks {
	return parts.Sinks{PublicURL: s.publicURL, Form: s.forms.Of, Share: s.share, Schemas: s.schemas, Tables: s.tables, Hub: s.hub, Stdout: s.o.Stdout,
		Searches: s.rebuilds.Add,
		Opened: func(name string, w *webhook.Sink) {
			s.mu.Lock()
			s.webhooks[name] = w
			s.mu.Unlock()
		}}
}

// compile makes a program of globs over schema.table and an expression.
func (s *Server) compile(tables []string, expr string) (*filter.Program, error) {
	return filter.Compile(filter.Options{Tables: tables, Expr: expr, Form: s.forms.Of})
}

// holdAll keeps for retention what any subscription wants that was ever named here: while they are being
// started, none of them can say so itself.
func (s *Server) holdAll(ctx context.Context) error {
	_, holds, err := s.kept(ctx, func(state.Subscription) bool { return true })
	if err == nil {
		s.mu.Lock()
		s.holds = holds
		s.mu.Unlock()
	}
	return err
}

// kept lists the stored subscriptions that one asks for, and what of each source's log they want.
func (s *Server) kept(ctx context.Context, which func(state.Subscription) bool) (map[string]state.Subscription, map[string]pipeline.Offset, error) {
	all, err := s.store.Subscriptions(ctx)
	if err != nil {
		return nil, nil, err
	}
	subs, holds := map[string]state.Subscription{}, map[string]pipeline.Offset{}
	for _, sub := range all {
		if !which(sub) {
			continue
		}
		subs[sub.Name] = sub
		c, ok, err := s.store.Load(ctx, sub.Name)
		if err != nil {
			return nil, nil, err
		}
		if at, held := holds[sub.Source]; ok && (!held || c.Low < at) {
			holds[sub.Source] = c.Low
		}
	}
	return subs, holds, nil
}

// refreshGone looks up what is kept though the file does not name it any more, and what of the logs it wants.
func (s *Server) refreshGone(ctx context.Context, cfg *config.Config) error {
	gone, holds, err := s.kept(ctx, func(sub state.Subscription) bool { return cfg.Subscriptions[sub.Name] == nil })
	if err != nil {
		return err
	}
	sources, err := s.store.Sources(ctx)
	if err != nil {
		return err
	}
	lost := map[string]state.Source{}
	for _, src := range sources {
		if cfg.Sources[src.Name] == nil {
			lost[src.Name] = src
		}
	}
	s.mu.Lock()
	s.gone, s.lost, s.holds = gone, lost, holds
	s.mu.Unlock()
	return nil
}

// stopChanged stops the subscriptions that cfg has not, or not as they are: all at once, as each may take its grace.
func (s *Server) stopChanged(old, cfg *config.Config) error {
	var names []string
	for name, sub := range old.Subscriptions {
		if now := cfg.Subscriptions[name]; now == nil || !reflect.DeepEqual(now, sub) || !reflect.DeepEqual(cfg.Sources[sub.Source], old.Sources[sub.Source]) {
			names = append(names, name)
		}
	}
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			if err := s.engine.RemoveSubscription(name); err != nil && !errors.Is(err, engine.ErrUnknown) {
				errs[i] = err
			}
		})
	}
	all.Wait()
	for _, name := range names {
		if cfg.Subscriptions[name] == nil {
			s.tel.ForgetSubscription(name)
		}
	}
	return errors.Join(errs...)
}

// carry makes the running installation what cfg says. Callers hold s.apply.
func (s *Server) carry(ctx context.Context, cfg *config.Config) error {
	s.mu.Lock()
	old := s.cfg
	s.mu.Unlock()
	if err := s.holdAll(ctx); err != nil {
		return err
	}
	if err := s.stopChanged(old, cfg); err != nil {
		return err
	}
	for name, src := range old.Sources {
		if !reflect.DeepEqual(cfg.Sources[name], src) {
			if err := s.engine.RemoveSource(name); err != nil && !errors.Is(err, engine.ErrUnknown) {
				return err
			}
			if cfg.Sources[name] == nil {
				s.tel.ForgetSource(name)
				s.mu.Lock()
				s.was[name] = src
				s.mu.Unlock()
			}
		}
	}
	s.mu.Lock()
	s.cfg = cfg
	s.mu.Unlock()
	s.feeds.Open(cfg)
	if mode, err := compat.Parse(cfg.Registry.Compatibility); err == nil { // the config takes no other words
		s.registry.SetMode(mode)
	}
	if cfg.Log.Retention != old.Log.Retention {
		for name := range cfg.Sources {
			if l, ok := s.diskLog(name); ok {
				l.SetRetention(retentionOf(cfg))
			}
		}
	}
	return errors.Join(s.setTokens(cfg), s.startMissing(ctx, cfg), s.refreshGone(ctx, cfg))
}

// setTokens lets a token that is taken out in no more. From none to some, or back, waits for the next start.
func (s *Server) setTokens(cfg *config.Config) error {
	var refused *api.Error
	err := s.http.SetTokens(tokens(cfg))
	if errors.As(err, &refused) && refused.Kind == api.Precondition {
		return nil
	}
	return err
}

func tokens(cfg *config.Config) []api.Token {
	var all []api.Token
	for _, t := range cfg.Tokens {
		all = append(all, api.Token{Name: t.Name, SHA256: t.SHA256, Roles: t.Roles})
	}
	return all
}

// startMissing starts what cfg names and does not run.
func (s *Server) startMissing(ctx context.Context, cfg *config.Config) error {
	st := s.engine.Status()
	runs := map[string]bool{}
	for _, x := range st.Sources {
		runs["source "+x.Name] = true
	}
	for _, x := range st.Subscriptions {
		runs[x.Name] = true
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(cfg.Sources)) {
		if !runs["source "+name] {
			errs = append(errs, s.startSource(ctx, cfg, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Subscriptions)) {
		if !runs[name] {
			errs = append(errs, s.startSubscription(ctx, cfg, name))
		}
	}
	return errors.Join(errs...)
}

// reload is SIGHUP: apply of the file.
func (s *Server) reload(ctx context.Context, load func() (*config.Config, error)) {
	log := s.tel.Logger()
	cfg, err := load()
	refused := err != nil
	if err == nil {
		s.apply.Lock()
		err = s.carry(ctx, cfg)
		s.apply.Unlock()
	}
	s.audit(ctx, bySignal, api.Change{Action: "apply", Err: err, Refused: refused})
	if err != nil {
		log.Error().Err(err).Msg("reload refused; what runs goes on")
		return
	}
	log.Info().Msg("reloaded")
}

func (s *Server) apiOptions(cfg *config.Config) (o api.Options, err error) {
	o = api.Options{Backend: s, Subscriber: s.hub.Handler, Metrics: s.tel.Handler(), Registry: s.registry.Handler("/registry"), Listen: cfg.Listen, PublicURL: s.publicURL, Limits: s.o.Limits, Grace: s.o.Grace, ErrorLog: s.tel.ServerLog(), Tokens: tokens(cfg)}
	if cfg.TLS.Enabled() {
		cert, err := tls.LoadX509KeyPair(cfg.TLS.Cert, cfg.TLS.Key)
		if err != nil {
			return o, cfg.Errorf("tls", "certificate or key cannot be read: %v", err)
		}
		o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	return o, nil
}
