package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// throttling is one leat throttle.
type throttling struct {
	ratio, reason, span string
	off                 bool
}

func (a *app) throttleCommand() *cobra.Command {
	var o throttling
	cmd := &cobra.Command{
		Use:   "throttle NAME --ratio R | --off",
		Short: "Slow a source or subscription down, or end that",
		Long: "Leaves a subscription the share R of its rate and of its deliveries at once, or reads a source for the\n" +
			"share R of the time: 0.25 is a quarter, 0 stops it, 1 is all. It acts at once, survives restarts, and\n" +
			"ends by --off or when the time of --for is over; leat status names it. What waits stays in the log, or,\n" +
			"of a source, in its database: mind how long that keeps it.",
		Example:           "  leat throttle search --ratio 0.25 --reason 'index rebuild' --for 2h\n  leat throttle search --off",
		Args:              wants("NAME"),
		ValidArgsFunction: a.names(true, true),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.throttle(cmd, args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.ratio, "ratio", "", "the share `R` of the speed that is left, from 0 to 1")
	f.StringVar(&o.reason, "reason", "", "`WHY`, for status and the audit log")
	f.StringVar(&o.span, "for", "", "how long: a `TIME` as 90s, 2h, 7d (default: until --off)")
	f.BoolVar(&o.off, "off", false, "end it")
	a.jsonFlag(cmd)
	return cmd
}

func (a *app) throttle(cmd *cobra.Command, name string, o throttling) error {
	req := &leatv1.ThrottleRequest{Name: name, Reason: o.reason, Off: o.off}
	switch {
	case o.off && (o.ratio != "" || o.span != ""):
		return usage(cmd, "--off ends a throttle: it goes with no --ratio and no --for")
	case !o.off && o.ratio == "":
		return usage(cmd, "leat throttle wants --ratio R, from 0 to 1, or --off")
	case !o.off:
		r, err := strconv.ParseFloat(o.ratio, 64)
		if err != nil {
			return usage(cmd, "--ratio %q is no number from 0 to 1", o.ratio)
		}
		req.Ratio = &r // a wrong one is refused by the server, which keeps that somebody tried
	}
	if o.span != "" {
		d, err := config.ParseDuration(o.span)
		if err != nil {
			return usage(cmd, "--for %w", err)
		}
		req.Duration = durationpb.New(d)
	}
	s, err := a.connect()
	if err != nil {
		return err
	}
	defer s.close()
	r, err := call(cmd.Context(), s, "throttle "+name, s.Throttle, req)
	if err != nil {
		return err
	}
	if a.asJSON {
		return a.document(struct {
			Name      string        `json:"name"`
			Throttles []throttleDoc `json:"throttles"`
		}{name, throttleDocs(r.GetThrottles())})
	}
	if len(r.GetThrottles()) == 0 {
		a.out.Printf("%s is not throttled any more\n", screen.Clean(name))
	}
	for _, t := range r.GetThrottles() {
		a.out.Printf("%s is %s\n", screen.Clean(name), screen.Clean(a.throttleText(t)))
	}
	return nil
}

// throttleText says it in words: throttled to 25 % by ops: index rebuild; ends in 2 h.
func (a *app) throttleText(t *leatv1.ThrottleState) string {
	text := "throttled to " + strconv.FormatFloat(t.GetRatio()*100, 'f', -1, 64) + " %"
	if t.GetRatio() == 0 {
		text = "stopped by a throttle"
	}
	if t.GetOwner() != "" {
		text += fmt.Sprintf(" (%s)", t.GetOwner())
	}
	if t.GetReason() != "" {
		text += ": " + t.GetReason()
	}
	if u := t.GetUntil(); u != nil {
		text += "; ends in " + screen.Duration(max(0, u.AsTime().Sub(a.Now())))
	}
	return text
}

// throttleNotes are for status.
func (a *app) throttleNotes(list []*leatv1.ThrottleState) []screen.Cell {
	var out []screen.Cell
	for _, t := range list {
		out = append(out, screen.Cell{Text: "! " + a.throttleText(t), Style: screen.Yellow})
	}
	return out
}

type throttleDoc struct {
	Ratio  float64    `json:"ratio"`
	Reason string     `json:"reason,omitempty"`
	Owner  string     `json:"owner"`
	Since  *time.Time `json:"since"`
	Until  *time.Time `json:"until"`
}

func throttleDocs(list []*leatv1.ThrottleState) []throttleDoc {
	out := []throttleDoc{}
	for _, t := range list {
		out = append(out, throttleDoc{t.GetRatio(), t.GetReason(), t.GetOwner(), moment(t.GetSince()), moment(t.GetUntil())})
	}
	return out
}
