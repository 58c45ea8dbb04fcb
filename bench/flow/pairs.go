package main

import (
	"context"
	"fmt"
	"slices"
)

// pieces of a phase: what is compared runs by turns in short pieces, so that what else the machine does meets both;
// pairsPerRun of them.
const pieces, pairsPerRun = 5, 3

// pairs are what was measured without something and with it, by turns.
type pairs struct{ without, with []float64 }

// alternate measures n pairs: without, with; with, without; and so on, so that what changes slowly cancels out.
func alternate[T any](ctx context.Context, n int, measure func(ctx context.Context, with bool) (T, error)) (without, with []T, err error) {
	for i := range 2 * n {
		ill := i%4 == 1 || i%4 == 2
		v, err := measure(ctx, ill)
		if err != nil {
			return nil, nil, err
		}
		if ill {
			with = append(with, v)
		} else {
			without = append(without, v)
		}
	}
	return without, with, nil
}

// latency of a piece, in milliseconds.
type latency struct{ p50, p99 float64 }

// alternateLatencies compares latencies, and tells what was found.
func (r *rig) alternateLatencies(ctx context.Context, n int, what string, measure func(ctx context.Context, with bool) (latency, error), more func() string) error {
	without, with, err := alternate(ctx, n, measure)
	if err != nil {
		return err
	}
	var p50, p99 pairs
	for i := range with {
		p50.without, p50.with = append(p50.without, without[i].p50), append(p50.with, with[i].p50)
		p99.without, p99.with = append(p99.without, without[i].p99), append(p99.with, with[i].p99)
	}
	r.found("p99 of "+what, "≤ +10 %", p99.ratio() <= 1.1, "%v%s", p99, more())
	r.found("p50 of "+what, "", true, "%v", p50)
	return nil
}

// piece is the live latency of some receivers over a piece of a phase.
func (r *rig) piece(ctx context.Context, which ...int) (latency, error) {
	if _, err := r.tallies(ctx, true); err != nil {
		return latency{}, err
	}
	if err := wait(ctx, r.o.phase/pieces); err != nil {
		return latency{}, err
	}
	all, err := r.tallies(ctx, true)
	if err != nil {
		return latency{}, err
	}
	var micros []int64
	for _, i := range which {
		micros = append(micros, all[i].Micros...)
	}
	slices.Sort(micros)
	return latency{percentile(micros, 0.5), percentile(micros, 0.99)}, nil
}

// ratio is with ÷ without, the median of all pairs: what hits one piece alone does not count.
func (p pairs) ratio() float64 { return median(p.ratios()) }

func (p pairs) ratios() (all []float64) {
	for i := range p.with {
		all = append(all, p.with[i]/p.without[i])
	}
	return all
}

// noise is the same of pieces that were alike: how far those without differ from one another, the median.
func (p pairs) noise() float64 {
	var all []float64
	for i := 1; i < len(p.without); i++ {
		a, b := p.without[i-1], p.without[i]
		all = append(all, max(a, b)/min(a, b)-1)
	}
	return median(all)
}

// String tells the ratio, its spread, and what it is made of.
func (p pairs) String() string {
	r := p.ratios()
	return fmt.Sprintf("%+.0f %% (%+.0f to %+.0f in %d pairs; alike pieces differ by %.0f %%): %s against %s ms", 100*(p.ratio()-1), 100*(slices.Min(r)-1), 100*(slices.Max(r)-1), len(r), 100*p.noise(),
		spread(p.with, "%.1f"), spread(p.without, "%.1f"))
}
