package operate

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Ranges is leat ranges.
func Ranges(app *shell.App) *cobra.Command {
	a := &commands{app}
	cmd := &cobra.Command{
		Use:   "ranges SOURCE",
		Short: "The key ranges of a source: list, split, merge, lineage",
		Long: "A key space (of a table, or of tables that are routed together) is divided into ranges of keys; each event\n" +
			"is in one. Ranges are split and merged by load, or here. A change stands in the log, in order with the\n" +
			"events, and holds from there on.",
		Example:           "  leat ranges shop\n  leat ranges split shop --table public.orders --at '{\"id\":500000}'\n  leat ranges merge shop 4 5\n  leat ranges lineage shop",
		Args:              fault.Wants("SOURCE"),
		ValidArgsFunction: a.Names(true, false),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.ranges(cmd, args[0], false) },
	}
	list := &cobra.Command{Use: "list SOURCE", Short: "The ranges that are open, with their load", Args: fault.Wants("SOURCE"), ValidArgsFunction: a.Names(true, false),
		RunE: func(cmd *cobra.Command, args []string) error { return a.ranges(cmd, args[0], false) }}
	lineage := &cobra.Command{Use: "lineage SOURCE", Short: "All ranges that the log knows of, with parents and children", Args: fault.Wants("SOURCE"), ValidArgsFunction: a.Names(true, false),
		RunE: func(cmd *cobra.Command, args []string) error { return a.ranges(cmd, args[0], true) }}
	a.JSONFlag(cmd)
	a.JSONFlag(list)
	a.JSONFlag(lineage)
	cmd.AddCommand(list, a.splitCommand(), a.mergeCommand(), lineage)
	return cmd
}

func (a *commands) splitCommand() *cobra.Command {
	var req leatv1.SplitRangeRequest
	var id string
	cmd := &cobra.Command{
		Use: "split SOURCE --at KEY", Short: "Divide a range at a key",
		Example:           "  leat ranges split shop --table public.orders --at '{\"id\":500000}'",
		Args:              fault.Wants("SOURCE"),
		ValidArgsFunction: a.Names(true, false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Key == "" {
				return fault.Usage(cmd, "leat ranges split wants --at KEY, a JSON object: '{\"id\":42}'")
			}
			if id != "" {
				n, err := strconv.ParseUint(id, 10, 64)
				if err != nil {
					return fault.Usage(cmd, "--range %q is no range's number", id)
				}
				req.Range = &n
			}
			req.Source = args[0]
			s, err := a.Connect()
			if err != nil {
				return err
			}
			defer s.Close()
			r, err := shell.Call(cmd.Context(), s, "split a range of "+req.Source, s.SplitRange, &req)
			if err != nil {
				return err
			}
			return a.showRanges(r.GetRanges(), false)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Key, "at", "", "the first `KEY` of the upper range, JSON of the routing columns")
	f.StringVar(&req.Table, "table", "", "the `TABLE` whose key it is (default: the only one)")
	f.StringVar(&id, "range", "", "only if the key lies in range `ID`")
	f.StringVar(&req.Reason, "reason", "", "`WHY`, for the lineage and the audit log")
	a.JSONFlag(cmd)
	return cmd
}

func (a *commands) mergeCommand() *cobra.Command {
	var req leatv1.MergeRangesRequest
	cmd := &cobra.Command{
		Use: "merge SOURCE ID ID...", Short: "Make one range of neighbours",
		Example:           "  leat ranges merge shop 4 5",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.Names(true, false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 3 {
				return fault.Usage(cmd, "leat ranges merge wants SOURCE and two ranges or more, as leat ranges list numbers them")
			}
			req.Source, req.Ranges = args[0], nil
			for _, arg := range args[1:] {
				n, err := strconv.ParseUint(arg, 10, 64)
				if err != nil {
					return fault.Usage(cmd, "%q is no range's number", arg)
				}
				req.Ranges = append(req.Ranges, n)
			}
			s, err := a.Connect()
			if err != nil {
				return err
			}
			defer s.Close()
			r, err := shell.Call(cmd.Context(), s, "merge ranges of "+req.Source, s.MergeRanges, &req)
			if err != nil {
				return err
			}
			return a.showRanges(r.GetRanges(), false)
		},
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "`WHY`, for the lineage and the audit log")
	a.JSONFlag(cmd)
	return cmd
}

func (a *commands) ranges(cmd *cobra.Command, source string, lineage bool) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := shell.Call(cmd.Context(), s, "ranges of "+source, s.Ranges, &leatv1.RangesRequest{Source: source, Lineage: lineage})
	if err != nil {
		return err
	}
	return a.showRanges(r.GetRanges(), lineage)
}

type rangeDoc struct {
	ID    uint64 `json:"id"`
	Space string `json:"space"`
	// Start and End are encoded keys in base64, null for the end of the space.
	Start        []byte   `json:"start"`
	End          []byte   `json:"end"`
	StartText    string   `json:"start_text,omitempty"`
	EndText      string   `json:"end_text,omitempty"`
	Parents      []uint64 `json:"parents,omitempty"`
	Children     []uint64 `json:"children,omitempty"`
	Opened       uint64   `json:"opened,string"`
	Closed       uint64   `json:"closed,string,omitempty"`
	Load         float64  `json:"load"`
	Unsplittable string   `json:"unsplittable,omitempty"`
	Reason       string   `json:"reason,omitempty"`
}

func (a *commands) showRanges(all []*leatv1.RangeState, lineage bool) error {
	if a.JSON {
		doc := struct {
			Ranges []rangeDoc `json:"ranges"`
		}{[]rangeDoc{}}
		for _, r := range all {
			doc.Ranges = append(doc.Ranges, rangeDoc{r.GetId(), r.GetSpace(), r.Start, r.End, r.GetStartText(), r.GetEndText(), r.GetParents(), r.GetChildren(),
				r.GetOpened(), r.GetClosed(), r.GetLoad(), r.GetUnsplittable(), r.GetReason()})
		}
		return a.Document(doc)
	}
	if len(all) == 0 {
		a.Out.Printf("no events yet, so no ranges\n")
		return nil
	}
	heads := []string{"RANGE", "SPACE", "FROM", "TO", "LOAD", "NOTE"}
	if lineage {
		heads = []string{"RANGE", "SPACE", "FROM", "TO", "PARENTS", "CHILDREN", "OPENED", "CLOSED", "NOTE"}
	}
	t := screen.NewTable(heads...)
	for _, r := range all {
		row := []screen.Cell{{Text: strconv.FormatUint(r.GetId(), 10), Style: screen.Bold}, screen.Text(r.GetSpace()), screen.Text(bound(r.Start, r.GetStartText())), screen.Text(bound(r.End, r.GetEndText()))}
		note := r.GetReason()
		if r.GetUnsplittable() != "" {
			note = "hot, but " + r.GetUnsplittable()
		}
		if lineage {
			row = append(row, screen.Text(numbers(r.GetParents())), screen.Text(numbers(r.GetChildren())), screen.Text(sinceOffset(r.GetOpened())), screen.Text(sinceOffset(r.GetClosed())))
		} else {
			row = append(row, screen.Text(fmt.Sprintf("%.0f/s", r.GetLoad())))
		}
		t.Row(append(row, screen.Text(screen.Shorten(note, 60)))...)
	}
	a.Out.Print(t)
	return nil
}

// bound shows one end of a range.
func bound(key []byte, text string) string {
	if key == nil {
		return "-"
	}
	return screen.Shorten(text, 40)
}

func sinceOffset(o uint64) string {
	if o == 0 {
		return "-"
	}
	return strconv.FormatUint(o, 10)
}

func numbers(ids []uint64) string {
	if len(ids) == 0 {
		return "-"
	}
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = strconv.FormatUint(id, 10)
	}
	return strings.Join(parts, ",")
}
