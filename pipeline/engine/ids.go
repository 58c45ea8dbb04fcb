package engine

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline/backfill"
)

// ids gives out those of jobs.
type ids struct {
	replays   JobStore       // nil: none are kept
	snapshots backfill.Store // the same

	mu   sync.Mutex
	last int64
}

func newIDs(store any) *ids {
	i := &ids{}
	i.replays, _ = store.(JobStore)
	i.snapshots, _ = store.(backfill.Store)
	return i
}

// next returns an id that no job has: the time in base 36, so that none comes again. The store is asked without the
// lock, for whoever waits for that waits no longer than its context.
func (i *ids) next(ctx context.Context, now time.Time) (string, error) {
	taken := map[string]bool{}
	if i.replays != nil {
		all, err := i.replays.Jobs(ctx, "")
		if err != nil {
			return "", err
		}
		for _, j := range all {
			taken[j.ID] = true
		}
	}
	if i.snapshots != nil {
		all, err := i.snapshots.Snapshots(ctx, "")
		if err != nil {
			return "", err
		}
		for _, j := range all {
			taken[j.ID] = true
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for n := max(now.UnixMilli(), i.last+1); ; n++ {
		if id := strconv.FormatInt(n, 36); !taken[id] {
			i.last = n
			return id, nil
		}
	}
}
