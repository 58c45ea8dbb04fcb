package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/partition"
)

// ranges changes the range maps of one open log: beside ingest, in batches of their own.
type ranges struct {
	pipeline.Log
	// lock is held around Append, which is for one caller: ingest and the changes take turns.
	lock    chan struct{}
	sampler partition.Sampler
	sampled bool
	last    uint64 // ticket of what was appended last
	// marked, when set, is told that rows of a snapshot were appended.
	marked func()

	// change is held from the plan of a change until it is appended; under it:
	change   chan struct{}
	maps     *partition.Maps // the changes appended, durable or not
	balancer *partition.Balancer
}

func newRanges(log pipeline.Log, source string, policy partition.Policy) (*ranges, error) {
	h, err := partition.NewHistory(log.Ranges())
	if err != nil {
		return nil, fmt.Errorf("ranges of source %q: %w", source, err)
	}
	return &ranges{Log: log, lock: make(chan struct{}, 1), change: make(chan struct{}, 1), sampled: policy.Hot > 0,
		maps: h.Last(), balancer: partition.NewBalancer(policy)}, nil
}

func take(ctx context.Context, lock chan struct{}) error {
	select {
	case lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Append implements pipeline.Log for ingest, whose batches are looked at for their load.
func (r *ranges) Append(ctx context.Context, b *pipeline.Batch) (uint64, error) {
	if err := take(ctx, r.lock); err != nil {
		b.Release()
		return 0, err
	}
	defer func() { <-r.lock }()
	if r.sampled {
		r.sampler.Add(b)
	}
	if b.Snapshot != nil && r.marked != nil {
		defer r.marked()
	}
	ticket, err := r.Log.Append(ctx, b)
	if err == nil {
		r.last = ticket
	}
	return ticket, err
}

// Prepared implements pipeline.PreparedKeeper, where the log does.
func (r *ranges) Prepared() []string {
	if k, ok := r.Log.(pipeline.PreparedKeeper); ok {
		return k.Prepared()
	}
	return nil
}

// settled waits until everything that was appended is durable, and returns the offset behind it.
func (r *ranges) settled(ctx context.Context) (pipeline.Offset, error) {
	if err := take(ctx, r.lock); err != nil {
		return 0, err
	}
	last := r.last
	<-r.lock
	_, next := r.Bounds()
	if last == 0 { // nothing yet since it was opened
		return next, nil
	}
	s, err := r.Synced(ctx, last-1)
	return max(next, s.Next), err
}

// make plans a change on the newest maps and makes it. It returns when the change is durable; an error of
// the plan, or of Append, has changed nothing. When ctx ends while it waits for the disk, the change may hold
// all the same.
func (r *ranges) make(ctx context.Context, plan func(*partition.Maps) (pipeline.RangeChange, error)) (pipeline.RangeChange, error) {
	c, ticket, err := r.append(ctx, plan)
	if err != nil {
		return c, err
	}
	_, err = r.Log.Synced(ctx, ticket-1)
	return c, err
}

func (r *ranges) append(ctx context.Context, plan func(*partition.Maps) (pipeline.RangeChange, error)) (pipeline.RangeChange, uint64, error) {
	if err := take(ctx, r.change); err != nil {
		return pipeline.RangeChange{}, 0, err
	}
	defer func() { <-r.change }()
	if n := len(r.Log.Ranges()); n >= pipeline.MaxRangeChanges {
		return pipeline.RangeChange{}, 0, &partition.RangeError{What: fmt.Sprintf("the log keeps %d changes of ranges, as many as it may; wait until retention has taken the oldest", n)}
	}
	c, err := plan(r.maps)
	if err != nil {
		return c, 0, err
	}
	next, err := r.maps.Apply(c)
	if err != nil {
		return c, 0, err
	}
	if err := take(ctx, r.lock); err != nil {
		return c, 0, err
	}
	defer func() { <-r.lock }()
	b := pipeline.NewBatch()
	b.Ranges = append(b.Ranges, c)
	ticket, err := r.Log.Append(ctx, b)
	if err != nil {
		return c, 0, fmt.Errorf("write the change of ranges: %w", err)
	}
	r.maps, r.last = next, ticket
	return c, ticket, nil
}

// balance splits and merges by load until ctx ends.
func (r *ranges) balance(ctx context.Context) {
	if !r.sampled {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if err := r.step(ctx, now); err != nil {
				return // the log failed or is being closed: whoever reads it tells
			}
		case <-ctx.Done():
			return
		}
	}
}

func (r *ranges) step(ctx context.Context, now time.Time) error {
	loads := r.sampler.Take()
	if err := take(ctx, r.change); err != nil {
		return err
	}
	changes := r.balancer.Step(now, r.maps, loads)
	<-r.change
	for _, c := range changes {
		_, err := r.make(ctx, func(maps *partition.Maps) (pipeline.RangeChange, error) {
			if len(c.Opened) == 2 { // planned again: an id may have been given out meanwhile
				return maps.Split(c.Space, c.Closed[0], c.Opened[1].Start, c.Reason)
			}
			return maps.Merge(c.Space, c.Closed, c.Reason)
		})
		var refused *partition.RangeError
		if err != nil && !errors.As(err, &refused) { // refused: a person was faster
			return err
		}
	}
	return nil
}

// RangeStatus is a range of a source, past or present.
type RangeStatus struct {
	partition.Life
	// Load per second as of the last second (events, and one for each KiB of images); of open ranges.
	Load float64
	// Unsplittable says why a hot range is not split.
	Unsplittable string
}

// Ranges returns the ranges of a source: the open ones of all key spaces that hold events or were split, or, of
// lineage, all that its log knows of. By space, then in the order of keys (lineage: of ids).
func (e *Engine) Ranges(ctx context.Context, source string, lineage bool) ([]RangeStatus, error) {
	r, err := e.rangesOf(source)
	if err != nil {
		return nil, err
	}
	h, err := partition.NewHistory(r.Log.Ranges())
	if err != nil {
		return nil, err
	}
	spaces := h.Last().Spaces()
	for _, t := range r.Log.Tables() {
		if !slices.Contains(spaces, t.KeySpace) {
			spaces = append(spaces, t.KeySpace)
		}
	}
	slices.Sort(spaces)
	if err := take(ctx, r.change); err != nil {
		return nil, err
	}
	defer func() { <-r.change }()
	var all []RangeStatus
	for _, space := range spaces {
		m := h.Last().Map(space)
		lives := h.Lineage(space)
		if !lineage {
			lives = slices.DeleteFunc(lives, func(l partition.Life) bool { return m.Index(l.ID) < 0 })
			slices.SortFunc(lives, func(a, b partition.Life) int { return m.Index(a.ID) - m.Index(b.ID) })
		}
		for _, l := range lives {
			s := RangeStatus{Life: l}
			s.Load, s.Unsplittable = r.balancer.Heat(space, l.ID)
			all = append(all, s)
		}
	}
	return all, nil
}

// Split divides a range at an encoded key of it, the first of the upper half. A *partition.RangeError says why
// it cannot be; nothing is changed then. It returns when the change is durable.
func (e *Engine) Split(ctx context.Context, source, space string, id uint64, at []byte, reason string) (pipeline.RangeChange, error) {
	r, err := e.rangesOf(source)
	if err != nil {
		return pipeline.RangeChange{}, err
	}
	return r.make(ctx, func(m *partition.Maps) (pipeline.RangeChange, error) { return m.Split(space, id, at, reason) })
}

// Merge makes one range of neighbours, as Split.
func (e *Engine) Merge(ctx context.Context, source, space string, ids []uint64, reason string) (pipeline.RangeChange, error) {
	r, err := e.rangesOf(source)
	if err != nil {
		return pipeline.RangeChange{}, err
	}
	return r.make(ctx, func(m *partition.Maps) (pipeline.RangeChange, error) { return m.Merge(space, ids, reason) })
}

func (e *Engine) rangesOf(source string) (*ranges, error) {
	u, err := e.unit(source)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ranges == nil {
		return nil, fmt.Errorf("the log of source %q is being opened: %w", source, ErrUnknown)
	}
	return u.ranges, nil
}
