package state

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// TestCursorsSavedTogether: what comes while somebody commits goes in one commit; each learns what became of its own.
func TestCursorsSavedTogether(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	name := func(i int) string { return fmt.Sprintf("s%d", i) }
	for i := range 20 {
		check(t, s.Save(t.Context(), name(i), pipeline.Cursor{Log: "a", Low: 10, High: 10}))
	}
	s.saves.turn <- struct{}{} // somebody commits
	gone, leave := context.WithCancel(t.Context())
	errs := make([]error, 20)
	var wg sync.WaitGroup
	for i := range errs {
		ctx, low := t.Context(), pipeline.Offset(20)
		if i == 3 {
			low = 5
		}
		if i == 4 {
			ctx = gone
		}
		wg.Go(func() { errs[i] = s.Save(ctx, name(i), pipeline.Cursor{Log: "a", Low: low, High: low}) })
	}
	late, look := time.After(time.Minute), time.NewTicker(time.Millisecond)
	defer look.Stop()
	for n := 0; n < len(errs); {
		select {
		case <-look.C:
			s.saves.mu.Lock()
			n = len(s.saves.waiting)
			s.saves.mu.Unlock()
		case <-late:
			t.Fatalf("%d wait", n)
		}
	}
	leave()
	s.saveWaiting()
	<-s.saves.turn
	wg.Wait()
	for i, err := range errs {
		low := pipeline.Offset(20)
		switch {
		case i == 3 && !errors.Is(err, ErrBackwards) || i == 4 && !errors.Is(err, context.Canceled) || i != 3 && i != 4 && err != nil:
			t.Errorf("%d: %v", i, err)
		case err != nil:
			low = 10
		}
		if c, _, err := s.Load(t.Context(), name(i)); err != nil || c.Low != low {
			t.Errorf("%d is at %d, want %d: %v", i, c.Low, low, err)
		}
	}
	check(t, s.Save(t.Context(), name(4), pipeline.Cursor{Log: "a", Low: 30, High: 30}))
}

// BenchmarkSaves is what sixteen subscriptions pay that save at the same time.
func BenchmarkSaves(b *testing.B) {
	s, err := Open(b.Context(), filepath.Join(b.TempDir(), "state.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	at := pipeline.Offset(1)
	for b.Loop() {
		var wg sync.WaitGroup
		at++
		for i := range 16 {
			wg.Go(func() {
				if err := s.Save(b.Context(), fmt.Sprint(i), pipeline.Cursor{Log: "a", Low: at, High: at}); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
