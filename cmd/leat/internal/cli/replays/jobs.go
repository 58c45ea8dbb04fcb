package replays

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Jobs is leat jobs.
func Jobs(app *shell.App) *cobra.Command {
	a := &commands{app}
	var all bool
	list := func(cmd *cobra.Command, args []string) error {
		req := &leatv1.JobsRequest{Ended: all}
		if len(args) > 0 {
			req.Subscription = args[0]
		}
		return a.jobs(cmd.Context(), req)
	}
	cmd := &cobra.Command{
		Use:   "jobs [SUBSCRIPTION]",
		Short: "Replays and snapshots under way: list, pause, resume, cancel",
		Long: "Lists replays and snapshots (backfills too) that have not ended, the newest first; they survive restarts.\n" +
			"With --all also those that have.",
		Example:           "  leat jobs\n  leat jobs search --all\n  leat jobs pause j3 --reason 'at night'\n  leat jobs resume j3\n  leat jobs cancel j3",
		Args:              fault.Wants("[SUBSCRIPTION]"),
		ValidArgsFunction: a.Names(false, true),
		RunE:              list,
	}
	inner := &cobra.Command{Use: "list [SUBSCRIPTION]", Short: "Jobs that have not ended", Args: fault.Wants("[SUBSCRIPTION]"), ValidArgsFunction: a.Names(false, true), RunE: list}
	for _, c := range []*cobra.Command{cmd, inner} {
		c.Flags().BoolVar(&all, "all", false, "also those that have ended")
		a.JSONFlag(c)
	}
	cmd.AddCommand(inner, a.pause(), a.resume(), a.cancel())
	return cmd
}

func (a *commands) jobs(ctx context.Context, req *leatv1.JobsRequest) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := shell.Call(ctx, s, "jobs", s.Jobs, req)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.Document(map[string]any{"jobs": shell.JobDocs(r.GetJobs())})
	}
	if len(r.GetJobs()) == 0 {
		a.Out.Printf("no replays and no snapshots are under way\n")
		return nil
	}
	t := screen.NewTable("JOB", "SUBSCRIPTION", "KIND", "STATE", ">DONE", ">PER SECOND", ">LEFT", "BY", "SINCE", "OF")
	t.Spare("SINCE", "BY", "KIND")
	for _, j := range r.GetJobs() {
		left, of := "", screen.Number(j.GetFrom())+" to "+screen.Number(j.GetTo())
		if j.GetLeft() != nil {
			left = screen.Duration(j.GetLeft().AsDuration())
		}
		if j.GetKind() == shell.Snapshot {
			of = screen.Plural(j.GetDone(), "row") + ", " + screen.Size(j.GetBytes())
		}
		if j.GetScope() != "" {
			of += ", " + screen.Shorten(j.GetScope(), 60)
		}
		t.Row(screen.Cell{Text: j.GetId(), Style: screen.Bold}, screen.Text(shell.Whose(j)), screen.Text(j.GetKind()), screen.Cell{Text: j.GetState(), Style: shell.JobStyle(j.GetState())},
			screen.Text(shell.Percent(j)), screen.Text(screen.Rate(j.GetEventsPerSecond())), screen.Text(left), screen.Text(j.GetOwner()), screen.Text(shell.Clock(j.GetCreated())), screen.Text(of))
		if j.GetReason() != "" {
			text := "! " + j.GetReason()
			if j.GetEndsWhen() != "" {
				text += "; until " + j.GetEndsWhen()
			}
			t.Note(shell.JobStyle(j.GetState()), text)
		}
		for _, n := range shell.TableNotes(j) {
			t.Note(n.Style, n.Text)
		}
		if j.GetDead() > 0 {
			t.Note(screen.Red, "! "+screen.Plural(j.GetDead(), "event")+" given up on: leat parked "+j.GetSubscription())
		}
	}
	a.Out.Print(t)
	return nil
}

// changing is a command that changes a job; do makes the call.
func (a *commands) changing(verb, short, long, done string, reason *string, do func(context.Context, *shell.Server, string, string) (*leatv1.Job, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " JOB", Short: short, Long: long, Example: "  leat jobs " + verb + " j3", Args: fault.Wants("JOB"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.Connect()
			if err != nil {
				return err
			}
			defer s.Close()
			j, err := do(cmd.Context(), s, verb+" job "+args[0], args[0])
			if err != nil {
				return err
			}
			if a.JSON {
				return a.Document(shell.JobDocs([]*leatv1.Job{j})[0])
			}
			a.Out.Printf("job %s %s\n", screen.Clean(j.GetId()), done)
			return nil
		},
	}
	if reason != nil {
		cmd.Flags().StringVar(reason, "reason", "", "`WHY`, for leat jobs and the audit log")
	}
	a.JSONFlag(cmd)
	return cmd
}

func (a *commands) pause() *cobra.Command {
	var reason string
	return a.changing("pause", "Stop a job until it is resumed", "What is in flight ends; nothing more is sent or read until leat jobs resume, also over restarts.", "is paused", &reason,
		func(ctx context.Context, s *shell.Server, doing, id string) (*leatv1.Job, error) {
			r, err := shell.Call(ctx, s, doing, s.PauseJob, &leatv1.PauseJobRequest{Id: id, Reason: reason})
			return r.GetJob(), err
		})
}

func (a *commands) resume() *cobra.Command {
	return a.changing("resume", "Let a paused job go on", "", "goes on", nil,
		func(ctx context.Context, s *shell.Server, doing, id string) (*leatv1.Job, error) {
			r, err := shell.Call(ctx, s, doing, s.ResumeJob, &leatv1.ResumeJobRequest{Id: id})
			return r.GetJob(), err
		})
}

func (a *commands) cancel() *cobra.Command {
	var reason string
	return a.changing("cancel", "End a job for good", "Keys that a rewind or a fenced replay has taken back are first brought up to live, no others. Rows that a\n"+
		"snapshot has brought stay.", "is cancelled", &reason,
		func(ctx context.Context, s *shell.Server, doing, id string) (*leatv1.Job, error) {
			r, err := shell.Call(ctx, s, doing, s.CancelJob, &leatv1.CancelJobRequest{Id: id, Reason: reason})
			return r.GetJob(), err
		})
}
