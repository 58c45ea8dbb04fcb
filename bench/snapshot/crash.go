package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// chunks of each pace, in rows at most, and how many may be on their way.
var chunks = map[string][2]int64{"default": {10_000, 1}, "max": {50_000, 4}}

// writing changes rows until its context ends; it counts its statements.
type writing struct {
	statements int64
	err        error
	join       sync.WaitGroup
}

func (b *bench) write(ctx context.Context) *writing {
	w := new(writing)
	w.join.Go(func() {
		c, err := b.db.session(ctx)
		if err != nil {
			w.err = err
			return
		}
		defer c.close()
		r := rand.New(rand.NewPCG(1, 2))
		tick := time.NewTicker(time.Second / time.Duration(b.o.rate))
		defer tick.Stop()
		for next := b.o.rows + 1; ; w.statements++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			id := 1 + r.IntN(b.o.rows)
			q := fmt.Sprintf("update files set v = v + 1 where id = %d", id)
			switch r.IntN(8) {
			case 0:
				q = fmt.Sprintf("delete from files where id = %d", id)
			case 1:
				q = fmt.Sprintf("insert into files (id, v, path) values (%d, 7, 'new')", next)
				next++
			}
			if err := c.exec(context.WithoutCancel(ctx), q); err != nil {
				w.err = err
				return
			}
		}
	})
	return w
}

// crash kills Leat again and again through a snapshot, while others write.
func crash(ctx context.Context, b *bench) (err error) {
	const name = "crash"
	folder := filepath.Join(b.o.dir, b.name+"-"+name)
	defer os.RemoveAll(folder)
	source := b.db.source(name, "{mode: initial, pace: "+b.o.pace+"}", "files")
	sub := "  copy:\n    source: bench\n    from: earliest\n    batch: {events: 500}\n    deliver: {pull: {}}\n"
	w := &watcher{name: "copy", column: "v"}
	before, err := b.db.read(ctx)
	if err != nil {
		return err
	}
	writes, stop := context.WithCancel(ctx)
	defer stop()
	load := b.write(writes)
	defer load.join.Wait()
	defer stop()
	began, kills := time.Now(), 0
	var s *process.Server
	for done := false; !done; {
		if s, err = process.Start(ctx, b.leat, folder, "512MiB", source, sub, ""); err != nil {
			return err
		}
		following, end := context.WithCancel(ctx)
		var join sync.WaitGroup
		join.Go(func() { w.follow(following, s.Addr) })
		if done, err = b.until(ctx, s); !done {
			_, killErr := s.Kill()
			err = errors.Join(err, killErr)
			kills++
		} else {
			stop()
			load.join.Wait()
			process.Say("%s: crash: the snapshot has ended after %d kills, %.0f s", b.name, kills, time.Since(began).Seconds())
			if err = b.caughtUp(ctx, s); err == nil {
				err = b.compare(ctx, w, kills, load.statements, before)
			}
		}
		end()
		if done && err == nil {
			_, err = s.Stop()
		} else if done {
			_, _ = s.Kill() // err says what was wrong
		}
		join.Wait()
		if err != nil {
			return err
		}
	}
	return errors.Join(load.err, b.db.drop(context.WithoutCancel(ctx), name))
}

// until waits for the snapshot's end, for as long as Leat may live.
func (b *bench) until(ctx context.Context, s *process.Server) (done bool, err error) {
	admin := leatv1connect.NewAdminServiceClient(httpClient(ctx), s.Addr)
	at := ""
	for end := time.Now().Add(b.o.every); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case err := <-s.Ended:
			s.Ended <- err
			return false, fmt.Errorf("leat ended: %v\n%s", err, s.Said())
		case <-time.After(50 * time.Millisecond):
		}
		r, err := admin.Jobs(ctx, connect.NewRequest(&leatv1.JobsRequest{Ended: true}))
		if err != nil {
			continue // it starts
		}
		for _, j := range r.Msg.Jobs {
			at = fmt.Sprintf("%d rows, %s %s", j.Done, j.State, j.Reason)
			switch {
			case j.State == "failed":
				return false, errors.New("the snapshot failed: " + j.Reason)
			case j.State == "done":
				return true, nil
			}
		}
	}
	if at == "" {
		at = "it did not answer: " + s.Said()
	}
	process.Say("%s: crash: killed at %s", b.name, at)
	return false, nil
}

// caughtUp waits until the subscriber has all that was written.
func (b *bench) caughtUp(ctx context.Context, s *process.Server) error {
	if err := b.db.exec(ctx, "insert into files (id, v, path) values (0, 1, 'last')"); err != nil {
		return err
	}
	var last uint64
	still := 0
	return s.WaitFor(ctx, "the subscriber to have everything", func(st *leatv1.StatusResponse) bool {
		if len(st.Sources) != 1 || len(st.Subscriptions) != 1 || st.Subscriptions[0].Low < st.Sources[0].Next || st.Sources[0].Next != last {
			still = 0
			if len(st.Sources) == 1 {
				last = st.Sources[0].Next
			}
			return false
		}
		still++
		return still > 100 // two seconds without a change
	})
}

// compare looks at each row of the source and of the subscriber's copy.
func (b *bench) compare(ctx context.Context, w *watcher, kills int, statements, before int64) error {
	if b.db.postgres { // its statistics come a little later
		time.Sleep(2 * time.Second)
	}
	after, err := b.db.read(ctx)
	if err != nil {
		return err
	}
	c, err := b.db.session(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	w.mu.Lock()
	defer w.mu.Unlock()
	differ, n := 0, 0
	err = c.query(ctx, "select id, v from files", func(scan func(...any) error) error {
		var id, v int64
		if err := scan(&id, &v); err != nil {
			return err
		}
		if n++; int(id) >= len(w.rows) || int64(w.rows[id]) != v+1 {
			differ++
			return nil
		}
		w.rows[id] = 0
		return nil
	})
	for _, v := range w.rows {
		if v != 0 {
			differ++
		}
	}
	b.add(differ == 0, fmt.Sprintf("kill -9 every %s, %d kills, %d rows, %d writes", b.o.every, kills, n, statements), "0 rows differ", fmt.Sprintf("%d rows differ", differ), float64(differ))
	most := chunks[b.o.pace]
	again := max(0, after-before-int64(b.o.rows)-statements)
	bound := int64(kills) * most[0] * most[1]
	b.add(again <= bound, fmt.Sprintf("rows read again, pace %s", b.o.pace), fmt.Sprintf("≤ %d: %d chunk(s) a kill", bound, most[1]),
		fmt.Sprintf("%d (%d a kill)", again, again/max(1, int64(kills))), float64(again))
	return err
}
