package main

import (
	"context"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// hanging is which of the eight takes requests and never answers.
const eight, hanging = 8, 7

// hang lets one of eight subscribers hang for a long time under load, and compares what the others get, what the slot
// holds and what memory is used with how it was before.
func hang(ctx context.Context, r *rig) error {
	if err := r.become(ctx, well(receivers)); err != nil {
		return err
	}
	r.memory = "64MiB" // what keeps the newest of the log, and that encoded, fills within a minute
	if err := r.start(ctx, "", subs("h", 0, eight, "    from: latest\n    batch: {events: 20}\n    retry: {max: 5s}\n")); err != nil {
		return err
	}
	w, err := r.write(ctx, liveRate, liveEach)
	if err != nil {
		return err
	}
	h := &hangSeen{
		rates: &chart{Title: fmt.Sprintf("one of eight subscribers hangs for %s: events delivered a second", r.o.hang), Unit: "events/s", Lines: []*series{{Name: "each of the 7 others"}, {Name: "the one"}}},
		lag:   &chart{Title: "how far behind", Unit: "events", Lines: []*series{{Name: "the 7 others, the worst"}, {Name: "the one"}}},
		used:  &chart{Title: "what is held", Unit: "MiB", Lines: []*series{{Name: "anonymous memory"}, {Name: "in the slot"}}},
	}
	watch := r.sample(ctx, h.look)
	if err := wait(ctx, keys/liveRate*time.Second); err != nil { // each key has had its first
		return err
	}
	if err := r.level(ctx); err != nil {
		return err
	}
	before, err := r.others(ctx, max(r.o.phase, r.o.hang/6))
	if err != nil {
		return err
	}
	h.mark(watch, "one hangs")
	if err := r.become(ctx, map[int]behaviour{hanging: {Kind: "stalled"}}); err != nil {
		return err
	}
	from := seconds(watch.begin)
	during, err := r.others(ctx, r.o.hang)
	if err != nil {
		return err
	}
	to := seconds(watch.begin)
	h.mark(watch, "and answers again")
	if err := r.become(ctx, map[int]behaviour{hanging: {}}); err != nil {
		return err
	}
	if err := wait(ctx, 3*time.Second); err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	took, err := r.complete(ctx, 2*time.Minute+r.o.hang, ints(0, eight)...)
	if err != nil {
		return err
	}
	h.mark(watch, "all have everything")
	if err := watch.end(); err != nil {
		return err
	}
	ratio := during / before
	r.found(fmt.Sprintf("rate of the 7 others while one of eight hangs for %s", r.o.hang), "≥ 95 % of before", ratio >= 0.95, "%.1f %%: %.1f against %.1f events/s each", 100*ratio, during, before)
	half := (from + to) / 2
	slot := [2]float64{h.used.Lines[1].median(from, half), h.used.Lines[1].median(half, to)}
	r.found("what the slot holds meanwhile", "flat", slot[1] <= 2*slot[0]+1, "%.0f KiB in the first half, %.0f KiB in the second", slot[0]*1024, slot[1]*1024)
	used := [2]float64{h.used.Lines[0].median(from, half), h.used.Lines[0].median(half, to)}
	r.found("anonymous memory meanwhile", "flat", used[1] <= 1.1*used[0]+8, "%.0f MiB in the first half, %.0f MiB in the second", used[0], used[1])
	r.found("the one, once it answers", "resumes by itself, catches up completely", true, "complete %.1f s after the writing ended, nothing lost, each key in order", took.Seconds())
	return r.draw(h.rates, h.lag, h.used)
}

// level waits until memory is what this load takes: buffers fill first, whoever hangs.
func (r *rig) level(ctx context.Context) error {
	const step, rise = 15 * time.Second, 3 << 20
	for before, n := r.leat.Anonymous(), 0; n < 12; n++ {
		if err := wait(ctx, step); err != nil {
			return err
		}
		now := r.leat.Anonymous()
		if now < before+rise {
			return nil
		}
		before = now
	}
	return nil // it still rises: what is measured then says so
}

// others is how many events a second each of those that do not hang gets in the next d.
func (r *rig) others(ctx context.Context, d time.Duration) (float64, error) {
	count := func() (n int64, at time.Time, err error) {
		all, err := r.tallies(ctx, false)
		for _, t := range all[:min(hanging, len(all))] {
			n += t.Events
		}
		return n, time.Now(), err
	}
	n, begin, err := count()
	if err != nil {
		return 0, err
	}
	if err := wait(ctx, d); err != nil {
		return 0, err
	}
	m, end, err := count()
	return float64(m-n) / hanging / end.Sub(begin).Seconds(), err
}

// hangSeen is what the sampler saw.
type hangSeen struct {
	rates, lag, used *chart
	all, one         rate
}

func (h *hangSeen) mark(s *sampler, what string) {
	for _, c := range []*chart{h.rates, h.lag, h.used} {
		c.Marks = append(c.Marks, mark{seconds(s.begin), what})
	}
}

func (h *hangSeen) look(at float64, all []tally, st *leatv1.StatusResponse) {
	sum := int64(0)
	for _, t := range all[:hanging] {
		sum += t.Events
	}
	h.rates.Lines[0].add(at, h.all.of(at, float64(sum)/hanging))
	h.rates.Lines[1].add(at, h.one.of(at, float64(all[hanging].Events)))
	worst := uint64(0)
	for _, s := range st.Subscriptions {
		if s.Name == fmt.Sprint("h", hanging) {
			h.lag.Lines[1].add(at, float64(s.LagEvents))
		} else {
			worst = max(worst, s.LagEvents)
		}
	}
	h.lag.Lines[0].add(at, float64(worst))
	h.used.Lines[0].add(at, float64(st.MemoryUsed)/(1<<20))
	if len(st.Sources) == 1 && st.Sources[0].Pressure != nil {
		h.used.Lines[1].add(at, float64(st.Sources[0].Pressure.GetBehindBytes())/(1<<20))
	}
}

// median of what a line shows between two moments.
func (s *series) median(from, to float64) float64 {
	var v []float64
	for i, x := range s.X {
		if x >= from && x <= to {
			v = append(v, s.Y[i])
		}
	}
	return median(v)
}
