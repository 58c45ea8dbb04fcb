package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/selection"
)

// item is what one batch of the log holds for the subscription: the stretch of offsets up to next, of
// which runs are to be delivered. It belongs to the session's loop once sent.
type item struct {
	batch *pipeline.Batch // nil when nothing is to be delivered
	runs  []pipeline.Run
	next  pipeline.Offset
	size  int64
	id    uint64 // of its stretch of the frontier
	left  int    // events of runs that are not done
	// pass: it was read for parked keys; selected is what the filter let through, runs what of it they hold.
	pass     bool
	selected []pipeline.Run
	// special: it holds barriers or key changes, which need a look at each event.
	special bool
	part    bool // its last transaction goes on in the next batch

	before, after *item // in the session's list of live items
}

// itemList is an intrusive list, so that any of thousands of small items leaves it at once.
type itemList struct{ first, last *item }

func (l *itemList) add(it *item) {
	it.before = l.last
	if l.last != nil {
		l.last.after = it
	} else {
		l.first = it
	}
	l.last = it
}

func (l *itemList) remove(it *item) {
	if it.before != nil {
		it.before.after = it.after
	} else {
		l.first = it.after
	}
	if it.after != nil {
		it.after.before = it.before
	} else {
		l.last = it.before
	}
	it.before, it.after = nil, nil
}

var items = sync.Pool{New: func() any { return new(item) }}

// release gives back the batch and its share of the budget. moved: its events are done; not just dropped.
func (it *item) release(b *budget, moved bool) {
	if it.batch != nil {
		it.batch.Release()
		b.give(it.size, moved)
	}
	clear(it.runs)
	clear(it.selected)
	*it = item{runs: it.runs[:0], selected: it.selected[:0]}
	items.Put(it)
}

// reader is the goroutine that reads the log ahead of the loop, filters, and waits at the budget.
type reader struct {
	cfg    *Config
	filter *filter.Filter
	only   *selection.Selector // of a window, instead of filter
	budget *budget
	out    chan *item
	behind *atomic.Bool // it reads what is not in memory any more
	dead   *atomic.Uint64
	// expired counts what retention took.
	expired *atomic.Uint64
	// Of what lies below high, only pending is still to be delivered.
	pos, high pipeline.Offset
	pending   []pipeline.OffsetRange
	fails     []filter.Failure
	buried    pipeline.Offset // what the filter failed on below was told already
}

// run reads until ctx ends or reading cannot go on.
func (r *reader) run(ctx context.Context) error {
	for {
		err := r.read(ctx)
		if errors.Is(err, errNoRoom) {
			err = r.budget.await(ctx)
			if err == nil {
				continue
			}
		}
		var gone *pipeline.TruncatedError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &gone):
			if err := r.skip(ctx, gone.Oldest); err != nil {
				return err
			}
		case errors.Is(err, pipeline.ErrBeyondTail):
			_, next := r.cfg.Log.Bounds()
			return beyond(r.cfg, r.pos, next)
		default:
			return fmt.Errorf("read the log: %w", err)
		}
	}
}

func (r *reader) read(ctx context.Context) error {
	lr, err := r.cfg.Log.Read(r.pos)
	if err != nil {
		return err
	}
	defer lr.Close()
	tail, _ := lr.(pipeline.Tailing)
	for fresh := true; ; fresh = false {
		if w := r.cfg.window; w != nil && r.pos >= w.to {
			<-ctx.Done()
			return ctx.Err()
		}
		if err := r.budget.wait(ctx, fresh); err != nil { // a log's reader that has read nothing yet holds nothing
			return err
		}
		b, err := lr.Next(ctx)
		if err != nil {
			return err
		}
		if tail != nil {
			if behind := tail.Behind(); behind != r.behind.Load() {
				r.behind.Store(behind)
			}
		}
		if b.Next() <= r.pos || len(b.Events) == 0 {
			b.Release()
			continue
		}
		if err := r.hand(ctx, b); err != nil {
			return err
		}
	}
}

// hand makes an item of the batch, whose reference it takes over, and sends it.
func (r *reader) hand(ctx context.Context, b *pipeline.Batch) error {
	it := items.Get().(*item)
	it.next, it.part = r.end(b), partial(b)
	r.fails = r.fails[:0]
	meant := b.Meant(r.cfg.Name)
	r.each(b, func(from, to int) {
		if !meant {
			return
		}
		if r.only != nil {
			it.runs = r.only.Select(b, from, to, it.runs)
		} else if r.filter != nil {
			it.runs, r.fails = r.filter.Select(b, from, to, it.runs, r.fails)
		} else {
			it.runs = append(it.runs, pipeline.Run{Batch: b, From: uint32(from), To: uint32(to)})
		}
	})
	if r.only != nil {
		it.runs = r.cfg.window.clip(it.runs)
	}
	for _, run := range it.runs {
		it.left += int(run.To - run.From)
		for i := run.From; i < run.To; i++ {
			e := &b.Events[i]
			it.special = it.special || e.Flags&pipeline.FlagKeyChange != 0 || e.Op.Barrier()
		}
	}
	if it.left > 0 {
		size := int64(b.Size())
		if err := r.budget.take(ctx, size, r.only != nil); err != nil {
			b.Release()
			it.release(r.budget, false)
			return err
		}
		it.batch, it.size = b, size
	}
	if err := r.bury(ctx, b); err != nil {
		if it.left == 0 {
			b.Release()
		}
		it.release(r.budget, false)
		return err
	}
	if it.left == 0 {
		b.Release()
	}
	next := it.next
	select {
	case r.out <- it: // and from here on it is the loop's
		r.pos = next
		return nil
	case <-ctx.Done():
		it.release(r.budget, false)
		return ctx.Err()
	}
}

// each calls f for the parts of the batch that are still to be delivered.
func (r *reader) each(b *pipeline.Batch, f func(from, to int)) {
	from, to := max(r.pos, b.Base), r.end(b)
	for len(r.pending) > 0 && r.pending[0].To <= from {
		r.pending = r.pending[1:]
	}
	for _, p := range r.pending {
		if a, z := max(p.From, from), min(p.To, to); a < z {
			f(int(a-b.Base), int(z-b.Base))
		}
	}
	if from = max(from, r.high); from < to {
		f(int(from-b.Base), int(to-b.Base))
	}
}

// end is where what is read of the batch ends.
func (r *reader) end(b *pipeline.Batch) pipeline.Offset {
	if w := r.cfg.window; w != nil {
		return min(b.Next(), w.to)
	}
	return b.Next()
}

// bury stores what the filter failed on; until it is durable reading waits.
func (r *reader) bury(ctx context.Context, b *pipeline.Batch) error {
	if len(r.fails) == 0 {
		return nil
	}
	letters := make([]pipeline.DeadLetter, 0, len(r.fails))
	for _, f := range r.fails {
		letters = append(letters, deadLetter(r.cfg, b, int(f.Index), pipeline.OpNone, "filter: "+f.Reason, nil))
	}
	err := r.persist(ctx, "store dead letters", func() error { return r.cfg.Store.PutDeadLetters(ctx, letters) })
	if err != nil {
		return err
	}
	if b.Next() <= r.buried { // read again
		return nil
	}
	r.buried = b.Next()
	r.dead.Add(uint64(len(letters)))
	for _, l := range letters {
		r.cfg.Observer.DeadLettered(r.cfg.Name, l)
	}
	return nil
}

// skip lists what retention took and goes on behind it, with LaggardSnapshot where a snapshot brings the rows. All
// laggard policies end here: but with skip the engine kept the log up to the quota first, and it is an alarm.
func (r *reader) skip(ctx context.Context, oldest pipeline.Offset) error {
	if r.cfg.window != nil {
		return &JobError{fmt.Sprintf("retention removed offsets %d to %d before they were replayed: history is there from offset %d on", r.pos, oldest-1, oldest)}
	}
	reason := "retention removed it before it was delivered"
	if r.cfg.Laggard == LaggardSnapshot {
		reason = "retention removed what was not delivered: a snapshot brings the rows"
		if err := r.persist(ctx, "begin a snapshot", func() (err error) {
			oldest, err = r.cfg.Snapshot(ctx, WhyLaggard, oldest, r.next())
			return err
		}); err != nil {
			return err
		}
	}
	var lost []pipeline.OffsetRange
	lost = clip(r.pending, r.pos, oldest)
	if from := max(r.pos, r.high); from < oldest {
		lost = append(lost, pipeline.OffsetRange{From: from, To: oldest})
	}
	if len(lost) > 0 {
		s := Skip{Subscription: r.cfg.Name, Ranges: lost, Reason: reason, Time: time.Now()}
		if err := r.persist(ctx, "list what is skipped", func() error { return r.cfg.Store.PutSkip(ctx, s) }); err != nil {
			return err
		}
		for _, l := range lost {
			r.expired.Add(uint64(l.To - l.From))
		}
		cure := pipeline.BringRows + "; give the log more retention (log.retention), or the subscriber more capacity"
		what := "offsets %d to %d were removed by retention before they were delivered: skipped and listed"
		if r.cfg.Laggard == LaggardSnapshot {
			what = "offsets %d to %d were removed by retention, or stood behind what was, before they were delivered: skipped and listed; a snapshot brings the rows"
			cure = "leat jobs shows it; give the log more retention (log.retention), or the subscriber more capacity"
		}
		r.cfg.Observer.Warned("subscription "+r.cfg.Name, fmt.Sprintf(what, lost[0].From, oldest-1), cure)
	}
	it := items.Get().(*item)
	it.next = oldest
	select {
	case r.out <- it:
		r.pos = oldest
		return nil
	case <-ctx.Done():
		it.release(r.budget, false)
		return ctx.Err()
	}
}

// next is the end of the log.
func (r *reader) next() pipeline.Offset {
	_, next := r.cfg.Log.Bounds()
	return next
}

// persist tries until it succeeds or ctx ends: state that cannot be written stops reading, it does not
// lose anything.
func (r *reader) persist(ctx context.Context, what string, f func() error) error {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := f()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		r.cfg.Observer.Warned("subscription "+r.cfg.Name, fmt.Sprintf("%s: %v; tried again in %s", what, err, wait), "see that the data folder has space and can be written")
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// deadLetter describes an event that is given up on.
func deadLetter(c *Config, b *pipeline.Batch, i int, as pipeline.Op, reason string, attempts []pipeline.Attempt) pipeline.DeadLetter {
	d := pipeline.DeadLetter{Subscription: c.Name, ID: pipeline.EventID(c.Source, b.Offset(i)), Offset: b.Offset(i),
		Key: append([]byte(nil), b.Bytes(b.Events[i].Key)...), Reason: reason, Attempts: attempts, Time: time.Now()}
	if t := b.TableOf(i); t != nil {
		d.Table = t.Subject()
	}
	if c.Render != nil {
		d.Event, d.KeyJSON = c.Render(b, i, as)
	}
	return d
}
