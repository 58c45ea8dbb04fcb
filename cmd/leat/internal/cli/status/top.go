package status

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

const (
	topEvery = time.Second
	// topFastest bounds --interval: a status reads from the log.
	topFastest = 100 * time.Millisecond
)

// topping is one leat top.
type topping struct {
	every       time.Duration
	once, jsonl bool
}

// Top is leat top.
func Top(app *shell.App) *cobra.Command {
	a := &commands{app}
	var o topping
	var interval string
	cmd := &cobra.Command{
		Use:   "top",
		Short: "The status, live, full screen",
		Long: "Shows rates, lags, limits, why each source and subscription waits, how the databases fare, replays and\n" +
			"memory, and refreshes. q or Ctrl-C ends it. Where stdout is no terminal it prints that once.",
		Example: "  leat top\n  leat top --interval 5s\n  leat top --jsonl | jq '.subscriptions[] | [.name, .lag_events]'",
		Args:    fault.Wants(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := config.ParseDuration(interval)
			if err != nil || d < topFastest || d > time.Hour {
				return fault.Usage(cmd, "--interval %q is no time from %v to 1h", interval, topFastest)
			}
			o.every = d
			return a.top(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&interval, "interval", topEvery.String(), "refresh each `TIME`: 500ms, 2s")
	f.BoolVar(&o.once, "once", false, "print it once, plainly, and end")
	f.BoolVar(&o.jsonl, "jsonl", false, "one JSON document per line and interval")
	return cmd
}

// seen is what one look at the server brought.
type seen struct {
	status *leatv1.StatusResponse
	turns  []*leatv1.PriorityTurns // of the look before
	jobs   []*leatv1.Job
	at     time.Time
	err    error // of a later look: the rest is that of the last good one
}

func (a *commands) top(ctx context.Context, o topping) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	first := a.look(ctx, s, seen{})
	if first.err != nil {
		return first.err
	}
	live := a.Out.NewLive(a.Stdin)
	switch {
	case o.jsonl:
		return a.topLines(ctx, s, o, first)
	case o.once || live == nil:
		a.topFrame(a.Out, s, first, 0)
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := live.Begin(); err != nil {
		return err
	}
	defer live.End()
	if live.Keys() {
		go quitOn(a.Stdin, stop)
	}
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	for now := first; ; now = a.look(ctx, s, now) {
		if ctx.Err() != nil {
			return nil
		}
		if err := live.Draw(func(to *screen.Screen, height int) { a.topFrame(to, s, now, height) }); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// quitOn ends what stop ends when q or Ctrl-C is typed. A read of a terminal cannot be interrupted: it ends with
// the process.
func quitOn(in io.Reader, stop func()) {
	var p [1]byte
	for {
		if n, err := in.Read(p[:]); err != nil || n == 1 && (p[0] == 'q' || p[0] == 'Q' || p[0] == 3) {
			stop()
			return
		}
	}
}

// look asks the server; what it cannot say is as it was.
func (a *commands) look(ctx context.Context, s *shell.Server, was seen) seen {
	st, err := shell.Call(ctx, s, "status", s.Status, &leatv1.StatusRequest{})
	if err != nil {
		was.err = err
		return was
	}
	now := seen{status: st, turns: was.status.GetTurns(), at: a.Now()}
	jobs, err := s.Jobs(ctx, connect.NewRequest(&leatv1.JobsRequest{}))
	switch {
	case err == nil:
		now.jobs = jobs.Msg.GetJobs()
	case connect.CodeOf(err) != connect.CodeUnimplemented:
		now.err = s.Failed("jobs", err)
	}
	return now
}

// topLines prints a document per interval.
func (a *commands) topLines(ctx context.Context, s *shell.Server, o topping, now seen) error {
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	for {
		if now.err != nil {
			if ctx.Err() != nil || errors.Is(now.err, context.Canceled) {
				return nil
			}
			return now.err
		}
		line, err := json.Marshal(struct {
			Time time.Time `json:"time"`
			statusDoc
			Jobs []shell.JobDoc `json:"jobs"`
		}{now.at.UTC(), statusDocument(now.status), shell.JobDocs(now.jobs)})
		if err != nil {
			return err
		}
		a.Out.Printf("%s\n", line)
		if err := a.Out.Err(); err != nil || o.once {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now = a.look(ctx, s, now)
	}
}
