// Package simulation runs the whole pipeline from one seed: the real ingest, log, deliver and engine, inside a
// testing/synctest bubble, over a disk, a source, a store of state and subscribers that fail as the seed says.
//
// Words. A call is something the pipeline asks of the world (a write, a sync, a read of the log, a change of state,
// a Delivery): it waits until the driver answers it. The driver makes one input at a time (it answers one call, lets
// time pass, commits a transaction, gives a command, crashes the process) and then waits until everything is at rest;
// so one seed is one run, however goroutines are scheduled. The nemesis chooses the inputs; the oracles say
// after each what must never be.
//
// Read driver_test.go (the loop), then nemesis_test.go, then oracles_test.go. The parts of the world: world_test.go
// (calls), disk_test.go, database_test.go, store_test.go, subscriber_test.go; process_test.go wires the product.
// planted_test.go has the bugs that the oracles are shown to catch.
package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog/faultfs"
)

// kind of a call.
type kind uint8

const (
	callDisk kind = iota
	callRead
	callStore
	callCopies // of what parks hold: not the subscription's loop asks
	callJobs
	callDeliver
	callResolve
	callOpenSink
	callOpenSource
	callNext
)

// errCrashed is what a process that is dead gets for everything.
var errCrashed = errors.New("simulated crash: the process is dead")

// call waits for the driver's answer.
type call struct {
	kind kind
	name string // who asks for what; tells it from all others that wait
	what string // more of it, for the trace
	life int
	sub  *subscriber
	// apply does it; the driver's goroutine runs it when it answers with success. May be nil.
	apply    func() error
	delivery *flight         // callDeliver
	next     *handing        // callNext
	offset   pipeline.Offset // callResolve
	cursor   *pipeline.Cursor
	loop     bool // callJobs: a subscription's loop waits
	noticed  bool
	reply    chan error
}

// calls that wait. The pipeline's goroutines add to it; the driver looks when all are at rest.
type calls struct {
	mu      sync.Mutex
	life    int // the process that lives; 0: none
	waiting []*call
}

// ask waits for the driver's answer to x.
func (c *calls) ask(ctx context.Context, x *call) error {
	x.reply = make(chan error, 1)
	c.mu.Lock()
	if x.life != c.life {
		c.mu.Unlock()
		return errCrashed
	}
	c.waiting = append(c.waiting, x)
	c.mu.Unlock()
	select {
	case err := <-x.reply:
		return err
	case <-ctx.Done():
		c.remove(x)
		return ctx.Err()
	}
}

func (c *calls) remove(x *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = slices.DeleteFunc(c.waiting, func(o *call) bool { return o == x })
}

// list returns the calls that wait, by name: the order in which goroutines came says nothing.
func (c *calls) list() []*call {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.SortFunc(c.waiting, func(a, b *call) int { return strings.Compare(a.name, b.name) })
	return slices.Clone(c.waiting)
}

// answer ends a call.
func (c *calls) answer(x *call, err error) {
	c.remove(x)
	x.reply <- err
}

// lives says which process lives from now on; all others get errCrashed.
func (c *calls) lives(life int) (cut []*call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.life = life
	cut, c.waiting = c.waiting, nil
	return cut
}

// world is all that is not the process. The driver's goroutine owns it, but for calls and faults.
type world struct {
	seed  uint64
	rng   *rand.Rand // of the driver
	set   settings
	plant plant
	calls calls
	disk  *faultfs.FS
	db    *database
	store *store
	subs  []*subscriber
	p     *process // nil while none runs
	life  int
	first pipeline.Offset // of the log; 0: not known yet
	trace trace
	began time.Time
	// largest batch that was read, in bytes of accounting.
	largest int64
	ranges  rangeBook

	mu     sync.Mutex
	broken error // the first invariant that was broken
	// confirmed is how far the source was told that the log is durable, counted in transactions.
	confirmed uint64
	skew      time.Duration // of the log's clock
	full      bool          // our disk, as far as the engine is told
	slowed    float64       // the share that a throttle leaves to reading the source
}

// breaks notes a broken invariant; the first counts. Any goroutine.
func (w *world) breaks(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
	}
}

func (w *world) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}

// index of an event in the database's history: each event has one offset, in order, nothing between.
func (w *world) index(o pipeline.Offset) int {
	if o < w.first {
		return -1
	}
	return int(o - w.first)
}

func (w *world) sub(name string) *subscriber {
	for _, s := range w.subs {
		if s.name == name {
			return s
		}
	}
	return nil
}

// trace is the run as text: a hash of all of it, and its tail.
type trace struct {
	hash  uint64
	steps int
	tail  []string
	all   func(string) // prints each line; nil: nobody reads along
}

const tailLines = 80

func (t *trace) add(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	t.digest(line)
	t.tail = append(t.tail, line)
	if len(t.tail) > 2*tailLines {
		t.tail = slices.Clone(t.tail[tailLines:])
	}
	if t.all != nil {
		t.all(line)
	}
}

// digest is FNV-1a.
func (t *trace) digest(s string) {
	if t.hash == 0 {
		t.hash = 14695981039346656037
	}
	for i := range len(s) {
		t.hash = (t.hash ^ uint64(s[i])) * 1099511628211
	}
}

func (t *trace) last() string {
	return strings.Join(t.tail[max(0, len(t.tail)-tailLines):], "\n")
}
