package pipetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// MemoryLog is a pipeline.Log without a disk: what is appended is durable once Sync lets it be.
type MemoryLog struct {
	mu       sync.Mutex
	id       string
	batches  []*pipeline.Batch
	held     []*pipeline.Batch // appended, not durable yet
	open     map[string][]*pipeline.Batch
	tables   map[string]*schemas.Table
	notices  []pipeline.Notice
	ranges   []pipeline.RangeAt
	marks    []pipeline.SnapshotMark
	dropped  int // batches that Truncate has dropped
	first    pipeline.Offset
	next     pipeline.Offset // next visible offset
	ticket   uint64
	durable  uint64
	end      pipeline.Position
	floor    pipeline.Offset
	manual   bool
	closed   bool
	failed   error
	changed  chan struct{}
	maxTimes []int64
}

// NewMemoryLog returns an empty log whose appends are durable at once.
func NewMemoryLog(id string, first pipeline.Offset) *MemoryLog {
	return &MemoryLog{id: id, first: first, next: first, open: map[string][]*pipeline.Batch{}, tables: map[string]*schemas.Table{}, changed: make(chan struct{})}
}

// Hold makes appends wait for Sync before they are durable.
func (l *MemoryLog) Hold() { l.mu.Lock(); l.manual = true; l.mu.Unlock() }

// Sync makes what was appended durable.
func (l *MemoryLog) Sync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sync()
}

// Fail lets the log fail as after a failed fsync.
func (l *MemoryLog) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
	l.wake()
}

func (l *MemoryLog) wake() { close(l.changed); l.changed = make(chan struct{}) }

func (l *MemoryLog) sync() {
	for _, b := range l.held {
		l.durable++
		switch b.Kind {
		case pipeline.BatchChunk:
			l.open[b.Open] = append(l.open[b.Open], b)
			continue
		case pipeline.BatchPrepared:
		case pipeline.BatchAbort:
			delete(l.open, b.Open)
		case pipeline.BatchCommit:
			l.commit(b)
		default:
			l.add(b)
		}
		if !b.End.Zero() {
			l.end = b.End
		}
	}
	l.held = nil
	l.wake()
}

func (l *MemoryLog) add(b *pipeline.Batch) {
	b.Base = l.next
	l.next = b.Next()
	for _, t := range b.Tables {
		l.tables[t.Subject()] = t
	}
	l.notices = append(l.notices, b.Notices...)
	for _, c := range b.Ranges {
		l.ranges = append(l.ranges, pipeline.RangeAt{At: b.Base, RangeChange: c})
	}
	if b.Snapshot != nil {
		l.marks = pipeline.FoldMarks(l.marks, *b.Snapshot)
	}
	var newest int64
	for _, tx := range b.Txs {
		newest = max(newest, tx.Time)
	}
	if n := len(l.maxTimes); n > 0 {
		newest = max(newest, l.maxTimes[n-1])
	}
	l.batches, l.maxTimes = append(l.batches, b), append(l.maxTimes, newest)
}

func (l *MemoryLog) commit(c *pipeline.Batch) {
	before := uint32(0)
	chunks := l.open[c.Open]
	delete(l.open, c.Open)
	l.notices = append(l.notices, c.Notices...)
	chunks = slices.DeleteFunc(chunks, func(b *pipeline.Batch) bool {
		b.Events = slices.DeleteFunc(b.Events, func(e pipeline.Event) bool { return slices.Contains(c.Without, b.Txs[e.Tx].Part) })
		return len(b.Events) == 0
	})
	for i, b := range chunks {
		b.Txs = append(b.Txs[:0], pipeline.Tx{ID: b.Put(c.Bytes(c.Txs[0].ID)), Position: b.Put(c.Bytes(c.Txs[0].Position)),
			Time: c.Txs[0].Time, Before: before, Ends: i == len(chunks)-1})
		for e := range b.Events {
			b.Events[e].Tx = 0
		}
		before += uint32(len(b.Events))
		l.add(b)
	}
}

// ID implements pipeline.Log.
func (l *MemoryLog) ID() string { return l.id }

// Append implements pipeline.Log.
func (l *MemoryLog) Append(_ context.Context, b *pipeline.Batch) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return 0, pipeline.ErrClosed
	case l.failed != nil:
		return 0, l.failed
	case len(b.Ranges) > 0 && (len(b.Events) > 0 || !b.End.Zero()):
		return 0, errors.New("a change of ranges with something else")
	case b.Snapshot != nil && (b.Kind != pipeline.BatchRows || !b.End.Zero() || b.Snapshot.Job == ""):
		return 0, errors.New("a batch of a snapshot that is not of rows alone")
	case b.Snapshot != nil && b.Snapshot.State != pipeline.JobRunning && !b.Snapshot.State.Ended(): // as package record has it
		return 0, fmt.Errorf("a mark of snapshot job %q with state %q", b.Snapshot.Job, b.Snapshot.State)
	case b.Kind == pipeline.BatchCommit && len(b.Txs) != 1:
		return 0, fmt.Errorf("a commit of %q with %d transactions", b.Open, len(b.Txs))
	case b.Kind == pipeline.BatchChunk && (len(b.Notices) > 0 || !b.End.Zero()):
		return 0, fmt.Errorf("a chunk of %q with notices or an end", b.Open)
	}
	l.ticket++
	l.held = append(l.held, b)
	if !l.manual {
		l.sync()
	}
	return l.ticket, nil
}

// Synced implements pipeline.Log.
func (l *MemoryLog) Synced(ctx context.Context, after uint64) (pipeline.Synced, error) {
	for {
		l.mu.Lock()
		s, failed, closed, changed := pipeline.Synced{Ticket: l.durable, Next: l.next, End: l.end}, l.failed, l.closed, l.changed
		l.mu.Unlock()
		switch {
		case s.Ticket > after:
			return s, nil
		case failed != nil:
			return s, failed
		case closed:
			return s, pipeline.ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
}

// Bounds implements pipeline.Log.
func (l *MemoryLog) Bounds() (oldest, next pipeline.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first, l.next
}

// At implements pipeline.Log.
func (l *MemoryLog) At(_ context.Context, t time.Time) (pipeline.Offset, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	running := int64(0)
	for _, b := range l.batches {
		for i := range b.Events {
			if running = max(running, b.Txs[b.Events[i].Tx].Time); running >= t.UnixMicro() {
				return max(b.Offset(i), l.first), nil
			}
		}
	}
	return l.next, nil
}

// Last implements pipeline.Log.
func (l *MemoryLog) Last() pipeline.Position { l.mu.Lock(); defer l.mu.Unlock(); return l.end }

// Tables implements pipeline.Log.
func (l *MemoryLog) Tables() []*schemas.Table {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*schemas.Table
	for _, t := range l.tables {
		all = append(all, t)
	}
	return all
}

// Notices implements pipeline.Log.
func (l *MemoryLog) Notices() []pipeline.Notice {
	l.mu.Lock()
	defer l.mu.Unlock()
	return InForce(l.notices)
}

// Ranges implements pipeline.Log.
func (l *MemoryLog) Ranges() []pipeline.RangeAt {
	l.mu.Lock()
	defer l.mu.Unlock()
	return pipeline.FoldRanges(slices.Clip(l.ranges), l.first)
}

// Snapshots implements pipeline.Log.
func (l *MemoryLog) Snapshots() []pipeline.SnapshotMark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.marks)
}

// InForce returns the notices that still hold: the last quarantine of each table that was not released
// and every gap.
func InForce(all []pipeline.Notice) []pipeline.Notice {
	var held []pipeline.Notice
	for i, n := range all {
		over := n.Kind == pipeline.NoticeReleased || n.Kind == pipeline.NoticeFilled
		for _, later := range all[i+1:] {
			filled := later.Kind == pipeline.NoticeFilled && n.Kind == pipeline.NoticeGap
			if later.Table == n.Table && (later.Kind == pipeline.NoticeReleased || later.Kind == n.Kind || filled) {
				over = true
			}
		}
		if !over {
			held = append(held, n)
		}
	}
	return held
}

// Floor implements pipeline.Log.
func (l *MemoryLog) Floor(o pipeline.Offset) { l.mu.Lock(); l.floor = o; l.mu.Unlock() }

// FloorIs returns what Floor was last told.
func (l *MemoryLog) FloorIs() pipeline.Offset { l.mu.Lock(); defer l.mu.Unlock(); return l.floor }

// Truncate drops everything below o, as retention does.
func (l *MemoryLog) Truncate(o pipeline.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.batches) > 0 && l.batches[0].Next() <= o {
		l.batches, l.maxTimes = l.batches[1:], l.maxTimes[1:]
		l.dropped++
	}
	l.first = max(l.first, o)
	l.wake()
}

// Close implements pipeline.Log.
func (l *MemoryLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.wake()
	}
	return nil
}

// Read implements pipeline.Log.
func (l *MemoryLog) Read(from pipeline.Offset) (pipeline.LogReader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case from > l.next:
		return nil, fmt.Errorf("offset %d of %d: %w", from, l.next, pipeline.ErrBeyondTail)
	case from < l.first:
		return nil, &pipeline.TruncatedError{Asked: from, Oldest: l.first}
	}
	return &memoryReader{log: l, at: from, done: make(chan struct{})}, nil
}

type memoryReader struct {
	log    *MemoryLog
	at     pipeline.Offset
	from   int // batches before are passed
	done   chan struct{}
	closed sync.Once
}

func (r *memoryReader) Next(ctx context.Context) (*pipeline.Batch, error) {
	for {
		l := r.log
		l.mu.Lock()
		if r.at < l.first {
			err := &pipeline.TruncatedError{Asked: r.at, Oldest: l.first}
			l.mu.Unlock()
			return nil, err
		}
		for i := max(r.from-l.dropped, 0); i < len(l.batches); i++ {
			b := l.batches[i]
			r.from = l.dropped + i + 1
			if b.Next() > r.at && len(b.Events) > 0 || len(b.Ranges) > 0 && b.Base >= r.at {
				b.Retain()
				r.at = b.Next()
				l.mu.Unlock()
				return b, nil
			}
		}
		changed, closed := l.changed, l.closed
		l.mu.Unlock()
		if closed {
			return nil, pipeline.ErrClosed
		}
		select {
		case <-changed:
		case <-r.done:
			return nil, pipeline.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *memoryReader) Close() error { r.closed.Do(func() { close(r.done) }); return nil }
