package engine

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/flow"
)

// patient is a source whose load a test says.
type patient struct {
	pipeline.Source
	mu     sync.Mutex
	load   pipeline.SourceLoad
	err    error
	rested bool
	held   pipeline.Unended // of its log
}

func (p *patient) set(f func(*pipeline.SourceLoad)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.load)
}

func (p *patient) Load(context.Context) (pipeline.SourceLoad, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.load
	l.At = time.Now()
	return l, p.err
}

func (p *patient) Rest() { p.rested = true }

// governed runs a governor in virtual time.
func governed(t *testing.T, s Source, f func(g *governor, p *patient, warned func() string)) {
	synctest.Test(t, func(t *testing.T) {
		p := &patient{load: pipeline.NewSourceLoad(time.Now())}
		s.Name, s.Source = "files", p
		var mu sync.Mutex
		var said []string
		obs := pipeline.Observer{Warned: func(place, what, cure string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, place+": "+what+"; "+cure)
		}}.Fill()
		g := newGovernor(s, obs)
		g.unended = func() pipeline.Unended {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.held
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			g.run(ctx)
		}()
		time.Sleep(20*time.Second + time.Millisecond)
		f(g, p, func() string {
			mu.Lock()
			defer mu.Unlock()
			return strings.Join(said, "\n")
		})
		stop()
		<-done
		if !p.rested {
			t.Error("the prober's connection was left open")
		}
	})
}

func TestGovernedByLoad(t *testing.T) {
	governed(t, Source{Limits: flow.Limits{MaxActive: 8}}, func(g *governor, p *patient, warned func() string) {
		if v := g.now(); v.Reading != 1 || v.Snapshot != 1 {
			t.Errorf("idle: %+v", v)
		}
		p.set(func(l *pipeline.SourceLoad) { l.Active = 30 })
		time.Sleep(3 * time.Second)
		if v := g.now(); v.Snapshot > 0 || v.Reading < 1 {
			t.Errorf("3 s after the breach: %+v", v)
		}
		time.Sleep(20 * time.Second)
		if g.reading() > 0 {
			t.Error("the log is still read")
		}
		p.set(func(l *pipeline.SourceLoad) { l.ToLoss = 30 * time.Second })
		time.Sleep(2 * time.Second)
		if g.reading() < 1 {
			t.Error("loss is near and the log is not read")
		}
		p.set(func(l *pipeline.SourceLoad) { l.ToLoss, l.Active = pipeline.Unknown, 1 })
		time.Sleep(15 * time.Second)
		if v := g.now(); v.Snapshot != 1 || v.Why != "" {
			t.Errorf("15 s of calm: %+v", v)
		}
		if w := warned(); !strings.Contains(w, "30 sessions are at work, max_active is 8") {
			t.Errorf("warned of %q", w)
		}
		p.set(func(*pipeline.SourceLoad) { p.err = errors.New("gone") })
		time.Sleep(8 * time.Second)
		if v := g.now(); v.Snapshot > 0 || v.Reading < 1 {
			t.Errorf("no answer: %+v", v)
		}
		var s SourceStatus
		if g.status(&s); s.LoadError != "gone" {
			t.Errorf("%+v", s)
		}
	})
}

func TestGovernedByDiskAndSignals(t *testing.T) {
	var mu sync.Mutex
	free := uint64(50)
	var stages []flow.DiskStage
	s := Source{
		Disk: func() (uint64, uint64, error) {
			mu.Lock()
			defer mu.Unlock()
			return free, 100, nil
		},
		DiskStage: func(st flow.DiskStage) { stages = append(stages, st) },
		Throttles: func() []flow.Throttle { return []flow.Throttle{{Owner: "ann", Ratio: 0.5}} },
	}
	left := func(n uint64) {
		mu.Lock()
		free = n
		mu.Unlock()
		time.Sleep(2 * time.Second)
	}
	governed(t, s, func(g *governor, p *patient, warned func() string) {
		if g.reading() != 0.5 {
			t.Errorf("%+v", g.now())
		}
		p.set(func(l *pipeline.SourceLoad) {
			l.Signals = []pipeline.Signal{{Owner: "bob", Reason: "peak", Ratio: 0.2}}
		})
		time.Sleep(2 * time.Second)
		if v := g.now(); v.Reading != 0.2 || len(v.Throttles) != 2 || v.Throttles[0].Owner != "signal table: bob" {
			t.Errorf("%+v", v)
		}
		p.set(func(l *pipeline.SourceLoad) { l.Signals = nil })
		left(15)
		if v := g.now(); v.Replay > 0 || v.Reading != 0.5 {
			t.Errorf("80 %%: %+v", v)
		}
		left(4)
		if v := g.now(); v.Reading > 0 || !strings.Contains(v.Why, "disk") || v.End == "" {
			t.Errorf("95 %%: %+v", v)
		}
		// What would make room is the end of a transaction, and that is still to be read.
		open := func(u pipeline.Unended) {
			p.set(func(*pipeline.SourceLoad) { p.held = u })
			time.Sleep(2 * time.Second)
		}
		open(pipeline.Unended{Open: 60, Prepared: 10, Most: "x", Bound: 50, Pinned: true})
		if v := g.now(); v.Reading != 0.5 || v.Snapshot > 0 || !strings.Contains(v.Why, "open transactions") || v.End == "" || g.shed() != "x" {
			t.Errorf("95 %% by open transactions: %+v, to be given up: %q", v, g.shed())
		}
		if !strings.Contains(warned(), "have not ended hold") {
			t.Error("not warned of: ", warned())
		}
		for _, u := range []pipeline.Unended{{Open: 60, Most: "x", Pinned: true}, {Open: 40, Most: "x", Bound: 50, Pinned: true}, {Open: 20, Prepared: 60, Most: "x", Bound: 50, Pinned: true}, {Open: 60, Most: "x", Bound: 50}} {
			if open(u); g.shed() != "" || (g.reading() == 0.5) != u.Pinned {
				t.Errorf("%+v: %q is given up, read at %v", u, g.shed(), g.reading())
			}
		}
		open(pipeline.Unended{Open: 60, Bound: 50, Pinned: true})
		for free, want := range []float64{0: 0, 1: 0, 2: 0, 3: 0, 4: 0.5} { // stopped at 98 %, on again below 97 %
			if left(uint64(free)); g.reading() != want {
				t.Errorf("%d %% free: read at %v", free, g.reading())
			}
		}
		open(pipeline.Unended{})
		left(8)
		if g.reading() != 0.5 {
			t.Error("space is back and nothing is read")
		}
		if len(stages) != 2 || stages[1] != flow.DiskStop {
			t.Errorf("told of %v", stages)
		}
	})
}
