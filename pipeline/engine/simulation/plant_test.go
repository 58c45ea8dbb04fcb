package simulation

import (
	"context"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
)

// plant is a bug put between the product and the world, to see an oracle find it: planted_test.go has them all. The
// zero plant is none.
type plant struct {
	unsynced    bool // syncs of the disk do nothing
	early       bool // the log says that what was appended is durable
	rewinds     bool // the source begins one transaction too early
	forgets     bool // the cursor is not found again
	forgetParks bool // a key that goes on takes all parks along
	buries      bool // dead letters are not kept
	swallows    bool // a Delivery never comes back
	throttled   bool // a throttle is never lifted
	config      func(*deliver.Config)
	save        func(*pipeline.Cursor)
	resolve     func(pipeline.Offset) pipeline.Offset
	read        func(*pipeline.Batch) *pipeline.Batch
	put         func(*world, *pipeline.Job) // a job that is kept
	job         func(*pipeline.Job)         // that is read
	ranges      func([]pipeline.RangeAt) []pipeline.RangeAt
}

// Append implements pipeline.Log.
func (l *logView) Append(ctx context.Context, b *pipeline.Batch) (uint64, error) {
	end := b.End
	ticket, err := l.Log.Append(ctx, b)
	if l.p.w.plant.early && err == nil && !end.Zero() {
		l.p.mu.Lock()
		l.appended = end
		l.p.mu.Unlock()
	}
	return ticket, err
}

// Synced implements pipeline.Log.
func (l *logView) Synced(ctx context.Context, after uint64) (pipeline.Synced, error) {
	s, err := l.Log.Synced(ctx, after)
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if !l.appended.Zero() {
		s.End = l.appended
	}
	return s, err
}

// Ranges implements pipeline.Log.
func (l *logView) Ranges() []pipeline.RangeAt {
	if f := l.p.w.plant.ranges; f != nil {
		return f(l.Log.Ranges())
	}
	return l.Log.Ranges()
}
