package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/partition"
)

// settings of a run; all but over are drawn once.
type settings struct {
	inputs      int     // of the nemesis
	answers     float64 // share of inputs that answer calls
	keys        int     // ids of rows
	perTx       int     // changes of a transaction at most
	sharedSpace bool    // both tables in one key space
	truncates   bool
	moves       bool // of rows from key to key
	poison      int  // percent of events that subscribers refuse
	segment     int64
	tail, queue int64 // of the log, in memory
	retention   disklog.Retention
	again       time.Duration
	balance     partition.Policy
	// Shares of calls that fail.
	diskFaults, storeFaults, readFaults, sourceFaults float64
	// Weights of the inputs that are no answers.
	weights [inputs]int
	over    bool // the process that stops is the last
}

// input that is no answer to a call.
type input int

const (
	inTime input = iota
	inCommit
	inPause
	inRedrive
	inDiscard
	inSeek
	inSplit
	inMerge
	inCrash
	inRestart
	inSpace
	inMood
	inThrottle
	inClock
	inRetry
	inReplay
	inputs
)

func drawSettings(r *rand.Rand) settings {
	s := settings{inputs: 100 + r.IntN(900), answers: 0.6 + 0.35*r.Float64(), keys: 1 + r.IntN(14), perTx: 1 + r.IntN(12), sharedSpace: r.IntN(3) == 0,
		truncates: r.IntN(3) == 0, moves: r.IntN(2) == 0, segment: 16 << 10 << r.IntN(3), tail: []int64{1, 64 << 20}[r.IntN(2)], queue: 16 << 20,
		again: time.Duration(1+r.IntN(30)) * time.Second}
	if r.IntN(2) == 0 {
		s.poison = 1 + r.IntN(10)
	}
	switch r.IntN(4) {
	case 0:
		s.retention.Age = time.Minute
	case 1:
		s.retention.Size = s.segment * int64(3+r.IntN(4))
	}
	if r.IntN(3) == 0 {
		s.balance = partition.Policy{Hot: 1 + 10*r.Float64(), HotSamples: 2, Cooldown: 10 * time.Second, Cold: time.Minute, Ranges: 8}
	}
	for _, share := range []*float64{&s.diskFaults, &s.storeFaults, &s.readFaults, &s.sourceFaults} {
		if r.IntN(2) == 0 {
			*share = 0.02 * r.Float64()
		}
	}
	if s.storeFaults *= 5; r.IntN(8) == 0 {
		s.storeFaults = 0.5
	}
	s.weights = [inputs]int{inTime: 40, inCommit: 40, inPause: 5, inRedrive: 6, inSplit: 5, inMerge: 3, inCrash: 3, inRestart: 1, inSpace: 2, inMood: 8, inThrottle: 4, inClock: 1, inRetry: 2, inReplay: 3}
	for i := inPause; i < inputs; i++ {
		if r.IntN(3) == 0 {
			s.weights[i] = 0
		}
	}
	if r.IntN(8) == 0 {
		s.weights[inDiscard], s.weights[inSeek] = r.IntN(3), r.IntN(3)
	}
	return s
}

func drawSubscribers(r *rand.Rand, set settings) []*subscriber {
	var all []*subscriber
	for n := range 1 + r.IntN(3) {
		s := &subscriber{name: string(rune('a' + n)), table: -1, throttle: deliver.NewThrottle(), ratio: 1, poison: map[int]bool{}, sent: map[int]bool{}, acked: map[int]bool{},
			last: map[string]int{}, rows: map[[2]int]int{}, copied: map[string]*copied{}, brought: map[string]map[int]bool{}, everParked: map[string]bool{}, buried: map[int]bool{}, ordered: r.IntN(4) == 0}
		s.cfg = deliver.Config{Name: s.name, Source: sourceName, MaxInFlight: 1 + r.IntN(6), Adaptive: r.IntN(2) == 0,
			Batch: deliver.Batch{Events: 1 + r.IntN(8)}, Retry: deliver.Retry{Initial: time.Second, Max: time.Duration(2+r.IntN(20)) * time.Second, Attempts: 2 + r.IntN(4)},
			Grace: time.Duration(1+r.IntN(10)) * time.Second,
			Render: func(b *pipeline.Batch, i int, _ pipeline.Op) ([]byte, string) {
				return nil, fmt.Sprintf("%x", b.Bytes(b.Events[i].Key))
			}}
		c := &s.cfg
		if c.MaxInFlight%2 == 1 { // which takes nothing from the seed
			c.RangeParks = 1
		}
		switch r.IntN(8) {
		case 0:
			c.Order = deliver.OrderSource
		case 1:
			c.Order = deliver.OrderNone
		}
		c.Exhausted = []deliver.Exhausted{deliver.ExhaustedPark, deliver.ExhaustedPark, deliver.ExhaustedPark, deliver.ExhaustedSkip, deliver.ExhaustedBlock}[r.IntN(5)]
		if r.IntN(4) == 0 {
			c.Batch.Wait = 50 * time.Millisecond
		}
		if r.IntN(4) == 0 {
			c.Batch.Bytes = 100 + r.IntN(3000)
		}
		if r.IntN(3) == 0 {
			c.Budget = 1 // no more than one batch at a time
		}
		if r.IntN(2) == 0 {
			c.Resolved = time.Second
		}
		if r.IntN(5) == 0 {
			c.Rate = 5 + 50*r.Float64()
		}
		if r.IntN(5) == 0 {
			s.table = r.IntN(len(tableNames))
			var err error
			if c.Filter, err = filter.Compile(filter.Options{Tables: []string{"public." + tableNames[s.table]}}); err != nil {
				panic(err)
			}
		}
		all = append(all, s)
	}
	return all
}

// nemesis makes the next input and says what it was.
func (w *world) nemesis() string {
	list := w.answerable(true)
	if len(list) > 0 && w.rng.Float64() < w.set.answers {
		return w.reply(list[w.rng.IntN(len(list))])
	}
	total := 0
	for _, n := range w.set.weights {
		total += n
	}
	n := w.rng.IntN(total)
	for i, weight := range w.set.weights {
		if n -= weight; n < 0 {
			if what := w.input(input(i)); what != "" {
				return what
			}
			break
		}
	}
	return w.pass()
}

// answerable lists the calls that there is an answer for. A source that has nothing says so now and then. While
// a subscription's loop waits for the store nothing else of it is answered: it would find several things at once
// then, and Go chooses among those at random.
func (w *world) answerable(idle bool) []*call {
	list := w.calls.list()
	for _, s := range w.subs {
		s.storing = slices.ContainsFunc(list, func(x *call) bool { return x.sub == s && x.inLoop() })
	}
	return slices.DeleteFunc(list, func(x *call) bool {
		return x.kind == callNext && !x.next.ready(w.db) && (!idle || w.rng.IntN(30) > 0) || x.sub != nil && x.sub.storing && !x.inLoop()
	})
}

// inLoop: a subscription's loop waits for it.
func (x *call) inLoop() bool { return x.kind == callStore && x.cursor == nil || x.loop }

// pass lets time pass.
func (w *world) pass() string {
	d := []time.Duration{time.Millisecond, 30 * time.Millisecond, 300 * time.Millisecond, time.Second, time.Second, 5 * time.Second, 40 * time.Second, 11 * time.Minute}[w.rng.IntN(8)]
	d += time.Duration(w.rng.IntN(1000)) * time.Microsecond
	time.Sleep(d)
	return "time: " + d.String()
}

// input makes an input of that kind; "" when it cannot be made now.
func (w *world) input(i input) string {
	r := w.rng
	s := w.subs[r.IntN(len(w.subs))]
	switch i {
	case inCommit:
		return w.commit()
	case inPause, inRedrive, inDiscard, inSeek:
		return w.person(i, s)
	case inSplit, inMerge:
		return w.reshape(i)
	case inCrash:
		w.crash()
		w.begin()
		return "crash"
	case inRestart:
		w.p.stop()
		return "stop"
	case inSpace:
		space := int64(r.IntN(1 << 12))
		if r.IntN(2) == 0 {
			space = -1
		}
		w.disk.Space(space)
		return fmt.Sprintf("disk space %d", space)
	case inMood:
		s.mood = mood(r.IntN(4))
		return fmt.Sprintf("mood of %s: %d", s.name, s.mood)
	case inThrottle:
		ratio := []float64{0, 0.3, 1, 1}[r.IntN(4)]
		if r.IntN(3) > 0 {
			s.ratio = ratio
			s.throttle.Set(ratio)
			return fmt.Sprintf("throttle %s to %g", s.name, ratio)
		}
		w.mu.Lock()
		w.slowed, w.full = ratio, r.IntN(4) == 0
		w.mu.Unlock()
		return fmt.Sprintf("throttle the source to %g, its disk full: %v", ratio, w.full)
	case inClock:
		jump := time.Duration(r.IntN(7200)-3600) * time.Second
		w.mu.Lock()
		w.skew += jump
		w.mu.Unlock()
		return "the log's clock jumps by " + jump.String()
	case inReplay:
		return w.replay(s)
	case inRetry:
		_ = w.p.engine.Retry(sourceName) // it may not run yet
		return "retry the source"
	}
	return ""
}

func (w *world) commit() string {
	from := len(w.db.history)
	at := time.Now().Add(time.Duration(w.rng.IntN(3000)-1500) * time.Millisecond)
	w.db.commit(w.rng, w.rng.IntN(w.set.perTx+1), w.set.keys, w.set.truncates, w.set.moves, at)
	for i := from; i < len(w.db.history); i++ {
		for _, s := range w.subs {
			s.poison[i] = w.rng.IntN(100) < w.set.poison
		}
	}
	return fmt.Sprintf("transaction %d: %v", len(w.db.txs), w.db.history[from:])
}

// person gives a subscription a command.
func (w *world) person(i input, s *subscriber) string {
	ctx, p, r := context.Background(), w.p, w.rng
	name, run := "", func(*deliver.Subscription) error { return nil }
	switch i {
	case inPause:
		pause := r.IntN(3) == 0
		name = fmt.Sprintf("pause %v", pause)
		run = func(d *deliver.Subscription) error {
			if pause {
				return d.Pause(ctx, "the seed says so")
			}
			return d.Resume(ctx)
		}
	case inRedrive, inDiscard:
		var keys []deliver.ParkKey
		if parks := w.store.parked(s.name); len(parks) > 0 && r.IntN(2) == 0 {
			k := parks[r.IntN(len(parks))]
			keys = []deliver.ParkKey{{Space: k.Space, Key: k.Key}}
		}
		name = fmt.Sprintf("redrive %d keys", len(keys))
		run = func(d *deliver.Subscription) error { _, err := d.Redrive(ctx, keys); return err }
		if i == inDiscard {
			name = fmt.Sprintf("discard %d keys", len(keys))
			run = func(d *deliver.Subscription) error { _, err := d.Discard(ctx, keys, "nemesis"); return err }
		}
	default:
		to := w.first + pipeline.Offset(r.IntN(len(w.db.history)+1))
		name = fmt.Sprintf("seek %d", to)
		s.seeks = append(s.seeks, seek{time.Now(), to})
		run = func(d *deliver.Subscription) error { return d.Seek(ctx, deliver.Start{Offset: to}, "the seed says so") }
	}
	if !p.do(s, name, run) {
		return ""
	}
	return s.name + ": " + name
}

// reshape splits or merges ranges, now and then in a way that must be refused.
func (w *world) reshape(i input) string {
	p, r, ctx := w.p, w.rng, context.Background()
	spaces := w.db.spaceNames()
	space := spaces[r.IntN(len(spaces))]
	open := w.ranges.open(space)
	n := r.IntN(len(open))
	check := func(_ pipeline.RangeChange, err error) error {
		var refused *partition.RangeError
		if errors.As(err, &refused) {
			return nil
		}
		return err
	}
	if i == inSplit {
		at := w.db.encoded(1 + r.IntN(w.set.keys+1))
		name := fmt.Sprintf("split %s %d at %x", space, open[n].ID, at)
		if !p.run("ranges", name, func() error { return check(p.engine.Split(ctx, sourceName, space, open[n].ID, at, "the seed says so")) }) {
			return ""
		}
		return name
	}
	ids := []uint64{open[n].ID, open[r.IntN(len(open))].ID}
	name := fmt.Sprintf("merge %s %v", space, ids)
	if !p.run("ranges", name, func() error { return check(p.engine.Merge(ctx, sourceName, space, ids, "the seed says so")) }) {
		return ""
	}
	return name
}

// wellAgain takes all faults back.
func (w *world) wellAgain() {
	w.disk.Space(-1)
	w.disk.FailSyncs(0)
	for _, s := range w.subs {
		s.mood = well
		clear(s.poison)
		if !w.plant.throttled {
			s.ratio = 1
			s.throttle.Set(1)
		}
	}
	w.mu.Lock()
	w.slowed, w.full = 1, false
	w.mu.Unlock()
	w.settle("all is well again")
}

// assist does what people would: it resumes what is paused and redrives what is parked.
func (w *world) assist() bool {
	if w.p == nil {
		return false
	}
	acted := w.assistJobs()
	for _, st := range w.p.engine.Status().Subscriptions {
		s := w.sub(st.Name)
		switch {
		case st.State == deliver.StatePaused:
			acted = w.p.do(s, "resume", func(d *deliver.Subscription) error { return d.Resume(context.Background()) }) || acted
		case st.Parked > 0:
			acted = w.p.do(s, "redrive all", func(d *deliver.Subscription) error { _, err := d.Redrive(context.Background(), nil); return err }) || acted
		}
	}
	return acted
}
