package cli

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

func (a *app) auditCommand() *cobra.Command {
	var since string
	limit := uint32(100)
	cmd := &cobra.Command{
		Use:   "audit [NAME]",
		Short: "Who changed what, or tried to",
		Long: "Lists the changes that people made through commands and the API, the newest last: when, who (the\n" +
			"token's name), what, with which arguments, and what came of it: done, refused (nothing was changed) or\n" +
			"failed. With the NAME of a source or subscription: only what was done to it.",
		Example:           "  leat audit\n  leat audit search --since 24h\n  leat audit --json | jq '.entries[] | select(.outcome == \"refused\")'",
		Args:              wants("[NAME]"),
		ValidArgsFunction: a.names(true, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &leatv1.AuditLogRequest{Limit: limit}
			if len(args) > 0 {
				req.Target = args[0]
			}
			if since != "" {
				at, err := a.ago(since)
				if err != nil {
					return usage(cmd, "--since %q is neither a span (24h, 7d) nor a time (2026-11-21T10:15:30Z)", since)
				}
				req.Since = timestamppb.New(at)
			}
			if limit == 0 || limit > 10_000 {
				return usage(cmd, "--limit is a number from 1 to 10000")
			}
			return a.audit(cmd.Context(), req)
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "only what came after: a span (24h, 7d) or a `TIME` (RFC 3339)")
	cmd.Flags().Uint32VarP(&limit, "limit", "n", limit, "the newest `N`")
	a.jsonFlag(cmd)
	return cmd
}

// ago reads a moment: RFC 3339, or how long ago.
func (a *app) ago(text string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		return time.Time{}, err
	}
	return a.Now().Add(-d), nil
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

func (a *app) audit(ctx context.Context, req *leatv1.AuditLogRequest) error {
	s, err := a.connect()
	if err != nil {
		return err
	}
	defer s.close()
	r, err := call(ctx, s, "audit", s.AuditLog, req)
	if err != nil {
		return err
	}
	if a.asJSON {
		doc := struct {
			Entries []auditDoc `json:"entries"`
		}{[]auditDoc{}}
		for _, e := range r.GetEntries() {
			doc.Entries = append(doc.Entries, auditDoc{moment(e.GetTime()), e.GetActor(), e.GetAction(), e.GetTarget(), object(e.GetArguments()), e.GetOutcome(), e.GetDetail()})
		}
		return a.document(doc)
	}
	if len(r.GetEntries()) == 0 {
		a.out.Printf("nothing was changed\n")
		return nil
	}
	t := screen.NewTable("TIME", "WHO", "ACTION", "TARGET", "OUTCOME", "WITH", "DETAIL")
	for _, e := range r.GetEntries() {
		args := e.GetArguments()
		if args == "{}" {
			args = ""
		}
		t.Row(screen.Text(clock(e.GetTime())), screen.Text(e.GetActor()), screen.Cell{Text: e.GetAction(), Style: screen.Bold}, screen.Text(e.GetTarget()),
			screen.Cell{Text: e.GetOutcome(), Style: outcomeStyle(e.GetOutcome())}, screen.Text(screen.Shorten(args, 60)), screen.Text(screen.Shorten(e.GetDetail(), 80)))
	}
	a.out.Print(t)
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
