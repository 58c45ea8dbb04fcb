package app

import (
	"context"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/explain"
	"github.com/leat-cdc/leat/cmd/leat/internal/parked"
	"github.com/leat-cdc/leat/cmd/leat/internal/views"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/pull"
)

// What became of a subscription's events, and what is to become of those that wait.

// askTime bounds, for all events of a request, how long those that deliver are asked.
const askTime = time.Second

// Explain implements api.Backend.
func (s *Server) Explain(ctx context.Context, r *leatv1.ExplainRequest) (*leatv1.ExplainResponse, error) {
	sub, err := s.runningSubscription(r.Subscription)
	if err != nil {
		return nil, err
	}
	v, err := s.viewOf(r.Subscription)
	if err != nil {
		return nil, err
	}
	x := explain.Subscription{Name: r.Subscription, Source: sub.Source, Store: s.store, View: v, Throttles: s.throttles.States(r.Subscription)}
	asks, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	x.Retrying = func(at pipeline.Offset, hash uint64) (t *deliver.Retrying) {
		_ = s.engine.Do(r.Subscription, func(d *deliver.Subscription) error { // that does not run retries nothing
			t = d.Retrying(asks, at, hash)
			return nil
		})
		return t
	}
	for _, st := range s.engine.Status().Subscriptions {
		if st.Name == r.Subscription {
			x.Status = st
		}
	}
	return x.Explain(ctx, r)
}

// Parked implements api.Backend.
func (s *Server) Parked(ctx context.Context, r *leatv1.ParkedRequest) (*leatv1.ParkedResponse, error) {
	if !s.keeps(r.Subscription) {
		return nil, api.Errorf(api.NotFound, "no subscription %q", r.Subscription)
	}
	return s.parked(r.Subscription).Parked(ctx, r)
}

// Redrive implements api.Backend.
func (s *Server) Redrive(ctx context.Context, r *leatv1.RedriveRequest) (*leatv1.RedriveResponse, error) {
	if _, err := s.runningSubscription(r.Subscription); err != nil {
		return nil, err
	}
	return s.parked(r.Subscription).Redrive(ctx, r)
}

// Discard implements api.Backend.
func (s *Server) Discard(ctx context.Context, r *leatv1.DiscardRequest) (*leatv1.DiscardResponse, error) {
	if _, err := s.runningSubscription(r.Subscription); err != nil {
		return nil, err
	}
	return s.parked(r.Subscription).Discard(ctx, r)
}

func (s *Server) parked(name string) parked.Subscription {
	return parked.Subscription{Name: name, Source: s.sourceOf(name), Store: s.store,
		View: func() (*views.View, error) { return s.viewOf(name) },
		Do:   func(f func(*deliver.Subscription) error) error { return s.engine.Do(name, f) }}
}

// sourceOf a subscription, also of one that is kept though the file does not name it.
func (s *Server) sourceOf(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub := s.cfg.Subscriptions[name]; sub != nil {
		return sub.Source
	}
	return s.gone[name].Source
}

// runningSubscription is one that the file names.
func (s *Server) runningSubscription(name string) (*config.Subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.cfg.Subscriptions[name]
	if sub == nil {
		return nil, api.Errorf(api.NotFound, "no subscription %q", name)
	}
	return sub, nil
}

// keeps reports whether a subscription is in the file, or is kept though it is not.
func (s *Server) keeps(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, gone := s.gone[name]
	return gone || s.cfg.Subscriptions[name] != nil
}

// fetch answers a FetchRequest of who may read the subscription.
func (s *Server) fetch(ctx context.Context, r *leatv1.FetchRequest) (pull.Fetched, error) {
	sub, err := s.runningSubscription(r.Subscription)
	if err != nil {
		return pull.Fetched{}, api.ConnectError(err)
	}
	return s.fetches.Fetch(ctx, sub, r)
}
