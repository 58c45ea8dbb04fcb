package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// parkedSubs subscriptions have parkedEach keys parked, the most that one may have.
const parkedSubs, parkedEach = 50, 10_000

// parks compares Leat with half a million parked keys to the same Leat with none: its start, its memory, and how its
// first subscription brings keys that are not parked. The others' filter leaves nothing, so that they cost the same.
func parks(ctx context.Context, r *rig) error {
	if err := r.become(ctx, map[int]behaviour{0: {Reset: true}}); err != nil {
		return err
	}
	all := append(subs("parks", 0, 1, "    from: latest\n    batch: {events: 20}\n"), subs("parks", 1, parkedSubs, "    from: latest\n    filter: op == \"delete\"\n")...)
	for i := range all {
		all[i].to %= receivers
	}
	if err := r.start(ctx, "", all); err != nil {
		return err
	}
	if err := r.stop(); err != nil { // now there are cursors
		return err
	}
	held, err := r.halfAMillion(ctx)
	if err != nil {
		return err
	}
	var found [2]parksFound
	for run := range r.o.runs {
		for with := range 2 {
			if err := r.setParks(ctx, held, with == 1); err != nil {
				return err
			}
			if err := r.parksPhase(ctx, all, with == 1, &found[with]); err != nil {
				return err
			}
			f := &found[with]
			process.Say("parks: run %d, parked: %v: start %.2f s, %.0f MiB, p50 %.1f, p99 %.1f ms, %.1f %% of a core", run+1, with == 1, f.start[run], f.memory[run], f.p50[run], f.p99[run], f.cpu[run])
		}
	}
	without, with := &found[0], &found[1]
	half, ratio := median(with.p50)/median(without.p50), median(with.p99)/median(without.p99)
	r.found("p50 of healthy keys beside 500,000 parked", "≤ +10 %", half <= 1.1, "%+.0f %%: %s against %s ms", 100*(half-1), spread(with.p50, "%.1f"), spread(without.p50, "%.1f"))
	r.found("p99 of healthy keys beside 500,000 parked", "≤ +10 %", ratio <= 1.1, "%+.0f %%: %s against %s ms", 100*(ratio-1), spread(with.p99, "%.1f"), spread(without.p99, "%.1f"))
	r.found("CPU of it", "≤ +10 %", median(with.cpu) <= 1.1*median(without.cpu), "%s against %s %% of a core", spread(with.cpu, "%.1f"), spread(without.cpu, "%.1f"))
	more := median(with.memory) - median(without.memory)
	r.found("memory of 500,000 parks", "≤ 200 bytes each: 95 MiB", more <= 95, "%.0f MiB: %s against %s anonymous", more, spread(with.memory, "%.0f"), spread(without.memory, "%.0f"))
	r.found("start with them, until all subscriptions run", "≤ +3 s of CPU", median(with.busy) <= median(without.busy)+3, "%s against %s s, of them %s against %s s of CPU",
		spread(with.start, "%.2f"), spread(without.start, "%.2f"), spread(with.busy, "%.2f"), spread(without.busy, "%.2f"))
	r.found("leat parked --json of one", "≤ 3 s", median(with.list) <= 3, "%s s for 100 of 10,000, counted through %d events", spread(with.list, "%.2f"), r.o.rows)
	return nil
}

type parksFound struct{ start, busy, memory, p50, p99, cpu, list []float64 }

func (r *rig) parksPhase(ctx context.Context, all []sub, parked bool, f *parksFound) error {
	if err := r.start(ctx, "", all); err != nil {
		return err
	}
	if err := r.leat.WaitFor(ctx, "all subscriptions to run", func(st *leatv1.StatusResponse) bool {
		return len(st.Subscriptions) == parkedSubs && !slices.ContainsFunc(st.Subscriptions, func(s *leatv1.SubscriptionStatus) bool {
			return s.State != "running" || parked != (s.Parked == parkedEach)
		})
	}); err != nil {
		return err
	}
	f.start, f.busy = append(f.start, seconds(r.leat.Started)), append(f.busy, r.leat.CPU().Seconds())
	if len(f.start) == 1 && !parked {
		if err := r.fill(ctx, max(r.o.rows, 2*keys)); err != nil { // what parked keys are looked for in; each key is changed
			return err
		}
	}
	if _, err := r.complete(ctx, 2*time.Minute, 0); err != nil {
		return err
	}
	w, err := r.write(ctx, liveRate, liveEach)
	if err != nil {
		return err
	}
	if err := wait(ctx, 4*time.Second); err != nil {
		return err
	}
	if _, err := r.tallies(ctx, true); err != nil {
		return err
	}
	used, begin := r.leat.CPU(), time.Now()
	if err := wait(ctx, r.o.phase); err != nil {
		return err
	}
	f.cpu = append(f.cpu, 100*(r.leat.CPU()-used).Seconds()/seconds(begin))
	f.memory = append(f.memory, float64(r.leat.Anonymous())/(1<<20))
	tallies, err := r.tallies(ctx, true)
	if err != nil {
		return err
	}
	slices.Sort(tallies[0].Micros)
	f.p50, f.p99 = append(f.p50, percentile(tallies[0].Micros, 0.5)), append(f.p99, percentile(tallies[0].Micros, 0.99))
	if err := w.end(); err != nil {
		return err
	}
	if _, err := r.complete(ctx, time.Minute, 0); err != nil {
		return err
	}
	if parked {
		if err := r.listParks(ctx, f); err != nil {
			return err
		}
	}
	return r.stop()
}

func (r *rig) listParks(ctx context.Context, f *parksFound) error {
	begin := time.Now()
	out, err := exec.CommandContext(ctx, r.o.leat, "parked", "parks0", "--json", "-c", filepath.Join(r.folder, "leat.yaml")).Output()
	if err != nil {
		return fmt.Errorf("leat parked: %w", err)
	}
	f.list = append(f.list, seconds(begin))
	var doc struct{ Parked []any }
	if err := json.Unmarshal(out, &doc); err != nil || len(doc.Parked) != 100 {
		return fmt.Errorf("leat parked lists %d keys, 100 are asked for: %w", len(doc.Parked), err)
	}
	return nil
}

// halfAMillion makes the parks: each begins where its subscription's cursor stands, and has its dead letter.
func (r *rig) halfAMillion(ctx context.Context) (held [][]pipeline.Park, err error) {
	err = r.state(ctx, func(s *state.Store) error {
		for i := range parkedSubs {
			name := fmt.Sprintf("parks%d", i)
			cur, ok, err := s.Load(ctx, name)
			if err != nil || !ok {
				return fmt.Errorf("subscription %s has no cursor: %w", name, err)
			}
			list, letters := make([]pipeline.Park, parkedEach), make([]pipeline.DeadLetter, parkedEach)
			for n := range list {
				id := 1_000_000 + n
				p := pipeline.Park{Subscription: name, Log: cur.Log, Space: "public.beat", Key: fmt.Appendf(nil, "\x17%d", id), KeyJSON: fmt.Sprintf(`{"id":%d}`, id),
					Hash: uint64(i*parkedEach+n+1) * 0x9e3779b97f4a7c15, From: cur.Low + pipeline.Offset(n), Attempts: 12, Since: time.Now(),
					Reason: fmt.Sprintf("given up after 12 attempts in 27m13s: 500 Internal Server Error of %d", n)}
				list[n] = p
				letters[n] = pipeline.DeadLetter{Subscription: name, ID: pipeline.EventID("bench", p.From), Offset: p.From, Table: "public.beat", Key: p.Key, KeyJSON: p.KeyJSON,
					Reason: p.Reason, Time: p.Since, Event: fmt.Appendf(nil, `{"subject":"public.beat","partitionkey":"[%d]","data":{"key":{"id":%d},"after":{"id":%d,"n":1,"sent":0}}}`, id, id, id)}
			}
			if err := s.PutDeadLetters(ctx, letters); err != nil {
				return err
			}
			held = append(held, list)
		}
		return nil
	})
	return held, err
}

func (r *rig) setParks(ctx context.Context, held [][]pipeline.Park, parked bool) error {
	return r.state(ctx, func(s *state.Store) error {
		set := s.DeleteParks
		if parked {
			set = s.PutParks
		}
		for _, list := range held {
			if err := set(ctx, list); err != nil {
				return err
			}
		}
		return nil
	})
}

// state of Leat, which is stopped.
func (r *rig) state(ctx context.Context, f func(*state.Store) error) error {
	s, err := state.Open(ctx, filepath.Join(r.folder, "data", "state.db"))
	if err != nil {
		return err
	}
	return errors.Join(f(s), s.Close())
}
