package operate

import (
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/status"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// throttling is one leat throttle.
type throttling struct {
	ratio, reason, span string
	off                 bool
}

// Throttle is leat throttle.
func Throttle(app *shell.App) *cobra.Command {
	a := &commands{app}
	var o throttling
	cmd := &cobra.Command{
		Use:   "throttle NAME --ratio R | --off",
		Short: "Slow a source or subscription down, or end that",
		Long: "Leaves a subscription the share R of its rate and of its deliveries at once, or reads a source for the\n" +
			"share R of the time: 0.25 is a quarter, 0 stops it, 1 is all. It acts at once, survives restarts, and\n" +
			"ends by --off or when the time of --for is over; leat status names it. What waits stays in the log, or,\n" +
			"of a source, in its database: mind how long that keeps it.",
		Example:           "  leat throttle search --ratio 0.25 --reason 'index rebuild' --for 2h\n  leat throttle search --off",
		Args:              fault.Wants("NAME"),
		ValidArgsFunction: a.Names(true, true),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.throttle(cmd, args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.ratio, "ratio", "", "the share `R` of the speed that is left, from 0 to 1")
	f.StringVar(&o.reason, "reason", "", "`WHY`, for status and the audit log")
	f.StringVar(&o.span, "for", "", "how long: a `TIME` as 90s, 2h, 7d (default: until --off)")
	f.BoolVar(&o.off, "off", false, "end it")
	a.JSONFlag(cmd)
	return cmd
}

func (a *commands) throttle(cmd *cobra.Command, name string, o throttling) error {
	req := &leatv1.ThrottleRequest{Name: name, Reason: o.reason, Off: o.off}
	switch {
	case o.off && (o.ratio != "" || o.span != ""):
		return fault.Usage(cmd, "--off ends a throttle: it goes with no --ratio and no --for")
	case !o.off && o.ratio == "":
		return fault.Usage(cmd, "leat throttle wants --ratio R, from 0 to 1, or --off")
	case !o.off:
		r, err := strconv.ParseFloat(o.ratio, 64)
		if err != nil {
			return fault.Usage(cmd, "--ratio %q is no number from 0 to 1", o.ratio)
		}
		req.Ratio = &r // a wrong one is refused by the server, which keeps that somebody tried
	}
	if o.span != "" {
		d, err := config.ParseDuration(o.span)
		if err != nil {
			return fault.Usage(cmd, "--for %w", err)
		}
		req.Duration = durationpb.New(d)
	}
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := shell.Call(cmd.Context(), s, "throttle "+name, s.Throttle, req)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.Document(struct {
			Name      string               `json:"name"`
			Throttles []status.ThrottleDoc `json:"throttles"`
		}{name, status.ThrottleDocs(r.GetThrottles())})
	}
	if len(r.GetThrottles()) == 0 {
		a.Out.Printf("%s is not throttled any more\n", screen.Clean(name))
	}
	for _, t := range r.GetThrottles() {
		a.Out.Printf("%s is %s\n", screen.Clean(name), screen.Clean(status.Throttle(t, a.Now())))
	}
	return nil
}
