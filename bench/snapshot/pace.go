package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// loaders share the load's transactions.
const loaders = 4

// beats a second are inserted for the stream's latency.
const beats = 100

// measures of the phases that are alike: how long queries and the stream took, in milliseconds.
type measures struct {
	mu              sync.Mutex
	queries, stream []float64
}

// paced measures what a backfill at the default pace costs others, in phases with and without it by turns.
func paced(ctx context.Context, b *bench) (err error) {
	const name = "pace"
	folder := filepath.Join(b.o.dir, b.name+"-"+name)
	defer os.RemoveAll(folder)
	subs := fmt.Sprintf("  beats: {source: bench, tables: [%q], from: latest, deliver: {pull: {}}}\n  rows: {source: bench, tables: [%q], from: latest, deliver: {pull: {}}}\n", b.db.schema+".beat", b.db.schema+".files")
	s, err := process.Start(ctx, b.leat, folder, "512MiB", b.db.source(name, "{mode: none}", "beat", "files"), subs, "")
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped {
			_, _ = s.Kill() // it failed already
		}
	}()
	err = s.WaitFor(ctx, "the source to stream", func(st *leatv1.StatusResponse) bool {
		return len(st.Sources) == 1 && st.Sources[0].State == "streaming" && len(st.Subscriptions) == 2
	})
	if err != nil {
		return err
	}
	var phase [2]measures // without and with a backfill
	var now atomic.Int32
	var off atomic.Bool // between phases nothing counts
	working, end := context.WithCancel(ctx)
	var join sync.WaitGroup
	defer join.Wait()
	defer end()
	errs := make(chan error, loaders+1)
	note := func(into func(*measures)) {
		if m := &phase[now.Load()]; !off.Load() {
			m.mu.Lock()
			into(m)
			m.mu.Unlock()
		}
	}
	rows := &watcher{name: "rows", column: "v", came: func(*leatv1.Event, int64) {}}
	stream := &watcher{name: "beats", column: "sent", came: func(_ *leatv1.Event, sent int64) {
		d := float64(time.Now().UnixMicro()-sent) / 1000
		note(func(m *measures) { m.stream = append(m.stream, d) })
	}}
	join.Go(func() { rows.follow(working, s.Addr) })
	join.Go(func() { stream.follow(working, s.Addr) })
	for i := range loaders {
		join.Go(func() {
			errs <- b.load(working, i, func(d float64) { note(func(m *measures) { m.queries = append(m.queries, d) }) })
		})
	}
	join.Go(func() { errs <- b.beat(working) })
	done, err := b.phases(ctx, s, &now, &off)
	end()
	for range loaders + 1 {
		err = errors.Join(err, <-errs)
	}
	stopped = true
	_, stopErr := s.Stop()
	join.Wait()
	if err = errors.Join(err, stopErr, b.db.drop(context.WithoutCancel(ctx), name)); err != nil {
		return err
	}
	p95, with := quantile(phase[0].queries, 0.95), quantile(phase[1].queries, 0.95)
	b.add(with <= 1.1*p95, fmt.Sprintf("queries' p95 beside a backfill, %d tx/s", b.o.rate), "≤ 1.10 ×", fmt.Sprintf("%.2f × (%.2f ms, without %.2f)", with/p95, with, p95), with, p95)
	p99, with := quantile(phase[0].stream, 0.99), quantile(phase[1].stream, 0.99)
	b.add(with <= 2*p99, "stream's p99 beside a backfill", "≤ 2.00 ×", fmt.Sprintf("%.2f × (%.1f ms, without %.1f)", with/p99, with, p99), with, p99)
	rate := float64(done) / (float64(b.o.runs) * b.o.phase.Seconds())
	b.add(rate > 0, "rows a second of that backfill", "> 0", fmt.Sprintf("%.0f", rate), rate)
	return nil
}

// phases lets a backfill run and rest by turns; it returns how many rows it brought.
func (b *bench) phases(ctx context.Context, s *process.Server, now *atomic.Int32, off *atomic.Bool) (done uint64, err error) {
	admin := leatv1connect.NewAdminServiceClient(httpClient(ctx), s.Addr)
	wait := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	wait(2 * time.Second)
	job := ""
	at := func() (rows uint64, state string) {
		r, err := admin.Jobs(ctx, connect.NewRequest(&leatv1.JobsRequest{Ended: true}))
		if err != nil {
			return 0, ""
		}
		for _, j := range r.Msg.Jobs {
			if j.Id == job {
				return j.Done, j.State
			}
		}
		return 0, ""
	}
	for n := range 2 * b.o.runs {
		off.Store(true)
		now.Store(int32(n % 2))
		before := uint64(0)
		if n%2 == 1 {
			rows, state := at()
			if before = rows; state == "paused" {
				_, err = admin.ResumeJob(ctx, connect.NewRequest(&leatv1.ResumeJobRequest{Id: job}))
			} else { // the first, or the last one has come to its end
				before = 0
				var r *connect.Response[leatv1.BackfillResponse]
				if r, err = admin.Backfill(ctx, connect.NewRequest(&leatv1.BackfillRequest{Subscription: "rows"})); err == nil {
					job = r.Msg.GetJob().GetId()
				}
			}
		}
		if err != nil || ctx.Err() != nil {
			return done, errors.Join(err, ctx.Err())
		}
		wait(time.Second)
		off.Store(false)
		wait(b.o.phase)
		off.Store(true)
		if n%2 == 0 {
			continue
		}
		rows, state := at()
		if done += rows - before; state == "running" || state == "waiting" {
			if _, err := admin.PauseJob(ctx, connect.NewRequest(&leatv1.PauseJobRequest{Id: job})); err != nil {
				return done, err
			}
		} else {
			process.Say("%s: pace: the backfill ended within its phase: more -rows make the phases alike", b.name)
		}
	}
	return done, nil
}

// load is one of the loaders: transactions that read and change a row, as pgbench's do, at a steady rate.
func (b *bench) load(ctx context.Context, seed int, took func(ms float64)) error {
	c, err := b.db.session(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	r := rand.New(rand.NewPCG(uint64(seed), 3))
	tick := time.NewTicker(loaders * time.Second / time.Duration(b.o.rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		id := 1 + r.IntN(min(100_000, b.o.rows))
		began := time.Now()
		for _, q := range []string{"begin", fmt.Sprintf("update accounts set v = v + 1 where id = %d", id), fmt.Sprintf("select v from accounts where id = %d", id), "commit"} {
			if err := c.exec(context.WithoutCancel(ctx), q); err != nil {
				return fmt.Errorf("%s: %w", q, err)
			}
		}
		took(float64(time.Since(began).Microseconds()) / 1000)
	}
}

func (b *bench) beat(ctx context.Context) error {
	c, err := b.db.session(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	tick := time.NewTicker(time.Second / beats)
	defer tick.Stop()
	for id := time.Now().UnixNano(); ; id++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := c.exec(context.WithoutCancel(ctx), fmt.Sprintf("insert into beat values (%d, %d)", id, time.Now().UnixMicro())); err != nil {
			return err
		}
	}
}
