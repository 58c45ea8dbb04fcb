package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

func (a *app) planCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "plan",
		Short:   "What leat apply would change",
		Long:    "Compares leat.yaml with what runs. Names of variables are sent to the server, never their values.",
		Example: "  leat plan\n  leat plan --json",
		Args:    wants(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.plan(cmd.Context()) },
	}
	a.jsonFlag(cmd)
	return cmd
}

func (a *app) applyCommand() *cobra.Command {
	var drop []string
	cmd := &cobra.Command{
		Use:   "apply [--drop NAME]...",
		Short: "Make what runs as leat.yaml says, without a restart",
		Long: "Carries out what leat plan shows. What is gone from the file is kept and paused; only --drop removes\n" +
			"it, with all that is stored of it: a subscription's cursor and dead letters, a source's log.",
		Example: "  leat apply\n  leat apply --drop search",
		Args:    wants(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.apply(cmd.Context(), drop) },
	}
	cmd.Flags().StringArrayVar(&drop, "drop", nil, "drop `NAME`, a source or subscription that is gone from the file (may be repeated)")
	a.jsonFlag(cmd)
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

func (a *app) plan(ctx context.Context) error {
	cfg, s, err := a.forApply()
	if err != nil {
		return err
	}
	defer s.close()
	r, err := call(ctx, s, "plan", s.Plan, &leatv1.PlanRequest{Name: filepath.Base(a.file()), Config: cfg.Source()})
	if err != nil {
		return err
	}
	changes, errs := toChanges(r.GetChanges()), r.GetErrors()
	if a.asJSON {
		if errs == nil {
			errs = []string{}
		}
		if err := a.document(map[string]any{"changes": changes, "errors": errs}); err != nil {
			return err
		}
	} else {
		a.printChanges(changes, "nothing to change\n", "")
		for _, e := range errs {
			a.err.Printf("%s\n", lines(e))
		}
	}
	if len(errs) > 0 {
		if !a.asJSON {
			a.err.Printf("leat: apply would be refused\n")
		}
		return said(exitUsage)
	}
	return nil
}

func (a *app) apply(ctx context.Context, drop []string) error {
	cfg, s, err := a.forApply()
	if err != nil {
		return err
	}
	defer s.close()
	for _, name := range drop {
		if cfg.Sources[name] != nil || cfg.Subscriptions[name] != nil {
			return &failure{exitUsage, fmt.Errorf("--drop %s: %s still names it", name, a.file()), "Take it out of the file first."}
		}
	}
	r, err := call(ctx, s, "apply", s.Apply, &leatv1.ApplyRequest{Name: filepath.Base(a.file()), Config: cfg.Source(), Drop: drop})
	if err != nil {
		return err
	}
	changes := toChanges(r.GetChanges())
	if a.asJSON {
		return a.document(map[string]any{"changes": changes})
	}
	a.printChanges(changes, "nothing to change\n", "applied\n")
	return nil
}

// forApply reads the file with its names, so that a mistake is found before anything is sent.
func (a *app) forApply() (*config.Config, *server, error) {
	cfg, err := a.load(true)
	if err != nil {
		return nil, nil, err
	}
	a.warn(cfg)
	s, err := a.connect()
	return cfg, s, err
}

func toChanges(in []*leatv1.Change) []change {
	out := []change{}
	for _, c := range in {
		out = append(out, change{kindOf(c.GetKind()), c.GetPath(), c.GetBefore(), c.GetAfter(), c.GetNote()})
	}
	return out
}

func (a *app) printChanges(changes []change, none, end string) {
	if len(changes) == 0 {
		a.out.Printf("%s", none)
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
		a.out.Printf("%s %s\n", a.out.Paint(style, sign), text)
		if c.Note != "" {
			a.out.Printf("    %s\n", a.out.Paint(screen.Dim, screen.Clean(c.Note)))
		}
	}
	a.out.Printf("%s", end)
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
