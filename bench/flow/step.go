package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// step lets a receiver's capacity fall to a tenth and return, with a backlog that never ends, and looks at how soon
// and how well Leat follows.
func step(ctx context.Context, r *rig) error {
	const full, tenth = 10_000, 1_000
	part := 2 * r.o.phase
	how := behaviour{Kind: "capacity", Rate: full, Queue: 64, Reset: true}
	if err := r.become(ctx, map[int]behaviour{0: how}); err != nil {
		return err
	}
	if err := r.start(ctx, "", nil); err != nil {
		return err
	}
	changes := int(part.Seconds()*(2*full+tenth)*1.3) / 1000 * 1000
	process.Say("step: making a backlog of %d changes", changes)
	if err := r.fill(ctx, changes); err != nil {
		return err
	}
	if err := r.leat.WaitFor(ctx, "the log to fill", func(st *leatv1.StatusResponse) bool {
		return st.Sources[0].Next-st.Sources[0].Oldest >= uint64(changes)
	}); err != nil {
		return err
	}
	if err := r.stop(); err != nil {
		return err
	}
	if err := r.start(ctx, "", subs("step", 0, 1, "    from: earliest\n    batch: {events: 20}\n")); err != nil {
		return err
	}
	rates := &chart{Title: "a receiver's capacity falls to a tenth and returns", Unit: "events/s", Lines: []*series{{Name: "taken"}, {Name: "capacity"}}}
	flight := &chart{Title: "requests in flight, and refused", Unit: "requests", Lines: []*series{{Name: "in flight"}, {Name: "refused a second"}}}
	var count, refused rate
	capacity := float64(full)
	watch := r.sample(ctx, func(at float64, all []tally, _ *leatv1.StatusResponse) {
		rates.Lines[0].add(at, count.of(at, float64(all[0].Events)))
		rates.Lines[1].add(at, capacity)
		flight.Lines[0].add(at, float64(all[0].InFlight))
		flight.Lines[1].add(at, refused.of(at, float64(all[0].Refused)))
	})
	for i, c := range []float64{full, tenth, full} {
		capacity, how.Rate, how.Reset = c, c, false
		rates.Marks = append(rates.Marks, mark{seconds(watch.begin), fmt.Sprintf("%.0f/s", c)})
		if err := r.become(ctx, map[int]behaviour{0: how}); err != nil {
			return err
		}
		from := seconds(watch.begin)
		var settled []tally
		if err := wait(ctx, min(10*time.Second, part*2/3)); err != nil {
			return err
		}
		settled, err := r.tallies(ctx, false)
		if err != nil {
			return err
		}
		if err := wait(ctx, part-min(10*time.Second, part*2/3)); err != nil {
			return err
		}
		end, err := r.tallies(ctx, false)
		if err != nil {
			return err
		}
		r.judge(i, c, from, rates.Lines[0], settled[0], end[0], seconds(watch.begin))
	}
	if err := watch.end(); err != nil {
		return err
	}
	return r.draw(rates, flight)
}

// judge looks at one of the three parts.
func (r *rig) judge(i int, capacity, from float64, taken *series, settled, end tally, until float64) {
	what := []string{"at first", "fallen to a tenth", "returned"}[i]
	// The first moment from which the mean of two seconds stays within 15 % until the end.
	const span = 2.0
	mean := func(at float64) (v float64) {
		n := 0
		for k, x := range taken.X {
			if x > at-span && x <= at && x > from {
				v, n = v+taken.Y[k], n+1
			}
		}
		return v / math.Max(1, float64(n))
	}
	within, worst := 0.0, 0.0
	for at := from + span; at <= until; at += 0.5 {
		off := math.Abs(mean(at)/capacity - 1)
		if off > 0.15 {
			within = at + 0.5 - from
		}
		if at > from+12 {
			worst = max(worst, off)
		}
	}
	r.found("step, "+what+": within ±15 % of capacity", "≤ 10 s", within <= 10, "after %.1f s; later off by %.0f %% at most (asked ≤ 20 %%)", within, 100*worst)
	requests, refused := end.Requests-settled.Requests, end.Refused-settled.Refused
	share := float64(refused) / math.Max(1, float64(requests))
	r.found("step, "+what+": refused after settling", "≤ 2 % of requests", share <= 0.02, "%.1f %% of %d", 100*share, requests)
}
