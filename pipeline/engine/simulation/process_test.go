package simulation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/pipeline/flow"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/pipeline/sched"
)

const sourceName = "db"

// slots of the gate: so many that nobody waits. A gate that is full couples subscriptions by what timers of one
// moment do first; package sched simulates it by itself.
const slots = 1024

// process is one life of the product: an engine with one source and all subscriptions.
type process struct {
	w      *world
	life   int
	engine *engine.Engine
	wg     sync.WaitGroup // the boot and commands

	mu       sync.Mutex
	owner    map[string]string // subscriptions by the goroutine that runs them
	readers  map[string]int    // opened so far, by subscription
	opened   pipeline.Log      // since the driver looked last
	up       bool              // all subscriptions were added
	ending   bool              // Stop was called
	ended    bool              // and returned
	endErr   error
	commands map[string]*command // by subject; one at a time
}

// command is what a person asked for, from goroutine of its own.
type command struct {
	name string
	done bool
	err  error
}

// begin starts a process on what the disk and the store hold.
func (w *world) begin() {
	w.life++
	w.calls.lives(w.life)
	p := &process{w: w, life: w.life, owner: map[string]string{}, readers: map[string]int{}, commands: map[string]*command{}}
	w.p = p
	p.engine = engine.New(engine.Config{Cursors: access{p}, Store: access{p}, Form: pipetest.PGForm, Again: w.set.again,
		Gate: sched.NewGate(slots)})
	p.wg.Go(p.boot)
}

func (p *process) alive() bool {
	c := &p.w.calls
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.life == p.life
}

// boot adds source and subscriptions; while the log cannot be opened it tries again.
func (p *process) boot() {
	w := p.w
	src := engine.Source{Name: sourceName, Source: feed{p}, Routes: w.db.routes, OpenLog: p.openLog, Ranges: w.set.balance,
		Disk: w.space, Throttles: w.throttles}
	for {
		err := p.engine.AddSource(context.Background(), src)
		if err == nil {
			break
		}
		if errors.Is(err, engine.ErrStopped) || !p.alive() {
			return
		}
		time.Sleep(time.Second)
	}
	for n, s := range w.subs {
		c := s.cfg
		c.Rand, c.Throttle = dice(w.seed, p.life, n), s.throttle
		if f := w.plant.config; f != nil {
			f(&c)
		}
		err := p.engine.AddSubscription(engine.Subscription{Deliver: c, OpenSink: func(ctx context.Context) (pipeline.Sink, error) { return p.openSink(ctx, s) }})
		if err != nil && !p.engineStopped(err) {
			w.breaks("add subscription %s: %v", s.name, err)
		}
	}
	p.mu.Lock()
	p.up = true
	p.mu.Unlock()
}

// dice of a subscription: its replays draw from their own, as both may draw at one moment.
func dice(seed uint64, life, subscription int) func() float64 {
	live := rand.New(rand.NewPCG(seed, uint64(life)<<9|uint64(subscription)<<1))
	copies := rand.New(rand.NewPCG(seed, uint64(life)<<9|uint64(subscription)<<1|1))
	return func() float64 {
		if within(".(*Aside).Run", ".(*Subscription).NewAside") {
			return copies.Float64()
		}
		return live.Float64()
	}
}

// within tells whether a function whose name ends so is being run by the calling goroutine.
func within(suffixes ...string) bool {
	var pcs [48]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(f.Function, s) }) {
			return true
		}
		if !more {
			return false
		}
	}
}

// engineStopped: the error only says that the process ends.
func (p *process) engineStopped(err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ending || errors.Is(err, engine.ErrStopped) || errors.Is(err, engine.ErrUnknown)
}

func (p *process) openSink(ctx context.Context, s *subscriber) (pipeline.Sink, error) {
	p.mu.Lock()
	p.owner[goroutine()] = s.name
	p.mu.Unlock()
	if err := p.w.calls.ask(ctx, &call{kind: callOpenSink, name: s.name + " open sink", life: p.life, sub: s}); err != nil {
		return nil, err
	}
	if s.ordered {
		return orderedEndpoint{endpoint{p, s}}, nil
	}
	return endpoint{p, s}, nil
}

func (p *process) openLog(context.Context) (pipeline.Log, error) {
	w := p.w
	l, err := disklog.Open(disklog.Options{Dir: "log", Source: sourceName, FS: &disk{w.disk, w, p.life}, SegmentSize: w.set.segment,
		Retention: w.set.retention, Memory: w.set.tail, Queue: w.set.queue, Now: w.now})
	if err != nil {
		var damage *disklog.DamageError
		if errors.As(err, &damage) {
			w.breaks("the log is damaged after a crash: %v", err)
		}
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened = l
	return &logView{Log: l, p: p}, nil
}

// now is the log's clock.
func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.skew)
}

func (w *world) space() (free, total uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full {
		return 1, 100, nil
	}
	return 90, 100, nil
}

func (w *world) throttles() []flow.Throttle {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.slowed == 1 {
		return nil
	}
	return []flow.Throttle{{Owner: "nemesis", Reason: "the seed says so", Ratio: w.slowed}}
}

// logView is the log as subscriptions read it: each batch is a call.
type logView struct {
	*disklog.Log
	p        *process
	appended pipeline.Position // of a plant
}

// Read implements pipeline.Log.
func (l *logView) Read(from pipeline.Offset) (pipeline.LogReader, error) {
	r, err := l.Log.Read(from)
	if err != nil {
		return nil, err
	}
	p := l.p
	p.mu.Lock()
	defer p.mu.Unlock()
	by, pass := creator()
	sub := p.owner[by]
	name := sub + " read"
	if pass {
		name += " for parks"
	}
	p.readers[name]++
	return &readerView{LogReader: r, p: p, sub: sub, name: fmt.Sprintf("%s %06d", name, p.readers[name])}, nil
}

type readerView struct {
	pipeline.LogReader
	p         *process
	sub, name string
}

// Next implements pipeline.LogReader.
func (r *readerView) Next(ctx context.Context) (*pipeline.Batch, error) {
	b, err := r.LogReader.Next(ctx)
	w := r.p.w
	if err != nil {
		var damage *disklog.DamageError
		if errors.As(err, &damage) && r.p.alive() {
			w.breaks("%s: %v", r.name, err)
		}
		return nil, err
	}
	if err := w.calls.ask(ctx, &call{kind: callRead, name: r.name, life: r.p.life, sub: w.sub(r.sub), what: fmt.Sprintf("%d to %d", w.index(b.Base), w.index(b.Next())-1)}); err != nil {
		b.Release()
		return nil, err
	}
	if f := w.plant.read; f != nil {
		b = f(b)
	}
	w.mu.Lock()
	w.largest = max(w.largest, int64(b.Size()))
	w.mu.Unlock()
	return b, nil
}

// goroutine returns the number of the calling one.
func goroutine() string {
	var buf [64]byte
	f := bytes.Fields(buf[:runtime.Stack(buf[:], false)])
	return string(f[1])
}

// creator returns the number of the goroutine that started the calling one, and whether it reads for a pass: a
// subscription's reader is known by who started it, as nothing else tells whose it is.
func creator() (by string, pass bool) {
	buf := make([]byte, 16<<10)
	buf = buf[:runtime.Stack(buf, false)]
	i := bytes.LastIndex(buf, []byte(" in goroutine "))
	f := bytes.Fields(buf[i+len(" in goroutine "):])
	return string(f[0]), bytes.Contains(buf, []byte("deliver.(*pass)."))
}

// stop ends the process in the background; see ended.
func (p *process) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return
	}
	p.ending = true
	go func() {
		err := p.engine.Stop()
		p.wg.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ended, p.endErr = true, err
	}()
}

func (p *process) stopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// run gives a command about a subject, unless one is being obeyed.
func (p *process) run(subject, name string, f func() error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.commands[subject]; c != nil && !c.done || p.ending || !p.up {
		return false
	}
	c := &command{name: name}
	p.commands[subject] = c
	p.wg.Go(func() {
		err := f()
		p.mu.Lock()
		defer p.mu.Unlock()
		c.done, c.err = true, err
	})
	return true
}

// do gives a command to a subscription.
func (p *process) do(s *subscriber, name string, f func(*deliver.Subscription) error) bool {
	if p.w.answerable(false); s.storing {
		return false
	}
	return p.run(s.name, name, func() error { return p.engine.Do(s.name, f) })
}

// crashGrace is how long a dead process may take until its goroutines are gone, on the simulated clock.
const crashGrace = 10 * time.Minute

// crash kills the process: what was not synced is lost, or torn; what was asked for may have been done or not.
func (w *world) crash() {
	p := w.p
	w.disk.Crash()
	list := w.calls.list()
	w.calls.lives(0)
	for _, x := range list {
		switch {
		case (x.kind == callStore || x.kind == callCopies || x.kind == callJobs) && w.rng.IntN(2) == 0:
			_ = x.apply() // durable, though nobody was told
		case x.kind == callDeliver && w.rng.IntN(2) == 0:
			w.takes(x.delivery)
		}
		x.reply <- errCrashed
	}
	until := time.Now().Add(crashGrace)
	p.stop()
	for !p.stopped() && time.Now().Before(until) {
		time.Sleep(time.Second)
	}
	if !p.stopped() {
		w.breaks("a process whose every call fails does not end in %s", crashGrace)
	}
	time.Sleep(time.Until(until)) // so that the next life begins at the same time in each run
	w.disk.Restart()
	w.p = nil
}
