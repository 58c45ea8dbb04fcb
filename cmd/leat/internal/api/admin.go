package api

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// admin is AdminService over the Backend.
type admin struct {
	leatv1connect.UnimplementedAdminServiceHandler // of what no method here answers

	b     Backend
	write time.Duration
}

func answer[T any](m *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, connectError(err)
	}
	return connect.NewResponse(m), nil
}

// Status answers for one or all.
func (a *admin) Status(ctx context.Context, r *connect.Request[leatv1.StatusRequest]) (*connect.Response[leatv1.StatusResponse], error) {
	return answer(a.b.Status(ctx, r.Msg.GetName()))
}

// Plan compares.
func (a *admin) Plan(ctx context.Context, r *connect.Request[leatv1.PlanRequest]) (*connect.Response[leatv1.PlanResponse], error) {
	return answer(a.b.Plan(ctx, r.Msg))
}

// Apply carries out.
func (a *admin) Apply(ctx context.Context, r *connect.Request[leatv1.ApplyRequest]) (*connect.Response[leatv1.ApplyResponse], error) {
	return answer(a.b.Apply(ctx, r.Msg))
}

// Pause needs a name.
func (a *admin) Pause(ctx context.Context, r *connect.Request[leatv1.PauseRequest]) (*connect.Response[leatv1.PauseResponse], error) {
	if err := named("subscription", r.Msg.GetSubscription()); err != nil {
		return nil, err
	}
	return answer(&leatv1.PauseResponse{}, a.b.Pause(ctx, r.Msg))
}

// Resume needs a name.
func (a *admin) Resume(ctx context.Context, r *connect.Request[leatv1.ResumeRequest]) (*connect.Response[leatv1.ResumeResponse], error) {
	if err := named("subscription", r.Msg.GetSubscription()); err != nil {
		return nil, err
	}
	return answer(&leatv1.ResumeResponse{}, a.b.Resume(ctx, r.Msg))
}

// Seek needs a name and a place.
func (a *admin) Seek(ctx context.Context, r *connect.Request[leatv1.SeekRequest]) (*connect.Response[leatv1.SeekResponse], error) {
	if err := named("subscription", r.Msg.GetSubscription()); err != nil {
		return nil, err
	}
	switch to := r.Msg.GetTo().(type) {
	case nil:
		return nil, connectError(Errorf(Invalid, "to is missing: latest, an offset or a time"))
	case *leatv1.SeekRequest_Latest:
		if !to.Latest {
			return nil, connectError(Errorf(Invalid, "latest is false: give an offset or a time instead"))
		}
	case *leatv1.SeekRequest_Time:
		if err := to.Time.CheckValid(); err != nil {
			return nil, connectError(Errorf(Invalid, "time: %w", err))
		}
	}
	return answer(a.b.Seek(ctx, r.Msg))
}

// Parked needs a name.
func (a *admin) Parked(ctx context.Context, r *connect.Request[leatv1.ParkedRequest]) (*connect.Response[leatv1.ParkedResponse], error) {
	if err := named("subscription", r.Msg.GetSubscription()); err != nil {
		return nil, err
	}
	return answer(a.b.Parked(ctx, r.Msg))
}

// RemoveSource needs a name.
func (a *admin) RemoveSource(ctx context.Context, r *connect.Request[leatv1.RemoveSourceRequest]) (*connect.Response[leatv1.RemoveSourceResponse], error) {
	if err := named("source", r.Msg.GetName()); err != nil {
		return nil, err
	}
	return answer(a.b.RemoveSource(ctx, r.Msg))
}

// Redrive needs a name, and keys or all.
func (a *admin) Redrive(ctx context.Context, r *connect.Request[leatv1.RedriveRequest]) (*connect.Response[leatv1.RedriveResponse], error) {
	if err := parks(r.Msg.GetSubscription(), r.Msg.GetKeys(), r.Msg.GetAll()); err != nil {
		return nil, err
	}
	return answer(a.b.Redrive(ctx, r.Msg))
}

// Discard needs a name, and keys or all.
func (a *admin) Discard(ctx context.Context, r *connect.Request[leatv1.DiscardRequest]) (*connect.Response[leatv1.DiscardResponse], error) {
	if err := parks(r.Msg.GetSubscription(), r.Msg.GetKeys(), r.Msg.GetAll()); err != nil {
		return nil, err
	}
	return answer(a.b.Discard(ctx, r.Msg))
}

// maxKeys of one request: more are all.
const maxKeys = 1000

func parks(subscription string, keys []string, all bool) error {
	switch {
	case subscription == "":
		return named("subscription", subscription)
	case all && len(keys) > 0:
		return connectError(Errorf(Invalid, "all has no keys besides"))
	case !all && len(keys) == 0:
		return connectError(Errorf(Invalid, "keys are missing: parked keys, or all"))
	case len(keys) > maxKeys:
		return connectError(Errorf(Invalid, "at most %d keys at once, or all", maxKeys))
	}
	return nil
}

// Explain needs a name, and an event's id or a key.
func (a *admin) Explain(ctx context.Context, r *connect.Request[leatv1.ExplainRequest]) (*connect.Response[leatv1.ExplainResponse], error) {
	if err := named("subscription", r.Msg.GetSubscription()); err != nil {
		return nil, err
	}
	if (r.Msg.GetEventId() == "") == (r.Msg.GetKey() == "") {
		return nil, connectError(Errorf(Invalid, "either event_id or key is wanted"))
	}
	return answer(a.b.Explain(ctx, r.Msg))
}

// Throttle needs a name, and either a ratio from 0 to 1 or off.
func (a *admin) Throttle(ctx context.Context, r *connect.Request[leatv1.ThrottleRequest]) (*connect.Response[leatv1.ThrottleResponse], error) {
	m := r.Msg
	d := m.GetDuration()
	switch {
	case m.GetName() == "":
		return nil, connectError(Errorf(Invalid, "name is missing: a source or a subscription"))
	case m.GetOff() && m.Ratio != nil:
		return nil, connectError(Errorf(Invalid, "off ends a throttle: it has no ratio"))
	case m.GetOff():
	case m.Ratio == nil:
		return nil, connectError(Errorf(Invalid, "ratio is missing: the share of the speed that is left, from 0 (stopped) to 1"))
	case !(m.GetRatio() >= 0 && m.GetRatio() <= 1): // also no number
		return nil, connectError(Errorf(Invalid, "ratio %v is none: the share of the speed that is left, from 0 (stopped) to 1", m.GetRatio()))
	case d != nil && (d.CheckValid() != nil || d.AsDuration() < 0):
		return nil, connectError(Errorf(Invalid, "duration is none from 0 on"))
	}
	return answer(a.b.Throttle(ctx, m))
}

// AuditLog lists.
func (a *admin) AuditLog(ctx context.Context, r *connect.Request[leatv1.AuditLogRequest]) (*connect.Response[leatv1.AuditLogResponse], error) {
	if t := r.Msg.GetSince(); t != nil {
		if err := t.CheckValid(); err != nil {
			return nil, connectError(Errorf(Invalid, "since: %w", err))
		}
	}
	return answer(a.b.AuditLog(ctx, r.Msg))
}

// Verify needs a name.
func (a *admin) Verify(ctx context.Context, r *connect.Request[leatv1.VerifyRequest], s *connect.ServerStream[leatv1.VerifyResponse]) error {
	if err := named("subscription", r.Msg.GetSubscription()); err != nil {
		return err
	}
	if err := checkScope(&leatv1.ReplayScope{Tables: r.Msg.GetTables()}); err != nil {
		return connectError(err)
	}
	if len(r.Msg.GetTarget()) > maxText {
		return connectError(Errorf(Invalid, "the target is longer than %d bytes", maxText))
	}
	c := controllerOf(ctx)
	return connectError(a.b.Verify(ctx, r.Msg, func(m *leatv1.VerifyResponse) error {
		if c != nil {
			if err := c.SetWriteDeadline(time.Now().Add(a.write)); err != nil {
				return err
			}
		}
		if err := s.Send(m); err != nil || c == nil {
			return err
		}
		return c.SetWriteDeadline(time.Time{}) // the next one may be long in coming
	}))
}

// Tail streams; a receiver that takes nothing for the write limit is disconnected.
func (a *admin) Tail(ctx context.Context, r *connect.Request[leatv1.TailRequest], s *connect.ServerStream[leatv1.TailResponse]) error {
	if r.Msg.GetName() == "" {
		return connectError(Errorf(Invalid, "name is missing: a source or a subscription"))
	}
	if t, ok := r.Msg.GetFrom().(*leatv1.TailRequest_Time); ok {
		if err := t.Time.CheckValid(); err != nil {
			return connectError(Errorf(Invalid, "time: %w", err))
		}
	}
	// The header goes out now: clients wait for it.
	if err := s.Send(nil); err != nil {
		return connectError(err)
	}
	c := controllerOf(ctx)
	var m leatv1.TailResponse
	return connectError(a.b.Tail(ctx, r.Msg, func(events [][]byte) error {
		if c != nil {
			if err := c.SetWriteDeadline(time.Now().Add(a.write)); err != nil {
				return err
			}
		}
		m.Events = events
		return s.Send(&m)
	}))
}

func named(what, name string) error {
	if name == "" {
		return connectError(Errorf(Invalid, "the name of the %s is missing", what))
	}
	return nil
}
