package status

import (
	"context"

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
	a.Out.Printf("\n\n")
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

// sourceNotes say what is wrong with a source and what to do.
func (a *commands) sourceNotes(s *leatv1.SourceStatus) []screen.Cell {
	var out []screen.Cell
	if s.GetReason() != "" {
		text := s.GetReason()
		if s.GetCode() != "" {
			text = s.GetCode() + ": " + text
		}
		if at := shell.Clock(s.GetSince()); at != "" {
			text += " (since " + at + ")"
		}
		out = append(out, screen.Cell{Text: "! " + text, Style: stateStyle(s.GetState())})
	}
	if (s.GetState() == "gone" || s.GetState() == "") && s.GetReason() == "" {
		out = append(out, screen.Cell{Text: "! leat.yaml no longer names it; kept and paused; leat source remove or leat apply --drop removes it", Style: screen.Yellow})
	}
	out = append(out, a.throttleNotes(s.GetThrottles())...)
	out = append(out, pressureNotes(s.GetPressure())...)
	out = append(out, diskNotes(s.GetDisk())...)
	if s.GetLogFull() {
		out = append(out, screen.Cell{Text: "! the log's disk is full: reading waits; make space, or lower retention.size", Style: screen.Red})
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
		for _, n := range a.subscriptionNotes(s) {
			t.Note(n.Style, n.Text)
		}
	}
	return t
}

// subscriptionNotes say why a subscription waits and until when.
func (a *commands) subscriptionNotes(s *leatv1.SubscriptionStatus) []screen.Cell {
	var out []screen.Cell
	text := s.GetReason()
	if u := s.GetUntil(); u != nil {
		if text == "" {
			text = "waits"
		}
		if d := u.AsTime().Sub(a.Now()); d > 0 {
			text += "; again in " + screen.Duration(d)
		} else {
			text += "; again now"
		}
	}
	if text != "" {
		out = append(out, screen.Cell{Text: "! " + text, Style: stateStyle(s.GetState())})
	}
	if s.GetState() == "gone" && s.GetReason() == "" {
		out = append(out, screen.Cell{Text: "! leat.yaml no longer names it; kept and paused; leat apply --drop " + s.GetName() + " removes it", Style: screen.Yellow})
	}
	out = append(out, a.throttleNotes(s.GetThrottles())...)
	out = append(out, laggardNotes(s.GetLaggard())...)
	if s.GetSaveError() != "" {
		out = append(out, screen.Cell{Text: "! its cursor is not saved: " + s.GetSaveError(), Style: screen.Red})
	}
	return out
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

// details shows everything about what was asked for by name.
func (a *commands) details(r *leatv1.StatusResponse) {
	for _, s := range r.GetSources() {
		a.Out.Printf("%s  %s\n", a.Out.Paint(screen.Bold, "source "+screen.Clean(s.GetName())), a.state(s.GetState()))
		lag := ""
		if s.GetLag() != nil {
			lag = screen.Duration(s.GetLag().AsDuration()) + " from commit to durable"
		}
		a.Out.Pairs([2]string{"kind", s.GetKind()}, [2]string{"since", shell.Clock(s.GetSince())}, [2]string{"position", s.GetPosition()},
			[2]string{"lag", lag}, [2]string{"rate", screen.Rate(s.GetEventsPerSecond()) + " events, " + screen.Size(uint64(max(s.GetBytesPerSecond(), 0))) + "/s"},
			[2]string{"tables", screen.Count(s.GetTables())}, [2]string{"log", s.GetLogId()}, [2]string{"log size", screen.Size(s.GetLogBytes())},
			[2]string{"offsets", screen.Offsets(s.GetOldest(), s.GetNext())})
		a.notes(a.sourceNotes(s))
	}
	for i, s := range r.GetSubscriptions() {
		if i > 0 || len(r.GetSources()) > 0 {
			a.Out.Printf("\n")
		}
		a.Out.Printf("%s  %s\n", a.Out.Paint(screen.Bold, "subscription "+screen.Clean(s.GetName())), a.state(s.GetState()))
		lag := screen.Count(s.GetLagEvents()) + " events"
		if s.GetLagEvents() > 0 {
			if s.GetLagBytes() > 0 {
				lag += ", about " + screen.Size(s.GetLagBytes())
			}
			lag += ", the oldest " + screen.Duration(s.GetLag().AsDuration()) + " old"
		}
		a.Out.Pairs([2]string{"source", s.GetSource()}, [2]string{"kind", s.GetKind()}, [2]string{"lag", lag},
			[2]string{"rate", screen.Rate(s.GetEventsPerSecond())}, [2]string{"done below", screen.Offset(s.GetLow())}, [2]string{"saved", screen.Offset(s.GetPersisted())},
			[2]string{"read to", screen.Offset(s.GetRead())}, [2]string{"end of log", screen.Offset(s.GetNext())}, [2]string{"resolved", screen.Offset(s.GetResolved())},
			[2]string{"in flight", screen.Count(s.GetInFlight()) + " deliveries, " + screen.Count(s.GetOpen()) + " events open, " + screen.Count(s.GetHeld()) + " held, " + screen.Size(s.GetBufferedBytes())},
			[2]string{"delivered", screen.Count(s.GetDelivered())}, [2]string{"failed", screen.Count(s.GetFailed())}, [2]string{"parked", parkedText(s)}, [2]string{"dead", screen.Count(s.GetDead())})
		a.notes(a.subscriptionNotes(s))
	}
}

// parkedText is empty where nothing is parked.
func parkedText(s *leatv1.SubscriptionStatus) string {
	if s.GetParked() == 0 {
		return ""
	}
	return screen.Plural(s.GetParked(), "key") + ": leat parked " + s.GetName()
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
