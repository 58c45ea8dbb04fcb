// Package deliver runs a subscription: reader → filter → lanes → sink → ack frontier → cursor.
//
// Terms. An item is what one batch of the log holds for the subscription. A lane orders events: equal
// keys never overtake one another. A key is held while an earlier event of it has failed or is waited
// for; its later events queue behind. A unit is what is retried together. The frontier is what is done;
// the cursor is the frontier on disk.
//
// Start at [Subscription.Run] (run.go: commands, pauses, one session after another), then session.run (the
// loop that owns all state of a session), dispatch.go (what goes out), settle.go (what came back), retry.go
// (what of it is tried again), outage.go (the endpoint as a whole), reader.go and saver.go (the two
// other goroutines).
//
// A pause, a seek, a stop and a crash end a session; the next one begins from the cursor: there is one
// way to begin, and it is used all the time.
package deliver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/flow"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/pipeline/sched"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Order says what keeps its order.
type Order uint8

const (
	// OrderKey: events of one key are delivered in commit order, at most one Delivery of a key at a time.
	OrderKey Order = iota
	// OrderSource: all events in log order.
	OrderSource
	// OrderNone: no order.
	OrderNone
)

// Exhausted says what happens when an event's attempts are spent.
type Exhausted uint8

const (
	// ExhaustedBlock: the subscription delivers nothing but that event, every Retry.Max, until it is
	// taken or refused for good, or a person seeks past it.
	ExhaustedBlock Exhausted = iota
	// ExhaustedSkip: it becomes a dead letter and its key goes on.
	ExhaustedSkip
	// ExhaustedPark: it becomes a dead letter and its key is parked: later events of the key are held in the
	// log, every other key moves; see Redrive and Discard. So does an event that is refused for good. With
	// OrderSource, where nothing may pass, it means ExhaustedBlock; with OrderNone only the event is held.
	// A range whose parks are RangeParks pauses, others go on; a subscription holds 10,000 parks, beyond them it blocks.
	ExhaustedPark
)

// Laggard says what happens when retention has removed what was not read yet.
type Laggard uint8

const (
	// LaggardHold: the log was kept as long as the quota allowed (that is the engine's part); what is
	// gone is listed as skipped, loudly.
	LaggardHold Laggard = iota
	// LaggardSkip: what is gone is listed as skipped.
	LaggardSkip
	// LaggardSnapshot: held as with LaggardHold; then a snapshot brings the rows to this subscription alone, which
	// goes on live at the end of the log. What is left out is listed as skipped.
	LaggardSnapshot
)

// String is the policy as the configuration names it.
func (l Laggard) String() string { return [...]string{"hold", "skip", "snapshot"}[l] }

// Start says where a new subscription begins, or where a seek goes. The zero Start is the oldest offset
// that the log keeps.
type Start struct {
	Latest bool
	// Snapshot: at the end of the log, behind which a snapshot brings the rows that are there (Config.Snapshot).
	Snapshot bool
	Offset   pipeline.Offset
	Time     time.Time
}

// Batch bounds a Delivery.
type Batch struct {
	// Events, default 100; Bytes of keys and row images, default 1 MiB (a single larger event goes alone).
	Events, Bytes int
	// Wait for a Delivery to fill; default 0: what is ready goes.
	Wait time.Duration
}

// Retry is the policy for what failed and may succeed later.
type Retry struct {
	// Initial wait, doubling up to Max, jittered by 20 %. Defaults 1 s, 10 min.
	Initial, Max time.Duration
	// Attempts of an event, default 12, and Age since its first failure, default 24 h.
	Attempts int
	Age      time.Duration
}

// Skip is a stretch that was left out on purpose.
type Skip = pipeline.Skip

// Store keeps what a subscription must not forget besides its cursor. What it returned from is durable.
// Putting the same dead letter or state again replaces it.
type Store interface {
	PutDeadLetters(ctx context.Context, d []pipeline.DeadLetter) error
	// DeleteDeadLetters forgets those at offsets, all or none; unknown ones are no error.
	DeleteDeadLetters(ctx context.Context, subscription string, offsets []pipeline.Offset) error
	// DeadOffsets lists those of a subscription from an offset on, in order.
	DeadOffsets(ctx context.Context, subscription string, from pipeline.Offset) ([]pipeline.Offset, error)
	PutSkip(ctx context.Context, s Skip) error
	// Paused returns whether the subscription is paused, and why.
	Paused(ctx context.Context, subscription string) (paused bool, reason string, err error)
	SetPaused(ctx context.Context, subscription string, paused bool, reason string) error
	// Bury keeps a dead letter and the park of its key, as PutDeadLetters and PutParks do, both or none.
	Bury(ctx context.Context, d pipeline.DeadLetter, p Park) error
	// PutParks keeps parks, all or none; one of the same subscription and ID is replaced.
	PutParks(ctx context.Context, parks []Park) error
	// DeleteParks forgets parks by subscription and ID, all or none.
	DeleteParks(ctx context.Context, parks []Park) error
	// EachPark calls f with each park of a subscription and a log, in no order; KeyJSON, Reason and Attempts may be
	// missing, and Key and Until are f's only as long as it runs.
	EachPark(ctx context.Context, subscription, log string, f func(*Park)) error
	// Parks lists a subscription's.
	Parks(ctx context.Context, subscription string) ([]Park, error)
}

// Config of a subscription.
type Config struct {
	// Name of the subscription and of its source; required, as are Log, Cursors, Store and Sink.
	Name, Source string
	Log          pipeline.Log
	Cursors      pipeline.Cursors
	Store        Store
	Sink         pipeline.Sink
	// Jobs keeps replays, and Form reads rows for their filters; nil: there are none.
	Jobs JobStore
	Form func(*schemas.Table) *cell.Form
	// Filter; nil = everything.
	Filter *filter.Program
	// From is read once: when there is no cursor yet.
	From  Start
	Order Order
	// MaxInFlight Deliveries at once, default 64 (OrderSource with an ordinary sink: 1).
	MaxInFlight int
	// Adaptive: the Deliveries in flight begin with one and follow what the endpoint shows that it can take
	// (package flow), up to MaxInFlight. No matter for Ordered sinks, whose subscriber asks for what it wants.
	Adaptive bool
	// Rate bounds the events sent per second, retries included; 0 = no bound.
	Rate float64
	// Throttle scales MaxInFlight and Rate while it runs; nil = never.
	Throttle  *Throttle
	Batch     Batch
	Retry     Retry
	Exhausted Exhausted
	// RangeParks is how many keys of a range may be parked, default 1,024. What is given up on beyond pauses the range:
	// it is held by offset, as a whole, until fewer than nine tenths are parked. A space that was never split is no range.
	RangeParks int
	Laggard    Laggard
	// Snapshot makes a snapshot for this subscription alone durable, or finds the one that was, for the reason why,
	// and returns the offset from which its rows and all that is newer are read: at least oldest, at most next. For
	// Start.Snapshot and LaggardSnapshot.
	Snapshot func(ctx context.Context, why string, oldest, next pipeline.Offset) (pipeline.Offset, error)
	// Gate that Deliveries go through while they are encoded, with others of the process; nil = none. Priority
	// is the class there.
	Gate     *sched.Gate
	Priority sched.Class
	// Timeout sets Delivery.Deadline; 0 = none.
	Timeout time.Duration
	// Grace that Deliveries get to end when the subscription stops or pauses; default 10 s.
	Grace time.Duration
	// Whole: each transaction of the source is delivered all or nothing, in commit order: for a pipeline.Committer and
	// OrderSource.
	Whole bool
	// Resolved is the shortest time between two leat.resolved events; 0 = none.
	Resolved time.Duration
	// Budget of batches held (read ahead, in flight, held back), in bytes; reading waits at it, so that
	// at most one more batch is held. Default 16 MiB.
	Budget int64
	// Memory that Budget is part of, shared with other subscriptions; Credit bytes of it are this one's own,
	// default 1 MiB. Nil: Budget is its own.
	Memory *Memory
	Credit int64
	alone  bool // Memory was not given
	// Admit, when set, is asked before each Delivery goes to the sink; its error is what became of it instead. Called
	// by many goroutines.
	Admit func(*pipeline.Delivery) error
	// Render makes a dead letter's JSON and its key's; nil = none is kept.
	Render func(b *pipeline.Batch, event int, as pipeline.Op) (eventJSON []byte, keyJSON string)
	// Rand returns numbers in [0, 1) for jitter, to any goroutine; default math/rand.
	Rand     func() float64
	Observer pipeline.Observer

	window *window // of a replay aside; nil: live
}

func (c Config) filled() (Config, error) {
	var missing []string
	for name, absent := range map[string]bool{"Name": c.Name == "", "Source": c.Source == "", "Log": c.Log == nil,
		"Cursors": c.Cursors == nil, "Store": c.Store == nil, "Sink": c.Sink == nil} {
		if absent {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return c, fmt.Errorf("subscription %q: config lacks %v", c.Name, missing)
	}
	if c.Snapshot == nil && (c.From.Snapshot || c.Laggard == LaggardSnapshot) {
		return c, fmt.Errorf("subscription %q: nothing makes its snapshots", c.Name)
	}
	if c.MaxInFlight < 0 || c.Batch.Events < 0 || c.Batch.Bytes < 0 || c.Batch.Wait < 0 || c.Retry.Attempts < 0 || c.Budget < 0 || c.Rate < 0 {
		return c, fmt.Errorf("subscription %q: a limit is negative", c.Name)
	}
	if _, ok := c.Sink.(pipeline.Committer); c.Whole && (!ok || c.Order != OrderSource) {
		return c, fmt.Errorf("subscription %q: whole transactions need their order and a sink that commits", c.Name)
	}
	_, ordered := c.Sink.(pipeline.Ordered)
	def(&c.MaxInFlight, 64)
	if c.Order == OrderSource && c.Exhausted == ExhaustedPark {
		c.Exhausted = ExhaustedBlock
	}
	if c.Order == OrderSource && !ordered {
		c.MaxInFlight = 1
	}
	def(&c.Batch.Events, 100)
	def(&c.Batch.Bytes, 1<<20)
	def(&c.RangeParks, 1024)
	def(&c.Retry.Initial, time.Second)
	def(&c.Retry.Max, 10*time.Minute)
	def(&c.Retry.Attempts, 12)
	def(&c.Retry.Age, 24*time.Hour)
	def(&c.Grace, 10*time.Second)
	def(&c.Budget, 16<<20)
	if c.Memory == nil {
		c.Memory, c.Credit, c.alone = NewMemory(c.Budget), c.Budget, true
	}
	def(&c.Credit, 1<<20)
	c.Credit = min(c.Credit, c.Budget)
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	c.Observer = c.Observer.Fill()
	return c, nil
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// States of a subscription. Each but running ends by itself or by what its Reason names.
const (
	// StateRunning: nothing is wrong.
	StateRunning = "running"
	// StateRetrying: some keys failed and are tried again at Status.Until.
	StateRetrying = "retrying"
	// StateWaiting: the endpoint is unavailable; it is probed at Status.Until.
	StateWaiting = "waiting"
	// StateBlocked: an event's attempts are spent; it is tried again at Status.Until.
	StateBlocked = "blocked"
	// StatePaused: until Resume.
	StatePaused = "paused"
	// StateStopped: cannot run (Reason has the cure); until Seek, or Run has not begun.
	StateStopped = "stopped"
	// StateClosed: Run has ended as it was told to.
	StateClosed = "closed"
)

// Status of a subscription at a moment.
type Status struct {
	State, Reason string
	// Until is when what State waits for is tried again; zero when that is no matter of time.
	Until time.Time
	// Low: everything below is done. Read: everything below was read. Next: the end of the log.
	Low, Read, Next pipeline.Offset
	// Persisted is the Low on disk; Resolved the highest offset told to the subscriber.
	Persisted, Resolved pipeline.Offset
	// InFlight Deliveries; Open events (given out or held, and not done); Held keys; Buffered bytes.
	InFlight, Open, Held int
	// Limit of the Deliveries in flight now, of Max by configuration, and Pace in Deliveries per second (0: none); Flow says why
	// they are lower than configured, empty when nothing was ever cut.
	Limit int
	Max   int
	Pace  float64
	Flow  string
	// Parked keys: see Subscription.Parked.
	Parked   int
	Buffered int64
	// Expired events: retention took them before they were delivered; since New.
	Expired uint64
	// Delivered events, Failed Deliveries and Dead letters since New.
	Delivered, Failed, Dead uint64
	// Commit time of the newest event delivered; zero when none was.
	Commit time.Time
	// Lanes, one for each range of the key spaces that were ever split; counted at most each second.
	Lanes []Lane
	// SaveError is why the cursor could not be saved last; empty when it was.
	SaveError string
}

// Subscription delivers a log's events to one sink.
type Subscription struct {
	cfg       Config
	limiter   *flow.Limiter     // the running session's goroutine owns it
	outage    flow.Outage       // too
	cured     []pipeline.Offset // dead letters that were redriven; too
	told      pipeline.Offset   // the highest resolved offset that the subscriber took; the running session's
	commands  chan command
	looks     chan look
	asked     chan struct{} // to give back what was read ahead
	running   atomic.Bool
	persisted atomic.Uint64
	hasCursor atomic.Bool
	dead      atomic.Uint64
	expired   atomic.Uint64
	parks     parks
	parked    atomic.Bool // parks were read
	passTail  pipeline.Offset
	beside    beside
	maxCopied int64         // bytes
	hold      *hold         // nil: none; Run's goroutine writes, under mu
	holdStore chan struct{} // has its one place taken while hold's job is being stored
	holdEnded chan struct{}
	number    uint64 // of the last Delivery of earlier sessions; Run's goroutine owns it
	// unsure: a write to the state failed, and may have been done all the same: the next session begins with what
	// is on disk. Run's goroutine owns it.
	unsure bool
	// worked is when a Delivery last showed that the endpoint is there, perhaps in an earlier process; works: in this
	// one. The running session's.
	worked time.Time
	works  bool

	mu     sync.Mutex
	status Status
	lanes  map[partition.Name]*Lane // open events by range
	listed struct {
		sync.Mutex
		laneCount
	}
	done chan struct{} // closed when the current Run ends; nil before the first
}

// New checks the configuration. It reads and starts nothing: see Run.
func New(c Config) (*Subscription, error) {
	c, err := c.filled()
	if err != nil {
		return nil, err
	}
	return &Subscription{cfg: c, limiter: newLimiter(&c), outage: flow.NewOutage(c.Rand), asked: make(chan struct{}, 1), commands: make(chan command), looks: make(chan look), passTail: passTail, maxCopied: maxCopied, beside: beside{nudge: make(chan struct{}, 1)},
		holdEnded: make(chan struct{}, 1), holdStore: make(chan struct{}, 1),
		status: Status{State: StateStopped, Reason: "not started"}}, nil
}

// ErrNotRunning: commands need Run.
var ErrNotRunning = errors.New("subscription is not running")

// Status never blocks.
func (s *Subscription) Status() Status {
	s.mu.Lock()
	st, open := s.status, s.lanes
	s.mu.Unlock()
	st.Lanes = s.laneList(&st, open)
	_, st.Next = s.cfg.Log.Bounds()
	st.Persisted, st.Expired = pipeline.Offset(s.persisted.Load()), s.expired.Load()
	return st
}

// Progress returns the offset below which the subscription will never read again, even after a crash:
// retention may take what lies below. ok is false until a cursor is known.
func (s *Subscription) Progress() (o pipeline.Offset, ok bool) {
	if !s.hasCursor.Load() {
		return 0, false
	}
	o = pipeline.Offset(s.persisted.Load())
	if from, ok := s.parks.paused(); ok {
		o = min(o, from)
	}
	return o, true
}

// Place is where the subscription stands in the log. Low: all below is done, or held by a parked key. Read: what is to be read next; below it
// the log may go without a loss, as long as the process lives. Expired as in Status.
type Place struct {
	Low, Read pipeline.Offset
	Expired   uint64
}

// Place never blocks; ok is false until a cursor is known.
func (s *Subscription) Place() (p Place, ok bool) {
	if !s.hasCursor.Load() {
		return p, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.status
	p = Place{Low: st.Low, Read: st.Read, Expired: s.expired.Load()}
	if st.State == StatePaused || st.State == StateStopped {
		p.Read = p.Low // no session, no buffers
	}
	if from, ok := s.parks.paused(); ok && from < p.Low {
		p.Low, p.Read = from, from // what a range holds is nowhere but in the log
	}
	return p, true
}

// setState tells status and observer about a change of state.
func (s *Subscription) setState(state, reason string, until time.Time) {
	s.mu.Lock()
	changed := s.status.State != state || s.status.Reason != reason
	s.status.State, s.status.Reason, s.status.Until = state, reason, until
	s.mu.Unlock()
	if changed {
		s.cfg.Observer.SubscriptionState(s.cfg.Name, state, reason)
	}
}
