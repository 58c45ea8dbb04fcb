package api

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"strings"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Change is what a caller did or tried to do, for the audit log.
type Change struct {
	// Action: apply, pause, …; Target: the source, subscription or file.
	Action, Target string
	// Arguments is a JSON object, without secrets.
	Arguments string
	// Detail of what was done: see [Note].
	Detail string
	// Err is why it was not done, or not all of it; nil = done.
	Err error
	// Refused: it was not done, and nothing was changed.
	Refused bool

	// dry: only a dry run, of which it is told that it was refused: it is how a change begins.
	dry bool
}

type changeKey struct{}

// Note adds to the audit entry of the call that ctx belongs to what was done.
func Note(ctx context.Context, detail string) {
	if c, ok := ctx.Value(changeKey{}).(*Change); ok && detail != "" {
		if c.Detail != "" {
			c.Detail += "; "
		}
		c.Detail += detail
	}
}

// auditing tells the backend about each call that changes something, or was to.
func auditing(b Backend) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			c := changeOf(r.Any())
			if c == nil {
				return next(ctx, r)
			}
			resp, err := next(context.WithValue(ctx, changeKey{}, c), r)
			c.end(err)
			if c.dry && !c.Refused {
				return resp, err
			}
			b.Audit(context.WithoutCancel(ctx), *c)
			return resp, err
		}
	}
}

func (c *Change) end(err error) {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		c.Err = err
		return
	}
	c.Err = errors.New(ce.Message())
	switch ce.Code() {
	case connect.CodeInvalidArgument, connect.CodeNotFound, connect.CodeFailedPrecondition, connect.CodeOutOfRange, connect.CodePermissionDenied, connect.CodeUnimplemented:
		c.Refused = true
	}
}

// changeOf describes a request that changes something; nil when it only looks.
func changeOf(m any) *Change {
	args := map[string]any{}
	put := func(name string, v any, is bool) {
		if is {
			args[name] = v
		}
	}
	var c *Change
	switch r := m.(type) {
	case *leatv1.ApplyRequest: // the file itself may hold secrets
		c = &Change{Action: "apply", Target: r.GetName()}
		put("drop", r.GetDrop(), len(r.GetDrop()) > 0)
	case *leatv1.PauseRequest:
		c = &Change{Action: "pause", Target: r.GetSubscription()}
		put("reason", r.GetReason(), r.GetReason() != "")
	case *leatv1.ResumeRequest:
		c = &Change{Action: "resume", Target: r.GetSubscription()}
	case *leatv1.SeekRequest:
		c = &Change{Action: "seek", Target: r.GetSubscription(), dry: r.GetDryRun()}
		put("to", "latest", r.GetLatest())
		put("to", r.GetOffset(), r.GetOffset() > 0)
		put("to", r.GetTime().AsTime(), r.GetTime().IsValid())
		put("reason", r.GetReason(), r.GetReason() != "")
	case *leatv1.RemoveSourceRequest:
		c = &Change{Action: "remove", Target: r.GetName()}
	case *leatv1.RedriveRequest:
		c = &Change{Action: "redrive", Target: r.GetSubscription()}
		put("keys", r.GetKeys(), len(r.GetKeys()) > 0)
		put("all", true, r.GetAll())
		put("reason", r.GetReason(), r.GetReason() != "")
	case *leatv1.DiscardRequest:
		c = &Change{Action: "discard", Target: r.GetSubscription(), dry: r.GetDryRun()}
		put("keys", r.GetKeys(), len(r.GetKeys()) > 0)
		put("all", true, r.GetAll())
		put("reason", r.GetReason(), r.GetReason() != "")
	case *leatv1.ThrottleRequest:
		c = &Change{Action: "throttle", Target: r.GetName()}
		put("ratio", r.GetRatio(), r.Ratio != nil)
		put("off", true, r.GetOff())
		put("for", r.GetDuration().AsDuration().String(), r.GetDuration() != nil)
		put("reason", r.GetReason(), r.GetReason() != "")
	case *leatv1.SplitRangeRequest:
		c = &Change{Action: "split", Target: r.GetSource()}
		put("table", r.GetTable(), r.GetTable() != "")
		put("range", r.GetRange(), r.Range != nil)
		put("key", r.GetKey(), r.GetKey() != "")
		put("reason", r.GetReason(), r.GetReason() != "")
	case *leatv1.MergeRangesRequest:
		c = &Change{Action: "merge", Target: r.GetSource()}
		put("ranges", r.GetRanges(), len(r.GetRanges()) > 0)
		put("reason", r.GetReason(), r.GetReason() != "")
	case *leatv1.ReplayRequest:
		c = &Change{Action: "replay", Target: r.GetSubscription(), dry: r.GetDryRun()}
		put("mode", r.GetMode(), true)
		put("from", placeText(r.GetFrom()), r.GetFrom() != nil)
		put("to", placeText(r.GetTo()), r.GetTo() != nil)
		s := r.GetScope()
		put("tables", s.GetTables(), len(s.GetTables()) > 0)
		put("keys", s.GetKeys(), len(s.GetKeys()) > 0)
		put("ranges", rangeTexts(s.GetRanges()), len(s.GetRanges()) > 0)
		put("filter", s.GetFilter(), s.GetFilter() != "")
		put("reason", r.GetReason(), r.GetReason() != "")
	default:
		if c = jobChange(m, put); c == nil {
			return nil
		}
	}
	put("dry_run", true, c.dry)
	text, err := json.Marshal(args)
	if err != nil { // a ratio that is no number
		text = []byte("{}")
	}
	c.Arguments = string(text)
	return c
}

// jobChange is what was to be done with a job, or with rows that one brings.
func jobChange(m any, put func(name string, v any, is bool)) (c *Change) {
	switch r := m.(type) {
	case *leatv1.BackfillRequest:
		c = &Change{Action: "backfill", Target: r.GetSubscription(), dry: r.GetDryRun()}
		put("tables", r.GetTables(), len(r.GetTables()) > 0)
		put("where", r.GetWhere(), r.GetWhere() != "")
		put("rebuild", r.GetRebuild(), r.GetRebuild())
		put("reason", r.GetReason(), r.GetReason() != "")
	case *leatv1.PauseJobRequest:
		c = &Change{Action: "pause", Target: "job " + r.GetId()}
		put("reason", r.GetReason(), r.GetReason() != "")
	case *leatv1.ResumeJobRequest:
		c = &Change{Action: "resume", Target: "job " + r.GetId()}
	case *leatv1.CancelJobRequest:
		c = &Change{Action: "cancel", Target: "job " + r.GetId()}
		put("reason", r.GetReason(), r.GetReason() != "")
	}
	return c
}

func placeText(p *leatv1.Place) any {
	switch at := p.GetAt().(type) {
	case *leatv1.Place_Offset:
		return at.Offset
	case *leatv1.Place_Time:
		return at.Time.AsTime()
	}
	return p.GetPosition()
}

func rangeTexts(all []*leatv1.ReplayRange) (out []any) {
	for _, g := range all {
		if g.Id != nil {
			out = append(out, g.GetId())
			continue
		}
		out = append(out, strings.TrimSpace(g.GetTable()+" ["+g.GetStart()+", "+g.GetEnd()+")"))
	}
	return out
}

// denied is the entry of somebody who has a token, but not for what the path does; nil for what changes nothing.
func denied(rt *route) *Change {
	name := strings.ToLower(path.Base(rt.path))
	if rt.need != needOperate || name == "plan" {
		return nil
	}
	name, _, _ = strings.Cut(name, "range") // splitrange, mergeranges
	name = strings.TrimSuffix(name, "job")  // pausejob, resumejob, canceljob
	return &Change{Action: strings.TrimSuffix(name, "source"), Err: errors.New(errNoRole.Message()), Refused: true}
}
