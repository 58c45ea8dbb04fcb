package replays

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

const (
	// Looks at a job come further and further apart: a short one is told soon.
	firstLook = 50 * time.Millisecond
	lastLook  = time.Second
	// plainEvery is how often a line is printed where a bar cannot be drawn.
	plainEvery = 10 * time.Second
)

// ended reports whether a job is over.
func ended(j *leatv1.Job) bool {
	return j.GetState() == "done" || j.GetState() == "failed" || j.GetState() == "cancelled"
}

// follow shows a job's progress until it has ended.
func (a *commands) follow(ctx context.Context, s *shell.Server, j *leatv1.Job) error {
	bar := &bar{out: a.Err}
	for wait := firstLook; !ended(j); wait = min(2*wait, lastLook) {
		bar.draw(j)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		var r *leatv1.JobsResponse
		var err error
		if ctx.Err() == nil {
			r, err = shell.Call(ctx, s, "jobs", s.Jobs, &leatv1.JobsRequest{Id: j.GetId()})
		}
		if ctx.Err() != nil { // Ctrl-C: enough seen
			bar.end()
			a.Err.Printf("job %s goes on: leat jobs shows it, leat jobs cancel %s ends it\n", j.GetId(), j.GetId())
			return nil
		}
		if err != nil || len(r.GetJobs()) == 0 {
			bar.end()
			return errors.Join(err)
		}
		j = r.GetJobs()[0]
	}
	bar.end()
	return a.outcome(j)
}

// outcome tells how a job ended.
func (a *commands) outcome(j *leatv1.Job) error {
	what := screen.Plural(j.GetDone()-min(j.GetDead(), j.GetDone()), "event") + " delivered again"
	if j.GetKind() == shell.Snapshot {
		what = screen.Plural(j.GetDone(), "row") + " read"
	}
	text := fmt.Sprintf("job %s is %s: %s", j.GetId(), a.Out.Paint(shell.JobStyle(j.GetState()), j.GetState()), what)
	if j.GetDead() > 0 {
		text += ", " + screen.Count(j.GetDead()) + " given up on (leat parked " + screen.Clean(j.GetSubscription()) + ")"
	}
	if c, e := j.GetCreated(), j.GetEnded(); c != nil && e != nil {
		text += " in " + screen.Duration(e.AsTime().Sub(c.AsTime()))
	}
	if j.GetReason() != "" {
		text += ": " + screen.Clean(j.GetReason())
	}
	a.Out.Printf("%s\n", text)
	faults := shell.Faults(j)
	for _, f := range faults {
		a.Out.Printf("  %s\n", a.Out.Paint(screen.Red, "! "+screen.Clean(f)))
	}
	if len(faults) > 0 {
		return fault.Said(fault.Failed)
	}
	if j.GetState() != "done" {
		return fault.Said(fault.Failed)
	}
	return nil
}

// bar draws over itself on a terminal; elsewhere it prints a line when something is new.
type bar struct {
	out   *screen.Screen
	drawn bool
	said  string
	at    time.Time
}

func (b *bar) draw(j *leatv1.Job) {
	if b.out.Terminal {
		width := b.out.Width
		if width <= 0 {
			width = 80
		}
		b.out.Printf("\r\x1b[K%s", screen.Clip(b.line(j, min(30, width/4)), width-1))
		b.drawn = true
		return
	}
	state := j.GetState() + j.GetReason()
	if state == b.said && time.Since(b.at) < plainEvery {
		return
	}
	b.said, b.at = state, time.Now()
	b.out.Printf("%s\n", b.line(j, 0))
}

func (b *bar) line(j *leatv1.Job, cells int) string {
	text, unit := "", "event"
	if j.GetKind() == shell.Snapshot {
		unit = "row"
	}
	if total := j.GetTotal(); total > 0 {
		part := min(1, float64(j.GetDone())/float64(total))
		if cells > 0 {
			full := int(part * float64(cells))
			text = b.out.Paint(screen.Green, strings.Repeat("█", full)) + b.out.Paint(screen.Dim, strings.Repeat("░", cells-full)) + " "
		}
		about := ""
		if unit == "row" {
			about = "about "
		}
		text += fmt.Sprintf("%.0f %%, %s of %s%s %ss", 100*part, screen.Count(j.GetDone()), about, screen.Count(total), unit)
	} else {
		text = screen.Plural(j.GetDone(), unit)
	}
	if j.GetState() != "running" {
		text += ", " + b.out.Paint(screen.Yellow, j.GetState())
		if j.GetReason() != "" {
			text += ": " + screen.Clean(j.GetReason())
		}
		return text
	}
	text += ", " + screen.Rate(j.GetEventsPerSecond())
	if j.GetLeft() != nil {
		text += ", " + screen.Duration(j.GetLeft().AsDuration()) + " left"
	}
	if j.GetReason() != "" {
		text += ": " + screen.Clean(j.GetReason())
	}
	return text
}

func (b *bar) end() {
	if b.drawn {
		b.out.Printf("\r\x1b[K")
	}
}
