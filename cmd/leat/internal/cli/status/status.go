package status

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Command is leat status.
func Command(app *shell.App) *cobra.Command {
	a := &commands{app}
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Sources, log, subscriptions: state, lag, rate, and why something waits",
		Long: "LAG of a source is the time from commit to durable in the log; of a subscription the events of the log\n" +
			"that are not done, and the age of the oldest of them. HELD events wait for an earlier one of their key.\n" +
			"PARKED keys wait for leat redrive, DEAD events were given up on (leat parked). With a NAME: everything\n" +
			"about that source or subscription.",
		Example:           "  leat status\n  leat status search\n  leat status --json | jq '.subscriptions[] | select(.state != \"running\") | .name'",
		Args:              fault.Wants("[NAME]"),
		ValidArgsFunction: a.Names(true, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return a.status(cmd.Context(), name)
		},
	}
	a.JSONFlag(cmd)
	return cmd
}

func (a *commands) status(ctx context.Context, name string) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := shell.Call(ctx, s, "status", s.Status, &leatv1.StatusRequest{Name: name})
	if err != nil {
		return err
	}
	switch {
	case a.JSON:
		return a.Document(statusDocument(r))
	case name != "":
		a.details(r)
	default:
		a.overview(s, r)
	}
	return nil
}

func (a *commands) overview(s *shell.Server, r *leatv1.StatusResponse) {
	a.Out.Printf("%s on %s", a.Out.Paint(screen.Bold, "leat "+screen.Clean(r.GetVersion())), s.Shown)
	if t := r.GetStarted(); t != nil {
		a.Out.Printf(", up %s", screen.Duration(a.Now().Sub(t.AsTime())))
	}
	if r.GetMemoryBudget() > 0 {
		a.Out.Printf(", memory %s of %s", screen.Size(r.GetMemoryUsed()), screen.Size(r.GetMemoryBudget()))
	}
	a.Out.Printf("\n")
	if text := turnsText(nil, r.GetTurns()); text != "" {
		a.Out.Printf("%s\n", text)
	}
	a.Out.Printf("\n")
	if len(r.GetSources()) == 0 && len(r.GetSubscriptions()) == 0 {
		a.Out.Printf("no sources, no subscriptions: see leat plan, leat apply\n")
		return
	}
	if len(r.GetSources()) > 0 {
		a.Out.Print(a.sourceTable(r.GetSources()))
	}
	if len(r.GetSubscriptions()) > 0 {
		a.Out.Printf("\n")
		a.Out.Print(a.subscriptionTable(r.GetSubscriptions()))
	}
}

func (a *commands) sourceTable(list []*leatv1.SourceStatus) *screen.Table {
	t := screen.NewTable("SOURCE", "KIND", "STATE", ">LAG", ">EVENTS", ">BYTES", ">LOG", ">KEPT", "POSITION")
	t.Spare("BYTES", "KEPT", "KIND") // status NAME has them
	for _, s := range list {
		lag := ""
		if s.GetLag() != nil && s.GetState() == "streaming" {
			lag = screen.Duration(s.GetLag().AsDuration())
		}
		t.Row(screen.Cell{Text: s.GetName(), Style: screen.Bold}, screen.Text(s.GetKind()), stateCell(s.GetState()), screen.Text(lag),
			screen.Text(screen.Rate(s.GetEventsPerSecond())), screen.Text(screen.Size(uint64(max(s.GetBytesPerSecond(), 0)))+"/s"),
			screen.Text(screen.Size(s.GetLogBytes())), screen.Text(screen.Count(screen.Kept(s.GetOldest(), s.GetNext()))),
			screen.Text(screen.Position(s.GetPosition())))
		for _, n := range a.sourceNotes(s) {
			t.Note(n.Style, n.Text)
		}
	}
	return t
}

// sourceNotes say what is wrong with a source and what ends that.
func (a *commands) sourceNotes(s *leatv1.SourceStatus) []screen.Cell {
	var out []screen.Cell
	for _, w := range s.GetWaits() {
		text := WaitText(w, a.Now())
		if at := shell.Clock(s.GetSince()); w.GetKind() == "state" && at != "" {
			text += " (since " + at + ")"
		}
		out = append(out, screen.Cell{Text: "! " + text, Style: waitStyle(w)})
	}
	for _, j := range s.GetSnapshots() {
		out = append(out, snapshotNotes(j)...)
	}
	for _, n := range s.GetNotices() {
		text, style := n.GetTable()+" ", screen.Yellow
		switch n.GetKind() {
		case "quarantined":
			text, style = text+"is quarantined, its changes do not enter the log", screen.Red
		case "gap":
			text += "has changes that did not enter the log"
		default:
			text, style = text+"is read again", screen.Dim
		}
		if n.GetPosition() != "" {
			text += ", at " + screen.Position(n.GetPosition())
		}
		if n.GetReason() != "" {
			text += ": " + n.GetReason()
		}
		out = append(out, screen.Cell{Text: "! " + text, Style: style})
		if n.GetCure() != "" {
			out = append(out, screen.Cell{Text: "  → " + n.GetCure(), Style: screen.Dim})
		}
	}
	return out
}

// snapshotNotes say how far a snapshot is, and why it waits.
func snapshotNotes(j *leatv1.Job) []screen.Cell {
	text := "snapshot " + j.GetId() + " (" + j.GetCause() + ")"
	if j.GetSubscription() != "" {
		text += " for " + j.GetSubscription()
	}
	text += ": " + shell.Count(j.GetDone(), j.GetTotal())
	if j.GetTotal() > 0 {
		text += ", " + shell.Percent(j)
	}
	style := screen.Cyan
	if j.GetState() == "running" {
		text += ", " + screen.Rate(j.GetEventsPerSecond())
		if j.GetLeft() != nil {
			text += ", " + screen.Duration(j.GetLeft().AsDuration()) + " left"
		}
	} else {
		text, style = text+", "+j.GetState(), screen.Yellow
	}
	if j.GetReason() != "" {
		text += ": " + j.GetReason()
		if j.GetEndsWhen() != "" {
			text += "; until " + j.GetEndsWhen()
		}
	}
	return append([]screen.Cell{{Text: "! " + text, Style: style}}, shell.TableNotes(j)...)
}

func (a *commands) subscriptionTable(list []*leatv1.SubscriptionStatus) *screen.Table {
	t := screen.NewTable("SUBSCRIPTION", "SOURCE", "KIND", "STATE", ">LAG", ">BEHIND", ">EVENTS", ">IN FLIGHT", ">HELD", ">PARKED", ">DEAD")
	t.Spare("HELD", "IN FLIGHT", "KIND", "PARKED")
	for _, s := range list {
		behind := ""
		if s.GetLagEvents() > 0 {
			behind = screen.Duration(s.GetLag().AsDuration())
		}
		dead := screen.Text(screen.Count(s.GetDead()))
		if s.GetDead() > 0 {
			dead.Style = screen.Red
		}
		parked := screen.Text(screen.Count(s.GetParked()))
		if s.GetParked() > 0 {
			parked.Style = screen.Red
		}
		t.Row(screen.Cell{Text: s.GetName(), Style: screen.Bold}, screen.Text(s.GetSource()), screen.Text(s.GetKind()), stateCell(s.GetState()),
			screen.Text(screen.Count(s.GetLagEvents())), screen.Text(behind), screen.Text(screen.Rate(s.GetEventsPerSecond())),
			screen.Text(screen.Count(s.GetInFlight())), screen.Text(screen.Count(s.GetHeld())), parked, dead)
		for _, n := range a.waitNotes(s) {
			t.Note(n.Style, n.Text)
		}
	}
	return t
}

// waitNotes say why a subscription waits and until when.
func (a *commands) waitNotes(s *leatv1.SubscriptionStatus) []screen.Cell {
	var out []screen.Cell
	if s.GetState() == "running" && s.GetReason() != "" {
		out = append(out, screen.Cell{Text: "! " + s.GetReason(), Style: screen.Cyan})
	}
	for _, w := range s.GetWaits() {
		out = append(out, screen.Cell{Text: "! " + WaitText(w, a.Now()), Style: waitStyle(w)})
	}
	return out
}

// WaitText is a wait in a line: why, and until when, or, where that is no matter of time, until what.
func WaitText(w *leatv1.Wait, now time.Time) string {
	if w.GetUntil() == nil {
		return w.GetReason() + "; until " + w.GetEndsWhen()
	}
	d := w.GetUntil().AsTime().Sub(now)
	switch {
	case w.GetKind() == "throttle":
		return w.GetReason() + "; ends in " + screen.Duration(max(0, d))
	case d > 0:
		return w.GetReason() + "; again in " + screen.Duration(d)
	}
	return w.GetReason() + "; again now"
}

func waitStyle(w *leatv1.Wait) screen.Style {
	switch w.GetLevel() {
	case "error":
		return screen.Red
	case "notice":
		return screen.Cyan
	}
	return screen.Yellow
}

func stateCell(state string) screen.Cell {
	if state == "" {
		state = "gone"
	}
	return screen.Cell{Text: state, Style: stateStyle(state)}
}

func stateStyle(state string) screen.Style {
	switch state {
	case "streaming", "running":
		return screen.Green
	case "stopped", "blocked":
		return screen.Red
	}
	return screen.Yellow
}

func (a *commands) notes(list []screen.Cell) {
	for _, n := range list {
		a.Out.Printf("  %s\n", a.Out.Paint(n.Style, screen.Clean(n.Text)))
	}
}

func (a *commands) state(s string) string {
	c := stateCell(s)
	return a.Out.Paint(c.Style, screen.Clean(c.Text))
}
