package cli_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

func (b *backend) offsetOf(p *leatv1.Place, other uint64) (uint64, error) {
	switch at := p.GetAt().(type) {
	case *leatv1.Place_Offset:
		return at.Offset, nil
	case *leatv1.Place_Time:
		return base + 100, nil
	case *leatv1.Place_Position:
		if at.Position != "0/16B3748" {
			return 0, api.Errorf(api.Precondition, "%q is no position of files: an LSN, as 0/16B3748: nothing was changed", at.Position)
		}
		return base + 200, nil
	}
	return other, nil
}

func (b *backend) Replay(ctx context.Context, r *leatv1.ReplayRequest) (*leatv1.ReplayResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.find(r.Subscription)
	if s == nil {
		return nil, none(r.Subscription)
	}
	from, err := b.offsetOf(r.From, 0)
	if err != nil {
		return nil, err
	}
	to, err := b.offsetOf(r.To, s.Low)
	switch {
	case err != nil:
		return nil, err
	case from < base:
		return nil, api.Errorf(api.Precondition, "offset %d is older than what the log of source \"files\" keeps: history is there from offset %d on: nothing was changed", from, uint64(base))
	case to <= from:
		return nil, api.Errorf(api.Precondition, "the window ends (offset %d) where it starts (offset %d) or before: nothing was changed", to, from)
	case to > s.Next:
		return nil, api.Errorf(api.Precondition, "the window ends beyond the end of the log of source \"files\" (offset %d): nothing was changed", s.Next)
	case strings.Contains(r.GetScope().GetFilter(), "nosuch"):
		return nil, api.Errorf(api.Invalid, "filter: undeclared reference to 'nosuch': nothing was changed")
	}
	resp := &leatv1.ReplayResponse{Plan: &leatv1.ReplayPlan{From: from, To: to, Events: to - from, Bytes: 100 * (to - from), Keys: 17, Oldest: at(-2 * time.Hour), Newest: at(-time.Hour), Takes: long(90 * time.Second)}}
	if r.Mode == "fenced" {
		resp.Plan.Notes = []string{"the keys' live events wait meanwhile"}
	}
	if r.DryRun {
		return resp, nil
	}
	var parts []string
	parts = append(parts, r.GetScope().GetTables()...)
	parts = append(parts, r.GetScope().GetKeys()...)
	for _, g := range r.GetScope().GetRanges() {
		parts = append(parts, fmt.Sprintf("range %d [%s, %s)", g.GetId(), g.GetStart(), g.GetEnd()))
	}
	if f := r.GetScope().GetFilter(); f != "" {
		parts = append(parts, "where "+f)
	}
	j := &leatv1.Job{Id: fmt.Sprintf("j%d", len(b.jobs)+1), Subscription: r.Subscription, Kind: r.Mode, From: from, To: to, At: from, Scope: strings.Join(parts, ", "), State: "running",
		Total: to - from, Created: at(0), Owner: api.Actor(ctx)}
	if strings.Contains(r.Reason, "fails") {
		j.Reason = "fails"
	}
	b.jobs = append([]*leatv1.Job{j}, b.jobs...)
	resp.Job = proto.CloneOf(j)
	return resp, nil
}

// Backfill knows the tables public.files and public.notes, which has no key; a where with "torn" leaves a fault.
func (b *backend) Backfill(ctx context.Context, r *leatv1.BackfillRequest) (*leatv1.BackfillResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.find(r.Subscription) == nil {
		return nil, none(r.Subscription)
	}
	if len(r.Tables) > 0 && r.Tables[0] == "public.nosuch" {
		return nil, api.Errorf(api.Precondition, "source \"files\" reads no table that matches public.nosuch: nothing was changed")
	}
	resp := &leatv1.BackfillResponse{Plan: &leatv1.BackfillPlan{Tables: []*leatv1.BackfillTable{{Table: "public.files", Estimate: 1200},
		{Table: "public.notes", Whole: true, Why: "it has no key"}}}}
	if r.Where != "" {
		resp.Plan.Notes = []string{"the numbers are of all rows"}
	}
	if r.DryRun {
		return resp, nil
	}
	j := &leatv1.Job{Id: fmt.Sprintf("j%d", len(b.jobs)+1), Subscription: r.Subscription, Kind: "snapshot", Source: "files", Cause: "backfill", Scope: "tables *.*", Where: r.Where,
		State: "running", Total: 1200, Created: at(0), Owner: api.Actor(ctx), Bytes: 12000, Tables: []*leatv1.TableProgress{{Table: "public.files", Rows: 600, Estimate: 1200}, {Table: "public.notes", Whole: true}}}
	if strings.Contains(r.Where, "torn") {
		j.Tables[1].Fault, j.Tables[1].Cure = "the condition cannot be used", "mend it"
	}
	b.jobs = append([]*leatv1.Job{j}, b.jobs...)
	resp.Job = proto.CloneOf(j)
	return resp, nil
}

// Jobs moves each job that runs on by a half each time that it alone is asked for.
func (b *backend) Jobs(_ context.Context, r *leatv1.JobsRequest) (*leatv1.JobsResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	resp := &leatv1.JobsResponse{}
	for _, j := range b.jobs {
		if r.Id == j.Id && j.State == "running" {
			j.Done = min(j.Total, j.Done+(j.Total+1)/2)
			j.At, j.EventsPerSecond, j.Left = j.From+j.Done, 1000, long(3*time.Second)
			if j.Done == j.Total {
				j.State, j.Ended, j.Left, j.EventsPerSecond = "done", at(3*time.Second), nil, 0
				if j.Reason != "" {
					j.State, j.Dead = "failed", 1
				}
			}
		}
		if r.Id == j.Id || r.Id == "" && (r.Ended || j.Ended == nil) && (r.Subscription == "" || r.Subscription == j.Subscription) {
			resp.Jobs = append(resp.Jobs, proto.CloneOf(j))
		}
	}
	return resp, nil
}

func (b *backend) change(id, state, reason, ends string) (*leatv1.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		if j.Id == id {
			if j.Ended != nil {
				return nil, api.Errorf(api.Precondition, "job %q has ended: nothing was changed", id)
			}
			j.State, j.Reason, j.EndsWhen = state, reason, ends
			if state == "cancelled" {
				j.Ended = at(0)
			}
			return proto.CloneOf(j), nil
		}
	}
	return nil, api.Errorf(api.Precondition, "no job %q: nothing was changed", id)
}

func (b *backend) PauseJob(ctx context.Context, r *leatv1.PauseJobRequest) (*leatv1.PauseJobResponse, error) {
	j, err := b.change(r.Id, "paused", "paused by "+api.Actor(ctx)+": "+r.Reason, "leat jobs resume "+r.Id)
	return &leatv1.PauseJobResponse{Job: j}, err
}

func (b *backend) ResumeJob(_ context.Context, r *leatv1.ResumeJobRequest) (*leatv1.ResumeJobResponse, error) {
	j, err := b.change(r.Id, "running", "", "")
	return &leatv1.ResumeJobResponse{Job: j}, err
}

func (b *backend) CancelJob(_ context.Context, r *leatv1.CancelJobRequest) (*leatv1.CancelJobResponse, error) {
	j, err := b.change(r.Id, "cancelled", r.Reason, "")
	return &leatv1.CancelJobResponse{Job: j}, err
}
