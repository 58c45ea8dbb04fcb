package snapshot

import (
	"context"

	"github.com/leat-cdc/leat/pipeline"
)

// fence is a watermark of its own, for somebody who waits until the stream has passed it.
type fence struct {
	met    bool // its batch is on its way out
	passed chan struct{}
}

// Fence waits until everything that was committed before the call was handed out, and taken; see pipeline.Fencer.
func (s *stream) Fence(ctx context.Context) error {
	f := &fence{passed: make(chan struct{})}
	s.mu.Lock()
	id := s.watermark()
	s.fences[id] = f
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.fences, id)
		s.mu.Unlock()
	}()
	if err := s.db.Mark(ctx, id); err != nil {
		return err
	}
	select {
	case <-f.passed:
		return nil
	case <-s.ctx.Done():
		return pipeline.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fenced tells those who wait that all batches so far were taken: who asks for the next one has appended the last.
// While some are kept back, theirs may be among them: waiting reports that.
func (s *stream) fenced() (waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.dropped) > 0 || s.whole != nil && len(s.whole.kept) > 0 {
		return true
	}
	for id, f := range s.fences {
		if f.met {
			close(f.passed)
			delete(s.fences, id)
		}
	}
	return false
}
