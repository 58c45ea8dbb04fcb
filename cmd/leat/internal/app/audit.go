package app

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Audit implements api.Backend.
func (s *Server) Audit(ctx context.Context, c api.Change) {
	s.audit(ctx, api.Actor(ctx), c)
}

// bySignal is who a SIGHUP comes from: nobody knows more.
const bySignal = "SIGHUP"

func (s *Server) audit(ctx context.Context, actor string, c api.Change) {
	e := state.Entry{Time: time.Now(), Actor: actor, Action: c.Action, Name: c.Target, Arguments: c.Arguments, Outcome: state.OutcomeDone, Detail: c.Detail}
	said := "changed"
	switch {
	case c.Err == nil:
	case c.Refused:
		e.Outcome, e.Detail, said = state.OutcomeRefused, c.Err.Error(), "refused"
	default:
		e.Outcome, said = state.OutcomeFailed, "failed"
		if e.Detail != "" {
			e.Detail += "; "
		}
		e.Detail += c.Err.Error()
	}
	log := s.tel.Logger()
	if err := s.store.Audit(context.WithoutCancel(ctx), e); err != nil {
		log.Error().Err(err).Str("action", e.Action).Str("name", e.Name).Msg("the audit log cannot be written")
	}
	log.Info().Str("actor", e.Actor).Str("action", e.Action).Str("name", e.Name).Str("arguments", e.Arguments).Str("detail", e.Detail).Msg(said)
}

// AuditLog implements api.Backend.
func (s *Server) AuditLog(ctx context.Context, r *leatv1.AuditLogRequest) (*leatv1.AuditLogResponse, error) {
	const usual, most = 1000, 10_000
	q := state.AuditQuery{Name: r.GetTarget(), Limit: usual}
	if r.GetLimit() > most {
		return nil, api.Errorf(api.Invalid, "limit: at most %d entries at once", most)
	}
	if r.GetLimit() > 0 {
		q.Limit = int(r.GetLimit())
	}
	if r.GetSince() != nil {
		q.Since = r.GetSince().AsTime()
	}
	list, err := s.store.AuditLog(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &leatv1.AuditLogResponse{}
	for _, e := range list {
		resp.Entries = append(resp.Entries, &leatv1.AuditEntry{Time: timestamppb.New(e.Time), Actor: e.Actor, Action: e.Action, Target: e.Name,
			Arguments: e.Arguments, Outcome: e.Outcome, Detail: e.Detail})
	}
	return resp, nil
}

// flagRefused tells that a flag URL's answers do not count: nobody else would see that a monitor is broken.
func (s *Server) flagRefused(source, why string) {
	s.tel.Observer().Fill().Warned("source "+source, why+"; it throttles nothing", "load.flag_url: correct it, or repair what answers there")
	s.audit(context.Background(), "flag URL", api.Change{Action: "throttle", Target: source, Arguments: "{}", Err: errors.New(why), Refused: true})
}
