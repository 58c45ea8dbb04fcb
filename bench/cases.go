package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// allCases in the order in which they run.
var allCases = []string{"own", "null", "pull", "webhook", "many", "stalled", "mix", "latency", "large", "tables"}

// onlyByName are those that take minutes: they run where -cases names them, and once.
var onlyByName = []string{"large", "tables"}

// bench measures one database.
type bench struct {
	o      options
	leat   string
	report *report
	name   string // of the database
	other  string // behind the names of cases that run with another program
	db     database
	failed []error

	// What the webhook's runs share: a data folder with the whole backlog in its log, its source in YAML,
	// what undoes it.
	filled, source string
	undo           func(context.Context) error
}

// step does a case once.
type step struct {
	name string
	do   func(ctx context.Context, w *workload, run string) error
}

func (b *bench) database(ctx context.Context) (err error) {
	process.Say("%s: starting a server", b.name)
	if b.db, err = starters[b.name](ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.db.stop(context.WithoutCancel(ctx))) }()
	defer func() {
		if b.undo != nil {
			err = errors.Join(err, b.undo(context.WithoutCancel(ctx)))
		}
	}()
	b.report.Servers[b.name] = b.db.version()
	for _, part := range []struct {
		w     workload
		steps []step
	}{
		{workload{name: "files", rows: b.o.rows}, []step{{"own", b.own}, {"null", b.null}, {"pull", b.pull}, {"webhook", b.webhook}}},
		{workload{name: "files_many", rows: b.o.rows / 4}, []step{{"many", b.many}, {"stalled", b.stalled}}},
		{workload{name: "files_mix", rows: b.o.rows / 2, mixed: true}, []step{{"mix", b.own}, {"mix", b.pull}}},
		{workload{name: "beat"}, []step{{"latency", b.latency}}},
		{workload{name: "beat_large"}, []step{{"large", b.large}}},
		{workload{name: "beat_tables"}, []step{{"tables", b.tables}}},
	} {
		var names []string
		for _, s := range part.steps {
			names = append(names, s.name)
		}
		if !b.o.wants(names...) {
			continue
		}
		process.Say("%s: filling %s with %d row changes", b.name, part.w.name, part.w.rows)
		if err := b.db.fill(ctx, &part.w); err != nil {
			return fmt.Errorf("fill %s: %w", part.w.name, err)
		}
		settle(ctx)
		for run := range b.o.runs {
			for i, s := range part.steps {
				if !b.o.wants(s.name) || slices.Contains(onlyByName, s.name) && run > 0 {
					continue
				}
				timeout := b.o.timeout
				if slices.Contains(onlyByName, s.name) {
					timeout *= 4
				}
				limited, cancel := context.WithTimeout(ctx, timeout)
				b.turn(limited, s, &part.w, i, run)
				cancel()
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
	}
	return nil
}

// versusCases are those that another program runs too.
var versusCases = []string{"null", "pull", "many", "latency"}

// turn runs a case, with the other program too where there is one: in every second run that comes first.
func (b *bench) turn(ctx context.Context, s step, w *workload, i, run int) {
	turns := []bool{false} // whether it is the other program's
	if b.o.versus != "" && slices.Contains(versusCases, s.name) {
		turns = append(turns, true)
	}
	if run%2 > 0 {
		slices.Reverse(turns)
	}
	leat := b.leat
	defer func() { b.leat, b.other = leat, "" }()
	for _, other := range turns {
		name := fmt.Sprintf("%s-%d-%d", s.name, i, run)
		b.leat, b.other = leat, ""
		if other {
			b.leat, b.other, name = b.o.versus, " versus", name+"-versus"
		}
		if err := s.do(ctx, w, name); err != nil {
			err = fmt.Errorf("%s: %s%s, run %d: %w", b.name, s.name, b.other, run+1, err)
			process.Say("FAILED %v", err)
			b.failed = append(b.failed, err)
		}
	}
}

// record keeps a measured value and says it.
func (b *bench) record(name, metric string, v float64) { b.report.add(b.name, name+b.other, metric, v) }

// label of a case's line: the mix has lines of its own.
func label(name string, w *workload) string {
	if w.mixed {
		return "mix " + name
	}
	return name
}

// own times the database's own client.
func (b *bench) own(ctx context.Context, w *workload, run string) (err error) {
	cmd, undo, err := b.db.own(ctx, w, run, filepath.Join(b.o.dir, "own-"+run))
	if err != nil || cmd == nil {
		return err
	}
	defer func() {
		err = errors.Join(err, undo(context.WithoutCancel(ctx)))
		settle(ctx) // else the next case's start pays for the slot that is dropped: 200 ms
	}()
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, out)
	}
	rate := float64(w.rows) / took.Seconds()
	b.record(label("own", w), rowsPerSecond, rate)
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	b.record(label("own", w), cpuPerEvent, float64(used.Nanoseconds())/1000/float64(w.rows))
	process.Say("%s: own client, %s: %.0f rows/s", b.name, w.name, rate)
	return nil
}

// measured is what was seen of a Leat process.
type measured struct {
	name   string
	events int           // row changes that were done
	took   time.Duration // from its start
	first  time.Duration // from its start to the first event, where known
	cpu    time.Duration
	peak   int64
	// hearing is the CPU time of the subscribers' process, where known.
	hearing time.Duration
}

func (b *bench) keep(m measured) {
	b.record(m.name, rowsPerSecond, float64(m.events)/m.took.Seconds())
	if m.cpu > 0 {
		b.record(m.name, cpuPerEvent, float64(m.cpu.Microseconds())/float64(m.events))
	}
	if m.hearing > 0 {
		b.record(m.name, subscriberCPU, float64(m.hearing.Microseconds())/float64(m.events))
	}
	if m.peak > 0 {
		b.record(m.name, peakMemory, float64(m.peak)/(1<<20))
	}
	if m.first > 0 {
		b.record(m.name, firstEvent, float64(m.first.Microseconds())/1000)
		if steady := m.took - m.first; steady > 0 {
			b.record(m.name, steadyRate, float64(m.events)/steady.Seconds())
		}
	}
	process.Say("%s: %s: %.0f rows/s, %.2f µs CPU an event, %d MiB, first event after %d ms", b.name, m.name+b.other, float64(m.events)/m.took.Seconds(),
		float64(m.cpu.Microseconds())/float64(m.events), m.peak>>20, m.first.Milliseconds())
}

// start runs Leat over a fresh data folder.
func (b *bench) start(ctx context.Context, w *workload, run, folder, subscriptions string) (*process.Server, func(context.Context) error, error) {
	yaml, undo, err := b.db.source(ctx, w, run, false)
	if err != nil {
		return nil, nil, err
	}
	s, err := b.launch(ctx, run, folder, yaml, subscriptions)
	if err != nil {
		return nil, nil, errors.Join(err, undo(ctx))
	}
	return s, undo, nil
}

// launch runs Leat as a configuration says.
func (b *bench) launch(ctx context.Context, run, folder, source, subscriptions string) (*process.Server, error) {
	profile := ""
	if b.o.profile != "" {
		profile, _ = filepath.Abs(filepath.Join(b.o.profile, b.name+"-"+run+".pprof")) // fails only where the working folder is gone
	}
	return process.Start(ctx, b.leat, folder, b.o.memory, source, subscriptions, profile)
}

// logged says whether so many events stand in the log. Offsets begin at some number of the log's own, so
// what counts is the distance from the oldest.
func logged(rows int) func(*leatv1.StatusResponse) bool {
	return func(st *leatv1.StatusResponse) bool {
		return len(st.Sources) == 1 && st.Sources[0].Next-st.Sources[0].Oldest >= uint64(rows)
	}
}

// null reads into the log, with no subscription.
func (b *bench) null(ctx context.Context, w *workload, run string) error {
	folder := filepath.Join(b.o.dir, b.name+"-"+run)
	defer os.RemoveAll(folder)
	s, undo, err := b.start(ctx, w, run, folder, "")
	if err != nil {
		return err
	}
	err = s.WaitFor(ctx, "the log to fill", logged(w.rows))
	m := measured{name: "null", events: w.rows, took: time.Since(s.Started), cpu: s.CPU()}
	var stopErr error
	if m.peak, stopErr = s.Stop(); err == nil {
		b.keep(m)
	}
	return errors.Join(err, stopErr, undo(context.WithoutCancel(ctx)))
}

// fillLog makes the folder and the source that the webhook's runs share.
func (b *bench) fillLog(ctx context.Context, w *workload) error {
	folder := filepath.Join(b.o.dir, b.name+"-filled")
	yaml, undo, err := b.db.source(ctx, w, "filled", false)
	if err != nil {
		return err
	}
	s, err := b.launch(ctx, "fill", folder, yaml, "")
	if err != nil {
		return errors.Join(err, undo(ctx))
	}
	b.filled, b.source, b.undo = folder, yaml, undo
	err = s.WaitFor(ctx, "the log to fill", logged(w.rows))
	if err == nil {
		err = b.db.calm(ctx)
	}
	_, stopErr := s.Stop()
	return errors.Join(err, stopErr)
}

// subscription in YAML.
func subscription(name, deliver string) string {
	return fmt.Sprintf("  %s:\n    source: bench\n    from: earliest\n    batch: {events: 500}\n    deliver: {%s}\n", name, deliver)
}

func (b *bench) pull(ctx context.Context, w *workload, run string) error {
	return b.pulls(ctx, w, run, label("pull", w), 1, false)
}

func (b *bench) many(ctx context.Context, w *workload, run string) error {
	return b.pulls(ctx, w, run, fmt.Sprintf("pull ×%d", b.o.fan), b.o.fan, false)
}

func (b *bench) stalled(ctx context.Context, w *workload, run string) error {
	return b.pulls(ctx, w, run, fmt.Sprintf("pull ×%d, one stalled", b.o.fan), b.o.fan-1, true)
}

// pulls times n pull subscribers from a fresh data folder, beside one more that is stalled where told so.
func (b *bench) pulls(ctx context.Context, w *workload, run, name string, n int, stalled bool) error {
	folder := filepath.Join(b.o.dir, b.name+"-"+run)
	defer os.RemoveAll(folder)
	var names []string
	var yaml strings.Builder
	for i := range n {
		names = append(names, fmt.Sprintf("sub%d", i))
		yaml.WriteString(subscription(names[i], "pull: {}"))
	}
	if stalled {
		yaml.WriteString(subscription("stalled", "pull: {}"))
	}
	s, undo, err := b.start(ctx, w, run, folder, yaml.String())
	if err != nil {
		return err
	}
	args := []string{"-addr", s.Addr, "-subscriptions", strings.Join(names, ","), "-events", fmt.Sprint(w.rows)}
	if stalled {
		args = append(args, "-stalled", "stalled")
	}
	h, used, err := b.hear(ctx, args)
	m := measured{name: name, events: w.rows, hearing: used, took: h.Last.Sub(s.Started), first: h.First.Sub(s.Started), cpu: s.CPU()}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, s.Said())
	} else if h.Events != int64(w.rows*n) {
		err = fmt.Errorf("%d events came, %d were expected", h.Events, w.rows*n)
	}
	end := s.Stop
	if stalled && b.o.profile == "" { // a profile is written at a clean end only
		end = s.Kill
	}
	var stopErr error
	if m.peak, stopErr = end(); err == nil {
		b.keep(m)
	}
	return errors.Join(err, stopErr, undo(context.WithoutCancel(ctx)))
}

// hear runs a child of pull subscribers to its end.
func (b *bench) hear(ctx context.Context, args []string) (h heard, used time.Duration, err error) {
	c, err := process.StartChild(ctx, "pull-subscribers", args...)
	if err != nil {
		return h, 0, err
	}
	err = errors.Join(c.Next(&h), c.Stop(nil))
	if p := c.State(); p != nil {
		used = p.UserTime() + p.SystemTime()
	}
	return h, used, err
}

// secret of the webhooks: a key that everybody knows.
const secret = "whsec_bGVhdC1iZW5jaC1sZWF0LWJlbmNoLWxlYXQtYmVuY2g="

// webhook delivers a log that is full already. The first run fills it; each is a new subscription.
func (b *bench) webhook(ctx context.Context, w *workload, run string) (err error) {
	if b.filled == "" {
		if err := b.fillLog(ctx, w); err != nil {
			return fmt.Errorf("fill the log: %w", err)
		}
	}
	c, err := process.StartChild(ctx, "webhook-receiver")
	if err != nil {
		return err
	}
	var h heard
	if err := c.Next(&h); err != nil {
		return errors.Join(err, c.Stop(nil))
	}
	name := "hook-" + run
	s, err := b.launch(ctx, run, b.filled, b.source, subscription(name, fmt.Sprintf("webhook: {url: %q, secret: %q}", h.Addr, secret)))
	if err != nil {
		return errors.Join(err, c.Stop(nil))
	}
	err = s.WaitFor(ctx, "the webhook to have everything", func(st *leatv1.StatusResponse) bool {
		for _, sub := range st.Subscriptions {
			if sub.Name == name && sub.Low > 0 && len(st.Sources) == 1 {
				return sub.Low-st.Sources[0].Oldest >= uint64(w.rows)
			}
		}
		return false
	})
	m := measured{name: "webhook", events: w.rows, cpu: s.CPU()}
	var stopErr error
	m.peak, stopErr = s.Stop()
	err = errors.Join(err, stopErr, c.Stop(&h))
	if err == nil {
		m.took, m.first = h.Last.Sub(s.Started), h.First.Sub(s.Started)
		b.keep(m)
	}
	return err
}
