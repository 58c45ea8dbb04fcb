// Package replays puts the API's words for replays into the engine's, and back: which stretch and which keys are
// meant, what a replay would bring, how far a job is.
package replays

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/pipeline/selection"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// Replays are those of an engine, and so are its snapshots.
type Replays struct {
	Engine *engine.Engine
	// Rows lists the tables of a source that globs name, as far as their rows can be read; ok is false for a source
	// whose rows cannot.
	Rows func(ctx context.Context, source string, globs []string) (tables []snapshot.Table, ok bool, err error)
	// Form reads the rows of a table version.
	Form func(*schemas.Table) *cell.Form
}

// Replay plans one over the log of the subscription's source, and starts it unless it is a dry run.
func (s Replays) Replay(ctx context.Context, source string, r *leatv1.ReplayRequest) (*leatv1.ReplayResponse, error) {
	log, err := s.Engine.Log(source)
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "%w", err)
	}
	q := engine.ReplayRequest{Subscription: r.Subscription, Kind: pipeline.JobKind(r.Mode), From: pointOf(r.From), To: pointOf(r.To), Owner: api.Actor(ctx)}
	if q.Scope, q.RangeIDs, err = scopeOf(log.Tables(), r.Scope); err != nil {
		return nil, err
	}
	if _, err := selection.Compile(q.Scope, s.Form); err != nil {
		return nil, api.Errorf(api.Invalid, "%v: nothing was changed", err)
	}
	resp := &leatv1.ReplayResponse{}
	if r.DryRun {
		p, err := s.Engine.PlanReplay(ctx, q)
		if err != nil {
			return nil, replayError(err)
		}
		resp.Plan = planOf(p)
		return resp, nil
	}
	job, plan, err := s.Engine.StartReplay(ctx, q)
	if err != nil {
		return nil, replayError(err)
	}
	api.Note(ctx, fmt.Sprintf("job %s: %d events of %d to %d", job.ID, plan.Events, plan.From, plan.To))
	resp.Plan, resp.Job = planOf(plan), jobOf(engine.JobStatus{Job: job})
	return resp, nil
}

func pointOf(p *leatv1.Place) engine.Point {
	switch at := p.GetAt().(type) {
	case *leatv1.Place_Offset:
		return engine.Point{Offset: pipeline.Offset(at.Offset)}
	case *leatv1.Place_Time:
		return engine.Point{Time: at.Time.AsTime()}
	case *leatv1.Place_Position:
		return engine.Point{Position: at.Position}
	}
	return engine.Point{}
}

func replayError(err error) error {
	var refused *engine.ReplayError
	var old *pipeline.TruncatedError
	switch {
	case errors.As(err, &refused):
		return api.Errorf(api.Precondition, "%v: nothing was changed", err)
	case errors.As(err, &old):
		return api.Errorf(api.Gone, "%v: nothing was changed", err)
	case errors.Is(err, engine.ErrUnknown):
		return api.Errorf(api.NotFound, "%v", err)
	}
	return err
}

func planOf(p engine.ReplayPlan) *leatv1.ReplayPlan {
	out := &leatv1.ReplayPlan{From: uint64(p.From), To: uint64(p.To), Events: p.Events, Bytes: p.Bytes, Keys: p.Keys, KeysAbout: p.KeysAbout, Notes: p.Notes}
	out.Oldest, out.Newest = when(p.Oldest), when(p.Newest)
	if p.Takes > 0 {
		out.Takes = durationpb.New(p.Takes)
	}
	return out
}

// when is nil for the zero time.
func when(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// maxJobs bounds a list.
const maxJobs = 1000

// Jobs lists those that a request asks for, the newest first.
func (s Replays) Jobs(ctx context.Context, r *leatv1.JobsRequest) (*leatv1.JobsResponse, error) {
	all, err := s.Engine.Jobs(ctx, r.Subscription)
	if err != nil {
		return nil, err
	}
	snapshots, err := s.Engine.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	wanted := func(id string, ended bool) bool {
		return (r.Id == "" || id == r.Id) && (r.Id != "" || r.Ended || !ended)
	}
	resp := &leatv1.JobsResponse{}
	for _, j := range all {
		if wanted(j.ID, j.State.Ended()) {
			resp.Jobs = append(resp.Jobs, jobOf(j))
		}
	}
	for _, j := range snapshots {
		if wanted(j.ID, j.State.Ended()) && (r.Subscription == "" || j.For == r.Subscription) {
			resp.Jobs = append(resp.Jobs, SnapshotOf(j))
		}
	}
	slices.SortStableFunc(resp.Jobs, func(a, b *leatv1.Job) int { return b.Created.AsTime().Compare(a.Created.AsTime()) })
	resp.Jobs = resp.Jobs[:min(len(resp.Jobs), maxJobs)]
	if r.Id != "" && len(resp.Jobs) == 0 {
		return nil, api.Errorf(api.NotFound, "no job %q: leat jobs --all lists them", r.Id)
	}
	return resp, nil
}

// job is the one with an id after it was changed; the change stands, so that it cannot be read is no error of it.
func (s Replays) job(ctx context.Context, id string) *leatv1.Job {
	r, err := s.Jobs(ctx, &leatv1.JobsRequest{Id: id})
	if err != nil {
		return &leatv1.Job{Id: id}
	}
	return r.Jobs[0]
}

// PauseJob lets a job wait until it is resumed.
func (s Replays) PauseJob(ctx context.Context, r *leatv1.PauseJobRequest) (*leatv1.PauseJobResponse, error) {
	reason := "paused by " + api.Actor(ctx)
	if r.Reason != "" {
		reason += ": " + r.Reason
	}
	if err := s.Engine.PauseJob(ctx, r.Id, reason); err != nil {
		return nil, replayError(err)
	}
	return &leatv1.PauseJobResponse{Job: s.job(ctx, r.Id)}, nil
}

// ResumeJob lets a job go on.
func (s Replays) ResumeJob(ctx context.Context, r *leatv1.ResumeJobRequest) (*leatv1.ResumeJobResponse, error) {
	if err := s.Engine.ResumeJob(ctx, r.Id); err != nil {
		return nil, replayError(err)
	}
	return &leatv1.ResumeJobResponse{Job: s.job(ctx, r.Id)}, nil
}

// CancelJob ends a job before its end.
func (s Replays) CancelJob(ctx context.Context, r *leatv1.CancelJobRequest) (*leatv1.CancelJobResponse, error) {
	by := api.Actor(ctx)
	if r.Reason != "" {
		by += ": " + r.Reason
	}
	if err := s.Engine.CancelJob(ctx, r.Id, by); err != nil {
		return nil, replayError(err)
	}
	return &leatv1.CancelJobResponse{Job: s.job(ctx, r.Id)}, nil
}

func jobOf(j engine.JobStatus) *leatv1.Job {
	p := &leatv1.Job{Id: j.ID, Subscription: j.Subscription, Kind: string(j.Kind), From: uint64(j.From), To: uint64(j.To), Scope: scopeText(j.Scope),
		State: string(j.State), Reason: j.Reason, At: uint64(j.At), Done: j.Done, Total: j.Total, Dead: j.Dead, Created: when(j.Created), Ended: when(j.Ended),
		Owner: j.Owner, EventsPerSecond: j.Rate}
	if j.Left > 0 {
		p.Left = durationpb.New(j.Left)
	}
	switch j.State {
	case pipeline.JobPaused:
		p.EndsWhen = "leat jobs resume " + j.ID
	case pipeline.JobWaiting:
		p.EndsWhen = cmp.Or(j.Ends, "that is over: it goes on by itself")
	}
	return p
}
