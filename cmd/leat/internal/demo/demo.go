// Package demo is `leat demo`: Leat's main job with nothing prepared. A throw-away database holds a
// filesystem's metadata, a workload changes it, a `leat run` of its own delivers the changes to three
// subscribers that live in this process, and at the end each one's copy is compared with the source.
//
//   - database (source.go, postgres.go, mysql.go): where the filesystem is; demo/workload changes it.
//   - leat (leat.go): the server, a child process with a leat.yaml in the demo's folder.
//   - replica (replica.go): a subscriber's copy, fed by a receiver (webhook) or a puller.
//   - view (view.go): what is seen meanwhile; summary.go: what came of it.
package demo

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli"
	"github.com/leat-cdc/leat/cmd/leat/internal/demo/workload"
)

const (
	defaultRate = 2000
	// seed of the workload: each demo makes the same changes.
	defaultSeed = 1
	// The slow subscriber.
	slowDelay    = 20 * time.Millisecond
	slowInFlight = 4
	// cleanupTime is how long taking everything away again may last.
	cleanupTime = 30 * time.Second
)

// options of a demo; the hooks are for tests.
type options struct {
	cli.DemoOptions
	seed uint64
	// lose lets the subscriber called name lose an event.
	lose func(name string, c *change) bool
}

// Run is `leat demo`. An error means that something could not be had, or that a subscriber's copy does
// not equal the source; then the summary was printed nevertheless.
func Run(ctx context.Context, o cli.DemoOptions) error {
	return run(ctx, &options{DemoOptions: o, seed: defaultSeed})
}

// demo is one run.
type demo struct {
	o        *options
	view     *view
	place    *place
	leat     *leat
	work     workload.Workload
	search   *receiver
	slow     *receiver
	features *puller
	// subscribers in the order they are shown.
	subscribers []*subscriber
}

// subscriber as it is shown: its copy and what was seen of it.
type subscriber struct {
	name, kind string
	*replica
	refused func() int64
	settled time.Duration // after the workload's end
	behind  uint64        // events, at most
}

func run(ctx context.Context, o *options) (err error) {
	if o.Rate == 0 {
		o.Rate = defaultRate
	}
	d := &demo{o: o, view: newView(o)}
	undo := &cleanup{}
	defer func() { err = errors.Join(err, undo.run()) }()

	folder, err := newFolder()
	if err != nil {
		return err
	}
	undo.add(func(context.Context) error { return os.RemoveAll(folder) })
	if err := d.openDatabase(ctx, undo); err != nil {
		return err
	}
	if err := d.startParts(ctx, folder, undo); err != nil {
		return err
	}
	d.view.explain(d, folder)
	if err := d.act(ctx); err != nil {
		return err
	}
	return d.finish()
}

func (d *demo) openDatabase(ctx context.Context, undo *cleanup) (err error) {
	if d.place, err = open(ctx, d.o, d.view.say); err != nil {
		return err
	}
	undo.add(func(context.Context) error { return d.place.stop() })
	undo.add(d.place.close)
	clean := func(err error) error { return withoutPassword(err, d.place.url) }
	if err := d.place.setup(ctx); err != nil {
		return clean(err)
	}
	if err := d.place.fill(ctx); err != nil {
		return clean(err)
	}
	if d.place.server == nil {
		undo.add(func(ctx context.Context) error {
			if err := d.place.drop(ctx); err != nil {
				return fmt.Errorf("%w; the next `leat demo` on this database drops what was left", clean(err))
			}
			return nil
		})
	}
	return nil
}

func (d *demo) startParts(ctx context.Context, folder string, undo *cleanup) (err error) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	for _, s := range []struct{ name, kind string }{{"search", "webhook"}, {"features", "pull"}, {"slow", "webhook"}} {
		r := newReplica()
		if d.o.lose != nil {
			r.lose = func(c *change) bool { return d.o.lose(s.name, c) }
		}
		d.subscribers = append(d.subscribers, &subscriber{name: s.name, kind: s.kind, replica: r, refused: func() int64 { return 0 }})
	}
	receive := func(s *subscriber, delay time.Duration) (*receiver, error) {
		r, err := listen("/"+s.name, secret, delay, s.replica)
		if err != nil {
			return nil, err
		}
		s.refused = r.refused.Load
		undo.add(r.close)
		return r, nil
	}
	if d.search, err = receive(d.subscribers[0], 0); err != nil {
		return err
	}
	if d.slow, err = receive(d.subscribers[2], slowDelay); err != nil {
		return err
	}
	addr, err := address()
	if err != nil {
		return err
	}
	text := config(addr, d.place, d.search.url, d.slow.url, d.o.Rate)
	if d.leat, err = startLeat(folder, addr, text, d.place.url, "whsec_"+base64.StdEncoding.EncodeToString(secret)); err != nil {
		return err
	}
	undo.add(func(context.Context) error { return d.leat.stop() })
	if err := d.leat.ready(ctx); err != nil {
		return withoutPassword(err, d.place.url)
	}
	d.features = &puller{replica: d.subscribers[1].replica, name: "features"}
	pulling, stopPull := context.WithCancel(context.WithoutCancel(ctx))
	pulled := make(chan struct{})
	go func() {
		defer close(pulled)
		d.features.run(pulling, addr)
	}()
	undo.add(func(context.Context) error {
		stopPull()
		<-pulled
		return nil
	})
	return nil
}

// act runs the workload, shows what happens, and waits until everybody has everything.
func (d *demo) act(ctx context.Context) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	if d.o.Seconds > 0 {
		working, stop = context.WithTimeout(working, time.Duration(d.o.Seconds)*time.Second)
		defer stop()
	}
	ill := make(chan struct{})
	go func() {
		defer close(ill)
		d.illness(working)
	}()
	altered := make(chan error, 1)
	go func() { altered <- d.alter(ctx, working) }()
	worked := make(chan error, 1)
	go func() { worked <- d.work.Run(working, d.place.session, d.o.Rate, d.o.seed) }()
	err := d.watch(worked)
	stop()
	<-ill
	return withoutPassword(errors.Join(err, <-altered), d.place.url)
}

// alter adds a column to a table in the middle of the changes, which go on; when they end before that, at their end.
func (d *demo) alter(ctx, working context.Context) (err error) {
	before := 20 * time.Second
	if s := time.Duration(d.o.Seconds) * time.Second; s > 0 {
		before = s / 2
	}
	select {
	case <-working.Done():
	case <-time.After(before):
	}
	ctx = context.WithoutCancel(ctx) // the comparison reads the column
	s, err := d.place.session(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(ctx)) }()
	for _, t := range tables {
		for _, c := range t.columns[len(t.first()):] {
			if err := d.addColumn(ctx, s, t, c); err != nil {
				return fmt.Errorf("add a column in the middle of the changes: %w", err)
			}
		}
	}
	d.work.Typed.Store(true)
	return nil
}

func (d *demo) addColumn(ctx context.Context, s workload.Session, t *table, c column) error {
	if err := s.Begin(ctx); err != nil {
		return err
	}
	kind := c.postgres
	if _, is := d.place.database.(*mysqlDB); is {
		kind = c.mysql
	}
	if _, err := s.Exec(ctx, "alter table "+t.name+" add column "+c.name+" "+kind); err != nil {
		return err
	}
	return s.Commit(ctx)
}

// illness makes the slow subscriber refuse everything for a while in the middle of the demo.
func (d *demo) illness(ctx context.Context) {
	before, during := 15*time.Second, 5*time.Second
	if s := time.Duration(d.o.Seconds) * time.Second; s > 0 {
		before, during = s*2/5, min(5*time.Second, max(time.Second, s/5))
	}
	defer d.slow.sick.Store(false)
	for {
		for _, part := range []struct {
			sick bool
			long time.Duration
		}{{false, before}, {true, during}} {
			d.slow.sick.Store(part.sick)
			select {
			case <-ctx.Done():
				return
			case <-time.After(part.long):
			}
		}
		before = time.Minute
	}
}

// stall is how long nothing may move before the end is taken as it is.
const stall = 60 * time.Second

// watch shows the state each second until the workload has ended and everybody has caught up.
func (d *demo) watch(worked chan error) error {
	ctx := context.Background() // Ctrl-C ends the workload, not the catching up
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var ended, moved time.Time
	var sum int64
	for {
		select {
		case err := <-worked:
			if err != nil {
				return err
			}
			ended, moved = time.Now(), time.Now()
			d.view.settling(d)
			tick.Reset(200 * time.Millisecond) // to know when each has caught up
		case <-d.leat.ended:
			return d.leat.died()
		case now := <-tick.C:
			idle, err := d.view.look(ctx, d, ended)
			if err != nil {
				return err
			}
			if ended.IsZero() {
				continue
			}
			var all int64
			done := true
			for _, s := range d.subscribers {
				n, _ := s.counts()
				all += n
				all += s.copies()
				has := n >= d.work.Events() && s.copies() >= existing
				done = done && has
				if has && s.settled == 0 {
					s.settled = now.Sub(ended)
				}
			}
			if all != sum {
				sum, moved = all, now
			}
			// With nothing left to deliver, what is missing now will not come.
			if done || idle && now.Sub(moved) > 2*time.Second || now.Sub(moved) > stall {
				d.view.end()
				return nil
			}
		}
	}
}

// finish ends Leat, compares, and prints the summary.
func (d *demo) finish() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
	defer cancel()
	if err := d.leat.stop(); err != nil {
		return err
	}
	s, err := d.summarize(ctx)
	if err != nil {
		return fmt.Errorf("compare the copies with the source: %w", withoutPassword(err, d.place.url))
	}
	if err := d.view.summary(s); err != nil {
		return err
	}
	if !s.Complete {
		return errors.New("not complete: a subscriber's copy differs from the source")
	}
	return nil
}

// cleanup takes away in reverse what was made.
type cleanup struct{ steps []func(context.Context) error }

func (c *cleanup) add(step func(context.Context) error) { c.steps = append(c.steps, step) }

func (c *cleanup) run() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
	defer cancel()
	var errs []error
	for i := len(c.steps) - 1; i >= 0; i-- {
		errs = append(errs, c.steps[i](ctx))
	}
	return errors.Join(errs...)
}
