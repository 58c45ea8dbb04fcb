package parquet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	pq "github.com/parquet-go/parquet-go"

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
	seen     map[uint64]struct{} // offsets from the cursor on that are there already
	stage    *stage
	next     uint64 // stage
	waiting  []rolled
	complete uint64
	trouble  error // of the store
}

// rolled is a stage that waits to become files.
type rolled struct {
	seq uint64
	// complete: everything below it stands in this stage or in earlier ones.
	complete uint64
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
	entries := g.Parts
	if len(s.seen) > 0 && d.Replay == "" && d.Reason != pipeline.ReasonRedrive && d.Reason != pipeline.ReasonReplay {
		entries = s.fresh(d, &g)
	}
	if err := s.append(d, entries); err != nil {
		return nil, s.unavailable(err)
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

// fresh leaves out what is there already.
func (s *Sink) fresh(d *pipeline.Delivery, g *encode.Gathered) [][]byte {
	var kept []byte
	start := 0
	_ = d.Each(func(i int, b *pipeline.Batch, event int, _ pipeline.Op) error {
		end := int(g.Ends[i])
		if _, there := s.seen[uint64(b.Offset(event))]; !there {
			kept = g.AppendRange(kept, start, end)
		}
		start = end
		return nil
	})
	return [][]byte{kept}
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
	if err := s.stage.append(head, entries); err != nil {
		for _, t := range head.Tables {
			delete(s.stage.known, version{t.Id, t.Version})
		}
		return err
	}
	if s.stage.size >= s.o.RollBytes {
		return s.roll()
	}
	return nil
}

// roll ends the stage. Called with mu held.
func (s *Sink) roll() error {
	st := s.stage
	s.stage = nil
	s.waiting = append(s.waiting, rolled{st.seq, s.complete})
	s.signal()
	return st.f.Close()
}

func (s *Sink) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// open finds out, at the first Delivery, what is there from before. Called with mu held.
func (s *Sink) open(ctx context.Context) error {
	if s.opened {
		return nil
	}
	if err := os.MkdirAll(s.o.Stage, 0o750); err != nil {
		return err
	}
	names, err := s.store.list(ctx, manifests)
	if err != nil {
		return fmt.Errorf("list %s: %w", s.o.Path, err)
	}
	s.next = 1
	if len(names) > 0 {
		last, _, _ := strings.Cut(path.Base(names[len(names)-1]), ".")
		n, err := strconv.ParseUint(last, 10, 64)
		if err != nil {
			return fmt.Errorf("%s has %s, which is no manifest of ours: give the subscription a folder of its own", s.o.Path, names[len(names)-1])
		}
		s.next = n + 1
	}
	if err := s.remember(ctx, names); err != nil {
		return err
	}
	if err := s.stages(names); err != nil {
		return err
	}
	s.opened = true
	s.wg.Go(s.work)
	return nil
}

// remember collects the offsets from the cursor on that stand in files.
func (s *Sink) remember(ctx context.Context, names []string) error {
	for _, name := range names {
		m, err := s.manifest(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if m.Subscription != s.o.Subscription {
			return fmt.Errorf("%s holds files of subscription %s: give each subscription a folder of its own", s.o.Path, m.Subscription)
		}
		for _, f := range m.Files {
			if f.Last < uint64(s.cursor.Low) {
				continue
			}
			keep := func(o uint64) {
				if o >= uint64(s.cursor.Low) {
					s.seen[o] = struct{}{}
				}
			}
			if err := s.offsets(ctx, f.Path, keep); err != nil {
				return fmt.Errorf("%s: %w", f.Path, err)
			}
		}
	}
	return nil
}

func (s *Sink) manifest(ctx context.Context, name string) (m Manifest, err error) {
	f, size, err := s.store.open(ctx, name)
	if err != nil {
		return m, err
	}
	text, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	if err = errors.Join(err, f.Close()); err != nil {
		return m, err
	}
	return m, json.Unmarshal(text, &m)
}

// offsets calls see for those of a file.
func (s *Sink) offsets(ctx context.Context, name string, see func(uint64)) (err error) {
	in, size, err := s.store.open(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	f, err := pq.OpenFile(in, size)
	if err != nil {
		return err
	}
	leaf, ok := f.Schema().Lookup(colOffset)
	if !ok {
		return fmt.Errorf("it has no column %s", colOffset)
	}
	values := make([]pq.Value, 1024)
	for _, group := range f.RowGroups() {
		pages := group.ColumnChunks()[leaf.ColumnIndex].Pages()
		for {
			page, err := pages.ReadPage()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return errors.Join(err, pages.Close())
			}
			for r := page.Values(); ; {
				n, err := r.ReadValues(values)
				for _, v := range values[:n] {
					see(uint64(v.Int64()))
				}
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return errors.Join(err, pages.Close())
				}
			}
			pq.Release(page)
		}
		if err := pages.Close(); err != nil {
			return err
		}
	}
	return nil
}

// stages takes up those that a crash or an end left: all but the newest wait for the store.
func (s *Sink) stages(manifests []string) error {
	left, err := stages(s.o.Stage)
	if err != nil {
		return err
	}
	done := map[string]bool{}
	for _, m := range manifests {
		done[m] = true
	}
	for i, seq := range left {
		if done[manifestName(seq)] { // its manifest was the last thing that was done
			if err := os.Remove(stageName(s.o.Stage, seq)); err != nil {
				return err
			}
			continue
		}
		st, err := reopen(s.o.Stage, seq, func(m *leatv1.Events) {
			for _, e := range m.Events {
				s.seen[e.Offset] = struct{}{}
			}
		})
		if err != nil {
			return err
		}
		s.next = max(s.next, seq+1)
		if st == nil {
			continue
		}
		if s.stage = st; i < len(left)-1 || st.size >= s.o.RollBytes {
			if err := s.roll(); err != nil {
				return err
			}
			if i < len(left)-1 {
				s.waiting[len(s.waiting)-1].complete = 0 // it was not known when this one ended
			}
		}
	}
	return nil
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
			if again = time.Until(s.stage.since.Add(s.o.RollAge)); again <= 0 {
				s.trouble = s.roll()
				again = 0
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
