package app

import (
	"context"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// loadThrottles takes up those that were set before this start.
func (s *Server) loadThrottles(ctx context.Context) error {
	all, err := s.store.Throttles(ctx)
	if err != nil {
		return err
	}
	for _, t := range all {
		s.putThrottle(t)
	}
	return nil
}

func (s *Server) putThrottle(t state.Throttle) { s.throttles.Put(t, func() { s.expireThrottle(t) }) }

// expireThrottle ends a throttle whose time is over, unless another one took its place.
func (s *Server) expireThrottle(t state.Throttle) {
	s.apply.Lock()
	defer s.apply.Unlock()
	if !s.throttles.Expire(t) {
		return
	}
	c := api.Change{Action: "throttle", Target: t.Name, Arguments: `{"off":true}`, Detail: "its time is over"}
	c.Err = s.store.DropThrottle(context.Background(), t.Name)
	s.audit(context.Background(), "leat", c)
}

// stopThrottles ends the timers; what is set stays so in the state.
func (s *Server) stopThrottles() {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.throttles.Stop()
}

// maxThrottle bounds a throttle's time.
const maxThrottle = 366 * 24 * time.Hour

// Throttle implements api.Backend.
func (s *Server) Throttle(ctx context.Context, r *leatv1.ThrottleRequest) (*leatv1.ThrottleResponse, error) {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.mu.Lock()
	known := s.cfg.Sources[r.Name] != nil || s.cfg.Subscriptions[r.Name] != nil
	s.mu.Unlock()
	before, is := s.throttles.Get(r.Name)
	switch {
	case !known:
		return nil, api.Errorf(api.NotFound, "no source or subscription %q", r.Name)
	case r.Off && !is:
		return nil, api.Errorf(api.Precondition, "%q is not throttled by hand: nothing was changed", r.Name)
	case r.Off:
		if err := s.store.DropThrottle(ctx, r.Name); err != nil {
			return nil, err
		}
		s.throttles.Drop(r.Name)
		api.Note(ctx, fmt.Sprintf("was %v by %s", before.Ratio, before.Owner))
		return s.throttleResponse(r.Name), nil
	case r.GetDuration().AsDuration() > maxThrottle:
		return nil, api.Errorf(api.Invalid, "for %s: at most a year, or leave it out: until leat throttle %s --off", r.GetDuration().AsDuration(), r.Name)
	}
	t := state.Throttle{Name: r.Name, Ratio: r.GetRatio(), Reason: r.Reason, Owner: api.Actor(ctx), Since: time.Now().UTC().Truncate(time.Microsecond)}
	if d := r.GetDuration().AsDuration(); d > 0 {
		t.Until = t.Since.Add(d)
	}
	if err := s.store.PutThrottle(ctx, t); err != nil {
		return nil, err
	}
	s.putThrottle(t)
	return s.throttleResponse(r.Name), nil
}

func (s *Server) throttleResponse(name string) *leatv1.ThrottleResponse {
	return &leatv1.ThrottleResponse{Throttles: s.throttles.States(name)}
}
