package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// replay copies the whole log to a subscriber again, aside, and compares the latency of what is live meanwhile with
// that before.
func replay(ctx context.Context, r *rig) error {
	if err := r.become(ctx, map[int]behaviour{0: {Reset: true}}); err != nil {
		return err
	}
	if err := r.start(ctx, "", subs("replay", 0, 1, "    from: earliest\n")); err != nil {
		return err
	}
	process.Say("replay: making a backlog of %d changes", 5*r.o.rows)
	if err := r.fill(ctx, 5*r.o.rows); err != nil {
		return err
	}
	if _, err := r.complete(ctx, 5*time.Minute, 0); err != nil {
		return err
	}
	rates := &chart{Title: "a replay aside, beside live load", Unit: "events/s", Lines: []*series{{Name: "live"}, {Name: "copies"}}}
	var live, copies rate
	watch := r.sample(ctx, func(at float64, all []tally, _ *leatv1.StatusResponse) {
		rates.Lines[0].add(at, live.of(at, float64(all[0].Events)))
		rates.Lines[1].add(at, copies.of(at, float64(all[0].Repeats)))
	})
	w, err := r.write(ctx, liveRate, liveEach)
	if err != nil {
		return err
	}
	var alone, beside, speeds []float64
	for range r.o.runs {
		p99, err := r.phaseP99(ctx)
		if err != nil {
			return err
		}
		alone = append(alone, p99)
		rates.Marks = append(rates.Marks, mark{seconds(watch.begin), "replay"})
		p99, speed, err := r.besideReplay(ctx)
		if err != nil {
			return err
		}
		beside, speeds = append(beside, p99), append(speeds, speed)
		process.Say("replay: live p99 %.1f ms alone, %.1f ms beside %.0f copies/s", alone[len(alone)-1], p99, speed)
		rates.Marks = append(rates.Marks, mark{seconds(watch.begin), "over"})
	}
	if err := w.end(); err != nil {
		return err
	}
	if _, err := r.complete(ctx, time.Minute, 0); err != nil {
		return err
	}
	if err := watch.end(); err != nil {
		return err
	}
	ratio := median(beside) / median(alone)
	r.found("live p99 beside a replay aside", "≤ +10 %", ratio <= 1.1, "%+.0f %%: %s against %s ms, beside %s copies/s", 100*(ratio-1), spread(beside, "%.1f"), spread(alone, "%.1f"), spread(speeds, "%.0f"))
	return r.draw(rates)
}

// phaseP99 is the live p99 over a phase.
func (r *rig) phaseP99(ctx context.Context) (float64, error) {
	if _, err := r.tallies(ctx, true); err != nil {
		return 0, err
	}
	if err := wait(ctx, r.o.phase); err != nil {
		return 0, err
	}
	all, err := r.tallies(ctx, true)
	if err != nil {
		return 0, err
	}
	slices.Sort(all[0].Micros)
	return percentile(all[0].Micros, 0.99), nil
}

// besideReplay replays everything aside, for a phase.
func (r *rig) besideReplay(ctx context.Context) (p99, speed float64, err error) {
	api := leatv1connect.NewAdminServiceClient(http.DefaultClient, r.leat.Addr)
	st := r.leat.Status(ctx)
	if st == nil {
		return 0, 0, fmt.Errorf("no status\n%s", r.leat.Said())
	}
	resp, err := api.Replay(ctx, connect.NewRequest(&leatv1.ReplayRequest{Subscription: "replay0", Mode: "aside", Reason: "bench",
		From: &leatv1.Place{At: &leatv1.Place_Offset{Offset: st.Sources[0].Oldest}}}))
	if err != nil {
		return 0, 0, fmt.Errorf("replay: %w", err)
	}
	id, begin := resp.Msg.Job.Id, time.Now()
	if p99, err = r.phaseP99(ctx); err != nil {
		return 0, 0, err
	}
	jobs, err := api.Jobs(ctx, connect.NewRequest(&leatv1.JobsRequest{Id: id, Ended: true}))
	if err != nil || len(jobs.Msg.Jobs) != 1 {
		return 0, 0, fmt.Errorf("ask for the job: %w", err)
	}
	j := jobs.Msg.Jobs[0]
	took := time.Since(begin)
	if j.Ended != nil {
		took = j.Ended.AsTime().Sub(j.Created.AsTime())
	} else if _, err := api.CancelJob(ctx, connect.NewRequest(&leatv1.CancelJobRequest{Id: id})); err != nil {
		return 0, 0, fmt.Errorf("cancel the replay: %w", err)
	}
	return p99, float64(j.Done) / took.Seconds(), nil
}
