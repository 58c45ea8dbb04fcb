package operate

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Audit is leat audit.
func Audit(app *shell.App) *cobra.Command {
	a := &commands{app}
	var since string
	limit := uint32(100)
	cmd := &cobra.Command{
		Use:   "audit [NAME]",
		Short: "Who changed what, or tried to",
		Long: "Lists the changes that people made through commands and the API, the newest last: when, who (the\n" +
			"token's name), what, with which arguments, and what came of it: done, refused (nothing was changed) or\n" +
			"failed. With the NAME of a source or subscription: only what was done to it.",
		Example:           "  leat audit\n  leat audit search --since 24h\n  leat audit --json | jq '.entries[] | select(.outcome == \"refused\")'",
		Args:              fault.Wants("[NAME]"),
		ValidArgsFunction: a.Names(true, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &leatv1.AuditLogRequest{Limit: limit}
			if len(args) > 0 {
				req.Target = args[0]
			}
			if since != "" {
				at, err := a.Ago(since)
				if err != nil {
					return fault.Usage(cmd, "--since %q is neither a span (24h, 7d) nor a time (2026-11-21T10:15:30Z)", since)
				}
				req.Since = timestamppb.New(at)
			}
			if limit == 0 || limit > 10_000 {
				return fault.Usage(cmd, "--limit is a number from 1 to 10000")
			}
			return a.audit(cmd.Context(), req)
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "only what came after: a span (24h, 7d) or a `TIME` (RFC 3339)")
	cmd.Flags().Uint32VarP(&limit, "limit", "n", limit, "the newest `N`")
	a.JSONFlag(cmd)
	return cmd
}

type auditDoc struct {
	Time      *time.Time      `json:"time"`
	Actor     string          `json:"actor"`
	Action    string          `json:"action"`
	Target    string          `json:"target"`
	Arguments json.RawMessage `json:"arguments"`
	Outcome   string          `json:"outcome"`
	Detail    string          `json:"detail,omitempty"`
}

func (a *commands) audit(ctx context.Context, req *leatv1.AuditLogRequest) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := shell.Call(ctx, s, "audit", s.AuditLog, req)
	if err != nil {
		return err
	}
	if a.JSON {
		doc := struct {
			Entries []auditDoc `json:"entries"`
		}{[]auditDoc{}}
		for _, e := range r.GetEntries() {
			doc.Entries = append(doc.Entries, auditDoc{shell.Moment(e.GetTime()), e.GetActor(), e.GetAction(), e.GetTarget(), shell.Object(e.GetArguments()), e.GetOutcome(), e.GetDetail()})
		}
		return a.Document(doc)
	}
	if len(r.GetEntries()) == 0 {
		a.Out.Printf("nothing was changed\n")
		return nil
	}
	t := screen.NewTable("TIME", "WHO", "ACTION", "TARGET", "OUTCOME", "WITH", "DETAIL")
	for _, e := range r.GetEntries() {
		args := e.GetArguments()
		if args == "{}" {
			args = ""
		}
		t.Row(screen.Text(shell.Clock(e.GetTime())), screen.Text(e.GetActor()), screen.Cell{Text: e.GetAction(), Style: screen.Bold}, screen.Text(e.GetTarget()),
			screen.Cell{Text: e.GetOutcome(), Style: outcomeStyle(e.GetOutcome())}, screen.Text(screen.Shorten(args, 60)), screen.Text(screen.Shorten(e.GetDetail(), 80)))
	}
	a.Out.Print(t)
	return nil
}

func outcomeStyle(outcome string) screen.Style {
	switch outcome {
	case "done":
		return screen.Green
	case "failed":
		return screen.Red
	}
	return screen.Yellow
}
