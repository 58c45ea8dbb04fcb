package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// load makes the database busy beyond what `load: {max_active: 5}` allows, and looks at how soon Leat gives way, and
// how soon it comes back.
func load(ctx context.Context, r *rig) error {
	if err := r.start(ctx, "    load: {max_active: 5}\n", subs("load", 0, 1, "    from: latest\n")); err != nil {
		return err
	}
	pressure := &chart{Title: "load: {max_active: 5}", Unit: "sessions; share", Lines: []*series{{Name: "sessions at work"}, {Name: "snapshots and replays, × 10"}, {Name: "log reading, × 10"}}}
	var shed, back, reading float64 = -1, -1, 1
	var busyAt, calmAt float64 = -1, -1
	watch := r.sample(ctx, func(at float64, _ []tally, st *leatv1.StatusResponse) {
		p := st.Sources[0].GetPressure()
		if p == nil {
			return
		}
		pressure.Lines[0].add(at, float64(p.GetActiveSessions()))
		pressure.Lines[1].add(at, 10*max(p.Snapshot, p.Replay))
		pressure.Lines[2].add(at, 10*p.Reading)
		if busyAt >= 0 && shed < 0 && p.Replay == 0 && p.Snapshot == 0 {
			shed = at - busyAt
		}
		if calmAt >= 0 && back < 0 && p.Replay == 1 && p.Snapshot == 1 {
			back = at - calmAt
		}
		if p.Danger {
			reading = min(reading, p.Reading)
		}
	})
	if err := wait(ctx, 3*time.Second); err != nil {
		return err
	}
	stop, err := r.busy(ctx, 12)
	if err != nil {
		return err
	}
	busyAt = seconds(watch.begin)
	pressure.Marks = append(pressure.Marks, mark{busyAt, "12 sessions at work"})
	if err := wait(ctx, max(10*time.Second, r.o.phase)); err != nil {
		return err
	}
	if err := stop(); err != nil {
		return err
	}
	calmAt = seconds(watch.begin)
	pressure.Marks = append(pressure.Marks, mark{calmAt, "calm"})
	if err := wait(ctx, 20*time.Second); err != nil {
		return err
	}
	if err := watch.end(); err != nil {
		return err
	}
	r.found("what may be shed stops, max_active breached", "≤ 3 s", shed >= 0 && shed <= 3, "after %.1f s", shed)
	r.found("and resumes once calm", "≤ 15 s", back >= 0 && back <= 15, "after %.1f s", back)
	r.found("log reading while retention is in danger", "never stops", reading > 0, "share %.2f at least", reading)
	return r.draw(pressure)
}

// busy keeps so many sessions at work until it is told to stop.
func (r *rig) busy(ctx context.Context, n int) (stop func() error, err error) {
	inner, cancel := context.WithCancel(ctx)
	done := make(chan error, n)
	for range n {
		conn, err := pgx.Connect(ctx, r.db.URL)
		if err != nil {
			cancel()
			return nil, err
		}
		go func() {
			for inner.Err() == nil {
				// Sorting keeps a session "active" as a real query does; its own CPU share is what is left over.
				if _, err := conn.Exec(ctx, "select count(*) from (select md5(g::text) from generate_series(1, 20000) g order by 1) x"); err != nil {
					done <- err
					return
				}
			}
			done <- conn.Close(context.WithoutCancel(ctx))
		}()
	}
	return func() error {
		cancel()
		var first error
		for range n {
			if err := <-done; first == nil {
				first = err
			}
		}
		return first
	}, nil
}
