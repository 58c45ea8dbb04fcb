package parks

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// parkedChoice names parked keys.
type parkedChoice struct {
	keys   []string
	all    bool
	reason string
}

func (o *parkedChoice) flags(a *commands, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&o.keys, "key", nil, "a parked key as `JSON`: [77], {\"id\":42}; or its first event's id (may be repeated)")
	f.BoolVar(&o.all, "all", false, "every parked key")
	f.StringVar(&o.reason, "reason", "", "`WHY`, for the audit log")
	a.JSONFlag(cmd)
}

func (o *parkedChoice) check(cmd *cobra.Command) error {
	switch {
	case o.all && len(o.keys) > 0:
		return fault.Usage(cmd, "--all has no --key besides")
	case !o.all && len(o.keys) == 0:
		return fault.Usage(cmd, "%s wants --key JSON or --all", cmd.CommandPath())
	}
	for i, k := range o.keys {
		k = strings.TrimSpace(k)
		o.keys[i] = k
		if _, _, err := shell.EventOffset(k); err == nil {
			continue
		}
		if !json.Valid([]byte(k)) || !strings.HasPrefix(k, "[") && !strings.HasPrefix(k, "{") {
			return fault.Usage(cmd, "--key is a routing key ('[77]'), a row's key ('{\"id\":42}') or the id of the first event, as leat parked shows them")
		}
	}
	return nil
}

// Redrive is leat redrive.
func Redrive(app *shell.App) *cobra.Command {
	a := &commands{app}
	var o parkedChoice
	cmd := &cobra.Command{
		Use:   "redrive SUBSCRIPTION --key JSON | --all",
		Short: "Deliver parked keys again, in order",
		Long: "Delivers what the keys hold again, each key in order from the event that was not taken, with attempts counted\n" +
			"anew, beside live traffic; then they go on live. A key that fails again is parked again. Does not wait for\n" +
			"the deliveries: leat parked shows what is left.",
		Example:           "  leat redrive search --key '[77]' --key '[78]'\n  leat redrive search --all --reason 'repaired'",
		Args:              fault.Wants("SUBSCRIPTION"),
		ValidArgsFunction: a.Names(false, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			s, err := a.Connect()
			if err != nil {
				return err
			}
			defer s.Close()
			r, err := shell.Call(cmd.Context(), s, "redrive "+args[0], s.Redrive, &leatv1.RedriveRequest{Subscription: args[0], Keys: o.keys, All: o.all, Reason: o.reason})
			if err != nil {
				return err
			}
			if a.JSON {
				return a.Document(map[string]any{"subscription": args[0], "keys": r.GetKeys()})
			}
			a.Out.Printf("%s: %s being delivered again\n", screen.Clean(args[0]), screen.Plural(r.GetKeys(), "key"))
			return nil
		},
	}
	o.flags(a, cmd)
	return cmd
}

// Discard is leat discard.
func Discard(app *shell.App) *cobra.Command {
	a := &commands{app}
	var o parkedChoice
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "discard SUBSCRIPTION --key JSON | --all",
		Short: "Give up on what parked keys hold",
		Long: "The events that the keys hold are never delivered to this subscription; they are listed as skipped, and the\n" +
			"audit log tells who did it. Later events of the keys are delivered. Cannot be undone. Asks first.",
		Example:           "  leat discard search --key '[77]' --reason 'the file is gone'\n  leat discard search --all --dry-run",
		Args:              fault.Wants("SUBSCRIPTION"),
		ValidArgsFunction: a.Names(false, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			return a.discard(cmd, args[0], o, yes, dryRun)
		},
	}
	o.flags(a, cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be given up")
	shell.YesFlag(cmd, &yes)
	return cmd
}

func (a *commands) discard(cmd *cobra.Command, name string, o parkedChoice, yes, dryRun bool) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, doing := cmd.Context(), "discard "+name
	req := &leatv1.DiscardRequest{Subscription: name, Keys: o.keys, All: o.all, Reason: o.reason, DryRun: true}
	var r *leatv1.DiscardResponse
	if !yes || dryRun { // with --yes nobody is told before
		if r, err = shell.Call(ctx, s, doing, s.Discard, req); err != nil {
			return err
		}
	}
	if !dryRun {
		question := fmt.Sprintf("%s will never get what %s: %s. Go on?", screen.Clean(name), holdText(r.GetKeys()), eventsText(r))
		if err := a.Confirm(ctx, yes, question, ""); err != nil {
			return err
		}
		req.DryRun = false
		if r, err = shell.Call(ctx, s, doing, s.Discard, req); err != nil {
			return err
		}
	}
	if a.JSON {
		return a.Document(map[string]any{"subscription": name, "keys": r.GetKeys(), "events": r.GetEvents(), "dry_run": dryRun})
	}
	verb := "discarded"
	if dryRun {
		verb = "would discard"
	}
	a.Out.Printf("%s %s %s of %s\n", screen.Clean(name), verb, eventsText(r), screen.Plural(r.GetKeys(), "key"))
	return nil
}

func holdText(keys uint64) string {
	if keys == 1 {
		return "1 key holds"
	}
	return screen.Count(keys) + " keys hold"
}

func eventsText(r *leatv1.DiscardResponse) string {
	text := screen.Count(r.GetEvents()) + " events"
	if r.GetEvents() == 1 {
		text = "1 event"
	}
	if r.GetPartial() {
		text = "at least " + text
	}
	return text
}
