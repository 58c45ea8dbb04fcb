package operate

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Pause is leat pause.
func Pause(app *shell.App) *cobra.Command {
	a := &commands{app}
	var reason, ratio, span string
	cmd := &cobra.Command{
		Use:               "pause SUBSCRIPTION",
		Short:             "Stop delivering to a subscription, keep its place",
		Long:              "Deliveries in flight are finished; nothing more is sent until leat resume. The log is kept as retention says.",
		Example:           "  leat pause search --reason 'index rebuild'",
		Args:              fault.Wants("SUBSCRIPTION"),
		ValidArgsFunction: a.Names(false, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range []string{"ratio", "for"} {
				if cmd.Flags().Changed(name) {
					return fault.Usage(cmd, "leat pause has no --%s: leat throttle NAME --ratio 0 --for TIME stops for a time", name)
				}
			}
			return a.change(cmd.Context(), "pause "+args[0], func(ctx context.Context, s *shell.Server, doing string) error {
				_, err := shell.Call(ctx, s, doing, s.Pause, &leatv1.PauseRequest{Subscription: args[0], Reason: reason})
				return err
			}, args[0]+" is paused\n")
		},
	}
	f := cmd.Flags()
	f.StringVar(&reason, "reason", "", "`WHY`, for status and the audit log")
	f.StringVar(&ratio, "ratio", "", "of the rate")
	f.StringVar(&span, "for", "", "a time")
	for _, hidden := range []string{"ratio", "for"} { // of leat throttle: refused with where to find them
		f.Lookup(hidden).Hidden = true
	}
	return cmd
}

// Resume is leat resume.
func Resume(app *shell.App) *cobra.Command {
	a := &commands{app}
	return &cobra.Command{
		Use:               "resume SUBSCRIPTION",
		Short:             "Deliver to a paused subscription again",
		Example:           "  leat resume search",
		Args:              fault.Wants("SUBSCRIPTION"),
		ValidArgsFunction: a.Names(false, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.change(cmd.Context(), "resume "+args[0], func(ctx context.Context, s *shell.Server, doing string) error {
				_, err := shell.Call(ctx, s, doing, s.Resume, &leatv1.ResumeRequest{Subscription: args[0]})
				return err
			}, args[0]+" runs again\n")
		},
	}
}

func (a *commands) change(ctx context.Context, doing string, f func(context.Context, *shell.Server, string) error, done string) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	if err := f(ctx, s, doing); err != nil {
		return err
	}
	a.Out.Printf("%s", screen.Clean(done[:len(done)-1])+"\n")
	return nil
}

// seeking is one leat seek.
type seeking struct {
	to, reason  string
	dryRun, yes bool
}

// Seek is leat seek.
func Seek(app *shell.App) *cobra.Command {
	a := &commands{app}
	var o seeking
	cmd := &cobra.Command{
		Use:   "seek SUBSCRIPTION --to PLACE",
		Short: "Move a subscription forward, past what is not wanted",
		Long: "What lies between is never delivered to this subscription; it is listed as skipped, and the audit log\n" +
			"tells who did it. Other subscriptions and the log are not touched. Asks first.",
		Example:           "  leat seek search --to latest\n  leat seek search --to 2026-11-21T10:15:30Z --dry-run\n  leat seek search --to 1877212358656123 --yes --reason 'bad import'",
		Args:              fault.Wants("SUBSCRIPTION"),
		ValidArgsFunction: a.Names(false, true),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.seek(cmd, args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", "`PLACE`: latest, an offset, an event id or a time (RFC 3339)")
	f.StringVar(&o.reason, "reason", "", "`WHY`, for the audit log")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be skipped")
	shell.YesFlag(cmd, &o.yes)
	a.JSONFlag(cmd)
	return cmd
}

func (a *commands) seek(cmd *cobra.Command, name string, o seeking) error {
	req, err := seekRequest(cmd, name, o)
	if err != nil {
		return err
	}
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, doing := cmd.Context(), "seek "+name
	req.DryRun = true
	r, err := shell.Call(ctx, s, doing, s.Seek, req)
	if err != nil {
		return err
	}
	if !o.dryRun {
		if r.GetTo() > r.GetFrom() {
			question := fmt.Sprintf("%s will skip %s events of the log (%d to %d). Go on?", name, screen.Count(r.GetSkipped()), r.GetFrom(), r.GetTo())
			if err := a.Confirm(ctx, o.yes, question, ""); err != nil {
				return err
			}
		}
		req.DryRun = false
		// What was confirmed is what is done, also where "latest" has moved on meanwhile.
		req.To = &leatv1.SeekRequest_Offset{Offset: r.GetTo()}
		if r, err = shell.Call(ctx, s, doing, s.Seek, req); err != nil {
			return err
		}
	}
	if a.JSON {
		return a.Document(map[string]any{"subscription": name, "from": r.GetFrom(), "to": r.GetTo(), "skipped": r.GetSkipped(), "dry_run": o.dryRun})
	}
	verb := "skipped"
	if o.dryRun {
		verb = "would skip"
	}
	a.Out.Printf("%s %s %s events: %d → %d\n", screen.Clean(name), verb, screen.Count(r.GetSkipped()), r.GetFrom(), r.GetTo())
	return nil
}

func seekRequest(cmd *cobra.Command, name string, o seeking) (*leatv1.SeekRequest, error) {
	req := &leatv1.SeekRequest{Subscription: name, Reason: o.reason}
	switch o.to {
	case "":
		return nil, fault.Usage(cmd, "leat seek wants --to PLACE: latest, an offset, an event id, a time")
	case "latest":
		req.To = &leatv1.SeekRequest_Latest{Latest: true}
		return req, nil
	case "earliest":
		return nil, fault.Usage(cmd, "--to earliest lies behind: leat seek only goes forward")
	}
	at, when, err := shell.Place(o.to)
	switch {
	case err != nil:
		return nil, fault.Usage(cmd, "--to %q is none of latest, an offset, an event id, a time (2026-11-21T10:15:30Z)", o.to)
	case when.IsZero():
		req.To = &leatv1.SeekRequest_Offset{Offset: at}
	default:
		req.To = &leatv1.SeekRequest_Time{Time: timestamppb.New(when)}
	}
	return req, nil
}

// Source is leat source.
func Source(app *shell.App) *cobra.Command {
	a := &commands{app}
	cmd := fault.Group(&cobra.Command{Use: "source", Short: "Remove a source, or let one begin anew"})
	var yes bool
	remove := &cobra.Command{
		Use:   "remove NAME",
		Short: "Drop a source's slot and publication in the database, then its log",
		Long: "Everything that the log holds of this source is gone afterwards, also for subscriptions that have not\n" +
			"seen it; a source of the same name starts anew. Cannot be undone. Asks for the name first.",
		Example:           "  leat source remove files",
		Args:              fault.Wants("NAME"),
		ValidArgsFunction: a.Names(true, false),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.removeSource(cmd.Context(), args[0], yes) },
	}
	shell.YesFlag(remove, &yes)
	a.JSONFlag(remove)
	cmd.AddCommand(remove)
	return cmd
}

func (a *commands) removeSource(ctx context.Context, name string, yes bool) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	if !yes { // so that nobody is asked about a source that is not there
		if _, err := shell.Call(ctx, s, "source remove "+name, s.Status, &leatv1.StatusRequest{Name: name}); err != nil {
			return err
		}
	}
	question := fmt.Sprintf("This drops the slot and publication of %s in its database, and its log with everything in it.", screen.Clean(name))
	if err := a.Confirm(ctx, yes, question, name); err != nil {
		return err
	}
	r, err := shell.Call(ctx, s, "source remove "+name, s.RemoveSource, &leatv1.RemoveSourceRequest{Name: name})
	if err != nil {
		return err
	}
	if a.JSON {
		done := r.GetDone()
		if done == nil {
			done = []string{}
		}
		return a.Document(map[string]any{"source": name, "done": done})
	}
	for _, d := range r.GetDone() {
		a.Out.Printf("%s\n", screen.Clean(d))
	}
	a.Out.Printf("%s is removed\n", screen.Clean(name))
	return nil
}
