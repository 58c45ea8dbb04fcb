package deliver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/selection"
)

const (
	// asideShare of the live limit is what replays aside may have.
	asideShare = 0.2
	// asideSlice is how many events a Delivery of copies has beside what is live: what follows waits for a core no longer
	// than that takes, about 0.1 ms.
	asideSlice = 50
	// asideBudget of the subscription's Budget.
	asideBudget = 4
	// asideLag: while the oldest event that live has not done is older, replays wait.
	asideLag = 5 * time.Second
	// asideLook is how often is looked whether a replay may go.
	asideLook = 100 * time.Millisecond
)

// JobStore keeps jobs; what PutJob returned from is durable.
type JobStore interface {
	PutJob(ctx context.Context, j pipeline.Job) error
	// Jobs lists a subscription's jobs, or all of them when it is empty, the oldest first.
	Jobs(ctx context.Context, subscription string) ([]pipeline.Job, error)
}

// errWindowDone ends the session of a replay aside.
var errWindowDone = errors.New("the window is delivered")

// window makes a subscription a replay aside: it reads up to `to`, what the scope means, and tags it.
type window struct {
	job   string
	to    pipeline.Offset
	scope *selection.Scope
	live  *Subscription
	left  atomic.Uint64 // events that are parked live: they come when they are redriven
}

// beside is what a subscription and its replays aside tell each other.
type beside struct {
	// reserved Deliveries in flight of the subscription's are the replay's; charged events are to be paid for by
	// the live rate.
	reserved atomic.Int32
	charged  atomic.Int64
	nudge    chan struct{} // reserved fell
	// oldest is the commit time of the oldest event open, microseconds; 0: none is.
	oldest atomic.Int64
	// speed is events per second of one Delivery in flight. Under Subscription.mu.
	speed float64
}

// reserve changes what of the live limit is the replay's.
func (b *beside) reserve(n int) {
	if old := b.reserved.Swap(int32(n)); int32(n) < old {
		select {
		case b.nudge <- struct{}{}:
		default:
		}
	}
}

// besides returns what of the limit is this session's: a replay reserves its share of the live limit, and what it
// sends counts for the live rate.
func (s *session) besides(limit int, ratio float64, now time.Time) int {
	if w := s.cfg.window; w != nil {
		w.live.beside.reserve(limit)
		return limit
	}
	b := &s.sub.beside
	if n := b.charged.Swap(0); n > 0 && ratio > 0 {
		s.pace.sent(int(n), ratio, now)
	}
	return min(limit, s.cfg.MaxInFlight-int(b.reserved.Load()))
}

// clip takes out what is parked live: it has not been delivered yet, and comes in order when it is redriven.
func (w *window) clip(runs []pipeline.Run) []pipeline.Run {
	p := &w.live.parks
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.any() {
		return runs
	}
	var kept []pipeline.Run
	for _, r := range runs {
		n := len(kept)
		for i := r.From; i < r.To; i++ {
			o := r.Batch.Offset(int(i))
			if k := p.find(r.Batch, int(i)); k != nil && o >= k.From {
				w.left.Add(1)
				continue
			}
			if len(kept) > n && kept[len(kept)-1].To == i {
				kept[len(kept)-1].To++
				continue
			}
			kept = append(kept, pipeline.Run{Batch: r.Batch, From: i, To: i + 1, As: r.As})
		}
	}
	return append(runs[:0], kept...)
}

// Selector picks what a job of the kind that ends at `to` would deliver of the subscription's events. For one
// goroutine.
func (s *Subscription) Selector(scope *selection.Scope, kind pipeline.JobKind, to pipeline.Offset) *selection.Selector {
	only := selection.New(s.cfg.Name, s.cfg.Filter, scope)
	if kind != pipeline.JobAside && scope.Filters() && s.cfg.Order != OrderNone {
		only.Follow(s.cfg.Order == OrderSource, to)
	}
	return only
}

// Delivered is the offset below which the subscription has been delivered everything for the first time, but for
// parked keys.
func (s *Subscription) Delivered() pipeline.Offset {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold != nil {
		return min(s.status.Low, s.hold.resolvedTo())
	}
	return s.status.Low
}

// Speed is how many events per second the subscriber took lately, with as many Deliveries in flight as it may have
// now; 0: not known yet.
func (s *Subscription) Speed() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.beside.speed * float64(max(1, s.status.Limit))
}

// speed is events per second of one Delivery in flight, as a moving mean.
type speed struct {
	events, busy float64
}

func (s *speed) took(events int, took time.Duration) {
	const keep = 0.99
	s.events, s.busy = keep*s.events+float64(events), keep*s.busy+took.Seconds()
}

func (s *speed) rate() float64 {
	if s.busy == 0 {
		return 0
	}
	return s.events / s.busy
}

// Aside is a job of the kind aside that runs beside its subscription, whose cursor it never moves.
type Aside struct {
	live  *Subscription
	sub   *Subscription
	store JobStore
	gap   time.Time // since when live has something to read and nothing open

	mu   sync.Mutex
	job  pipeline.Job
	base pipeline.Job // as it began
}

// NewAside prepares a job to run beside the subscription. It starts nothing: see Run.
func (s *Subscription) NewAside(job pipeline.Job) (*Aside, error) {
	scope, err := selection.Compile(job.Scope, s.cfg.Form)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", job.ID, err)
	}
	a := &Aside{live: s, store: s.cfg.Jobs, job: job, base: job}
	c := s.cfg
	c.window = &window{job: job.ID, to: job.To, scope: scope, live: s}
	c.Cursors, c.Store, c.Sink = (*asideCursor)(a), (*asideStore)(a), &asideSink{Sink: c.Sink}
	c.Jobs, c.Whole = nil, false
	c.Exhausted, c.Resolved, c.Throttle = ExhaustedSkip, 0, NewThrottle()
	c.MaxInFlight = max(1, int(math.Ceil(asideShare*float64(c.MaxInFlight))))
	c.Rate *= asideShare
	c.Budget = max(1, c.Budget/asideBudget)
	if c.alone { // it has its own beside
		c.Memory, c.Credit = nil, 0
	}
	c.Throttle.Set(0) // until it was looked whether it may go
	c.Observer.SubscriptionState, c.Observer.Delivered = nil, nil
	if a.sub, err = New(c); err != nil {
		return nil, err
	}
	return a, nil
}

// Run delivers until the window is done, or ctx ends; then what is in flight ends as in Subscription.Run, which
// must be running all the while. done tells which. An error of the state may be tried again; a *JobError means
// that the job has failed. allowed says what share of its speed it may have now, and why not all; called often.
func (a *Aside) Run(ctx context.Context, allowed func() (ratio float64, why string)) (done bool, err error) {
	log := a.sub.cfg.Log
	if j := a.Job(); j.Log != log.ID() {
		return false, &JobError{fmt.Sprintf("its window is one of log %s, but the log is now %s", j.Log, log.ID())}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { a.govern(ctx, allowed) })
	err = a.sub.Run(ctx)
	cancel()
	wg.Wait()
	a.live.beside.reserve(0)
	if errors.Is(err, errWindowDone) {
		return true, nil
	}
	return false, err
}

// JobError says why a job has failed for good.
type JobError struct{ What string }

// Error says what happened, and what to do.
func (e *JobError) Error() string { return e.What }

// govern sets the pace until ctx ends.
func (a *Aside) govern(ctx context.Context, allowed func() (float64, string)) {
	tick := time.NewTicker(asideLook)
	defer tick.Stop()
	for {
		ratio, why := a.may(time.Now(), allowed)
		a.sub.cfg.Throttle.Set(ratio)
		a.mu.Lock()
		a.job.Reason = why
		a.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// may returns what share of its own limit the replay has now, and why it waits.
func (a *Aside) may(now time.Time, allowed func() (float64, string)) (ratio float64, why string) {
	live := a.live
	if why, _ := live.Stands(); why != "" {
		return 0, why
	}
	live.mu.Lock()
	limit, low := live.status.Limit, live.status.Low
	live.mu.Unlock()
	lag := time.Duration(0)
	_, next := live.cfg.Log.Bounds()
	switch oldest := live.beside.oldest.Load(); {
	case oldest > 0:
		a.gap, lag = time.Time{}, now.Sub(time.UnixMicro(oldest))
	case low >= next:
		a.gap = time.Time{}
	case a.gap.IsZero():
		a.gap = now
	default:
		lag = now.Sub(a.gap)
	}
	if lag > asideLag {
		return 0, fmt.Sprintf("the subscription is %s behind; it goes on below %s", lag.Round(time.Second), asideLag)
	}
	ratio, why = allowed()
	if ratio <= 0 {
		return 0, why
	}
	throttle := live.cfg.Throttle.ratio()
	if throttle <= 0 {
		return 0, "the subscription is stopped by a throttle"
	}
	if limit == 0 { // nothing was published yet
		limit = live.cfg.MaxInFlight
	}
	of := asideShare * float64(limit) / float64(a.sub.cfg.MaxInFlight)
	return ratio * min(1, of) * throttle, ""
}

// Job is the job as it stands; its State says whether it waits.
func (a *Aside) Job() pipeline.Job {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count()
	j := a.job
	if j.State == pipeline.JobRunning && j.Reason != "" {
		j.State = pipeline.JobWaiting
	}
	return j
}

// count brings the job's numbers up to date. a.mu is held.
func (a *Aside) count() {
	a.sub.mu.Lock()
	delivered := a.sub.status.Delivered
	a.sub.mu.Unlock()
	dead := a.sub.dead.Load()
	a.job.Done, a.job.Dead = a.base.Done+delivered+dead, a.base.Dead+dead
	if a.job.Total > 0 { // what was delivered again after a crash counts once
		a.job.Done = min(a.job.Done, a.job.Total)
	}
}

// End makes the job's end durable, or a pause. Not while Run runs.
func (a *Aside) End(ctx context.Context, state pipeline.JobState, reason string) error {
	a.mu.Lock()
	a.count()
	j := a.job
	a.mu.Unlock() // whoever asks for the job does not wait for the store
	if j.State, j.Reason = state, reason; state.Ended() {
		j.Ended = time.Now()
	}
	if left := a.sub.cfg.window.left.Load(); state == pipeline.JobDone && left > 0 {
		j.Reason = fmt.Sprintf("%d events of parked keys were left out: they come when the keys are redriven", left)
	}
	if err := a.store.PutJob(ctx, j); err != nil {
		return err
	}
	a.mu.Lock()
	a.job = j
	a.mu.Unlock()
	return nil
}

// Wanted is the offset that the replay still needs the log from.
func (a *Aside) Wanted() pipeline.Offset {
	o, ok := a.sub.Progress()
	if !ok {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.job.At
	}
	return o
}

// asideCursor keeps the cursor in the job.
type asideCursor Aside

// Load implements pipeline.Cursors.
func (a *asideCursor) Load(context.Context, string) (pipeline.Cursor, bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return pipeline.Cursor{Log: a.job.Log, Low: a.job.At, High: a.job.High, Pending: a.job.Pending}, true, nil
}

// Save implements pipeline.Cursors.
func (a *asideCursor) Save(ctx context.Context, _ string, c pipeline.Cursor) error {
	a.mu.Lock()
	(*Aside)(a).count()
	a.job.At, a.job.High, a.job.Pending = c.Low, c.High, c.Pending
	j := a.job
	a.mu.Unlock() // as in End
	j.Reason = ""
	return a.store.PutJob(ctx, j)
}

// asideStore keeps an aside's dead letters among the subscription's; it has no parks and no pause of its own.
type asideStore Aside

// PutDeadLetters implements Store.
func (a *asideStore) PutDeadLetters(ctx context.Context, d []pipeline.DeadLetter) error {
	for i := range d {
		d[i].Reason = "replay " + a.sub.cfg.window.job + ": " + d[i].Reason
	}
	return a.live.cfg.Store.PutDeadLetters(ctx, d)
}

// Bury implements Store; never called, as an aside parks nothing.
func (a *asideStore) Bury(ctx context.Context, d pipeline.DeadLetter, _ Park) error {
	return a.PutDeadLetters(ctx, []pipeline.DeadLetter{d})
}

// DeleteDeadLetters implements Store: nothing of it is redriven.
func (a *asideStore) DeleteDeadLetters(context.Context, string, []pipeline.Offset) error { return nil }

// DeadOffsets implements Store.
func (a *asideStore) DeadOffsets(context.Context, string, pipeline.Offset) ([]pipeline.Offset, error) {
	return nil, nil
}

// PutSkip implements Store.
func (a *asideStore) PutSkip(context.Context, Skip) error { return nil }

// Paused implements Store.
func (a *asideStore) Paused(context.Context, string) (bool, string, error) { return false, "", nil }

// SetPaused implements Store: a subscriber that asked to stop (410) pauses the subscription.
func (a *asideStore) SetPaused(ctx context.Context, _ string, paused bool, reason string) error {
	if !paused {
		return nil
	}
	return a.live.Pause(ctx, reason)
}

// PutParks implements Store.
func (a *asideStore) PutParks(context.Context, []Park) error { return nil }

// DeleteParks implements Store.
func (a *asideStore) DeleteParks(context.Context, []Park) error { return nil }

// EachPark implements Store.
func (a *asideStore) EachPark(context.Context, string, string, func(*Park)) error { return nil }

// Parks implements Store.
func (a *asideStore) Parks(context.Context, string) ([]Park, error) { return nil, nil }

// asideSink hides what else the sink can: an Ordered one numbers its Deliveries, and these stand beside them;
// and only the live session drains it.
type asideSink struct{ pipeline.Sink }

// Deliver implements pipeline.Sink.
func (s *asideSink) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	copied := *d
	copied.Number, copied.Aside = 0, true
	return s.Sink.Deliver(ctx, &copied)
}
