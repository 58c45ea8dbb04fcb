package install

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
)

// Check is leat check.
func Check(app *shell.App) *cobra.Command {
	a := &commands{app}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Is everything reachable, allowed and set? Each finding with its cure",
		Long: "Reads leat.yaml, then looks at each source and sink: reachable, permissions, settings, replica\n" +
			"identity against routing keys, cascades that the binlog does not show, retention. Changes nothing.\n" +
			"Exit code 1 when something will not work, 2 when the file is wrong.",
		Example: "  leat check\n  leat check --json | jq '.findings[] | select(.level == \"error\")'",
		Args:    fault.Wants(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.check(cmd.Context()) },
	}
	a.JSONFlag(cmd)
	return cmd
}

// levels of findings, worst first.
var levels = []string{"error", "warning", "info"}

// checked is the document of check --json.
type checked struct {
	OK       bool               `json:"ok"`
	Findings []pipeline.Finding `json:"findings"`
}

func (a *commands) check(ctx context.Context) error {
	if a.Check == nil {
		return fault.Unsupported("leat check")
	}
	cfg, err := a.Load(false)
	if err == nil {
		err = cfg.CheckRun()
	}
	if err != nil {
		if list := configFindings(err, "error"); a.JSON && list != nil {
			if err := a.Document(checked{Findings: list}); err != nil {
				return err
			}
			return fault.Said(fault.WrongUsage)
		}
		return err
	}
	all := configFindings(cfg.Warnings(), "warning")
	all = append(all, a.Check(ctx, cfg)...)
	if err := ctx.Err(); err != nil {
		return errors.New("check: interrupted")
	}
	slices.SortStableFunc(all, func(x, y pipeline.Finding) int { return slices.Index(levels, x.Level) - slices.Index(levels, y.Level) })
	bad := 0
	for _, f := range all {
		if f.Level == "error" {
			bad++
		}
	}
	switch {
	case a.JSON:
		if all == nil {
			all = []pipeline.Finding{}
		}
		if err := a.Document(checked{OK: bad == 0, Findings: all}); err != nil {
			return err
		}
	case len(all) == 0:
		a.Out.Printf("%s: %s, %s: all good\n", a.File(), screen.Plural(len(cfg.Sources), "source"), screen.Plural(len(cfg.Subscriptions), "subscription"))
	default:
		a.Findings(a.Out, all)
		a.Out.Printf("\n%s: %s, %s in all\n", a.File(), screen.Plural(bad, "error"), screen.Plural(len(all), "finding"))
	}
	if bad > 0 {
		return fault.Said(fault.Failed)
	}
	return nil
}

// configFindings are a file's errors as findings; nil when err is no such error.
func configFindings(err error, level string) []pipeline.Finding {
	var list config.Errors
	if one := (*config.Error)(nil); !errors.As(err, &list) && errors.As(err, &one) {
		list = config.Errors{one}
	}
	var out []pipeline.Finding
	for _, e := range list {
		out = append(out, pipeline.Finding{Level: level, Code: "config",
			Place: fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Col), What: e.Msg, Cure: e.Cure})
	}
	return out
}
