package ingest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
)

// PreparedError refuses the end of quarantines: of rows of prepared transactions some may not have entered the log, and no
// snapshot sees those, nor would the commit bring them.
type PreparedError struct{ Open []string }

// Error says why and what to do.
func (e *PreparedError) Error() string {
	return "no quarantine can end yet: transactions are prepared (" + strings.Join(e.Open, ", ") +
		"), and of their rows some may not have entered the log: XA COMMIT or XA ROLLBACK them first (XA RECOVER lists them)"
}

// errAgain ends a stream that has to be opened again: nothing is wrong with it.
var errAgain = errors.New("the stream is opened again")

// Releases are wishes that quarantines end, for one who ingests: between two streams, so that the next one knows nothing
// of the quarantine, brings the table's rows from there on, and each transaction that was open whole.
type Releases struct {
	mu   sync.Mutex
	open []*wish
	wake chan struct{}
}

type wish struct {
	tables []string
	done   chan error
}

// NewReleases has no wish yet.
func NewReleases() *Releases { return &Releases{wake: make(chan struct{}, 1)} }

// Release ends the quarantines of tables, given by their subjects, and leaves a gap for each behind. It returns when
// that is durable; what is quarantined no more is passed over. When ctx ends before somebody took the wish, nothing was
// changed.
func (r *Releases) Release(ctx context.Context, tables []string) error {
	w := &wish{tables, make(chan error, 1)}
	r.mu.Lock()
	r.open = append(r.open, w)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
	}
	r.mu.Lock()
	n := len(r.open)
	r.open = slices.DeleteFunc(r.open, func(o *wish) bool { return o == w })
	taken := len(r.open) == n
	r.mu.Unlock()
	if taken {
		return <-w.done // whoever takes one answers it
	}
	return ctx.Err()
}

// wait blocks until there is a wish; false when ctx ended first.
func (r *Releases) wait(ctx context.Context) bool {
	if r == nil {
		return false
	}
	select {
	case <-r.wake:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Releases) take() []*wish {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.wake:
	default:
	}
	all := r.open
	r.open = nil
	return all
}

// release grants what was wished for, where the log ends: no stream is open, and all is durable. Since somebody wished, a
// transaction may have been prepared.
func (r *reader) release(ctx context.Context) error {
	wishes := r.cfg.Releases.take()
	if len(wishes) == 0 {
		return nil
	}
	if open := prepared(r.cfg.Log); len(open) > 0 {
		for _, w := range wishes {
			w.done <- &PreparedError{open}
		}
		return nil
	}
	c := r.rows.catalog
	for _, w := range wishes {
		for _, table := range w.tables {
			if h, is := c.quarant[table]; is {
				c.release(table, h.code, r.position, "somebody asked for its rows")
			}
		}
	}
	b := pipeline.NewBatch()
	b.Notices = c.takeNotices()
	err := r.noted(ctx, b)
	if err == nil {
		err = r.settle(ctx)
	}
	for _, w := range wishes {
		w.done <- err
	}
	return err
}

// noted appends a batch of nothing but notices.
func (r *reader) noted(ctx context.Context, b *pipeline.Batch) error {
	if len(b.Notices) == 0 {
		b.Release()
		return nil
	}
	for _, n := range b.Notices {
		r.cfg.Observer.Noticed(r.cfg.Name, n)
	}
	return r.append(ctx, b)
}
