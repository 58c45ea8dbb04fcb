package app

import (
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

func atOffset(o uint64) *leatv1.Place { return &leatv1.Place{At: &leatv1.Place_Offset{Offset: o}} }

// replayed makes a replay aside of all of a's log, changed by more.
func (in *installation) replayed(t *testing.T, more func(*leatv1.ReplayRequest)) (*leatv1.ReplayResponse, error) {
	t.Helper()
	r := &leatv1.ReplayRequest{Subscription: "a", Mode: "aside", From: atOffset(in.source(t, "files").Oldest)}
	more(r)
	resp, err := in.admin.Replay(t.Context(), connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func (in *installation) jobs(t *testing.T, r *leatv1.JobsRequest) []*leatv1.Job {
	t.Helper()
	resp, err := in.admin.Jobs(t.Context(), connect.NewRequest(r))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg.Jobs
}

// copies are what the hook got of a job, as op and id.
func copies(t *testing.T, h *hook, job string) (all []string) {
	t.Helper()
	for _, e := range h.got(t) {
		if e.Data.Replay.Job == job {
			all = append(all, fmt.Sprint(e.Subject, " ", e.Data.Op, " ", e.Data.Key["id"]))
		}
	}
	return all
}

// A replay is counted by its dry run, brings what its scope means, is listed, paused and resumed; what cannot be is
// refused, changes nothing, and stands in the audit log.
func TestReplay(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	db.exec(t, "CREATE TABLE users (id bigint PRIMARY KEY)")
	in := install(t, dir, db.yaml("a: {source: files, deliver: {"+toHook(h)+"}}"))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (1), (2)", "INSERT INTO users VALUES (2)", "UPDATE files SET size = 7 WHERE id = 1")
	events := h.waits(t, 4)
	until(t, "all to be done", func() bool { return in.subscription(t, "a").LagEvents == 0 })
	next := in.source(t, "files").Next

	for _, x := range []struct {
		name string
		more func(*leatv1.ReplayRequest)
		want string
		code connect.Code
	}{
		{"nobody", func(r *leatv1.ReplayRequest) { r.Subscription = "nobody" }, "no subscription", connect.CodeNotFound},
		{"window ends before it starts", func(r *leatv1.ReplayRequest) { r.From, r.To = atOffset(next-1), atOffset(next-2) }, "before or where it starts", connect.CodeInvalidArgument},
		{"beyond the tail", func(r *leatv1.ReplayRequest) { r.To = atOffset(next + 5) }, "beyond the end", connect.CodeFailedPrecondition},
		{"older than the log", func(r *leatv1.ReplayRequest) { r.From = atOffset(1) }, "history is there from", connect.CodeFailedPrecondition},
		{"filter", func(r *leatv1.ReplayRequest) { r.Scope = &leatv1.ReplayScope{Filter: "nosuch == 1"} }, "nosuch", connect.CodeInvalidArgument},
		{"key of two spaces", func(r *leatv1.ReplayRequest) { r.Scope = &leatv1.ReplayScope{Keys: []string{"[2]"}} }, "more than one key space", connect.CodeInvalidArgument},
		{"key that is none", func(r *leatv1.ReplayRequest) { r.Scope = &leatv1.ReplayScope{Keys: []string{`{"name":"x"}`}} }, "lacks routing column", connect.CodeInvalidArgument},
		{"table", func(r *leatv1.ReplayRequest) { r.Scope = &leatv1.ReplayScope{Tables: []string{"public.nosuch"}} }, "no table that matches", connect.CodeFailedPrecondition},
		{"glob", func(r *leatv1.ReplayRequest) { r.Scope = &leatv1.ReplayScope{Tables: []string{"nosuch"}} }, "nosuch", connect.CodeInvalidArgument},
		{"range", func(r *leatv1.ReplayRequest) {
			r.Scope = &leatv1.ReplayScope{Ranges: []*leatv1.ReplayRange{{Id: new(uint64(99))}}}
		}, "no range 99", connect.CodeFailedPrecondition},
		{"position", func(r *leatv1.ReplayRequest) {
			r.From = &leatv1.Place{At: &leatv1.Place_Position{Position: "binlog.000001:4"}}
		}, "position", connect.CodeFailedPrecondition},
	} {
		_, err := in.replayed(t, x.more)
		if connect.CodeOf(err) != x.code || !strings.Contains(fmt.Sprint(err), x.want) {
			t.Errorf("%s: %v, want %v with %q", x.name, err, x.code, x.want)
		}
	}
	if jobs := in.jobs(t, &leatv1.JobsRequest{Ended: true}); len(jobs) > 0 || len(h.got(t)) != 4 {
		t.Fatalf("refused, but there are jobs: %v", jobs)
	}
	audit := in.audited(t)
	if n := strings.Count(audit, "loopback replay a refused"); n != 10 || !strings.Contains(audit, `loopback replay nobody refused`) {
		t.Errorf("%d refused in the audit log:\n%s", n, audit)
	}

	dry, err := in.replayed(t, func(r *leatv1.ReplayRequest) { r.DryRun = true })
	if err != nil || dry.Plan.Events != 4 || dry.Plan.Keys < 3 || dry.Job != nil || dry.Plan.Oldest.AsTime().After(dry.Plan.Newest.AsTime()) {
		t.Fatalf("dry run: %v %v", dry, err)
	}
	for want, scope := range map[string]*leatv1.ReplayScope{
		"public.files insert 1, public.files update 1": {Keys: []string{"[1]"}, Tables: []string{"public.files"}},
		"public.users insert 2":                        {Tables: []string{"public.users"}},
		"public.files insert 2":                        {Ranges: []*leatv1.ReplayRange{{Table: "public.files", Start: `{"id":2}`}}},
		"public.files update 1":                        {Filter: `op == "update"`},
	} {
		r, err := in.replayed(t, func(r *leatv1.ReplayRequest) { r.Scope = scope })
		if err != nil {
			t.Fatal(want, err)
		}
		until(t, "the job's end", func() bool { return in.jobs(t, &leatv1.JobsRequest{Id: r.Job.Id})[0].State == "done" })
		if got := strings.Join(copies(t, h, r.Job.Id), ", "); got != want {
			t.Errorf("copies %q, want %q", got, want)
		}
	}
	if got := ids(h.got(t)[:4]); strings.Join(got, " ") != strings.Join(ids(events), " ") || len(in.jobs(t, &leatv1.JobsRequest{})) != 0 || len(in.jobs(t, &leatv1.JobsRequest{Ended: true})) != 4 {
		t.Errorf("live events %v", got)
	}
	for mode, tagged := range map[string]bool{"rewind": false, "fenced": true} {
		before := len(copies(t, h, ""))
		r, err := in.replayed(t, func(r *leatv1.ReplayRequest) {
			r.Mode, r.Scope = mode, &leatv1.ReplayScope{Tables: []string{"public.files"}, Keys: []string{"[1]"}}
		})
		if err != nil || r.Plan.Events != 2 {
			t.Fatal(mode, r, err)
		}
		until(t, "the end of the "+mode, func() bool { return in.jobs(t, &leatv1.JobsRequest{Id: r.Job.Id})[0].State == "done" })
		got := copies(t, h, r.Job.Id)
		if !tagged {
			got = copies(t, h, "")[before:]
		}
		if text := strings.Join(got, ", "); text != "public.files insert 1, public.files update 1" {
			t.Errorf("%s brings %q", mode, text)
		}
	}
	if _, err := in.replayed(t, func(r *leatv1.ReplayRequest) { r.Mode, r.To = "rewind", atOffset(next) }); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a rewind with an end: %v", err)
	}
	in.pausesAndCancels(t, h)
}

// pausesAndCancels walks a job through its states while the endpoint takes nothing.
func (in *installation) pausesAndCancels(t *testing.T, h *hook) {
	t.Helper()
	h.answers(answering(503))
	r, err := in.replayed(t, func(*leatv1.ReplayRequest) {})
	if err != nil {
		t.Fatal(err)
	}
	id, ctx := r.Job.Id, t.Context()
	if r, err := in.admin.PauseJob(ctx, connect.NewRequest(&leatv1.PauseJobRequest{Id: id, Reason: "night"})); err != nil || r.Msg.Job.Id != id {
		t.Fatal(r, err)
	}
	until(t, "the pause", func() bool {
		j := in.jobs(t, &leatv1.JobsRequest{Id: id})[0]
		return j.State == "paused" && strings.Contains(j.Reason, "night") && j.EndsWhen == "leat jobs resume "+id
	})
	if _, err := in.admin.ResumeJob(ctx, connect.NewRequest(&leatv1.ResumeJobRequest{Id: id})); err != nil {
		t.Fatal(err)
	}
	if _, err := in.admin.CancelJob(ctx, connect.NewRequest(&leatv1.CancelJobRequest{Id: id})); err != nil {
		t.Fatal(err)
	}
	until(t, "the cancelled job's end", func() bool { return in.jobs(t, &leatv1.JobsRequest{Id: id})[0].State == "cancelled" })
	_, e1 := in.admin.ResumeJob(ctx, connect.NewRequest(&leatv1.ResumeJobRequest{Id: id}))
	_, e2 := in.admin.PauseJob(ctx, connect.NewRequest(&leatv1.PauseJobRequest{Id: "nosuch"}))
	for _, err := range []error{e1, e2} {
		if connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Error(err)
		}
	}
	audit := in.audited(t)
	for _, line := range []string{`loopback pause job ` + id + ` done {"reason":"night"}`, `loopback cancel job ` + id + ` done {}`, `loopback resume job ` + id + ` refused {}`, `loopback pause job nosuch refused {}`} {
		if !strings.Contains(audit, line) {
			t.Errorf("the audit log lacks %s:\n%s", line, audit)
		}
	}
}
