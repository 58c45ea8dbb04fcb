package app

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/rebuilds"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/search"
)

// rebuild is a backfill into new indices.
func (s *Server) rebuild(ctx context.Context, sub *config.Subscription, r *leatv1.BackfillRequest) (*leatv1.BackfillResponse, error) {
	if sub.Deliver.Search == nil {
		return nil, api.Errorf(api.Precondition, "subscription %q delivers to %s: only indices of search are made anew", r.Subscription, sub.Deliver.Kind())
	}
	if r.Where != "" {
		return nil, api.Errorf(api.Invalid, "an index is made anew of all rows: a rebuild takes no condition")
	}
	sink := s.rebuilds.Sink(r.Subscription)
	s.mu.Lock()
	rows := s.rows[sub.Source]
	s.mu.Unlock()
	if sink == nil || rows == nil {
		return nil, api.Errorf(api.Unavailable, "subscription %q has not begun to deliver yet: try again", r.Subscription)
	}
	if r.DryRun {
		out, err := s.replays().Backfill(ctx, sub.Source, sub.Tables, r)
		if err == nil && out.Plan != nil {
			out.Plan.Notes = append(out.Plan.Notes, "the rows go into new indices, and changes into both meanwhile; when the rows are there the new ones take the place of the old ones, which are removed")
		}
		return out, err
	}
	globs := r.Tables
	if len(globs) == 0 {
		globs = sub.Tables
	}
	tables, err := verifiable(ctx, rows, sub, globs)
	if err != nil {
		return nil, err
	}
	l, err := s.engine.Log(sub.Source)
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "%w", err)
	}
	known := map[string]*schemas.Table{}
	for _, t := range l.Tables() {
		known[t.Subject()] = t
	}
	var begun []*search.Rebuild
	for _, t := range tables {
		table := known[schemas.Subject(t.Schema, t.Name)]
		if table == nil { // its columns are mapped when they come
			table = (&schemas.Table{Schema: t.Schema, Name: t.Name}).Seal()
		}
		one, err := sink.Begin(ctx, table)
		if err != nil {
			return nil, abandoned(ctx, sink, begun, err)
		}
		if one != nil {
			begun = append(begun, one)
		}
	}
	if len(begun) == 0 {
		return nil, api.Errorf(api.Precondition, "none of the tables has an index yet: leat backfill without --rebuild makes them")
	}
	out, err := s.replays().Backfill(ctx, sub.Source, sub.Tables, r)
	if err != nil {
		return nil, abandoned(ctx, sink, begun, err)
	}
	for _, one := range begun {
		if err := sink.Name(ctx, one, out.Job.Id); err != nil {
			return nil, api.Errorf(api.Unavailable, "job %s brings the rows, but index %s will not take the place of %s (%s): rebuild again", out.Job.Id, one.New, one.Old, pipeline.AsDeliveryError(err).Reason)
		}
	}
	s.rebuilds.Look(r.Subscription)
	return out, nil
}

// abandoned removes the indices that were begun.
func abandoned(ctx context.Context, sink *search.Sink, begun []*search.Rebuild, err error) error {
	for _, one := range begun {
		if aerr := sink.Abandon(ctx, one); aerr != nil {
			err = errors.Join(err, fmt.Errorf("remove index %s: %w", one.New, aerr))
		}
	}
	var ae *api.Error
	if errors.As(err, &ae) {
		return err
	}
	return api.Errorf(api.Unavailable, "begin a rebuild: %w", err)
}

// watchRebuilds makes what ends rebuilds.
func (s *Server) watchRebuilds() *rebuilds.Watcher {
	log := s.tel.Logger()
	return rebuilds.New(rebuilds.Options{Job: s.rebuildJob,
		End: func(name string) (pipeline.Offset, error) {
			sub, err := s.runningSubscription(name)
			if err != nil {
				return 0, err
			}
			l, err := s.engine.Log(sub.Source)
			if err != nil {
				return 0, err
			}
			_, end := l.Bounds()
			return end, nil
		},
		Low: func(name string) (pipeline.Offset, error) {
			for _, st := range s.engine.Status().Subscriptions {
				if st.Name == name {
					return st.Low, nil
				}
			}
			return 0, fmt.Errorf("subscription %q does not run", name)
		},
		Ended: func(name string, r search.Rebuild, err error) {
			if err != nil {
				log.Warn().Str("subscription", name).Str("index", r.New).Err(err).Str("cure", "leat backfill "+name+" --rebuild").Msg("an index was not made anew, the old one stays")
				return
			}
			log.Info().Str("subscription", name).Str("alias", r.Alias).Str("index", r.New).Str("instead_of", r.Old).Msg("an index was made anew")
		}})
}

// rebuildJob says how the job is that fills indices.
func (s *Server) rebuildJob(ctx context.Context, id string) (rebuilds.Job, error) {
	all, err := s.engine.Snapshots(ctx)
	if err != nil {
		return rebuilds.Job{}, err
	}
	for _, j := range all {
		if j.ID != id {
			continue
		}
		return rebuilds.Job{Known: true, Ended: j.State.Ended(), Fault: func(alias string) string {
			if j.State != pipeline.JobDone {
				return "it is " + string(j.State) + ". " + j.Reason
			}
			for _, t := range j.Progress {
				if t.Fault != "" && s.indexOf(j.For, t.Table) == alias {
					return t.Fault
				}
			}
			return ""
		}}, nil
	}
	return rebuilds.Job{}, nil
}

// indexOf is the index of a table, in Subject form, of a subscription.
func (s *Server) indexOf(subscription, table string) string {
	sub, err := s.runningSubscription(subscription)
	if err != nil || sub.Deliver.Search == nil {
		return ""
	}
	schema, name, _ := strings.Cut(table, ".")
	if a, err := url.PathUnescape(schema); err == nil {
		schema = a
	}
	if a, err := url.PathUnescape(name); err == nil {
		name = a
	}
	return search.AliasOf(sub.Deliver.Search.Index, sub.Source, schema, name)
}
