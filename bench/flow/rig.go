package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

const (
	receivers = 16
	keys      = 5000
	memory    = "512MiB"
	// secret of the webhooks: a key that everybody knows.
	secret = "whsec_bGVhdC1iZW5jaC1sZWF0LWJlbmNoLWxlYXQtYmVuY2g="
)

// rig is what an experiment stands on: a PostgreSQL with the table beat (a key, a counter of its changes, when
// they were sent), a process of receivers, and Leat between them.
type rig struct {
	o      options
	report *report
	name   string
	db     *servers.Server
	conn   *pgx.Conn
	child  *process.Child
	addr   string // of the receivers
	memory string // Leat's budget
	leat   *process.Server
	folder string
	ends   []func()
}

func newRig(ctx context.Context, o options, rep *report, name string) (r *rig, err error) {
	r = &rig{o: o, report: rep, name: name, memory: memory, folder: filepath.Join(o.dir, name)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close(context.WithoutCancel(ctx)))
		}
	}()
	if r.db, err = servers.Postgres(ctx, servers.PostgresOptions{Say: func(s string) { process.Say("%s", s) }}); err != nil {
		return r, err
	}
	if r.conn, err = pgx.Connect(ctx, r.db.URL); err != nil {
		return r, err
	}
	if err := r.exec(ctx, "create table beat(id bigint primary key, n bigint, sent bigint) with (fillfactor = 50)",
		fmt.Sprintf("insert into beat select g, 1, 0 from generate_series(1, %d) g", keys)); err != nil {
		return r, err
	}
	if r.child, err = process.StartChild(ctx, "receivers", "-n", fmt.Sprint(receivers)); err != nil {
		return r, err
	}
	var first struct{ Addr string }
	err = r.child.Next(&first)
	r.addr = first.Addr
	return r, err
}

func (r *rig) close(ctx context.Context) error {
	var errs []error
	errs = append(errs, r.stop())
	for _, end := range r.ends {
		end()
	}
	if r.child != nil {
		errs = append(errs, r.child.Stop(nil))
	}
	if r.conn != nil {
		errs = append(errs, r.conn.Close(ctx))
	}
	if r.db != nil {
		errs = append(errs, r.db.Stop(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(r.folder))...)
}

func (r *rig) exec(ctx context.Context, statements ...string) error {
	for _, q := range statements {
		if _, err := r.conn.Exec(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

// sub is a subscription; sub i posts to receiver i.
type sub struct {
	name string
	to   int
	more string // lines of YAML
}

func subs(prefix string, from, to int, more string) []sub {
	var all []sub
	for i := from; i < to; i++ {
		all = append(all, sub{fmt.Sprintf("%s%d", prefix, i), i, more})
	}
	return all
}

// start runs Leat over the experiment's folder; what the folder holds goes on.
func (r *rig) start(ctx context.Context, source string, subs []sub) (err error) {
	source = fmt.Sprintf("    postgres: {url: %q}\n    tables: [\"public.beat\"]\n", r.db.URL) + source
	var yaml strings.Builder
	for _, s := range subs {
		fmt.Fprintf(&yaml, "  %s:\n    source: bench\n    deliver: {webhook: {url: \"%s/%d\", secret: %q, timeout: 5s}}\n%s", s.name, r.addr, s.to, secret, s.more)
	}
	if r.leat, err = process.Start(ctx, r.o.leat, r.folder, r.memory, source, yaml.String(), ""); err != nil {
		return err
	}
	return r.leat.WaitFor(ctx, "the source to stream", func(st *leatv1.StatusResponse) bool {
		return len(st.Sources) == 1 && st.Sources[0].State == "streaming"
	})
}

func (r *rig) stop() error {
	if r.leat == nil {
		return nil
	}
	_, err := r.leat.Stop()
	r.leat = nil
	return err
}

// fill makes a backlog of so many row changes, 100 in a transaction.
func (r *rig) fill(ctx context.Context, changes int) error {
	return r.exec(ctx, fmt.Sprintf("do $$ begin set synchronous_commit = off; for i in 0..%d loop update beat set n = n + 1, sent = 0 where id > (i*100)%%%d and id <= (i*100)%%%d+100; commit; end loop; end $$",
		changes/100-1, keys, keys))
}

// writing is a load that goes on until end is called.
type writing struct {
	stop context.CancelFunc
	done chan error
}

func (w *writing) end() error {
	w.stop()
	return <-w.done
}

// write changes so many rows a second, `each` in a transaction.
func (r *rig) write(ctx context.Context, rate float64, each int) (*writing, error) {
	conn, err := pgx.Connect(ctx, r.db.URL)
	if err != nil {
		return nil, err
	}
	inner, stop := context.WithCancel(ctx)
	w := &writing{stop, make(chan error, 1)}
	go func() {
		begin := time.Now()
		var err error
		for n := 0; inner.Err() == nil && err == nil; n += each {
			if wait := time.Until(begin.Add(time.Duration(float64(n) / rate * float64(time.Second)))); wait > 0 {
				select {
				case <-inner.Done():
					continue
				case <-time.After(wait):
				}
			}
			_, err = conn.Exec(ctx, "update beat set n = n + 1, sent = $1 where id > $2 and id <= $2 + $3", time.Now().UnixMicro(), n%keys, each)
		}
		w.done <- errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}()
	return w, nil
}

// become tells receivers how to behave.
func (r *rig) become(ctx context.Context, how map[int]behaviour) error {
	body, err := json.Marshal(how)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.addr+"/control", bytes.NewReader(body))
	if err != nil {
		return err
	}
	return ask(req, nil)
}

// tallies of all receivers.
func (r *rig) tallies(ctx context.Context, latencies bool) ([]tally, error) {
	url := r.addr + "/tally"
	if latencies {
		url += "?latencies"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	var all []tally
	return all, ask(req, &all)
}

var asking = &http.Client{Timeout: 20 * time.Second}

func ask(req *http.Request, into any) error {
	resp, err := asking.Do(req)
	if err != nil {
		return fmt.Errorf("ask the receivers: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the receivers: %s", resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// written is the sum of all keys' counters: what a complete receiver has, too.
func (r *rig) written(ctx context.Context) (sum int64, err error) {
	return sum, r.conn.QueryRow(ctx, "select sum(n)::bigint from beat").Scan(&sum)
}

// complete waits until the receivers have all that was written, and says which had gaps.
func (r *rig) complete(ctx context.Context, limit time.Duration, which ...int) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	for {
		sum, err := r.written(ctx)
		if err != nil {
			return 0, err
		}
		all, err := r.tallies(ctx, false)
		if err != nil {
			return 0, err
		}
		behind, worst := 0, int64(0)
		for _, i := range which {
			if all[i].Sum != sum {
				behind, worst = behind+1, max(worst, sum-all[i].Sum)
			}
			if all[i].Gaps > 0 {
				return 0, fmt.Errorf("receiver %d: %d keys jumped: events were lost or came out of order", i, all[i].Gaps)
			}
		}
		if behind == 0 {
			return time.Since(begin), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%d receivers lack events (the worst %d) after %s\n%s", behind, worst, limit, r.leat.Said())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// sampler looks at everything a few times a second while it runs.
type sampler struct {
	r      *rig
	begin  time.Time
	each   func(at float64, all []tally, st *leatv1.StatusResponse)
	stop   context.CancelFunc
	joined sync.WaitGroup
	err    error
}

const sampling = 250 * time.Millisecond

// sample calls each until end is called.
func (r *rig) sample(ctx context.Context, each func(at float64, all []tally, st *leatv1.StatusResponse)) *sampler {
	s := &sampler{r: r, begin: time.Now(), each: each}
	ctx, s.stop = context.WithCancel(ctx)
	s.joined.Go(func() {
		tick := time.NewTicker(sampling)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			all, err := r.tallies(ctx, false)
			st := r.leat.Status(ctx)
			if err != nil || st == nil {
				if ctx.Err() == nil && err != nil {
					s.err = err
				}
				continue
			}
			each(seconds(s.begin), all, st)
		}
	})
	return s
}

func (s *sampler) end() error {
	s.stop()
	s.joined.Wait()
	return s.err
}

// rate turns a growing counter into a rate.
type rate struct{ at, last float64 }

func (x *rate) of(at, count float64) float64 {
	v := 0.0
	if x.at > 0 && at > x.at {
		v = (count - x.last) / (at - x.at)
	}
	x.at, x.last = at, count
	return v
}

// wait lets time pass.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
