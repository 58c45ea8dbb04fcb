package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// largeRate is how many small transactions there are in a second beside the large one.
const largeRate = 100

// large measures one transaction of so many rows, which a subscriber gets, while small ones of another table go to a
// second subscriber: Leat's memory, and how long the small ones take while the large one runs and behind its commit.
func (b *bench) large(ctx context.Context, w *workload, run string) error {
	folder := filepath.Join(b.o.dir, b.name+"-"+run)
	defer os.RemoveAll(folder)
	w.pace = b.o.pace
	begin, err := b.db.large(ctx, w, b.o.large)
	if err != nil {
		return err
	}
	if err := b.alone(ctx, w, begin); err != nil {
		return fmt.Errorf("the server alone: %w", err)
	}
	c, err := process.StartChild(ctx, "webhook-receiver", "-beat")
	if err != nil {
		return err
	}
	var hook heard
	if err := c.Next(&hook); err != nil {
		return errors.Join(err, c.Stop(nil))
	}
	schema := strings.TrimSuffix(w.table, "."+w.name)
	subs := fmt.Sprintf("  beats:\n    source: bench\n    tables: [%q]\n    deliver: {webhook: {url: %q, secret: %q}}\n  rows:\n    source: bench\n    tables: [%q]\n    batch: {events: 500}\n    deliver: {pull: {}}\n",
		w.table, hook.Addr, secret, schema+".large")
	yaml, undo, err := b.db.source(ctx, w, run, true)
	if err != nil {
		return errors.Join(err, c.Stop(nil))
	}
	yaml = strings.Replace(yaml, fmt.Sprintf("[%q]", w.table), fmt.Sprintf("[%q, %q]", w.table, schema+".large"), 1)
	s, err := b.launch(ctx, run, folder, yaml, subs)
	if err != nil {
		return errors.Join(err, c.Stop(nil), undo(ctx))
	}
	err = s.WaitFor(ctx, "the source to stream", func(st *leatv1.StatusResponse) bool {
		return len(st.Sources) == 1 && st.Sources[0].State == "streaming" && len(st.Subscriptions) == 2
	})
	var from, to time.Time
	if err == nil {
		from, to, err = b.whole(ctx, w, s, begin)
	}
	b.spent(ctx, "Leat")
	cpu := s.CPU()
	peak, stopErr := s.Stop()
	err = errors.Join(err, stopErr, c.Stop(&hook), undo(context.WithoutCancel(ctx)))
	if err != nil {
		return err
	}
	during, behind := hook.parted(to)
	b.record("large", peakMemory, float64(peak)/(1<<20))
	process.Say("%s: large: %d rows in %.1f s, %d MiB of memory with %s, %.1f s of CPU", b.name, b.o.large, to.Sub(from).Seconds(), peak>>20, b.o.memory, cpu.Seconds())
	b.delay("beside a large transaction", during, nil)
	b.delay("behind its commit", behind, nil)
	return nil
}

// whole runs the large transaction beside beats until Leat has delivered both.
func (b *bench) whole(ctx context.Context, w *workload, s *process.Server, begin func(context.Context) (commit func() error, err error)) (from, to time.Time, err error) {
	rows, err := process.StartChild(ctx, "pull-subscribers", "-addr", s.Addr, "-subscriptions", "rows", "-events", fmt.Sprint(b.o.large))
	if err != nil {
		return from, to, err
	}
	from, to, err = b.beside(ctx, w, rows, begin)
	if err = errors.Join(err, rows.Stop(nil)); err == nil {
		err = s.WaitFor(ctx, "the beats", func(st *leatv1.StatusResponse) bool {
			return len(st.Sources) == 1 && len(st.Subscriptions) == 2 && st.Subscriptions[0].Low >= st.Sources[0].Next && st.Subscriptions[1].Low >= st.Sources[0].Next
		})
	}
	return from, to, err
}

// beside runs the large transaction, with beats while it runs and until its rows have come, as their reader says; it
// returns when it began and when its commit was asked for.
func (b *bench) beside(ctx context.Context, w *workload, rows *process.Child, begin func(context.Context) (commit func() error, err error)) (from, to time.Time, err error) {
	insert, end, err := b.db.writer(ctx, w.name)
	if err != nil {
		return from, to, err
	}
	defer func() { err = errors.Join(err, end()) }()
	done, beats := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Second / largeRate)
		defer tick.Stop()
		for id := time.Now().UnixNano(); ; id++ {
			select {
			case <-done:
				beats <- nil
				return
			case <-tick.C:
			}
			if err := insert(id, time.Now().UnixMicro()); err != nil {
				beats <- err
				return
			}
		}
	}()
	from = time.Now()
	commit, err := begin(ctx)
	to = time.Now()
	if err == nil {
		err = commit()
	}
	var h heard
	if err == nil {
		err = rows.Next(&h)
	}
	close(done)
	return from, to, errors.Join(err, <-beats)
}
