// Package verify is the command that compares.
package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

type commands struct{ *shell.App }

type options struct {
	tables      []string
	target      string
	repair, yes bool
}

// Command is leat verify.
func Command(app *shell.App) *cobra.Command {
	a := &commands{app}
	var o options
	cmd := &cobra.Command{
		Use:   "verify SUBSCRIPTION [--target URL]",
		Short: "Compare what was delivered with the source",
		Long: "Compares each row of the source's tables with the last image of it that the subscription was given, as the\n" +
			"log says, or with a target that holds the same tables, while both go on changing. A row that differs is\n" +
			"looked at again until nothing changes it meanwhile, so that a difference that is told is one.\n\n" +
			"What cannot be compared is counted: rows that did not change within what the log keeps, columns that were\n" +
			"never sent, rows that change each time. Exit code 1: there are differences.",
		Example: "  leat verify search\n" +
			"  leat verify search --table public.files --json\n" +
			"  leat verify copy --target file:./target-url --repair",
		Args:              fault.Wants("SUBSCRIPTION"),
		ValidArgsFunction: a.Names(false, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, t := range o.tables {
				if t == "" {
					return fault.Usage(cmd, "--table wants a table: schema.table, * in it is any run of characters")
				}
			}
			if path, ok := strings.CutPrefix(o.target, "file:"); ok {
				text, err := os.ReadFile(path)
				if err != nil {
					return fault.Usage(cmd, "--target: %v", err)
				}
				o.target = strings.TrimSpace(string(text))
			}
			return a.run(cmd.Context(), &leatv1.VerifyRequest{Subscription: args[0], Tables: o.tables, Target: o.target}, o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.tables, "table", nil, "only tables that match `GLOB` (may be repeated; default: those of the subscription)")
	f.StringVar(&o.target, "target", "", "`URL` of a database that is to hold the same tables (or file:PATH, where it stands in a file)")
	f.BoolVar(&o.repair, "repair", false, "bring the rows that differ again, and no others (leat backfill)")
	shell.YesFlag(cmd, &o.yes)
	a.JSONFlag(cmd)
	return cmd
}

func (a *commands) run(ctx context.Context, req *leatv1.VerifyRequest, o options) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	report, err := a.compare(ctx, s, req)
	if err != nil {
		return err
	}
	jobs := []string{}
	shown := a.Out
	if a.JSON {
		shown = a.Err
	}
	if !a.JSON {
		a.show(report, req.GetTarget() != "")
	}
	if n, full := repairable(report); o.repair && n > 0 {
		if err := a.Confirm(ctx, o.yes, fmt.Sprintf("Bring %s to %s again?", screen.Plural(n, "row"), screen.Clean(req.GetSubscription())), ""); err != nil {
			return err
		}
		if jobs, err = a.repair(ctx, s, req.GetSubscription(), report); err != nil {
			return err
		}
		shown.Printf("%s: leat jobs\n", screen.Plural(len(jobs), "job"))
		if full {
			shown.Printf("These bring no more than %s rows of a table: leat verify --repair again when they are done.\n", screen.Count(maxRepaired))
		}
	}
	if a.JSON {
		if err := a.Document(documentOf(report, jobs)); err != nil {
			return err
		}
	}
	for _, t := range report.GetTables() {
		if t.GetDifferent() > 0 || t.GetError() != "" {
			return fault.Said(fault.Failed)
		}
	}
	return nil
}

// compare shows the progress until the report is there.
func (a *commands) compare(ctx context.Context, s *shell.Server, req *leatv1.VerifyRequest) (*leatv1.VerifyReport, error) {
	doing := "verify " + req.GetSubscription()
	stream, err := s.Verify(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, s.Failed(doing, err)
	}
	defer stream.Close()
	line := &progress{out: a.Err}
	defer line.end()
	for stream.Receive() {
		if r := stream.Msg().GetReport(); r != nil {
			return r, nil
		}
		line.draw(stream.Msg().GetProgress())
	}
	if err := stream.Err(); err != nil {
		line.end()
		return nil, s.Failed(doing, err)
	}
	return nil, s.Failed(doing, errors.New("the server ended without a report"))
}

// repairable counts the rows that a repair brings; full: there may be more of a table than one brings.
func repairable(r *leatv1.VerifyReport) (n int, full bool) {
	for _, t := range r.GetTables() {
		n += int(t.GetRepaired())
		full = full || t.GetRepaired() >= maxRepaired
	}
	return n, full
}

// maxRepaired rows of a table are chosen by one report's conditions.
const maxRepaired = 100_000

func (a *commands) repair(ctx context.Context, s *shell.Server, subscription string, r *leatv1.VerifyReport) (jobs []string, err error) {
	for _, t := range r.GetTables() {
		for _, where := range t.GetRepair() {
			job, err := shell.CallWithin(ctx, time.Minute, s, "backfill "+subscription, s.Backfill,
				&leatv1.BackfillRequest{Subscription: subscription, Tables: []string{t.GetTable()}, Where: where, Reason: "leat verify --repair"})
			if err != nil {
				return jobs, err
			}
			jobs = append(jobs, job.GetJob().GetId())
		}
	}
	return jobs, nil
}

// progress is one line that is drawn over itself on a terminal; elsewhere one line for each table and phase.
type progress struct {
	out   *screen.Screen
	drawn bool
	said  string
}

var phases = map[string]string{"log": "reading the log", "source": "reading the source", "target": "reading the target", "again": "looking again at rows that differ",
	"subscriber": "waiting until the subscriber has what the source was read with"}

func (p *progress) draw(m *leatv1.VerifyProgress) {
	what := phases[m.GetPhase()]
	if m.GetTable() != "" {
		what = screen.Clean(m.GetTable()) + ": " + what
	}
	if why := m.GetWaits(); why != "" {
		what = "nothing is read for now: " + screen.Clean(why)
	}
	if !p.out.Terminal {
		if what != p.said {
			p.said = what
			p.out.Printf("%s\n", what)
		}
		return
	}
	width := p.out.Width
	if width <= 0 {
		width = 80
	}
	if n := m.GetRows(); n > 0 {
		part := min(1, float64(m.GetDone())/float64(n))
		cells := min(30, width/4)
		full := int(part * float64(cells))
		what = p.out.Paint(screen.Green, strings.Repeat("█", full)) + p.out.Paint(screen.Dim, strings.Repeat("░", cells-full)) + fmt.Sprintf(" %3.0f %% ", 100*part) + what
	} else if m.GetWaits() == "" {
		what += ", " + screen.Count(m.GetDone())
	}
	p.out.Printf("\r\x1b[K%s", screen.Clip(what, width-1))
	p.drawn = true
}

func (p *progress) end() {
	if p.drawn {
		p.out.Printf("\r\x1b[K")
		p.drawn = false
	}
}
