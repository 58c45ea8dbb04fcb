// Package rebuilds ends the rebuilds of search indices: when the job that fills a new index is done, and the
// subscription with what it brought, the new index takes the old one's place. What is under way stands in the cluster
// (search.Rebuild), so that it goes on after a restart.
package rebuilds

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/search"
)

// Options of a Watcher.
type Options struct {
	// Job returns how a job is; known is false for one that is not ours. Fault is why its rows are not all there.
	Job func(ctx context.Context, id string) (job Job, err error)
	// End is behind all that the log of a subscription's source holds, Low behind all that the subscription is done with.
	End, Low func(subscription string) (pipeline.Offset, error)
	// Ended is told of each rebuild that ended: with an error, when its new index was removed.
	Ended func(subscription string, r search.Rebuild, err error)
}

// Job is one that fills indices.
type Job struct {
	Known, Ended bool
	// Fault of a table by its alias; all of them under "".
	Fault func(alias string) string
}

// every is how often is looked, unanswered after what could not be.
const (
	every      = time.Second
	unanswered = 10 * time.Second
)

// Watcher looks after the rebuilds of all subscriptions. Safe for concurrent use.
type Watcher struct {
	o       Options
	wake    chan struct{}
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	sinks map[string]*search.Sink
	open  map[string]bool // subscriptions that may have one under way
	ends  map[string]pipeline.Offset
}

// New returns a watcher that looks until Close.
func New(o Options) *Watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watcher{o: o, cancel: cancel, wake: make(chan struct{}, 1), sinks: map[string]*search.Sink{}, open: map[string]bool{}, ends: map[string]pipeline.Offset{}}
	w.running.Go(func() { w.run(ctx) })
	return w
}

// Close ends the looking.
func (w *Watcher) Close() {
	w.cancel()
	w.running.Wait()
}

// Add is told of a subscription's sink, in place of the last one.
func (w *Watcher) Add(subscription string, s *search.Sink) {
	w.mu.Lock()
	w.sinks[subscription] = s
	w.mu.Unlock()
	w.Look(subscription)
}

// Sink of a subscription, nil when none was opened.
func (w *Watcher) Sink(subscription string) *search.Sink {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sinks[subscription]
}

// Look has a subscription looked after: one may be under way.
func (w *Watcher) Look(subscription string) {
	w.mu.Lock()
	w.open[subscription] = true
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run looks until ctx ends.
func (w *Watcher) run(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-t.C:
		}
		w.mu.Lock()
		open := map[string]*search.Sink{}
		for name := range w.open {
			open[name] = w.sinks[name]
		}
		w.mu.Unlock()
		rest := every
		for name, s := range open {
			more, err := w.look(ctx, name, s)
			if err != nil {
				rest = unanswered
			} else if !more {
				w.mu.Lock()
				delete(w.open, name)
				w.mu.Unlock()
			}
		}
		if len(open) > 0 {
			t.Reset(rest)
		}
	}
}

// look ends what can be ended; more: there are others.
func (w *Watcher) look(ctx context.Context, name string, s *search.Sink) (more bool, err error) {
	if s == nil {
		return false, nil
	}
	all, err := s.Pending(ctx)
	if err != nil {
		return true, err
	}
	for _, r := range all {
		ended, err := w.one(ctx, name, s, r)
		if err != nil {
			return true, err
		}
		more = more || !ended
	}
	return more, nil
}

func (w *Watcher) one(ctx context.Context, name string, s *search.Sink, r search.Rebuild) (ended bool, err error) {
	if r.Job == "" { // its job was not begun yet, or the process ended before: a rebuild begins it anew
		return true, nil
	}
	job, err := w.o.Job(ctx, r.Job)
	if err != nil || !job.Known || !job.Ended {
		return !job.Known && err == nil, err
	}
	if fault := job.Fault(r.Alias); fault != "" {
		if err := s.Abandon(ctx, &r); err != nil {
			return false, err
		}
		w.o.Ended(name, r, fmt.Errorf("the rows of job %s are not all there: %s", r.Job, fault))
		return true, nil
	}
	to, seen := w.ends[r.Job]
	if !seen {
		if to, err = w.o.End(name); err != nil {
			return false, err
		}
		w.ends[r.Job] = to
	}
	low, err := w.o.Low(name)
	if err != nil || low < to {
		return false, err
	}
	if err := s.Switch(ctx, &r); err != nil {
		return false, err
	}
	w.o.Ended(name, r, nil)
	return true, nil
}
