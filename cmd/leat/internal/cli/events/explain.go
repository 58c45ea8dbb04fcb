package events

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Explain is leat explain.
func Explain(app *shell.App) *cobra.Command {
	a := &commands{app}
	req := &leatv1.ExplainRequest{Limit: 20}
	cmd := &cobra.Command{
		Use:   "explain SUBSCRIPTION EVENT-ID | --key JSON",
		Short: "What became of an event, or of the newest events of a key",
		Long: "Tells for each event where it stands in the log and in the source, and what became of it: delivered,\n" +
			"in_flight, held (its key is parked), parked, dead (given up on), filtered (left out by tables or filter),\n" +
			"skipped (by a seek, a discard, by retention), unread, expired (older than the log keeps); with the reason\n" +
			"and, of those that were given up on, each attempt.",
		Example: "  leat explain search files-1877212358656123\n" +
			"  leat explain search --key '{\"id\":42}' --limit 5\n" +
			"  leat explain search --key '[77]' --json | jq '.events[] | select(.state != \"delivered\")'",
		Args:              fault.Wants("SUBSCRIPTION", "[EVENT-ID]"),
		ValidArgsFunction: a.Names(false, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Subscription = args[0]
			if len(args) > 1 {
				req.EventId = args[1]
			}
			key := strings.TrimSpace(req.Key)
			switch {
			case (req.EventId == "") == (key == ""):
				return fault.Usage(cmd, "leat explain wants an EVENT-ID or --key JSON")
			case key != "" && (!json.Valid([]byte(key)) || !strings.HasPrefix(key, "{") && !strings.HasPrefix(key, "[")):
				return fault.Usage(cmd, "--key is a row's key ('{\"id\":42}') or a routing key ('[77]')")
			case req.Limit == 0 || req.Limit > 1000:
				return fault.Usage(cmd, "--limit is a number from 1 to 1000")
			}
			if req.EventId != "" {
				if _, _, err := shell.EventOffset(req.EventId); err != nil {
					return fault.Usage(cmd, "%w", err)
				}
			}
			return a.explain(cmd.Context(), req)
		},
	}
	cmd.Flags().StringVar(&req.Key, "key", "", "the newest events of this key, `JSON`: {\"id\":42} of a row, [77] of routing")
	cmd.Flags().Uint32VarP(&req.Limit, "limit", "n", req.Limit, "with --key: the newest `N`")
	a.JSONFlag(cmd)
	return cmd
}

type explainedDoc struct {
	ID           string             `json:"id"`
	Offset       uint64             `json:"offset"`
	State        string             `json:"state"`
	Reason       string             `json:"reason,omitempty"`
	Until        *time.Time         `json:"until"`
	Table        string             `json:"table"`
	Op           string             `json:"op"`
	Key          json.RawMessage    `json:"key"`
	Partitionkey json.RawMessage    `json:"partitionkey"`
	Transaction  string             `json:"transaction"`
	Sequence     uint64             `json:"sequence"`
	Position     string             `json:"position"`
	Committed    *time.Time         `json:"committed"`
	Attempts     []shell.AttemptDoc `json:"attempts"`
}

func (a *commands) explain(ctx context.Context, req *leatv1.ExplainRequest) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := shell.Call(ctx, s, "explain "+req.GetSubscription(), s.Explain, req)
	if err != nil {
		return err
	}
	if a.JSON {
		doc := struct {
			Events []explainedDoc `json:"events"`
			More   bool           `json:"more"`
		}{[]explainedDoc{}, r.GetMore()}
		for _, e := range r.GetEvents() {
			one := explainedDoc{e.GetId(), e.GetOffset(), e.GetState(), e.GetReason(), shell.Moment(e.GetUntil()), e.GetTable(), e.GetOp(), shell.Object(e.GetKey()),
				shell.Object(e.GetPartitionkey()), e.GetTransaction(), e.GetSequence(), e.GetPosition(), shell.Moment(e.GetCommitted()), shell.AttemptDocs(e.GetAttempts())}
			doc.Events = append(doc.Events, one)
		}
		return a.Document(doc)
	}
	if len(r.GetEvents()) == 0 {
		a.Out.Printf("no event of %s is in the log\n", screen.Clean(req.GetKey()))
	}
	for _, e := range r.GetEvents() {
		a.explained(e)
	}
	if r.GetMore() {
		a.Out.Printf("older ones may be there; see --limit\n")
	}
	return nil
}

func fateStyle(state string) screen.Style {
	switch state {
	case "delivered":
		return screen.Green
	case "dead", "parked":
		return screen.Red
	}
	return screen.Yellow
}

// explained prints one event.
func (a *commands) explained(e *leatv1.Explained) {
	a.Out.Printf("%s  %s\n", a.Out.Paint(screen.Bold, screen.Clean(e.GetId())), a.Out.Paint(fateStyle(e.GetState()), screen.Clean(e.GetState())))
	what := strings.TrimSpace(e.GetOp() + " " + e.GetTable() + " " + e.GetKey())
	if e.GetPartitionkey() != "" && e.GetKey() != "" {
		what += ", routed by " + e.GetPartitionkey()
	}
	tx := e.GetTransaction()
	if tx != "" && e.GetSequence() > 0 {
		tx += fmt.Sprintf(", its event %d", e.GetSequence())
	}
	until := ""
	if u := e.GetUntil(); u != nil {
		until = "in " + screen.Duration(max(0, u.AsTime().Sub(a.Now())))
	}
	a.Out.Pairs([2]string{"why", e.GetReason()}, [2]string{"again", until}, [2]string{"event", what}, [2]string{"committed", shell.Clock(e.GetCommitted())},
		[2]string{"transaction", tx}, [2]string{"position", e.GetPosition()}, [2]string{"offset", screen.Offset(e.GetOffset())})
	for i, t := range e.GetAttempts() {
		a.Out.Printf("  %d. %s, %s: %s\n", i+1, shell.Clock(t.GetTime()), screen.Duration(t.GetTook().AsDuration()), screen.Clean(t.GetReason()))
	}
}
