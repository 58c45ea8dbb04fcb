package api

import (
	"context"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// replayModes of a ReplayRequest.
var replayModes = []string{"aside", "fenced", "rewind"}

const (
	// maxScope bounds each list of a scope, maxText its texts.
	maxScope = 1000
	maxText  = 16 << 10
)

// Replay needs a name, a mode and a place to begin.
func (a *admin) Replay(ctx context.Context, r *connect.Request[leatv1.ReplayRequest]) (*connect.Response[leatv1.ReplayResponse], error) {
	m := r.Msg
	switch {
	case m.GetSubscription() == "":
		return nil, named("subscription", "")
	case !slices.Contains(replayModes, m.GetMode()):
		return nil, connectError(Errorf(Invalid, "mode %q is none of %s", m.GetMode(), strings.Join(replayModes, ", ")))
	case m.GetFrom().GetAt() == nil:
		return nil, connectError(Errorf(Invalid, "from is missing: an offset, a time or a source position"))
	}
	for name, p := range map[string]*leatv1.Place{"from": m.GetFrom(), "to": m.GetTo()} {
		if err := checkPlace(name, p); err != nil {
			return nil, connectError(err)
		}
	}
	if from, is := m.GetFrom().GetAt().(*leatv1.Place_Offset); is {
		if to, is := m.GetTo().GetAt().(*leatv1.Place_Offset); is && to.Offset <= from.Offset {
			return nil, connectError(Errorf(Invalid, "the window ends at %d, before or where it starts (%d)", to.Offset, from.Offset))
		}
	}
	if err := checkScope(m.GetScope()); err != nil {
		return nil, connectError(err)
	}
	return answer(a.b.Replay(ctx, m))
}

func checkPlace(name string, p *leatv1.Place) error {
	switch at := p.GetAt().(type) {
	case *leatv1.Place_Time:
		if err := at.Time.CheckValid(); err != nil {
			return Errorf(Invalid, "%s: %w", name, err)
		}
	case *leatv1.Place_Position:
		if at.Position == "" || len(at.Position) > maxText {
			return Errorf(Invalid, "%s: the position is empty or too long", name)
		}
	case nil:
		if p != nil {
			return Errorf(Invalid, "%s names no place: an offset, a time or a source position", name)
		}
	}
	return nil
}

func checkScope(s *leatv1.ReplayScope) error {
	switch {
	case len(s.GetTables()) > maxScope, len(s.GetKeys()) > maxScope, len(s.GetRanges()) > maxScope:
		return Errorf(Invalid, "at most %d tables, keys and ranges each", maxScope)
	case len(s.GetFilter()) > maxText:
		return Errorf(Invalid, "the filter is longer than %d bytes", maxText)
	}
	for _, t := range slices.Concat(s.GetTables(), s.GetKeys()) {
		if t == "" || len(t) > maxText {
			return Errorf(Invalid, "a table or key is empty or longer than %d bytes", maxText)
		}
	}
	for _, g := range s.GetRanges() {
		if (g.Id == nil) == (g.GetStart() == "" && g.GetEnd() == "") {
			return Errorf(Invalid, "a range is either an id or keys, start and end")
		}
	}
	return nil
}

// Backfill needs a name.
func (a *admin) Backfill(ctx context.Context, r *connect.Request[leatv1.BackfillRequest]) (*connect.Response[leatv1.BackfillResponse], error) {
	m := r.Msg
	switch {
	case m.GetSubscription() == "":
		return nil, named("subscription", "")
	case len(m.GetWhere()) > maxText:
		return nil, connectError(Errorf(Invalid, "the condition is longer than %d bytes", maxText))
	}
	if err := checkScope(&leatv1.ReplayScope{Tables: m.GetTables()}); err != nil {
		return nil, connectError(err)
	}
	return answer(a.b.Backfill(ctx, m))
}

// Jobs lists.
func (a *admin) Jobs(ctx context.Context, r *connect.Request[leatv1.JobsRequest]) (*connect.Response[leatv1.JobsResponse], error) {
	return answer(a.b.Jobs(ctx, r.Msg))
}

// PauseJob needs an id.
func (a *admin) PauseJob(ctx context.Context, r *connect.Request[leatv1.PauseJobRequest]) (*connect.Response[leatv1.PauseJobResponse], error) {
	if err := jobID(r.Msg.GetId()); err != nil {
		return nil, err
	}
	return answer(a.b.PauseJob(ctx, r.Msg))
}

// ResumeJob needs an id.
func (a *admin) ResumeJob(ctx context.Context, r *connect.Request[leatv1.ResumeJobRequest]) (*connect.Response[leatv1.ResumeJobResponse], error) {
	if err := jobID(r.Msg.GetId()); err != nil {
		return nil, err
	}
	return answer(a.b.ResumeJob(ctx, r.Msg))
}

// CancelJob needs an id.
func (a *admin) CancelJob(ctx context.Context, r *connect.Request[leatv1.CancelJobRequest]) (*connect.Response[leatv1.CancelJobResponse], error) {
	if err := jobID(r.Msg.GetId()); err != nil {
		return nil, err
	}
	return answer(a.b.CancelJob(ctx, r.Msg))
}

func jobID(id string) error {
	if id == "" || len(id) > 64 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return connectError(Errorf(Invalid, "%q is no job's id: leat jobs lists them", id))
	}
	return nil
}
