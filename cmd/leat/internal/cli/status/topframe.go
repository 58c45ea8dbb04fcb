package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// topFrame paints what was seen; height 0: as high as it gets.
func (a *commands) topFrame(to *screen.Screen, s *shell.Server, now seen, height int) {
	r := now.status
	head := to.Paint(screen.Bold, "leat "+screen.Clean(r.GetVersion())) + " on " + s.Shown
	if t := r.GetStarted(); t != nil {
		head += ", up " + screen.Duration(now.at.Sub(t.AsTime()))
	}
	if r.GetMemoryBudget() > 0 {
		head += ", memory " + screen.Size(r.GetMemoryUsed()) + " of " + screen.Size(r.GetMemoryBudget())
	}
	to.Printf("%s, %s\n", head, screen.Time(now.at))
	left := height - 1
	used := 1
	if text := turnsText(now.turns, r.GetTurns()); text != "" {
		to.Printf("%s\n", text)
		left--
		used++
	}
	if now.err != nil {
		to.Printf("%s\n", to.Paint(screen.Red, "! no news since then: "+screen.Clean(firstLine(now.err))))
		left--
		used++
	}
	subs := len(r.GetSubscriptions())
	if len(r.GetSources()) == 0 && subs == 0 {
		to.Printf("\nno sources, no subscriptions: see leat plan, leat apply\n")
		return
	}
	// Each table: an empty line, its head, its rows. What is short of room is taken from the subscriptions first.
	sources, jobs := len(r.GetSources()), len(now.jobs)
	if height > 0 {
		sources = min(sources, max(1, left/3-2))
		if jobs > 0 {
			jobs = min(jobs, max(1, left/4-2))
			left -= jobs + 2
		}
		subs = min(subs, max(1, left-sources-5))
	}
	if sources > 0 {
		to.Printf("\n")
		to.Print(a.topSources(to, worst(r.GetSources(), sources, (*leatv1.SourceStatus).GetWaits)))
	}
	if subs > 0 {
		to.Printf("\n")
		to.Print(a.topSubscriptions(to, worst(r.GetSubscriptions(), subs, (*leatv1.SubscriptionStatus).GetWaits)))
		if n := len(r.GetSubscriptions()) - subs; n > 0 {
			to.Printf("%s\n", to.Paint(screen.Dim, fmt.Sprintf("… and %d more that fare better: leat status", n)))
		}
	}
	if jobs > 0 {
		to.Printf("\n")
		to.Print(topJobs(to, now.jobs[:jobs]))
	}
	for _, rows := range []int{sources, subs, jobs} {
		if rows > 0 {
			used += rows + 2
		}
	}
	if height > 0 {
		a.topWaits(to, r, height-used-1)
	}
}

// topWaits says in full what the tables had to cut, in as many lines as are left.
func (a *commands) topWaits(to *screen.Screen, r *leatv1.StatusResponse, lines int) {
	type wait struct {
		name string
		*leatv1.Wait
	}
	var all []wait
	for _, s := range r.GetSources() {
		for _, w := range s.GetWaits() {
			all = append(all, wait{s.GetName(), w})
		}
	}
	for _, s := range r.GetSubscriptions() {
		for _, w := range s.GetWaits() {
			all = append(all, wait{s.GetName(), w})
		}
	}
	slices.SortStableFunc(all, func(x, y wait) int { return cmp.Compare(levelRank[x.GetLevel()], levelRank[y.GetLevel()]) })
	if len(all) == 0 || lines < 2 {
		return
	}
	to.Printf("\n")
	lines--
	for _, w := range all {
		for i, line := range screen.Wrap(screen.Clean("! "+w.name+": "+WaitText(w.Wait, a.Now())), to.Width-2) {
			if lines--; lines < 0 {
				return
			}
			if i > 0 {
				line = "  " + line
			}
			to.Printf("%s\n", to.Paint(waitStyle(w.Wait), line))
		}
	}
}

func firstLine(err error) string {
	var b strings.Builder
	fault.Report(&b, err)
	line, _, _ := strings.Cut(strings.TrimPrefix(b.String(), "leat: "), "\n")
	return line
}

var levelRank = map[string]int{"error": 0, "warning": 1, "notice": 2}

// worst are n of all, those that wait first; in the order of all.
func worst[T any](all []T, n int, waits func(T) []*leatv1.Wait) []T {
	if n >= len(all) {
		return all
	}
	rank := func(i int) int {
		if w := waits(all[i]); len(w) > 0 {
			return levelRank[w[0].GetLevel()]
		}
		return len(levelRank)
	}
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(rank(x), rank(y)) })
	order = order[:n]
	slices.Sort(order)
	out := make([]T, n)
	for i, at := range order {
		out[i] = all[at]
	}
	return out
}

// whyCell is the worst wait, and how many there are besides.
func (a *commands) whyCell(all []*leatv1.Wait) screen.Cell {
	if len(all) == 0 {
		return screen.Cell{Text: " "}
	}
	c := screen.Cell{Text: WaitText(all[0], a.Now()), Style: waitStyle(all[0])}
	if n := len(all) - 1; n > 0 {
		c.Text = fmt.Sprintf("(+%d) ", n) + c.Text
	}
	return c
}

func (a *commands) topSources(to *screen.Screen, list []*leatv1.SourceStatus) *screen.Table {
	t := screen.NewTable("SOURCE", "STATE", ">LAG", ">EVENTS", ">BYTES", ">LOG", ">READ", ">SESSIONS", ">LOSS IN", "WHY IT WAITS")
	t.Spare("BYTES", "LOG", "SESSIONS", "LOSS IN", "READ")
	for _, s := range list {
		p := s.GetPressure()
		lag, read, sessions, loss := "", "", "", "never"
		if s.GetLag() != nil && s.GetState() == "streaming" {
			lag = screen.Duration(s.GetLag().AsDuration())
		}
		if p == nil {
			loss = ""
		} else {
			read = fmt.Sprintf("%.0f %%", 100*p.GetReading())
			if p.ActiveSessions != nil {
				sessions = screen.Count(p.GetActiveSessions())
			}
			if d := p.GetTimeToLoss(); d != nil {
				loss = screen.Duration(d.AsDuration())
			}
		}
		t.Row(screen.Cell{Text: s.GetName(), Style: screen.Bold}, stateCell(s.GetState()), screen.Text(lag), screen.Text(screen.Rate(s.GetEventsPerSecond())),
			screen.Text(screen.Size(uint64(max(s.GetBytesPerSecond(), 0)))+"/s"), screen.Text(screen.Size(s.GetLogBytes())), screen.Text(read),
			screen.Text(sessions), screen.Text(loss), a.whyCell(s.GetWaits()))
	}
	t.Fit(to.Width)
	return t
}

func (a *commands) topSubscriptions(to *screen.Screen, list []*leatv1.SubscriptionStatus) *screen.Table {
	t := screen.NewTable("SUBSCRIPTION", "STATE", ">LAG", ">BEHIND", ">EVENTS", ">IN FLIGHT", ">PACE", ">PARKED", ">DEAD", "WHY IT WAITS")
	t.Spare("PACE", "DEAD", "PARKED", "BEHIND", "IN FLIGHT")
	for _, s := range list {
		behind, pace, flight := "", "", screen.Count(s.GetInFlight())
		if s.GetLagEvents() > 0 {
			behind = screen.Duration(s.GetLag().AsDuration())
		}
		if s.GetPace() > 0 {
			pace = screen.Rate(s.GetPace())
		}
		if s.GetLimit() > 0 {
			flight += "/" + screen.Count(s.GetLimit())
		}
		t.Row(screen.Cell{Text: s.GetName(), Style: screen.Bold}, stateCell(s.GetState()), screen.Text(screen.Count(s.GetLagEvents())), screen.Text(behind),
			screen.Text(screen.Rate(s.GetEventsPerSecond())), screen.Text(flight), screen.Text(pace), redCount(s.GetParked()), redCount(s.GetDead()), a.whyCell(s.GetWaits()))
	}
	t.Fit(to.Width)
	return t
}

// redCount is red from one on.
func redCount(n uint64) screen.Cell {
	c := screen.Text(screen.Count(n))
	if n > 0 {
		c.Style = screen.Red
	}
	return c
}

func topJobs(to *screen.Screen, list []*leatv1.Job) *screen.Table {
	t := screen.NewTable("JOB", "SUBSCRIPTION", "KIND", "STATE", ">DONE", ">EVENTS", ">LEFT", "WHY IT WAITS")
	t.Spare("KIND", "EVENTS", "LEFT")
	for _, j := range list {
		left := ""
		if j.GetLeft() != nil {
			left = screen.Duration(j.GetLeft().AsDuration())
		}
		why := screen.Cell{Text: j.GetReason(), Style: screen.Yellow}
		if at := shell.AtOnce(j); why.Text == "" && at != "" {
			why.Text = at + " is read at once: the source's stream waits meanwhile"
		}
		if j.GetEndsWhen() != "" {
			why.Text += "; until " + j.GetEndsWhen()
		}
		if why.Text == "" {
			why.Text = " "
		}
		t.Row(screen.Cell{Text: j.GetId(), Style: screen.Bold}, screen.Text(shell.Whose(j)), screen.Text(j.GetKind()), screen.Cell{Text: j.GetState(), Style: shell.JobStyle(j.GetState())},
			screen.Text(shell.Percent(j)), screen.Text(screen.Rate(j.GetEventsPerSecond())), screen.Text(left), why)
	}
	t.Fit(to.Width)
	return t
}
