package parquet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Options of a Sink.
type Options struct {
	Subscription, Source string
	// Path is a folder, or s3://BUCKET/PREFIX. Nobody else writes there.
	Path string
	S3   S3
	// Stage is the local folder of the stages; it is made when missing, and belongs to this sink.
	Stage string
	// RollBytes is the size of a stage, about three times that of its files, RollAge its age, at which it becomes files.
	RollBytes int64
	RollAge   time.Duration
	// Compression is zstd, snappy, gzip or none.
	Compression string
	// Encoder of the events: encode.Proto.
	Encoder *encode.Encoder
}

// mostWaiting stages may wait for the store before Deliver waits too.
const mostWaiting = 4

// Sink writes Parquet files. Deliveries wait for each other only while they are put onto the disk.
type Sink struct {
	o     Options
	store store
	wake  chan struct{} // the stage is to be looked at
	stop  context.CancelFunc
	ctx   context.Context
	wg    sync.WaitGroup

	mu       sync.Mutex
	opened   bool
	closed   bool
	cursor   pipeline.Cursor
	seen     map[uint64]struct{} // offsets that are there already and may come again
	stage    *stage
	next     uint64 // stage
	waiting  []rolled
	complete uint64
	trouble  error // of the store

	files made // the worker's, once it runs
}

// made is what the manifests say so far.
type made struct {
	high, complete uint64
	latest         time.Time // commit in files
	completeTime   time.Time
	at             time.Time // of the last one
}

// rolled is a stage that waits to become files.
type rolled struct {
	seq uint64
	// complete: everything below it stands in this stage or in earlier ones.
	complete uint64
	// size of what was delivered in it.
	size int64
	// empty: it is none, its manifest says what is complete.
	empty bool
}

// New returns the sink of a folder or bucket. It opens nothing yet.
func New(o Options) (*Sink, error) {
	st, err := newStore(o.Path, o.S3)
	if err != nil {
		return nil, err
	}
	s := &Sink{o: o, store: st, wake: make(chan struct{}, 1), seen: map[uint64]struct{}{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// Check finds out whether files can be made at a path.
func Check(ctx context.Context, path string, o S3) error {
	st, err := newStore(path, o)
	if err != nil {
		return err
	}
	return st.check(ctx)
}

// Resume implements pipeline.Resumer.
func (s *Sink) Resume(c pipeline.Cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = c
	if !s.opened {
		s.complete = uint64(c.Resolved)
	}
}

// Deliver implements pipeline.Sink. All events are done, or none.
func (s *Sink) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	var g encode.Gathered
	s.o.Encoder.Gather(d, &g)
	defer g.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, pipeline.ErrClosed
	}
	if err := s.open(ctx); err != nil {
		return nil, s.unavailable(err)
	}
	if s.trouble != nil { // the log keeps what a stage would
		return nil, s.unavailable(s.trouble)
	}
	if len(s.waiting) >= mostWaiting {
		return nil, &pipeline.DeliveryError{Class: pipeline.Unavailable, RetryAfter: time.Second, Reason: "files are written slower than events come"}
	}
	entries, again := g.Parts, []uint64(nil)
	if len(s.seen) > 0 && d.Replay == "" && d.Reason != pipeline.ReasonReplay {
		entries, again = s.fresh(d, &g)
	}
	if err := s.append(d, entries); err != nil {
		return nil, s.unavailable(err)
	}
	for _, o := range again { // done: it does not come a third time
		delete(s.seen, o)
	}
	if len(g.Errs) == 0 {
		return nil, nil
	}
	out := make(pipeline.Outcomes, len(g.Ends))
	for _, ee := range g.Errs {
		out[ee.Event] = pipeline.Outcome{Class: pipeline.Fatal, Reason: ee.Error()}
	}
	return out, nil
}

// fresh leaves out what is there already, and returns its offsets.
func (s *Sink) fresh(d *pipeline.Delivery, g *encode.Gathered) (entries [][]byte, again []uint64) {
	var kept []byte
	start := 0
	_ = d.Each(func(i int, b *pipeline.Batch, event int, _ pipeline.Op) error {
		end := int(g.Ends[i])
		if o := uint64(b.Offset(event)); s.there(o) {
			again = append(again, o)
		} else {
			kept = g.AppendRange(kept, start, end)
		}
		start = end
		return nil
	})
	return [][]byte{kept}, again
}

func (s *Sink) there(o uint64) bool {
	_, ok := s.seen[o]
	return ok
}

// append puts entries onto the disk.
func (s *Sink) append(d *pipeline.Delivery, entries [][]byte) error {
	size := 0
	for _, p := range entries {
		size += len(p)
	}
	if size == 0 {
		return nil
	}
	if s.stage == nil {
		st, err := newStage(s.o.Stage, s.next, time.Now())
		if err != nil {
			return err
		}
		s.stage = st
		s.next++
		s.signal() // its age counts
	}
	head := &leatv1.Events{Source: d.Source}
	for _, r := range d.Runs {
		for i := r.From; i < r.To; i++ {
			if t := r.Batch.TableOf(int(i)); t != nil && !s.stage.known[version{t.ID, t.Version}] {
				s.stage.known[version{t.ID, t.Version}] = true
				head.Tables = append(head.Tables, s.o.Encoder.Table(t))
			}
		}
	}
	if err := s.stage.append(head, entries, d.Reason == pipeline.ReasonRedrive && d.Replay == ""); err != nil {
		for _, t := range head.Tables {
			delete(s.stage.known, version{t.Id, t.Version})
		}
		return err
	}
	if s.stage.size >= s.o.RollBytes {
		s.trouble = s.roll() // what was appended is delivered all the same
	}
	return nil
}

// roll ends the stage. Called with mu held.
func (s *Sink) roll() error {
	st := s.stage
	if err := st.end(); err != nil {
		return err
	}
	s.stage = nil
	s.waiting = append(s.waiting, rolled{seq: st.seq, complete: s.complete, size: st.size})
	s.signal()
	return nil
}

func (s *Sink) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// work makes files of stages, until Close.
func (s *Sink) work() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var tries int
	for {
		again := time.Minute
		s.mu.Lock()
		if s.stage != nil {
			if again = time.Until(s.stage.since.Add(s.o.RollAge)); again <= 0 || s.stage.size >= s.o.RollBytes {
				s.trouble = s.roll()
				again = 0
			}
		}
		if s.stage == nil && len(s.waiting) == 0 && s.complete > s.files.complete {
			if due := time.Until(s.files.at.Add(s.o.RollAge)); due > 0 {
				again = min(again, due)
			} else { // nothing came, and readers want to know that
				s.waiting = append(s.waiting, rolled{seq: s.next, complete: s.complete, empty: true})
				s.next++
			}
		}
		var first rolled
		if len(s.waiting) > 0 {
			first = s.waiting[0]
		}
		s.mu.Unlock()
		if first.seq > 0 {
			err := s.convert(s.ctx, first)
			if s.ctx.Err() != nil {
				return
			}
			s.mu.Lock()
			if err == nil {
				s.waiting, tries, again = s.waiting[1:], 0, 0
				s.files.at = time.Now()
			} else {
				again = min(time.Second<<min(tries, 6), time.Minute)
				tries++
			}
			s.trouble = err
			s.mu.Unlock()
		}
		timer.Reset(again)
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
			if tries > 0 { // a store that is ill is not asked more often
				select {
				case <-s.ctx.Done():
					return
				case <-timer.C:
				}
			}
		}
	}
}

// Resolve implements pipeline.Resolver: the next manifest says so.
func (s *Sink) Resolve(_ context.Context, o pipeline.Offset, _ time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return pipeline.ErrClosed
	}
	s.complete = max(s.complete, uint64(o))
	if s.stage == nil {
		s.signal()
	}
	return nil
}

// Close implements pipeline.Sink. What stands in stages becomes files after the next start.
func (s *Sink) Close() error {
	s.mu.Lock()
	s.closed = true
	s.stop()
	st := s.stage
	s.stage = nil
	s.mu.Unlock()
	s.wg.Wait()
	if st == nil {
		return nil
	}
	return st.f.Close()
}

// unavailable says that nothing can be written now: nobody's event is to blame.
func (s *Sink) unavailable(err error) error {
	reason := err.Error()
	switch {
	case errors.Is(err, syscall.ENOSPC):
		reason = fmt.Sprintf("the disk is full that holds %s or %s: make space", s.o.Stage, s.o.Path)
	case errors.Is(err, syscall.EDQUOT):
		reason = fmt.Sprintf("the disk quota is used up for %s or %s: make space", s.o.Stage, s.o.Path)
	}
	return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: reason, Err: err}
}
