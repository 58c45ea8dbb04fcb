package main

import (
	"context"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// outage takes the whole endpoint away, for real, under load; nobody does anything about it.
func outage(ctx context.Context, r *rig) error {
	if err := r.become(ctx, map[int]behaviour{0: {Reset: true}}); err != nil {
		return err
	}
	if err := r.start(ctx, "", subs("outage", 0, 1, "    from: latest\n")); err != nil {
		return err
	}
	rates := &chart{Title: fmt.Sprintf("the endpoint is away for %s", r.o.outage), Unit: "events/s", Lines: []*series{{Name: "delivered"}}}
	lag := &chart{Title: "how far behind", Unit: "events", Lines: []*series{{Name: ""}}}
	var count rate
	var dead, parked uint64
	watch := r.sample(ctx, func(at float64, all []tally, st *leatv1.StatusResponse) {
		rates.Lines[0].add(at, count.of(at, float64(all[0].Events)))
		for _, s := range st.Subscriptions {
			lag.Lines[0].add(at, float64(s.LagEvents))
			dead, parked = s.Dead, uint64(s.Parked)
		}
	})
	w, err := r.write(ctx, liveRate, liveEach)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		what string
		how  behaviour
		wait time.Duration
	}{{"", behaviour{}, keys/liveRate*time.Second + 2*time.Second}, {"away: 503", behaviour{Kind: "refusing"}, r.o.outage / 2}, {"away: no answer", behaviour{Kind: "stalled"}, r.o.outage / 2}, {"back", behaviour{}, 2 * time.Second}} {
		if part.what != "" {
			rates.Marks = append(rates.Marks, mark{seconds(watch.begin), part.what})
			if err := r.become(ctx, map[int]behaviour{0: part.how}); err != nil {
				return err
			}
		}
		if err := wait(ctx, part.wait); err != nil {
			return err
		}
	}
	if err := w.end(); err != nil {
		return err
	}
	took, err := r.complete(ctx, 5*time.Minute, 0)
	if err != nil {
		return err
	}
	if err := watch.end(); err != nil {
		return err
	}
	r.found(fmt.Sprintf("endpoint away for %s", r.o.outage), "no dead letter, no park, everything in order, no hand moved", dead == 0 && parked == 0,
		"%d dead letters, %d parks; complete %.1f s after the writing ended", dead, parked, took.Seconds())
	return r.draw(rates, lag)
}
