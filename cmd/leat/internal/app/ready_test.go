package app

import (
	"testing"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

// What the engine asks for while somebody holds the server's lock must not need that lock.
func TestThrottlesAreALeafLock(t *testing.T) {
	s := &Server{throttles: newThrottles(), cfg: &config.Config{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := s.throttlesOf("files"); got != nil {
		t.Fatalf("throttles %v, want none", got)
	}
	_ = s.throttleOf("search")
	if got := s.throttleStates("files"); len(got) != 0 {
		t.Fatalf("states %v, want none", got)
	}
}
