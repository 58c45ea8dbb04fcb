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

const healthy = 12

// sick is how the last four of sixteen receivers are.
var sick = map[int]behaviour{
	12: {Kind: "stalled"},
	13: {Kind: "refusing"},
	14: {Kind: "slow", Each: 50 * time.Millisecond},
	15: {Kind: "flapping", Each: 3 * time.Second},
}

func well(n int) map[int]behaviour {
	how := map[int]behaviour{}
	for i := range n {
		how[i] = behaviour{Reset: true}
	}
	return how
}

func ints(from, to int) (all []int) {
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

// fanout compares twelve healthy subscribers with the same twelve beside four sick ones: in rate from a
// backlog, and in latency under a steady load; then the four become well and catch up.
func fanout(ctx context.Context, r *rig) error {
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
	run := 0
	var sickly []float64
	without, with, err := alternate(ctx, r.o.runs+1, func(ctx context.Context, with bool) (float64, error) {
		run++
		v, others, err := r.backlogRate(ctx, run, with)
		if with {
			sickly = append(sickly, others)
		}
		process.Say("fanout: sick beside: %v: %.0f events/s to each of %d; %.0f to the sick", with, v, healthy, others)
		return v, err
	})
	if err != nil {
		return err
	}
	p := pairs{without, with}
	r.found("rate of 12 healthy beside 4 sick, from a backlog", "≥ 95 % of that without", p.ratio() >= 0.95, "%.1f %% (%.1f to %.1f in %d pairs; alike runs differ by %.0f %%): %s against %s events/s each; the four took %s",
		100*p.ratio(), 100*slices.Min(p.ratios()), 100*slices.Max(p.ratios()), len(with), 100*p.noise(), spread(with, "%.0f"), spread(without, "%.0f"), spread(sickly, "%.0f"))
	return r.fanoutLive(ctx)
}

// backlogRate is how many events a second the healthy ones get, each, of the backlog, and the sick, together.
func (r *rig) backlogRate(ctx context.Context, run int, with bool) (each, others float64, err error) {
	how := well(receivers)
	n := healthy
	if with {
		n = receivers
		for i, b := range sick {
			b.Reset = true
			how[i] = b
		}
	}
	if err := r.become(ctx, how); err != nil {
		return 0, 0, err
	}
	if err := r.start(ctx, "", subs(fmt.Sprintf("r%d-", run), 0, n, "    from: earliest\n")); err != nil {
		return 0, 0, err
	}
	if _, err := r.complete(ctx, 3*time.Minute, ints(0, healthy)...); err != nil {
		return 0, 0, err
	}
	all, err := r.tallies(ctx, false)
	if err != nil {
		return 0, 0, err
	}
	first, last := all[0].First, all[0].Last
	events := int64(0)
	for _, t := range all[:healthy] {
		if t.First.Before(first) {
			first = t.First
		}
		if t.Last.After(last) {
			last = t.Last
		}
		events += t.Events
	}
	took := last.Sub(first).Seconds()
	for _, t := range all[healthy:] {
		others += float64(t.Events) / took
	}
	if err := r.become(ctx, well(receivers)); err != nil { // nobody keeps Leat from ending
		return 0, 0, err
	}
	return float64(events) / healthy / took, others, r.stop()
}

// live rows a second, in transactions of ten: what both cores take together with the database, the receivers and
// sixteen subscribers without a queue anywhere.
const liveRate, liveEach = 1000, 10

// fanoutLive compares the healthy ones' latency while the four are paused with that while they are sick.
func (r *rig) fanoutLive(ctx context.Context) error {
	rates := &chart{Title: "16 webhook subscribers: events delivered a second", Unit: "events/s"}
	lag := &chart{Title: "how far each is behind", Unit: "events"}
	if err := r.become(ctx, well(receivers)); err != nil {
		return err
	}
	all := subs("live", 0, receivers, "    from: latest\n    batch: {events: 20}\n    retry: {max: 5s}\n")
	if err := r.start(ctx, "", all); err != nil {
		return err
	}
	w, err := r.write(ctx, liveRate, liveEach)
	if err != nil {
		return err
	}
	begin := time.Now()
	var lags []float64
	var peak uint64
	watch := r.sample(ctx, r.watchFanout(rates, lag, &lags, &peak))
	if err := wait(ctx, keys/liveRate*time.Second+time.Second); err != nil { // each key has had its first
		return err
	}
	cured := map[int]behaviour{}
	for i := range sick {
		cured[i] = behaviour{}
	}
	api := leatv1connect.NewAdminServiceClient(http.DefaultClient, r.leat.Addr)
	err = r.alternateLatencies(ctx, pairsPerRun*r.o.runs, "12 healthy beside 4 sick, live", func(ctx context.Context, with bool) (latency, error) {
		rates.Marks = append(rates.Marks, mark{seconds(begin), ""})
		how := cured // a pause waits for what is in flight
		if with {
			how = sick
		}
		if err := r.become(ctx, how); err != nil {
			return latency{}, err
		}
		for _, s := range all[healthy:] {
			var err error
			if with {
				_, err = api.Resume(ctx, connect.NewRequest(&leatv1.ResumeRequest{Subscription: s.name}))
			} else {
				_, err = api.Pause(ctx, connect.NewRequest(&leatv1.PauseRequest{Subscription: s.name, Reason: "bench"}))
			}
			if err != nil {
				return latency{}, fmt.Errorf("pause or resume %s: %w", s.name, err)
			}
		}
		took, err := r.piece(ctx, ints(0, healthy)...)
		process.Say("fanout: sick beside: %v: p99 %.1f ms", with, took.p99)
		return took, err
	}, func() string { return "" })
	if err != nil {
		return err
	}
	for _, s := range all[healthy:] {
		if _, err := api.Resume(ctx, connect.NewRequest(&leatv1.ResumeRequest{Subscription: s.name})); err != nil {
			return err
		}
	}
	if err := r.recover(ctx, begin, rates, w); err != nil {
		return err
	}
	if err := watch.end(); err != nil {
		return err
	}
	half := len(lags) / 2
	r.found("what the slot holds meanwhile", "flat", median(lags[half:]) <= 2*median(lags[:half])+1<<20, "%.0f KiB in the first half, %.0f KiB in the second", median(lags[:half])/1024, median(lags[half:])/1024)
	r.found("anonymous memory", "≤ 512 + 150 MiB", peak <= 662<<20, "%d MiB at most", peak>>20)
	return r.draw(rates, lag)
}

// recover makes the sick well and waits until they have everything.
func (r *rig) recover(ctx context.Context, begin time.Time, rates *chart, w *writing) error {
	rates.Marks = append(rates.Marks, mark{seconds(begin), "and are well again"})
	cured := map[int]behaviour{}
	for i := range sick {
		cured[i] = behaviour{}
	}
	if err := r.become(ctx, cured); err != nil {
		return err
	}
	if err := wait(ctx, 3*time.Second); err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	took, err := r.complete(ctx, 2*time.Minute, ints(0, receivers)...)
	if err != nil {
		return err
	}
	rates.Marks = append(rates.Marks, mark{seconds(begin), "all have everything"})
	r.found("the four, once well", "resume by themselves, catch up completely", true, "complete %.1f s after the writing ended, nothing lost, each key in order", took.Seconds())
	return nil
}

// watchFanout draws the healthy ones' mean and each sick one.
func (r *rig) watchFanout(rates, lag *chart, lags *[]float64, peak *uint64) func(float64, []tally, *leatv1.StatusResponse) {
	lines := []*series{{Name: "each of the 12 healthy"}, {Name: "stalled"}, {Name: "refusing"}, {Name: "slow"}, {Name: "flapping"}}
	behind := []*series{{Name: "the 12 healthy, the worst"}, {Name: "stalled"}, {Name: "refusing"}, {Name: "slow"}, {Name: "flapping"}}
	rates.Lines, lag.Lines = lines, behind
	count := make([]rate, 5)
	return func(at float64, all []tally, st *leatv1.StatusResponse) {
		*peak = max(*peak, st.MemoryUsed)
		if len(st.Sources) == 1 && st.Sources[0].Pressure != nil {
			*lags = append(*lags, float64(st.Sources[0].Pressure.GetBehindBytes()))
		}
		sum, worst := int64(0), uint64(0)
		for _, t := range all[:healthy] {
			sum += t.Events
		}
		lines[0].add(at, count[0].of(at, float64(sum)/healthy))
		for i := healthy; i < receivers; i++ {
			lines[i-healthy+1].add(at, count[i-healthy+1].of(at, float64(all[i].Events)))
		}
		for _, s := range st.Subscriptions {
			var i int
			if _, err := fmt.Sscanf(s.Name, "live%d", &i); err != nil {
				continue
			}
			if i < healthy {
				worst = max(worst, s.LagEvents)
			} else {
				behind[i-healthy+1].add(at, float64(s.LagEvents))
			}
		}
		behind[0].add(at, float64(worst))
	}
}
