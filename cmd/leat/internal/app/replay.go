package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Replay implements api.Backend.
func (s *Server) Replay(ctx context.Context, r *leatv1.ReplayRequest) (*leatv1.ReplayResponse, error) {
	sub, err := s.runningSubscription(r.Subscription)
	if err != nil {
		return nil, err
	}
	log, err := s.engine.Log(sub.Source)
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "%w", err)
	}
	q := engine.ReplayRequest{Subscription: r.Subscription, Kind: pipeline.JobKind(r.Mode), From: pointOf(r.From), To: pointOf(r.To), Owner: api.Actor(ctx)}
	if q.Scope, q.RangeIDs, err = scopeOf(log.Tables(), r.Scope); err != nil {
		return nil, err
	}
	if _, err := deliver.CompileScope(q.Scope, s.forms.Of); err != nil {
		return nil, api.Errorf(api.Invalid, "%v: nothing was changed", err)
	}
	resp := &leatv1.ReplayResponse{}
	if r.DryRun {
		p, err := s.engine.PlanReplay(ctx, q)
		if err != nil {
			return nil, replayError(err)
		}
		resp.Plan = planOf(p)
		return resp, nil
	}
	job, plan, err := s.engine.StartReplay(ctx, q)
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

// scopeOf finds the keys and ranges that a request names.
func scopeOf(tables []*schemas.Table, r *leatv1.ReplayScope) (pipeline.Scope, []engine.RangeID, error) {
	s := pipeline.Scope{Tables: r.GetTables(), Filter: r.GetFilter()}
	globs, err := filter.ParseTables(r.GetTables())
	if err != nil {
		return s, nil, api.Errorf(api.Invalid, "%w", err)
	}
	named := slices.DeleteFunc(slices.Clone(tables), func(t *schemas.Table) bool { return !globs.Match(t.Schema, t.Name) })
	for _, text := range r.GetKeys() {
		k, err := keyOf(named, text)
		if err != nil {
			return s, nil, api.Errorf(api.Invalid, "%v: nothing was changed", err)
		}
		s.Keys = append(s.Keys, k)
	}
	var ids []engine.RangeID
	for _, g := range r.GetRanges() {
		if g.Id != nil {
			ids = append(ids, engine.RangeID{ID: g.GetId()})
			continue
		}
		in, err := intervalOf(named, g)
		if err != nil {
			return s, nil, api.Errorf(api.Invalid, "%v: nothing was changed", err)
		}
		s.Ranges = append(s.Ranges, in)
	}
	return s, ids, nil
}

// keyOf encodes a routing key, [77], or the row's key where that is the routing key, {"id":42}. It must fit
// tables of one key space.
func keyOf(tables []*schemas.Table, text string) (pipeline.Key, error) {
	var found pipeline.Key
	why := errors.New("the log has no table of that name")
	for _, t := range tables {
		encoded, err := encodeKey(t, text)
		switch {
		case err != nil:
			why = err
		case found.Encoded == nil:
			found = pipeline.Key{Space: t.KeySpace, Encoded: encoded}
		case found.Space != t.KeySpace:
			return found, fmt.Errorf("key %s fits tables of more than one key space (%s, %s): name a table besides", text, found.Space, t.KeySpace)
		}
	}
	if found.Encoded == nil {
		return found, fmt.Errorf("key %s is none here: %w", text, why)
	}
	return found, nil
}

func encodeKey(t *schemas.Table, text string) ([]byte, error) {
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		var values []json.RawMessage
		if err := json.Unmarshal([]byte(text), &values); err != nil || len(values) != len(t.Routing) || len(values) == 0 {
			return nil, fmt.Errorf("the routing key of %s has %d values", t.Subject(), len(t.Routing))
		}
		object := map[string]json.RawMessage{}
		for i, c := range t.Routing {
			object[t.Columns[c].Name] = values[i]
		}
		b, err := json.Marshal(object)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	return partition.ParseKey(t, text)
}

func intervalOf(tables []*schemas.Table, g *leatv1.ReplayRange) (pipeline.KeyInterval, error) {
	if g.GetTable() != "" {
		tables = slices.DeleteFunc(slices.Clone(tables), func(t *schemas.Table) bool { return t.Subject() != g.GetTable() && t.Schema+"."+t.Name != g.GetTable() })
		if len(tables) == 0 {
			return pipeline.KeyInterval{}, fmt.Errorf("the log has no table %q", g.GetTable())
		}
	}
	var in pipeline.KeyInterval
	for _, end := range []struct {
		text string
		to   *[]byte
	}{{g.GetStart(), &in.Start}, {g.GetEnd(), &in.End}} {
		if end.text == "" {
			continue
		}
		k, err := keyOf(tables, end.text)
		if err != nil {
			return in, err
		}
		if in.Space != "" && in.Space != k.Space {
			return in, fmt.Errorf("the ends %s and %s are keys of different key spaces", g.GetStart(), g.GetEnd())
		}
		in.Space, *end.to = k.Space, k.Encoded
	}
	return in, nil
}

// maxJobs bounds a list.
const maxJobs = 1000

// Jobs implements api.Backend.
func (s *Server) Jobs(ctx context.Context, r *leatv1.JobsRequest) (*leatv1.JobsResponse, error) {
	if r.Subscription != "" && !s.keeps(r.Subscription) {
		return nil, api.Errorf(api.NotFound, "no subscription %q", r.Subscription)
	}
	all, err := s.engine.Jobs(ctx, r.Subscription)
	if err != nil {
		return nil, err
	}
	resp := &leatv1.JobsResponse{}
	for _, j := range slices.Backward(all) {
		if r.Id != "" && j.ID != r.Id || r.Id == "" && !r.Ended && j.State.Ended() || len(resp.Jobs) == maxJobs {
			continue
		}
		resp.Jobs = append(resp.Jobs, jobOf(j))
	}
	if r.Id != "" && len(resp.Jobs) == 0 {
		return nil, api.Errorf(api.NotFound, "no job %q: leat jobs --all lists them", r.Id)
	}
	return resp, nil
}

// job is the one with an id after it was changed; the change stands, so that it cannot be read is no error of it.
func (s *Server) job(ctx context.Context, id string) *leatv1.Job {
	r, err := s.Jobs(ctx, &leatv1.JobsRequest{Id: id})
	if err != nil {
		return &leatv1.Job{Id: id}
	}
	return r.Jobs[0]
}

// PauseJob implements api.Backend.
func (s *Server) PauseJob(ctx context.Context, r *leatv1.PauseJobRequest) (*leatv1.PauseJobResponse, error) {
	reason := "paused by " + api.Actor(ctx)
	if r.Reason != "" {
		reason += ": " + r.Reason
	}
	if err := s.engine.PauseJob(ctx, r.Id, reason); err != nil {
		return nil, replayError(err)
	}
	return &leatv1.PauseJobResponse{Job: s.job(ctx, r.Id)}, nil
}

// ResumeJob implements api.Backend.
func (s *Server) ResumeJob(ctx context.Context, r *leatv1.ResumeJobRequest) (*leatv1.ResumeJobResponse, error) {
	if err := s.engine.ResumeJob(ctx, r.Id); err != nil {
		return nil, replayError(err)
	}
	return &leatv1.ResumeJobResponse{Job: s.job(ctx, r.Id)}, nil
}

// CancelJob implements api.Backend.
func (s *Server) CancelJob(ctx context.Context, r *leatv1.CancelJobRequest) (*leatv1.CancelJobResponse, error) {
	by := api.Actor(ctx)
	if r.Reason != "" {
		by += ": " + r.Reason
	}
	if err := s.engine.CancelJob(ctx, r.Id, by); err != nil {
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
		p.EndsWhen = "its reason is over: it goes on by itself"
	}
	return p
}

// scopeText says a scope in words; empty: all of the window.
func scopeText(s pipeline.Scope) string {
	var parts []string
	if len(s.Tables) > 0 {
		parts = append(parts, "tables "+strings.Join(s.Tables, " "))
	}
	for i, k := range s.Keys {
		if i == 3 {
			parts = append(parts, fmt.Sprintf("%d keys more", len(s.Keys)-i))
			break
		}
		parts = append(parts, "key "+partition.KeyText(k.Encoded)+" of "+k.Space)
	}
	for i, r := range s.Ranges {
		if i == 3 {
			parts = append(parts, fmt.Sprintf("%d ranges more", len(s.Ranges)-i))
			break
		}
		parts = append(parts, "keys of "+r.Space+" from "+endText(r.Start, "the first")+" to "+endText(r.End, "the last"))
	}
	if s.Filter != "" {
		parts = append(parts, "where "+s.Filter)
	}
	return strings.Join(parts, ", ")
}

func endText(key []byte, open string) string {
	if key == nil {
		return open
	}
	return partition.KeyText(key)
}
