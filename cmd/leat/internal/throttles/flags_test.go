package throttles

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

// A set that is stopped has no connection left and asks no more, also while a flag URL has not answered yet; what was
// broken off is nobody's fault.
func TestFlagsStop(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	asked, end := make(chan struct{}, 2), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		if r.URL.Path == "/slow" {
			select {
			case <-end:
			case <-r.Context().Done():
			}
		}
	}))
	s := NewSet()
	refused := func(why string) { t.Errorf("refused: %s", why) }
	quick, slow := s.Flags(&config.SourceLoad{FlagURL: server.URL + "/quick"}, refused), s.Flags(&config.SourceLoad{FlagURL: server.URL + "/slow"}, refused)
	quick.Now()
	slow.Now()
	for range 2 {
		<-asked
	}
	s.Stop()
	if late := s.Flags(&config.SourceLoad{FlagURL: server.URL}, refused); len(late.Now()) != 0 || late.busy {
		t.Error("it asks after it was stopped")
	}
	close(end)
	server.Close()
	goleak.VerifyNone(t, leaks)
}
