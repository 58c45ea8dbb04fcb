package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/leat-cdc/leat/bench/process"
)

// poison lets requests with one key in a hundred fail: those keys are parked, all others' latency is compared with
// that of a subscriber without trouble at the same time and load; then the cause is mended and they are redriven.
func poison(ctx context.Context, r *rig) error {
	more := "    from: latest\n    batch: {events: 20}\n    retry: {initial: 100ms, max: 500ms, attempts: 3}\n"
	var clean, ill []float64
	for run := range r.o.runs {
		for _, bad := range []bool{false, true} {
			how := map[int]behaviour{0: {Reset: true}}
			if bad {
				how[0] = behaviour{Kind: "poison", Every: 100, Reset: true}
			}
			if err := r.become(ctx, how); err != nil {
				return err
			}
			name := fmt.Sprintf("p%d%v-", run, bad)
			if err := r.start(ctx, "", subs(name, 0, 1, more)); err != nil {
				return err
			}
			p99, err := r.poisonPhase(ctx, name+"0", bad)
			if err != nil {
				return err
			}
			if bad {
				ill = append(ill, p99)
			} else {
				clean = append(clean, p99)
			}
			process.Say("poison: run %d, 1 %% poison keys: %v: p99 of healthy keys %.1f ms", run+1, bad, p99)
			if err := r.stop(); err != nil {
				return err
			}
		}
	}
	ratio := median(ill) / median(clean)
	r.found("p99 of healthy keys beside 1 % poison", "≤ +10 %", ratio <= 1.1, "%+.0f %%: %s against %s ms", 100*(ratio-1), spread(ill, "%.1f"), spread(clean, "%.1f"))
	return nil
}

func (r *rig) poisonPhase(ctx context.Context, name string, bad bool) (p99 float64, err error) {
	w, err := r.write(ctx, liveRate, liveEach)
	if err != nil {
		return 0, err
	}
	if err := wait(ctx, keys/liveRate*time.Second+4*time.Second); err != nil { // by then the keys are parked
		return 0, err
	}
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
	p99 = percentile(all[0].Micros, 0.99)
	if !bad {
		return p99, w.end()
	}
	parked := uint32(0)
	for _, s := range r.leat.Status(ctx).GetSubscriptions() {
		if s.Name == name {
			parked = uint32(s.Parked)
		}
	}
	if err := r.become(ctx, map[int]behaviour{0: {}}); err != nil {
		return 0, err
	}
	redrive := exec.CommandContext(ctx, r.o.leat, "redrive", name, "--all", "-c", filepath.Join(r.folder, "leat.yaml"))
	if out, err := redrive.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("redrive: %w: %s", err, out)
	}
	if err := wait(ctx, time.Second); err != nil {
		return 0, err
	}
	if err := w.end(); err != nil {
		return 0, err
	}
	took, err := r.complete(ctx, 2*time.Minute, 0)
	if err != nil {
		return 0, err
	}
	r.found("redriven after the cure", "each key's sequence as without the fault", parked > 0, "%d keys were parked; all complete and in order %.1f s after the writing ended", parked, took.Seconds())
	return p99, nil
}
