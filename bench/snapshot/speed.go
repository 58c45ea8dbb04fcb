package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// speed reads the whole table with pace max, by turns with the database's own client.
func speed(ctx context.Context, b *bench) error {
	var ratios, ours, theirs []float64
	for i := range b.o.runs {
		cmd, err := b.db.own(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := cmd.Run(); err != nil { // into nothing
			return fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
		}
		theirs = append(theirs, float64(b.o.rows)/time.Since(began).Seconds())
		rate, err := b.whole(ctx, i)
		if err != nil {
			return err
		}
		ours, ratios = append(ours, rate), append(ratios, rate/theirs[i])
		process.Say("%s: speed, run %d: its own client %.0f rows/s, leat %.0f rows/s (%.2f)", b.name, i+1, theirs[i], rate, ratios[i])
	}
	all := append([]float64(nil), ratios...)
	m := quantile(ratios, 0.5)
	b.add(m >= 0.6, fmt.Sprintf("pace max, %d rows, × its own client", b.o.rows), "≥ 0.60",
		fmt.Sprintf("%.2f (%.2f–%.2f; %.0f rows/s, its client %.0f)", m, ratios[0], ratios[len(ratios)-1], quantile(ours, 0.5), quantile(theirs, 0.5)), all...)
	return nil
}

// whole is one snapshot of the table, into the log: rows a second from the first that came.
func (b *bench) whole(ctx context.Context, run int) (rate float64, err error) {
	name := fmt.Sprintf("speed_%d", run)
	folder := filepath.Join(b.o.dir, b.name+"-"+name)
	defer os.RemoveAll(folder)
	profile := ""
	if b.o.profile != "" {
		profile, _ = filepath.Abs(filepath.Join(b.o.profile, b.name+"-"+name+".pprof")) // fails only where the working folder is gone
	}
	s, err := process.Start(ctx, b.leat, folder, "512MiB", b.db.source(name, "{mode: initial, pace: max}", "files"), "", profile)
	if err != nil {
		return 0, err
	}
	var first time.Time
	before, rows := uint64(0), uint64(0)
	err = s.WaitFor(ctx, "the snapshot", func(st *leatv1.StatusResponse) bool {
		if len(st.Sources) == 1 {
			rows = st.Sources[0].Next - st.Sources[0].Oldest
		}
		if first.IsZero() && rows > 0 {
			first, before = time.Now(), rows
		}
		return rows >= uint64(b.o.rows)
	})
	took := time.Since(first)
	cpu := s.CPU()
	peak, stopErr := s.Stop()
	process.Say("%s: %.2f µs CPU a row, %d MiB", b.name, float64(cpu.Microseconds())/float64(b.o.rows), peak>>20)
	return float64(rows-before) / took.Seconds(), errors.Join(err, stopErr, b.db.drop(context.WithoutCancel(ctx), name))
}
