package replays

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// backfilling is one leat backfill.
type backfilling struct {
	tables              []string
	where               string
	reason              string
	dryRun, yes, detach bool
	rebuild             bool
}

// Backfill is leat backfill.
func Backfill(app *shell.App) *cobra.Command {
	a := &commands{app}
	var o backfilling
	cmd := &cobra.Command{
		Use:   "backfill SUBSCRIPTION [--table GLOB] [--where CONDITION]",
		Short: "Bring the rows that are in the database",
		Long: "Reads the existing rows of tables in chunks, and brings them to one subscription as leat.snapshot events,\n" +
			"in order with the changes of the same rows, while these go on; no other subscription sees them. The\n" +
			"subscription's tables and filter hold for them too. It goes on after a restart where it was.\n\n" +
			"First it says which tables there are, and about how many rows; then it asks, then it shows the progress;\n" +
			"Ctrl-C ends the showing, the job goes on: leat jobs.",
		Example: "  leat backfill search --dry-run\n" +
			"  leat backfill search --table public.files\n" +
			"  leat backfill search --table public.files --rebuild\n" +
			"  leat backfill search --table public.files --where \"updated_at > '2026-11-01'\" --yes",
		Args:              fault.Wants("SUBSCRIPTION"),
		ValidArgsFunction: a.Names(false, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, t := range o.tables {
				if t == "" {
					return fault.Usage(cmd, "--table wants a table: schema.table, * in it is any run of characters")
				}
			}
			if o.rebuild && o.where != "" {
				return fault.Usage(cmd, "--rebuild makes an index of all rows anew: it takes no --where")
			}
			return a.backfill(cmd.Context(), &leatv1.BackfillRequest{Subscription: args[0], Tables: o.tables, Where: o.where, Reason: o.reason, Rebuild: o.rebuild}, o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.tables, "table", nil, "only tables that match `GLOB` (may be repeated; default: those of the subscription)")
	f.StringVar(&o.where, "where", "", "only rows for which this `CONDITION` holds, in the database's own language")
	f.StringVar(&o.reason, "reason", "", "`WHY`, for the audit log")
	f.BoolVar(&o.rebuild, "rebuild", false, "of deliver: search: into new indices, which take the place of the old ones when the rows are there")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be read")
	f.BoolVar(&o.detach, "detach", false, "do not wait for the end")
	shell.YesFlag(cmd, &o.yes)
	a.JSONFlag(cmd)
	return cmd
}

func (a *commands) backfill(ctx context.Context, req *leatv1.BackfillRequest, o backfilling) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	doing := "backfill " + req.GetSubscription()
	req.DryRun = true
	r, err := shell.CallWithin(ctx, planTime, s, doing, s.Backfill, req)
	if err != nil {
		return err
	}
	plan := backfillDocOf(req, r)
	if o.dryRun && a.JSON {
		return a.Document(plan)
	}
	shown := a.Out
	if a.JSON {
		shown = a.Err
	}
	a.showBackfill(shown, req, r.GetPlan())
	if o.dryRun {
		return nil
	}
	question := fmt.Sprintf("Bring the rows of %s to %s?", screen.Plural(uint64(len(plan.Tables)), "table"), screen.Clean(req.GetSubscription()))
	if err := a.Confirm(ctx, o.yes, question, ""); err != nil {
		return err
	}
	req.DryRun = false
	if r, err = shell.CallWithin(ctx, planTime, s, doing, s.Backfill, req); err != nil {
		return err
	}
	if a.JSON {
		return a.Document(backfillDocOf(req, r))
	}
	a.Out.Printf("job %s\n", screen.Clean(r.GetJob().GetId()))
	if o.detach {
		return nil
	}
	if err := a.follow(ctx, s, r.GetJob()); err != nil {
		return err
	}
	if req.GetRebuild() {
		a.Out.Printf("The new indices take the place of the old ones once the rows are delivered.\n")
	}
	return nil
}

// backfillDoc is that of backfill --json.
type backfillDoc struct {
	Subscription string          `json:"subscription"`
	Where        string          `json:"where,omitempty"`
	DryRun       bool            `json:"dry_run"`
	Tables       []backfillTable `json:"tables"`
	Notes        []string        `json:"notes,omitempty"`
	Job          *shell.JobDoc   `json:"job,omitempty"`
}

type backfillTable struct {
	Table string `json:"table"`
	// Estimate of the rows; null: not known.
	Estimate *uint64 `json:"estimate"`
	Whole    bool    `json:"whole,omitempty"`
	Why      string  `json:"why,omitempty"`
}

func backfillDocOf(req *leatv1.BackfillRequest, r *leatv1.BackfillResponse) backfillDoc {
	d := backfillDoc{Subscription: req.GetSubscription(), Where: req.GetWhere(), DryRun: req.GetDryRun(), Tables: []backfillTable{}, Notes: r.GetPlan().GetNotes()}
	for _, t := range r.GetPlan().GetTables() {
		e := backfillTable{Table: t.GetTable(), Whole: t.GetWhole(), Why: t.GetWhy()}
		if n := t.GetEstimate(); n > 0 {
			e.Estimate = &n
		}
		d.Tables = append(d.Tables, e)
	}
	if r.GetJob() != nil {
		d.Job = &shell.JobDocs([]*leatv1.Job{r.GetJob()})[0]
	}
	return d
}

// shownTables is how many tables are listed; of the rest only their number.
const shownTables = 40

func (a *commands) showBackfill(to *screen.Screen, req *leatv1.BackfillRequest, p *leatv1.BackfillPlan) {
	to.Printf("%s\n", to.Paint(screen.Bold, "backfill "+screen.Clean(req.GetSubscription())))
	t := screen.NewTable("TABLE", ">ROWS", "READ")
	total, known := uint64(0), true
	for i, x := range p.GetTables() {
		total, known = total+x.GetEstimate(), known && x.GetEstimate() > 0
		if i >= shownTables {
			continue
		}
		rows, how := "?", "in chunks"
		if x.GetEstimate() > 0 {
			rows = "about " + screen.Count(x.GetEstimate())
		}
		if x.GetWhole() {
			how = "at once"
		}
		t.Row(screen.Cell{Text: x.GetTable(), Style: screen.Bold}, screen.Text(rows), screen.Text(how))
		if x.GetWhole() {
			t.Note(screen.Yellow, "! "+x.GetWhy()+"; the source's stream waits while it is read")
		}
	}
	to.Print(t)
	if n := len(p.GetTables()); n > shownTables {
		to.Printf("… and %s more\n", screen.Plural(uint64(n-shownTables), "table"))
	}
	sum := "about " + screen.Count(total)
	if !known {
		sum = "at least " + screen.Count(total)
	}
	if total == 0 {
		sum = "not known"
	}
	to.Pairs([2]string{"rows", sum}, [2]string{"where", req.GetWhere()})
	for _, n := range p.GetNotes() {
		to.Printf("  %s\n", to.Paint(screen.Yellow, "! "+screen.Clean(n)))
	}
}
