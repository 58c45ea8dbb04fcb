package main

import (
	"context"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// crowded is how many subscriptions stand still beside the healthy ones; all of them at one endpoint.
const crowded, crowdAt = 30, healthy

// crowd reads a backlog, and then a steady load, with many subscribers that never answer and little memory: what is
// held for each of them may not add up.
func crowd(ctx context.Context, r *rig) error {
	r.memory = "64MiB"
	const most = 64 + 150
	how := well(receivers)
	how[crowdAt] = behaviour{Kind: "stalled"}
	if err := r.become(ctx, how); err != nil {
		return err
	}
	if err := r.start(ctx, "", nil); err != nil {
		return err
	}
	if err := r.fill(ctx, r.o.rows); err != nil {
		return err
	}
	if err := r.leat.WaitFor(ctx, "the log to fill", func(st *leatv1.StatusResponse) bool {
		return st.Sources[0].Next-st.Sources[0].Oldest >= uint64(r.o.rows)
	}); err != nil {
		return err
	}
	if err := r.stop(); err != nil {
		return err
	}
	all := subs("c", 0, healthy, "    from: earliest\n")
	for i := range crowded {
		all = append(all, sub{fmt.Sprint("stalled", i), crowdAt, "    from: earliest\n"})
	}
	if err := r.start(ctx, "", all); err != nil {
		return err
	}
	took, err := r.complete(ctx, 3*time.Minute, ints(0, healthy)...)
	if err != nil {
		return err
	}
	w, err := r.write(ctx, liveRate, liveEach)
	if err != nil {
		return err
	}
	if err := wait(ctx, 2*r.o.phase); err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	if _, err := r.complete(ctx, time.Minute, ints(0, healthy)...); err != nil {
		return err
	}
	peak, _ := r.leat.Kill() // those that hang would keep it for their grace
	r.leat = nil
	peak >>= 20
	r.found(fmt.Sprintf("anonymous memory, %d healthy subscribers, %d that never answer, memory 64MiB", healthy, crowded), fmt.Sprintf("≤ %d MiB", most), peak <= most, "%d MiB", peak)
	r.found("the healthy ones meanwhile", "get everything", true, "the backlog of %d after %.1f s", r.o.rows, took.Seconds())
	return nil
}
