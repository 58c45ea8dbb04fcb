package status

import (
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// details shows everything about what was asked for by name.
func (a *commands) details(r *leatv1.StatusResponse) {
	for _, s := range r.GetSources() {
		a.sourceDetails(s)
	}
	for i, s := range r.GetSubscriptions() {
		if i > 0 || len(r.GetSources()) > 0 {
			a.Out.Printf("\n")
		}
		a.subscriptionDetails(s)
	}
}

func (a *commands) sourceDetails(s *leatv1.SourceStatus) {
	a.Out.Printf("%s  %s\n", a.Out.Paint(screen.Bold, "source "+screen.Clean(s.GetName())), a.state(s.GetState()))
	lag := ""
	if s.GetLag() != nil {
		lag = screen.Duration(s.GetLag().AsDuration()) + " from commit to durable"
	}
	a.Out.Pairs([2]string{"kind", s.GetKind()}, [2]string{"since", shell.Clock(s.GetSince())}, [2]string{"position", s.GetPosition()},
		[2]string{"lag", lag}, [2]string{"rate", screen.Rate(s.GetEventsPerSecond()) + " events, " + screen.Size(uint64(max(s.GetBytesPerSecond(), 0))) + "/s"},
		[2]string{"database", Pressure(s.GetPressure())},
		[2]string{"tables", screen.Count(s.GetTables())}, [2]string{"log", s.GetLogId()}, [2]string{"log size", screen.Size(s.GetLogBytes())},
		[2]string{"offsets", screen.Offsets(s.GetOldest(), s.GetNext())})
	a.notes(a.sourceNotes(s))
}

func (a *commands) subscriptionDetails(s *leatv1.SubscriptionStatus) {
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
		[2]string{"limit", LimitText(s)},
		[2]string{"delivered", screen.Count(s.GetDelivered())}, [2]string{"failed", screen.Count(s.GetFailed())}, [2]string{"parked", parkedText(s)}, [2]string{"dead", screen.Count(s.GetDead())})
	a.notes(a.waitNotes(s))
	if len(s.GetHosts()) > 1 || len(s.GetHosts()) == 1 && s.GetHosts()[0].GetEjected() {
		a.Out.Printf("\n")
		a.Out.Print(a.hostTable(s.GetHosts()))
	}
	if len(s.GetLanes()) > 0 {
		a.Out.Printf("\n")
		a.Out.Print(laneTable(s))
	}
}

// LimitText is "12 of 64 deliveries at once, 40/s"; empty where it is not known.
func LimitText(s *leatv1.SubscriptionStatus) string {
	if s.GetLimit() == 0 {
		return ""
	}
	text := screen.Count(s.GetLimit())
	if s.GetMaxInFlight() > s.GetLimit() {
		text += " of " + screen.Count(s.GetMaxInFlight())
	}
	text += " deliveries at once"
	if s.GetPace() > 0 {
		text += ", " + screen.Rate(s.GetPace())
	}
	return text
}

var ranks = []string{"same zone", "same region", "elsewhere"}

func (a *commands) hostTable(all []*leatv1.Host) *screen.Table {
	t := screen.NewTable("HOST", "PLACE", "STATE", ">REQUESTS", ">UNDER WAY")
	t.Spare("PLACE", "REQUESTS")
	for _, h := range all {
		state := screen.Cell{Text: "used", Style: screen.Green}
		if h.GetEjected() {
			state = screen.Cell{Text: "ejected", Style: screen.Yellow}
			if u := h.GetUntil(); u != nil {
				state.Text += ", tried in " + screen.Duration(max(0, u.AsTime().Sub(a.Now())))
			}
		}
		t.Row(screen.Cell{Text: h.GetName(), Style: screen.Bold}, screen.Text(ranks[min(int(h.GetRank()), len(ranks)-1)]), state,
			screen.Text(screen.Count(h.GetRequests())), screen.Text(screen.Count(h.GetUnderWay())))
	}
	return t
}

func laneTable(s *leatv1.SubscriptionStatus) *screen.Table {
	t := screen.NewTable("RANGE", "SPACE", ">BEHIND", ">LAG", ">OPEN", ">PARKED")
	t.Spare("SPACE", "BEHIND")
	for _, l := range s.GetLanes() {
		lag := "0s"
		if l.GetLag() != nil {
			lag = screen.Duration(l.GetLag().AsDuration())
		}
		parked := screen.Text(screen.Count(l.GetParked()))
		if l.GetParked() > 0 {
			parked.Style = screen.Red
		}
		t.Row(screen.Cell{Text: screen.Number(l.GetRange()), Style: screen.Bold}, screen.Text(l.GetSpace()),
			screen.Text(screen.Count(screen.Kept(l.GetLow(), s.GetNext()))), screen.Text(lag), screen.Text(screen.Count(l.GetOpen())), parked)
	}
	return t
}

// parkedText is empty where nothing is parked.
func parkedText(s *leatv1.SubscriptionStatus) string {
	if s.GetParked() == 0 {
		return ""
	}
	return screen.Plural(s.GetParked(), "key") + ": leat parked " + s.GetName()
}
