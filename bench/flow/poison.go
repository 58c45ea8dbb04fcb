package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// poisonEvery is how rare poison keys are: one in a hundred.
const poisonEvery = 100

// poison lets requests with one key in a hundred fail, and by turns mends the cause and redrives them: while they are
// parked, the others' latency is compared with that while there is no trouble.
func poison(ctx context.Context, r *rig) error {
	const name = "poison0"
	if err := r.become(ctx, map[int]behaviour{0: {Reset: true}}); err != nil {
		return err
	}
	if err := r.start(ctx, "", subs("poison", 0, 1, "    from: latest\n    batch: {events: 20}\n    retry: {initial: 100ms, max: 500ms, attempts: 3}\n")); err != nil {
		return err
	}
	w, err := r.write(ctx, liveRate, liveEach)
	if err != nil {
		return err
	}
	if err := wait(ctx, keys/liveRate*time.Second+time.Second); err != nil { // each key has had its first
		return err
	}
	redriven := 0
	err = r.alternateLatencies(ctx, pairsPerRun*r.o.runs, "healthy keys beside 1 % poison", func(ctx context.Context, with bool) (latency, error) {
		if !with {
			return r.piece(ctx, 0)
		}
		if err := r.sicken(ctx, name); err != nil {
			return latency{}, err
		}
		redriven += keys / poisonEvery
		took, err := r.piece(ctx, 0)
		if err != nil {
			return latency{}, err
		}
		process.Say("poison: p99 of healthy keys %.1f ms beside %d parked", took.p99, keys/poisonEvery)
		return took, r.cure(ctx, name)
	}, func() string { return "" })
	if err != nil {
		return err
	}
	if err := w.end(); err != nil {
		return err
	}
	took, err := r.complete(ctx, 2*time.Minute, 0)
	if err != nil {
		return err
	}
	r.found("redriven after the cure", "each key's sequence as without the fault", true, "%d times a key was parked and redriven; all complete and in order %.1f s after the writing ended", redriven, took.Seconds())
	return nil
}

// sicken makes the poison keys fail, and waits until all of them are parked.
func (r *rig) sicken(ctx context.Context, name string) error {
	if err := r.become(ctx, map[int]behaviour{0: {Kind: "poison", Every: poisonEvery}}); err != nil {
		return err
	}
	if err := r.exec(ctx, fmt.Sprintf("update beat set n = n + 1, sent = 0 where id %% %d = 0", poisonEvery)); err != nil {
		return err
	}
	if err := r.untilParked(ctx, name, keys/poisonEvery); err != nil {
		return err
	}
	return wait(ctx, time.Second) // cursors, parks and dead letters are written
}

// cure makes them well, redrives them and waits until none is parked.
func (r *rig) cure(ctx context.Context, name string) error {
	if err := r.become(ctx, map[int]behaviour{0: {}}); err != nil {
		return err
	}
	redrive := exec.CommandContext(ctx, r.o.leat, "redrive", name, "--all", "-c", filepath.Join(r.folder, "leat.yaml"))
	if out, err := redrive.CombinedOutput(); err != nil {
		return fmt.Errorf("redrive: %w: %s", err, out)
	}
	if err := r.untilParked(ctx, name, 0); err != nil {
		return err
	}
	return wait(ctx, time.Second)
}

func (r *rig) untilParked(ctx context.Context, name string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return r.leat.WaitFor(ctx, fmt.Sprintf("%d parked keys", n), func(st *leatv1.StatusResponse) bool {
		for _, s := range st.Subscriptions {
			if s.Name == name {
				return int(s.Parked) == n
			}
		}
		return false
	})
}
