package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
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
	var alone, beside []float64
	for run := range r.o.runs {
		for _, with := range []bool{false, true} {
			v, err := r.backlogRate(ctx, run, with)
			if err != nil {
				return err
			}
			if with {
				beside = append(beside, v)
			} else {
				alone = append(alone, v)
			}
			process.Say("fanout: run %d, sick beside: %v: %.0f events/s to each of %d", run+1, with, v, healthy)
		}
	}
	ratio := median(beside) / median(alone)
	r.found("rate of 12 healthy beside 4 sick, from a backlog", "≥ 95 % of that without", ratio >= 0.95, "%.1f %%: %s against %s events/s each", 100*ratio, spread(beside, "%.0f"), spread(alone, "%.0f"))
	return r.fanoutLive(ctx)
}

// backlogRate is how many events a second the healthy ones get, each, of the backlog.
func (r *rig) backlogRate(ctx context.Context, run int, with bool) (float64, error) {
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
		return 0, err
	}
	if err := r.start(ctx, "", subs(fmt.Sprintf("r%d%v-", run, map[bool]string{true: "b", false: "a"}[with]), 0, n, "    from: earliest\n")); err != nil {
		return 0, err
	}
	if _, err := r.complete(ctx, 3*time.Minute, ints(0, healthy)...); err != nil {
		return 0, err
	}
	all, err := r.tallies(ctx, false)
	if err != nil {
		return 0, err
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
	if err := r.become(ctx, well(receivers)); err != nil { // nobody keeps Leat from ending
		return 0, err
	}
	return float64(events) / healthy / last.Sub(first).Seconds(), r.stop()
}

// live rows a second, in transactions of ten: what both cores take together with the database, the receivers and
// sixteen subscribers without a queue anywhere.
const liveRate, liveEach = 1000, 10

func (r *rig) fanoutLive(ctx context.Context) error {
	if err := r.stop(); err != nil {
		return err
	}
	var alone, beside []float64
	var lags []float64
	var peak uint64
	rates := &chart{Title: "16 webhook subscribers: events delivered a second", Unit: "events/s"}
	lag := &chart{Title: "how far each is behind", Unit: "events"}
	for run := range r.o.runs {
		for _, with := range []bool{false, true} {
			p99, err := r.livePhase(ctx, run, with, run == r.o.runs-1, rates, lag, &lags, &peak)
			if err != nil {
				return err
			}
			if with {
				beside = append(beside, p99)
			} else {
				alone = append(alone, p99)
			}
			process.Say("fanout: run %d, sick beside: %v: p99 %.1f ms", run+1, with, p99)
		}
	}
	ratio := median(beside) / median(alone)
	r.found("p99 of 12 healthy beside 4 sick, live", "≤ +10 %", ratio <= 1.1, "%+.0f %%: %s against %s ms", 100*(ratio-1), spread(beside, "%.1f"), spread(alone, "%.1f"))
	half := len(lags) / 2
	r.found("what the slot holds while four are sick", "flat", median(lags[half:]) <= 2*median(lags[:half])+1<<20, "%.0f KiB in the first half, %.0f KiB in the second", median(lags[:half])/1024, median(lags[half:])/1024)
	r.found("anonymous memory", "≤ 512 + 150 MiB", peak <= 662<<20, "%d MiB at most", peak>>20)
	return r.draw(rates, lag)
}

// livePhase returns the healthy ones' p99. The last phase with sick ones is drawn, and ends with their recovery.
func (r *rig) livePhase(ctx context.Context, run int, with, last bool, rates, lag *chart, lags *[]float64, peak *uint64) (p99 float64, err error) {
	n := healthy
	if with {
		n = receivers
	}
	if err := r.become(ctx, well(receivers)); err != nil {
		return 0, err
	}
	if err := r.start(ctx, "", subs(fmt.Sprintf("l%d%v-", run, map[bool]string{true: "b", false: "a"}[with]), 0, n, "    from: latest\n    batch: {events: 20}\n    retry: {max: 5s}\n")); err != nil {
		return 0, err
	}
	w, err := r.write(ctx, liveRate, liveEach)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	watch := r.sample(ctx, r.watchFanout(n, with && last, rates, lag, lags, peak, with))
	if err := wait(ctx, keys/liveRate*time.Second+time.Second); err != nil { // each key has had its first
		return 0, err
	}
	if with {
		rates.Marks = append(rates.Marks, mark{seconds(begin), "four fall sick"})
		if err := r.become(ctx, sick); err != nil {
			return 0, err
		}
	}
	if _, err := r.tallies(ctx, true); err != nil { // forget the beginning's latencies
		return 0, err
	}
	if err := wait(ctx, r.o.phase); err != nil {
		return 0, err
	}
	all, err := r.tallies(ctx, true)
	if err != nil {
		return 0, err
	}
	var micros []int64
	for _, t := range all[:healthy] {
		micros = append(micros, t.Micros...)
	}
	slices.Sort(micros)
	p99 = percentile(micros, 0.99)
	if with && last {
		if err := r.recover(ctx, begin, rates, w); err != nil {
			return 0, err
		}
	} else if err := w.end(); err != nil {
		return 0, err
	}
	if err := watch.end(); err != nil {
		return 0, err
	}
	if err := r.become(ctx, well(receivers)); err != nil {
		return 0, err
	}
	return p99, r.stop()
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
func (r *rig) watchFanout(n int, drawn bool, rates, lag *chart, lags *[]float64, peak *uint64, with bool) func(float64, []tally, *leatv1.StatusResponse) {
	lines := []*series{{Name: "each of the 12 healthy"}, {Name: "stalled"}, {Name: "refusing"}, {Name: "slow"}, {Name: "flapping"}}
	behind := []*series{{Name: "the 12 healthy, the worst"}, {Name: "stalled"}, {Name: "refusing"}, {Name: "slow"}, {Name: "flapping"}}
	if drawn {
		rates.Lines, lag.Lines, rates.Marks = lines, behind, nil
	}
	count := make([]rate, 5)
	return func(at float64, all []tally, st *leatv1.StatusResponse) {
		*peak = max(*peak, st.MemoryUsed)
		if with && len(st.Sources) == 1 && st.Sources[0].Pressure != nil {
			*lags = append(*lags, float64(st.Sources[0].Pressure.GetBehindBytes()))
		}
		if !drawn {
			return
		}
		sum, worst := int64(0), uint64(0)
		for _, t := range all[:healthy] {
			sum += t.Events
		}
		lines[0].add(at, count[0].of(at, float64(sum)/healthy))
		for i := healthy; i < n; i++ {
			lines[i-healthy+1].add(at, count[i-healthy+1].of(at, float64(all[i].Events)))
		}
		for _, s := range st.Subscriptions {
			var i int
			if _, err := fmt.Sscanf(s.Name[len(s.Name)-2:], "%d", &i); err != nil {
				i = int(s.Name[len(s.Name)-1] - '0')
			}
			if i < 0 {
				i = -i
			}
			if i < healthy {
				worst = max(worst, s.LagEvents)
			} else if i < n {
				behind[i-healthy+1].add(at, float64(s.LagEvents))
			}
		}
		behind[0].add(at, float64(worst))
	}
}
