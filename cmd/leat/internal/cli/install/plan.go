package install

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Plan is leat plan.
func Plan(app *shell.App) *cobra.Command {
	a := &commands{app}
	cmd := &cobra.Command{
		Use:     "plan",
		Short:   "What leat apply would change",
		Long:    "Compares leat.yaml with what runs. Names of variables are sent to the server, never their values.",
		Example: "  leat plan\n  leat plan --json",
		Args:    fault.Wants(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.plan(cmd.Context()) },
	}
	a.JSONFlag(cmd)
	return cmd
}

// Apply is leat apply.
func Apply(app *shell.App) *cobra.Command {
	a := &commands{app}
	var drop []string
	cmd := &cobra.Command{
		Use:   "apply [--drop NAME]...",
		Short: "Make what runs as leat.yaml says, without a restart",
		Long: "Carries out what leat plan shows. What is gone from the file is kept and paused; only --drop removes\n" +
			"it, with all that is stored of it: a subscription's cursor and dead letters, a source's log.",
		Example: "  leat apply\n  leat apply --drop search",
		Args:    fault.Wants(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.apply(cmd.Context(), drop) },
	}
	cmd.Flags().StringArrayVar(&drop, "drop", nil, "drop `NAME`, a source or subscription that is gone from the file (may be repeated)")
	a.JSONFlag(cmd)
	return cmd
}

// change is one difference in a document.
type change struct {
	Kind   string `json:"kind"`
	Path   string `json:"path"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	Note   string `json:"note,omitempty"`
}

func (a *commands) plan(ctx context.Context) error {
	cfg, s, err := a.forApply()
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := shell.Call(ctx, s, "plan", s.Plan, &leatv1.PlanRequest{Name: filepath.Base(a.File()), Config: cfg.Source()})
	if err != nil {
		return err
	}
	changes, errs := toChanges(r.GetChanges()), r.GetErrors()
	if a.JSON {
		if errs == nil {
			errs = []string{}
		}
		if err := a.Document(map[string]any{"changes": changes, "errors": errs}); err != nil {
			return err
		}
	} else {
		a.printChanges(changes, "nothing to change\n", "")
		for _, e := range errs {
			a.Err.Printf("%s\n", screen.CleanLines(e))
		}
	}
	if len(errs) > 0 {
		if !a.JSON {
			a.Err.Printf("leat: apply would be refused\n")
		}
		return fault.Said(fault.WrongUsage)
	}
	return nil
}

func (a *commands) apply(ctx context.Context, drop []string) error {
	cfg, s, err := a.forApply()
	if err != nil {
		return err
	}
	defer s.Close()
	for _, name := range drop {
		if cfg.Sources[name] != nil || cfg.Subscriptions[name] != nil {
			return fault.New(fault.WrongUsage, fmt.Errorf("--drop %s: %s still names it", name, a.File()), "Take it out of the file first.")
		}
	}
	r, err := shell.Call(ctx, s, "apply", s.Apply, &leatv1.ApplyRequest{Name: filepath.Base(a.File()), Config: cfg.Source(), Drop: drop})
	if err != nil {
		return err
	}
	changes := toChanges(r.GetChanges())
	if a.JSON {
		return a.Document(map[string]any{"changes": changes})
	}
	a.printChanges(changes, "nothing to change\n", "applied\n")
	return nil
}

// forApply reads the file with its names, so that a mistake is found before anything is sent.
func (a *commands) forApply() (*config.Config, *shell.Server, error) {
	cfg, err := a.Load(true)
	if err != nil {
		return nil, nil, err
	}
	a.Warn(cfg)
	s, err := a.Connect()
	return cfg, s, err
}

func toChanges(in []*leatv1.Change) []change {
	out := []change{}
	for _, c := range in {
		out = append(out, change{kindOf(c.GetKind()), c.GetPath(), c.GetBefore(), c.GetAfter(), c.GetNote()})
	}
	return out
}

func (a *commands) printChanges(changes []change, none, end string) {
	if len(changes) == 0 {
		a.Out.Printf("%s", none)
		return
	}
	for _, c := range changes {
		sign, style := signOf(c.Kind)
		text := screen.Clean(c.Path)
		switch {
		case c.Before != "" && c.After != "":
			text += ": " + screen.Clean(c.Before) + " → " + screen.Clean(c.After)
		case c.Before != "" || c.After != "":
			text += ": " + screen.Clean(c.Before+c.After)
		}
		a.Out.Printf("%s %s\n", a.Out.Paint(style, sign), text)
		if c.Note != "" {
			a.Out.Printf("    %s\n", a.Out.Paint(screen.Dim, screen.Clean(c.Note)))
		}
	}
	a.Out.Printf("%s", end)
}

// kindOf is add, change, remove or keep, whatever a server's grammar.
func kindOf(kind string) string {
	switch kind {
	case "added":
		return "add"
	case "changed":
		return "change"
	case "removed":
		return "remove"
	}
	return kind
}

func signOf(kind string) (string, screen.Style) {
	switch kind {
	case "add":
		return "+", screen.Green
	case "change":
		return "~", screen.Yellow
	case "remove":
		return "-", screen.Red
	}
	return "=", screen.Dim // kept
}
