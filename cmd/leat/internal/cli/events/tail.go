package events

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Tail is leat tail.
func Tail(app *shell.App) *cobra.Command {
	a := &commands{app}
	var from string
	var jsonl, noFollow bool
	var limit uint64
	req := &leatv1.TailRequest{}
	cmd := &cobra.Command{
		Use:   "tail SOURCE|SUBSCRIPTION",
		Short: "Events as they come",
		Long: "Shows the events of a source's log, or of a subscription through its tables, columns and filter. Moves\n" +
			"no cursor and takes nothing from anybody. Ctrl-C ends it.",
		Example: "  leat tail files\n" +
			"  leat tail search --from earliest --table 'public.files' --key '{\"id\":42}' --jsonl\n" +
			"  leat tail files --filter 'op == \"delete\"' --limit 10",
		Args:              fault.Wants("SOURCE|SUBSCRIPTION"),
		ValidArgsFunction: a.Names(true, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name, req.NoFollow = args[0], noFollow
			if err := tailFrom(cmd, from, req); err != nil {
				return err
			}
			if req.Key != "" && (!json.Valid([]byte(req.Key)) || !strings.HasPrefix(strings.TrimSpace(req.Key), "{")) {
				return fault.Usage(cmd, "--key is a JSON object of the key's columns: '{\"id\":42}'")
			}
			return a.tail(cmd.Context(), req, jsonl, limit)
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "latest", "begin at `PLACE`: latest, earliest, an offset, an event id or a time (RFC 3339)")
	f.StringArrayVar(&req.Tables, "table", nil, "only tables that match `GLOB` (may be repeated)")
	f.StringVar(&req.Key, "key", "", "only events of this key, `JSON`")
	f.StringVar(&req.Filter, "filter", "", "only events for which this `CEL` holds")
	f.Uint64VarP(&limit, "limit", "n", 0, "end after `N` events")
	f.BoolVar(&noFollow, "no-follow", false, "end at the end of the log")
	f.BoolVar(&jsonl, "jsonl", false, "one CloudEvent as JSON per line")
	return cmd
}

func tailFrom(cmd *cobra.Command, from string, req *leatv1.TailRequest) error {
	switch from {
	case "latest":
		req.From = &leatv1.TailRequest_Latest{Latest: true}
		return nil
	case "earliest":
		req.From = &leatv1.TailRequest_Earliest{Earliest: true}
		return nil
	}
	o, at, err := shell.Place(from)
	switch {
	case err != nil:
		return fault.Usage(cmd, "--from %q is none of latest, earliest, an offset, an event id, a time (2026-11-21T10:15:30Z)", from)
	case at.IsZero():
		req.From = &leatv1.TailRequest_Offset{Offset: o}
	default:
		req.From = &leatv1.TailRequest_Time{Time: timestamppb.New(at)}
	}
	return nil
}

var errLimit = errors.New("as many as were asked for")

func (a *commands) tail(ctx context.Context, req *leatv1.TailRequest, jsonl bool, limit uint64) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	doing := "tail " + req.GetName()
	stream, err := s.Tail(ctx, connect.NewRequest(req))
	if err != nil {
		return s.Failed(doing, err)
	}
	seen := uint64(0)
	for stream.Receive() {
		for _, e := range stream.Msg().GetEvents() {
			if jsonl {
				a.Out.Printf("%s\n", e)
			} else {
				Print(a.App, e)
			}
			if err := a.Out.Err(); err != nil {
				cancel(err)
				return err
			}
			if seen++; seen == limit {
				cancel(errLimit)
				return nil
			}
		}
	}
	err = stream.Err()
	if cerr := stream.Close(); err == nil && ctx.Err() == nil {
		err = cerr
	}
	switch {
	case ctx.Err() != nil: // Ctrl-C is how a tail ends
		return nil
	case err != nil:
		return s.Failed(doing, err)
	}
	return nil
}
