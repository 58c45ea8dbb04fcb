package replays

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/backfill"
	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// Backfill says what one would read, and begins it unless it is a dry run. own are the subscription's tables.
func (s Replays) Backfill(ctx context.Context, source string, own []string, r *leatv1.BackfillRequest) (*leatv1.BackfillResponse, error) {
	globs := r.Tables
	if len(globs) == 0 {
		globs = own
	}
	if len(globs) == 0 {
		globs = []string{"*.*"}
	}
	plan, err := s.rows(ctx, source, globs, own)
	if err != nil {
		return nil, err
	}
	if r.Where != "" {
		plan.Notes = append(plan.Notes, "the numbers are of all rows: how many the condition leaves is not known")
	}
	resp := &leatv1.BackfillResponse{Plan: plan}
	if r.DryRun {
		return resp, nil
	}
	j, err := s.Engine.Backfill(ctx, engine.BackfillRequest{Subscription: r.Subscription, Tables: globs, Where: r.Where, Owner: api.Actor(ctx)})
	if err != nil {
		return nil, replayError(err)
	}
	api.Note(ctx, fmt.Sprintf("job %s: %s", j.ID, plural(len(plan.Tables), "table")))
	resp.Job = SnapshotOf(j)
	return resp, nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// rows plans the reading of tables.
func (s Replays) rows(ctx context.Context, source string, globs, own []string) (*leatv1.BackfillPlan, error) {
	tables, ok, err := s.Rows(ctx, source, globs)
	var bad *snapshot.TableError
	switch {
	case errors.As(err, &bad):
		return nil, api.Errorf(api.Invalid, "%v: nothing was changed", err)
	case err != nil:
		return nil, api.Errorf(api.Unavailable, "look for the tables of source %q: %v: nothing was changed", source, err)
	case !ok:
		return nil, api.Errorf(api.Precondition, "source %q has no rows that could be copied: nothing was changed", source)
	case len(tables) == 0:
		return nil, api.Errorf(api.Precondition, "source %q reads no table that matches %s: `leat check` lists what is missing in the database; nothing was changed", source, strings.Join(globs, " "))
	}
	plan := &leatv1.BackfillPlan{}
	quar := s.Engine.Quarantined(source)
	for _, t := range tables {
		if n, ok := quar[schemas.Subject(t.Schema, t.Name)]; ok {
			plan.Notes = append(plan.Notes, ended(n))
		}
		if !taken(own, t) {
			plan.Notes = append(plan.Notes, "the subscription takes no rows of "+schemas.Subject(t.Schema, t.Name)+": they will be read for nothing")
		}
		plan.Tables = append(plan.Tables, &leatv1.BackfillTable{Table: schemas.Subject(t.Schema, t.Name), Estimate: t.Estimate, Whole: len(t.Key) == 0, Why: t.Why})
	}
	return plan, nil
}

// ended says what becomes of a table's quarantine.
func ended(n pipeline.Notice) string {
	return "table " + n.Table + " is quarantined (" + n.Reason + "): that ends here, and its changes enter the log again; first " +
		strings.TrimSuffix(n.Cure, "; then "+pipeline.BringRows) + ", else the next such row quarantines it again"
}

// taken reports whether a subscription's globs name the table.
func taken(own []string, t snapshot.Table) bool {
	in, any := false, false
	for _, g := range own {
		out, negative := strings.CutPrefix(g, "!")
		if negative {
			if schemas.MatchTable(out, t.Schema, t.Name) {
				return false
			}
			continue
		}
		any = true
		in = in || schemas.MatchTable(g, t.Schema, t.Name)
	}
	return in || !any
}

// SnapshotOf is a snapshot in the API's words.
func SnapshotOf(j backfill.Status) *leatv1.Job {
	done, total := j.Rows()
	p := &leatv1.Job{Id: j.ID, Subscription: j.For, Kind: string(pipeline.JobSnapshot), From: uint64(j.After), Scope: "tables " + strings.Join(j.Tables, " "),
		State: string(j.State), Reason: j.Reason, Done: done, Total: total, Created: when(j.Created), Ended: when(j.Ended), Owner: j.Owner,
		EventsPerSecond: j.Rate, Source: j.Source, Cause: string(j.Cause), Where: j.Where, Bytes: j.Bytes()}
	if j.Where != "" {
		p.Scope += " where " + j.Where
	}
	if j.Left > 0 {
		p.Left = durationpb.New(j.Left)
	}
	for _, t := range j.Progress {
		p.Tables = append(p.Tables, &leatv1.TableProgress{Table: t.Table, Rows: t.Rows, Bytes: t.Bytes, Overtaken: t.Overtaken, Estimate: t.Estimate, Done: t.Done,
			Whole: t.Whole, Fault: t.Fault, Cure: t.Cure})
	}
	switch j.State {
	case pipeline.JobPaused:
		p.EndsWhen = "leat jobs resume " + j.ID
	case pipeline.JobWaiting:
		p.EndsWhen = cmp.Or(j.Ends, "that is over: it goes on by itself")
	}
	return p
}
