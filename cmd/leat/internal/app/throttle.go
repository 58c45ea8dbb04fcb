package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/flow"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// throttles are those that operators have set, by name of source or subscription. Their lock is a leaf: the
// engine asks for them while Server.mu may be held.
type throttles struct {
	mu     sync.Mutex
	set    map[string]state.Throttle
	expire map[string]*time.Timer
	// handles of subscriptions, made when first asked for: they outlive what runs under the name.
	handles map[string]*deliver.Throttle
}

func newThrottles() *throttles {
	return &throttles{set: map[string]state.Throttle{}, expire: map[string]*time.Timer{}, handles: map[string]*deliver.Throttle{}}
}

// handle of a subscription's throttle. Callers hold mu.
func (t *throttles) handle(name string) *deliver.Throttle {
	h := t.handles[name]
	if h == nil {
		h = deliver.NewThrottle()
		t.handles[name] = h
	}
	return h
}

// put sets a throttle. Callers hold mu.
func (t *throttles) put(x state.Throttle, over func()) {
	t.drop(x.Name)
	t.set[x.Name] = x
	t.handle(x.Name).Set(x.Ratio)
	if !x.Until.IsZero() {
		t.expire[x.Name] = time.AfterFunc(time.Until(x.Until), over)
	}
}

// drop ends a throttle. Callers hold mu.
func (t *throttles) drop(name string) {
	if timer := t.expire[name]; timer != nil {
		timer.Stop()
	}
	delete(t.expire, name)
	delete(t.set, name)
	t.handle(name).Set(1)
}

// throttleOf a subscription that is started.
func (s *Server) throttleOf(subscription string) *deliver.Throttle {
	s.throttles.mu.Lock()
	defer s.throttles.mu.Unlock()
	return s.throttles.handle(subscription)
}

// throttlesOf a source, as operators have set them.
func (s *Server) throttlesOf(source string) []flow.Throttle {
	s.throttles.mu.Lock()
	defer s.throttles.mu.Unlock()
	t, is := s.throttles.set[source]
	if !is {
		return nil
	}
	return []flow.Throttle{{Owner: t.Owner, Reason: t.Reason, Ratio: t.Ratio, Until: t.Until}}
}

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

func (s *Server) putThrottle(t state.Throttle) {
	s.throttles.mu.Lock()
	defer s.throttles.mu.Unlock()
	s.throttles.put(t, func() { s.expireThrottle(t) })
}

// expireThrottle ends a throttle whose time is over, unless another one took its place.
func (s *Server) expireThrottle(t state.Throttle) {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.throttles.mu.Lock()
	now, is := s.throttles.set[t.Name]
	same := is && now == t && s.throttles.expire[t.Name] != nil
	if same {
		s.throttles.drop(t.Name)
	}
	s.throttles.mu.Unlock()
	if !same {
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
	s.throttles.mu.Lock()
	defer s.throttles.mu.Unlock()
	for name, timer := range s.throttles.expire {
		timer.Stop()
		delete(s.throttles.expire, name)
	}
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
	s.throttles.mu.Lock()
	before, is := s.throttles.set[r.Name]
	s.throttles.mu.Unlock()
	switch {
	case !known:
		return nil, api.Errorf(api.NotFound, "no source or subscription %q", r.Name)
	case r.Off && !is:
		return nil, api.Errorf(api.Precondition, "%q is not throttled by hand: nothing was changed", r.Name)
	case r.Off:
		if err := s.store.DropThrottle(ctx, r.Name); err != nil {
			return nil, err
		}
		s.throttles.mu.Lock()
		s.throttles.drop(r.Name)
		s.throttles.mu.Unlock()
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
	return &leatv1.ThrottleResponse{Throttles: s.throttleStates(name)}
}

// throttleStates are the throttles in force of a source or subscription, the lowest ratio first.
func (s *Server) throttleStates(name string) []*leatv1.ThrottleState {
	s.throttles.mu.Lock()
	defer s.throttles.mu.Unlock()
	var all []*leatv1.ThrottleState
	if t, is := s.throttles.set[name]; is {
		p := &leatv1.ThrottleState{Ratio: t.Ratio, Reason: t.Reason, Owner: t.Owner, Since: timestamppb.New(t.Since)}
		if !t.Until.IsZero() {
			p.Until = timestamppb.New(t.Until)
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *leatv1.ThrottleState) int {
		if a.Ratio < b.Ratio {
			return -1
		}
		return 1
	})
	return all
}

// otherThrottles are those of a source that flag files, URLs and signal tables set; their owners are described in
// words, those set by hand are named by a token.
func otherThrottles(v flow.Verdict) (all []*leatv1.ThrottleState) {
	for _, t := range v.Throttles {
		if !strings.Contains(t.Owner, " ") {
			continue
		}
		p := &leatv1.ThrottleState{Ratio: t.Ratio, Reason: t.Reason, Owner: t.Owner}
		if !t.Until.IsZero() {
			p.Until = timestamppb.New(t.Until)
		}
		all = append(all, p)
	}
	return all
}
