package main

import (
	"context"
	"fmt"
	"net/http"
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
	if err := wait(ctx, time.Second); err != nil { // the first events after a pause take longer
		return err
	}
	var speeds []float64
	err = r.alternateLatencies(ctx, pairsPerRun*r.o.runs, "what is live beside a replay aside", func(ctx context.Context, with bool) (latency, error) {
		if !with {
			return r.piece(ctx, 0)
		}
		rates.Marks = append(rates.Marks, mark{seconds(watch.begin), ""})
		took, speed, err := r.besideReplay(ctx)
		rates.Marks = append(rates.Marks, mark{seconds(watch.begin), ""})
		speeds = append(speeds, speed)
		process.Say("replay: live p99 %.1f ms beside %.0f copies/s", took.p99, speed)
		return took, err
	}, func() string { return ", beside " + spread(speeds, "%.0f") + " copies/s" })
	if err != nil {
		return err
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
	return r.draw(rates)
}

// besideReplay replays everything aside, for a piece.
func (r *rig) besideReplay(ctx context.Context) (took latency, speed float64, err error) {
	api := leatv1connect.NewAdminServiceClient(http.DefaultClient, r.leat.Addr)
	st := r.leat.Status(ctx)
	if st == nil {
		return took, 0, fmt.Errorf("no status\n%s", r.leat.Said())
	}
	resp, err := api.Replay(ctx, connect.NewRequest(&leatv1.ReplayRequest{Subscription: "replay0", Mode: "aside", Reason: "bench",
		From: &leatv1.Place{At: &leatv1.Place_Offset{Offset: st.Sources[0].Oldest}}}))
	if err != nil {
		return took, 0, fmt.Errorf("replay: %w", err)
	}
	id, begin := resp.Msg.Job.Id, time.Now()
	if took, err = r.piece(ctx, 0); err != nil {
		return took, 0, err
	}
	jobs, err := api.Jobs(ctx, connect.NewRequest(&leatv1.JobsRequest{Id: id, Ended: true}))
	if err != nil || len(jobs.Msg.Jobs) != 1 {
		return took, 0, fmt.Errorf("ask for the job: %w", err)
	}
	j := jobs.Msg.Jobs[0]
	lasted := time.Since(begin)
	if j.Ended != nil {
		lasted = j.Ended.AsTime().Sub(j.Created.AsTime())
	} else if _, err := api.CancelJob(ctx, connect.NewRequest(&leatv1.CancelJobRequest{Id: id})); err != nil {
		return took, 0, fmt.Errorf("cancel the replay: %w", err)
	}
	return took, float64(j.Done) / lasted.Seconds(), nil
}
