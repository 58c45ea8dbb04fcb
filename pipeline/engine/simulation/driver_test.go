package simulation

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline/disklog/faultfs"
)

// result of a run.
type result struct {
	hash  uint64
	steps int
	err   error // the first broken invariant
	tail  string
	took  time.Duration // simulated
}

// simulate makes the run of a seed.
func simulate(t *testing.T, seed uint64, p plant, line func(string)) (r result) {
	synctest.Test(t, func(*testing.T) {
		w := newWorld(seed, p)
		w.trace.all = line
		r.err = w.run()
		r.hash, r.steps, r.tail, r.took = w.trace.hash, w.trace.steps, w.trace.last(), time.Since(w.began)
	})
	return r
}

func newWorld(seed uint64, p plant) *world {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := &world{seed: seed, rng: rng, set: drawSettings(rng), plant: p, disk: faultfs.New(seed), store: newStore(), slowed: 1, began: time.Now()}
	w.db = newDatabase(w.set.sharedSpace)
	w.subs = drawSubscribers(rng, w.set)
	return w
}

// run lets the nemesis work, then heals the world and waits until nothing is left to do.
func (w *world) run() error {
	w.trace.add("settings %+v", w.set)
	for _, s := range w.subs {
		w.trace.add("subscriber %s: order %d, exhausted %d, ordered %v, table %d, at once %d, batch %+v, adaptive %v, rate %g, budget %d, resolved %s, retry %+v",
			s.name, s.cfg.Order, s.cfg.Exhausted, s.ordered, s.table, s.cfg.MaxInFlight, s.cfg.Batch, s.cfg.Adaptive, s.cfg.Rate, s.cfg.Budget, s.cfg.Resolved, s.cfg.Retry)
	}
	w.begin()
	w.settle("begin")
	for n := 0; n < w.set.inputs && w.failure() == nil; n++ {
		w.settle(w.nemesis())
	}
	if w.failure() == nil {
		w.heal()
	}
	if w.p != nil && !w.p.stopped() {
		w.crash() // nothing may be left of a run that failed half-way
	}
	return w.failure()
}

// settle waits until everything is at rest after an input, and looks.
func (w *world) settle(input string) {
	synctest.Wait()
	w.trace.steps++
	w.trace.add("%d +%s %s", w.trace.steps, time.Since(w.began), input)
	w.observe()
	if w.trace.all != nil {
		w.trace.all("  waiting: " + names(w.calls.list()))
	}
	if w.p != nil && w.p.stopped() && w.failure() == nil {
		if err := w.p.endErr; err != nil {
			w.trace.add("ended: %v", err)
		}
		w.calls.lives(0)
		w.p = nil
		if !w.set.over {
			w.begin()
			w.settle("begin again")
		}
	}
}

const (
	healInputs = 60_000
	healIdle   = 500         // steps in time without a delivery; of a second, later of half a minute
	healLook   = time.Minute // how often people redrive and resume
)

// heal takes all faults back and answers everything with success until all is delivered; then it stops
// the process, and looks a last time.
func (w *world) heal() {
	w.wellAgain()
	healed, looked, idle, still, delivered := time.Now(), time.Time{}, 0, 0, uint64(0)
	for n := 0; w.failure() == nil; n++ {
		if n > healInputs || still > healIdle {
			w.breaks("stuck: after %d inputs and %s without any fault not all is delivered: %s", n, time.Since(healed), w.complaint())
			return
		}
		if time.Since(looked) >= healLook {
			looked = time.Now()
			if w.assist() {
				w.settle("people resume and redrive")
				continue
			}
		}
		list := w.answerable(false)
		if len(list) > 0 {
			w.settle(w.grant(list[w.rng.IntN(len(list))]))
			continue
		}
		if w.complaint() == "" {
			break
		}
		if idle++; idle > healIdle/5 {
			time.Sleep(29 * time.Second)
		}
		// One with a rate takes an event or two in a step, however long that is.
		if still++; w.delivered() != delivered {
			still, delivered = 0, w.delivered()
		}
		time.Sleep(time.Second)
		w.settle("time")
	}
	if w.failure() != nil {
		return
	}
	w.checkEnd()
	w.checkJobs()
	w.set.over = true
	w.p.stop()
	w.settle("stop")
	for n := 0; w.p != nil && w.failure() == nil; n++ {
		if n > healInputs {
			w.breaks("the process does not stop")
			return
		}
		if list := w.answerable(false); len(list) > 0 {
			w.settle(w.grant(list[0]))
			continue
		}
		time.Sleep(time.Second)
		w.settle("a second until the end")
	}
	if w.failure() == nil {
		w.checkStopped()
	}
}

// delivered counts events, those that came again too.
func (w *world) delivered() (n uint64) {
	if w.p == nil {
		return 0
	}
	for _, st := range w.p.engine.Status().Subscriptions {
		n += st.Delivered
	}
	return n
}

// names of what waits, for the trace.
func names(list []*call) string {
	all := make([]string, len(list))
	for i, x := range list {
		all[i] = x.name
	}
	return strings.Join(all, "; ")
}

// report is what is told of a seed that failed.
func (r *result) report(seed uint64) string {
	return fmt.Sprintf("%s\n\nseed %d, step %d: %v\nreplay: make sim SEED=%d", r.tail, seed, r.steps, r.err, seed)
}
