package deliver

import (
	"context"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Retrying is what is known of an event that is tried again, or waits behind one that is.
type Retrying struct {
	// First is the event of its key that failed: itself, or an earlier one.
	First pipeline.Offset
	// Attempts of First, the newest twenty of Tries.
	Attempts []pipeline.Attempt
	Tries    int
	// Until is when it is tried next; zero: it is in flight, or waits for no time.
	Until time.Time
}

// look asks the running session about an event.
type look struct {
	at    pipeline.Offset
	hash  uint64
	reply chan *Retrying
}

// Retrying tells of an event of the log that failed and is tried again, or waits for one of its key that is; nil when it
// does not, or nobody answers before ctx ends. hash is Event.Hash.
func (s *Subscription) Retrying(ctx context.Context, at pipeline.Offset, hash uint64) *Retrying {
	s.mu.Lock()
	done := s.done
	s.mu.Unlock()
	if done == nil {
		return nil
	}
	l := look{at, hash, make(chan *Retrying, 1)}
	select {
	case s.looks <- l:
	case <-done:
		return nil
	case <-ctx.Done():
		return nil
	}
	return <-l.reply // at once
}

func (s *session) look(l look) *Retrying {
	hash := l.hash
	switch s.lanes.order {
	case OrderNone:
		hash = uint64(l.at)
	case OrderSource:
		hash = 0
	}
	k := s.held.keys[hash]
	if k == nil || k.tries == 0 || !slices.ContainsFunc(k.list, func(e entry) bool { return e.offset() == l.at }) {
		return nil
	}
	r := &Retrying{First: k.list[0].offset(), Attempts: slices.Clone(k.attempts), Tries: k.tries}
	if k.flight == nil && k.unit != nil {
		r.Until = k.unit.due
	}
	return r
}
