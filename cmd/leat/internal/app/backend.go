package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

var _ api.Backend = (*Server)(nil)

// parse reads a configuration that a client sent, with the server's environment.
func (s *Server) parse(name string, text []byte) (*config.Config, error) {
	cfg, err := config.Parse(name, text, config.Options{Dir: s.o.Config.Dir()})
	if err != nil {
		return nil, api.Errorf(api.Invalid, "%w", err)
	}
	if err := cfg.CheckRun(); err != nil {
		return nil, api.Errorf(api.Invalid, "%w", err)
	}
	return cfg, nil
}

// changes from what runs to cfg, and what of the state the file does not name.
func (s *Server) changes(cfg *config.Config) []*leatv1.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*leatv1.Change
	for _, c := range config.Diff(s.runs(), cfg) {
		all = append(all, &leatv1.Change{Kind: string(c.Op), Path: c.Path, Before: c.Old, After: c.New, Note: c.Note})
	}
	for _, name := range slices.Sorted(maps.Keys(s.gone)) {
		if cfg.Subscriptions[name] == nil {
			all = append(all, &leatv1.Change{Kind: "keep", Path: "subscriptions." + name,
				Note: "not in the file: kept, paused; leat apply --drop " + name + " forgets it"})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.lost)) {
		if cfg.Sources[name] == nil {
			all = append(all, &leatv1.Change{Kind: "keep", Path: "sources." + name, Note: goneSource(name)})
		}
	}
	return all
}

// runs is the configuration without what was removed since (leat source remove): apply makes that anew.
// Callers hold s.mu.
func (s *Server) runs() *config.Config {
	if len(s.removed) == 0 {
		return s.cfg
	}
	c := *s.cfg
	c.Sources, c.Subscriptions = maps.Clone(c.Sources), maps.Clone(c.Subscriptions)
	maps.DeleteFunc(c.Sources, func(name string, _ *config.Source) bool { return s.removed[name] })
	maps.DeleteFunc(c.Subscriptions, func(_ string, sub *config.Subscription) bool { return s.removed[sub.Source] })
	return &c
}

// Plan implements api.Backend.
func (s *Server) Plan(_ context.Context, r *leatv1.PlanRequest) (*leatv1.PlanResponse, error) {
	cfg, err := s.parse(r.Name, r.Config)
	if err != nil {
		return nil, err
	}
	return &leatv1.PlanResponse{Changes: s.changes(cfg)}, nil
}

// Apply implements api.Backend.
func (s *Server) Apply(ctx context.Context, r *leatv1.ApplyRequest) (*leatv1.ApplyResponse, error) {
	cfg, err := s.parse(r.Name, r.Config)
	if err != nil {
		return nil, err
	}
	s.apply.Lock()
	defer s.apply.Unlock()
	for _, name := range r.Drop {
		if cfg.Subscriptions[name] != nil || cfg.Sources[name] != nil {
			return nil, api.Errorf(api.Precondition, "%q is still in the file: take it out before it is dropped", name)
		}
	}
	changes := s.changes(cfg)
	if err := s.carry(context.WithoutCancel(ctx), cfg); err != nil {
		return nil, api.Errorf(api.Invalid, "%w", err)
	}
	api.Note(ctx, fmt.Sprintf("%d changes", len(changes)))
	for _, name := range r.Drop {
		done, err := s.drop(ctx, name)
		if err != nil {
			return nil, err
		}
		changes = append(changes, &leatv1.Change{Kind: "remove", Path: name, Note: done})
	}
	return &leatv1.ApplyResponse{Changes: changes}, nil
}

// drop forgets a source or subscription that the file no longer names.
func (s *Server) drop(ctx context.Context, name string) (string, error) {
	s.mu.Lock()
	_, isSub := s.gone[name]
	data, cfg := s.o.Config.Data, s.cfg // `data` of another file counts at the next start
	db, was := s.databases[name], s.was[name]
	s.mu.Unlock()
	if isSub {
		if err := s.store.DropSubscription(ctx, name); err != nil {
			return "", err
		}
		api.Note(ctx, "dropped subscription "+name)
		return "subscription forgotten, with cursor and dead letters", s.refreshGone(ctx, cfg)
	}
	sources, err := s.store.Sources(ctx)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(sources, func(x state.Source) bool { return x.Name == name }) {
		return "", api.Errorf(api.NotFound, "nothing called %q is kept here", name)
	}
	done, err := removeFromDatabase(context.WithoutCancel(ctx), db, was)
	if err != nil {
		return "", api.Errorf(api.Unavailable, "source %q is untouched, as its database refused: %w; try again, or restart leat run and drop it then, which leaves its slot and publication there", name, err)
	}
	if err := os.RemoveAll(logFolder(data, name)); err != nil {
		return "", fmt.Errorf("remove the log of %q: %w", name, err)
	}
	if err := s.store.DropSource(ctx, name); err != nil {
		return "", err
	}
	s.mu.Lock()
	delete(s.databases, name)
	delete(s.was, name)
	s.mu.Unlock()
	api.Note(ctx, "dropped source "+name+": log removed; "+done)
	return "log removed; " + done, s.refreshGone(ctx, cfg)
}

// removeFromDatabase drops what a source made in its database, as far as that is known, and says what it did.
func removeFromDatabase(ctx context.Context, db parts.Database, c *config.Source) (string, error) {
	switch {
	case db == nil || c == nil: // the file stopped naming it before this process began
		return "its database is not known any more: a slot and a publication there stay, and an unused slot holds WAL: drop them there", nil
	case c.Postgres == nil:
		return "its database keeps nothing of it", nil
	case !c.Postgres.Create:
		return "slot " + c.Postgres.Slot + " and publication " + c.Postgres.Publication +
			" stay in the database, as create: false says that they are not ours; an unused slot holds WAL: drop it there", nil
	}
	if err := db.Remove(ctx); err != nil {
		return "", err
	}
	return "slot " + c.Postgres.Slot + " dropped in the database, and publication " + c.Postgres.Publication + " if Leat had made it", nil
}

// Pause implements api.Backend.
func (s *Server) Pause(ctx context.Context, r *leatv1.PauseRequest) error {
	reason := r.Reason
	if reason == "" {
		reason = "paused by " + api.Actor(ctx)
	}
	return s.command(r.Subscription, "pause", func(d *deliver.Subscription) error { return d.Pause(ctx, reason) })
}

// Resume implements api.Backend.
func (s *Server) Resume(ctx context.Context, r *leatv1.ResumeRequest) error {
	return s.command(r.Subscription, "resume", func(d *deliver.Subscription) error { return d.Resume(ctx) })
}

func (s *Server) command(name, action string, f func(*deliver.Subscription) error) error {
	if err := s.engine.Do(name, f); err != nil {
		if errors.Is(err, engine.ErrUnknown) {
			if known := s.notASource(name, action); known != nil {
				return known
			}
			return api.Errorf(api.NotFound, "%w", err)
		}
		return api.Errorf(api.Precondition, "%w", err)
	}
	return nil
}

// notASource tells who names a source where only a subscription can be meant.
func (s *Server) notASource(name, action string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Sources[name] == nil || s.cfg.Subscriptions[name] != nil {
		return nil
	}
	var subs []string
	for sub, c := range s.cfg.Subscriptions {
		if c.Source == name {
			subs = append(subs, sub)
		}
	}
	slices.Sort(subs)
	doing := map[string]string{"pause": "pausing", "resume": "resuming"}[action]
	return api.Errorf(api.Invalid, "%q is a source: %s a source is not supported by this version; NAME of a subscription: %s", name, doing, strings.Join(subs, ", "))
}

// Seek implements api.Backend.
func (s *Server) Seek(ctx context.Context, r *leatv1.SeekRequest) (*leatv1.SeekResponse, error) {
	sub, err := s.runningSubscription(r.Subscription)
	if err != nil {
		return nil, err
	}
	log, err := s.engine.Log(sub.Source)
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "%w", err)
	}
	_, next := log.Bounds()
	to := next
	switch at := r.To.(type) {
	case *leatv1.SeekRequest_Offset:
		to = pipeline.Offset(at.Offset)
	case *leatv1.SeekRequest_Time:
		if to, err = log.At(ctx, at.Time.AsTime()); err != nil {
			return nil, err
		}
	}
	resp := &leatv1.SeekResponse{To: uint64(to)}
	err = s.engine.Do(r.Subscription, func(d *deliver.Subscription) error {
		oldest, _ := log.Bounds()
		from := max(oldest, d.Status().Low) // a cursor of another log has no Low here
		resp.From = uint64(from)
		switch {
		case to > next:
			return fmt.Errorf("offset %d: %w (it is %d)", to, pipeline.ErrBeyondTail, next)
		case to < from:
			return fmt.Errorf("offset %d is behind the cursor at %d: seek only moves forward; leat replay will bring what is past", to, from)
		}
		resp.Skipped = uint64(to - from)
		if r.DryRun {
			return nil
		}
		return d.Seek(ctx, deliver.Start{Offset: to}, r.Reason)
	})
	if err != nil {
		return nil, api.Errorf(api.Precondition, "%w", err)
	}
	if !r.DryRun {
		api.Note(ctx, fmt.Sprintf("from %d to %d", resp.From, resp.To))
	}
	return resp, nil
}

// RemoveSource implements api.Backend.
func (s *Server) RemoveSource(ctx context.Context, r *leatv1.RemoveSourceRequest) (*leatv1.RemoveSourceResponse, error) {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.mu.Lock()
	db, data := s.databases[r.Name], s.o.Config.Data
	src := s.cfg.Sources[r.Name]
	var subs []string
	for name, sub := range s.cfg.Subscriptions {
		if sub.Source == r.Name {
			subs = append(subs, name)
		}
	}
	s.mu.Unlock()
	if db == nil {
		return nil, api.Errorf(api.NotFound, "no source %q runs here", r.Name)
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.engine.RemoveSource(r.Name); err != nil && !errors.Is(err, engine.ErrUnknown) {
		return nil, err
	}
	resp := &leatv1.RemoveSourceResponse{}
	done, err := removeFromDatabase(ctx, db, src)
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "the source was stopped, its log is untouched, but the database refused: %w", err)
	}
	resp.Done = append(resp.Done, done)
	if err := os.RemoveAll(logFolder(data, r.Name)); err != nil {
		return nil, fmt.Errorf("remove the log: %w", err)
	}
	resp.Done = append(resp.Done, "removed the log "+filepath.Join("logs", r.Name))
	if err := s.store.DropSource(ctx, r.Name); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(slices.Values(subs)) {
		if err := s.store.DropSubscription(ctx, name); err != nil {
			return nil, err
		}
		resp.Done = append(resp.Done, "forgot subscription "+name)
	}
	s.mu.Lock()
	delete(s.databases, r.Name)
	delete(s.rows, r.Name)
	s.removed[r.Name] = true
	s.mu.Unlock()
	api.Note(ctx, "source with database objects and log")
	resp.Done = append(resp.Done, "take the source and its subscriptions out of the file, else the next start makes them anew")
	return resp, nil
}

// Ready implements api.Backend.
func (s *Server) Ready() (ok bool, why []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.engine.Status()
	seen := map[string]bool{}
	for _, x := range st.Sources {
		seen["source "+x.Name] = true
		if x.State != "streaming" {
			why = append(why, fmt.Sprintf("source %s: %s", x.Name, x.State))
		}
	}
	for _, x := range st.Subscriptions {
		seen["subscription "+x.Name] = true
		if x.State == deliver.StateStopped || x.State == deliver.StateBlocked || x.State == deliver.StatePaused {
			why = append(why, fmt.Sprintf("subscription %s: %s", x.Name, x.State))
		}
	}
	for name := range s.cfg.Sources {
		if !seen["source "+name] {
			why = append(why, "source "+name+": not started")
		}
	}
	for name := range s.cfg.Subscriptions {
		if !seen["subscription "+name] {
			why = append(why, "subscription "+name+": not started")
		}
	}
	slices.Sort(why)
	return len(why) == 0, why
}

// Schema implements api.Backend.
func (s *Server) Schema(source, table string, version uint32) (*schemas.Table, bool) {
	log, err := s.engine.Log(source)
	if err != nil {
		return nil, false
	}
	if l, ok := log.(*disklog.Log); ok { // every version that it describes
		t, err := l.Table(table, version)
		return t, err == nil && t != nil
	}
	for _, t := range log.Tables() {
		if t.Subject() == table && t.Version == version {
			return t, true
		}
	}
	return nil, false
}
