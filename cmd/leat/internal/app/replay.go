package app

import (
	"context"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/replays"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sources/snapshot"
)

func (s *Server) replays() replays.Replays {
	return replays.Replays{Engine: s.engine, Form: s.forms.Of, Rows: func(ctx context.Context, source string, globs []string) ([]snapshot.Table, bool, error) {
		s.mu.Lock()
		rows := s.rows[source]
		s.mu.Unlock()
		if rows == nil {
			return nil, false, nil
		}
		tables, err := rows.Tables(ctx, globs)
		return tables, true, err
	}}
}

// Backfill implements api.Backend.
func (s *Server) Backfill(ctx context.Context, r *leatv1.BackfillRequest) (*leatv1.BackfillResponse, error) {
	sub, err := s.runningSubscription(r.Subscription)
	if err != nil {
		return nil, err
	}
	if r.Rebuild {
		return s.rebuild(ctx, sub, r)
	}
	return s.replays().Backfill(ctx, sub.Source, sub.Tables, r)
}

// Replay implements api.Backend.
func (s *Server) Replay(ctx context.Context, r *leatv1.ReplayRequest) (*leatv1.ReplayResponse, error) {
	sub, err := s.runningSubscription(r.Subscription)
	if err != nil {
		return nil, err
	}
	return s.replays().Replay(ctx, sub.Source, r)
}

// Jobs implements api.Backend.
func (s *Server) Jobs(ctx context.Context, r *leatv1.JobsRequest) (*leatv1.JobsResponse, error) {
	if r.Subscription != "" && !s.keeps(r.Subscription) {
		return nil, api.Errorf(api.NotFound, "no subscription %q", r.Subscription)
	}
	return s.replays().Jobs(ctx, r)
}

// PauseJob implements api.Backend.
func (s *Server) PauseJob(ctx context.Context, r *leatv1.PauseJobRequest) (*leatv1.PauseJobResponse, error) {
	return s.replays().PauseJob(ctx, r)
}

// ResumeJob implements api.Backend.
func (s *Server) ResumeJob(ctx context.Context, r *leatv1.ResumeJobRequest) (*leatv1.ResumeJobResponse, error) {
	return s.replays().ResumeJob(ctx, r)
}

// CancelJob implements api.Backend.
func (s *Server) CancelJob(ctx context.Context, r *leatv1.CancelJobRequest) (*leatv1.CancelJobResponse, error) {
	return s.replays().CancelJob(ctx, r)
}
