package throttles

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline/flow"
)

// A flag file is text of any kind, also what is no UTF-8 and what is cut within a character; what is no regular file
// throttles and stops nobody.
func TestFlagFile(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text   string
		ratio  float64
		reason string
	}{
		"latin": {"0.5 gr\xfcn", 0.5, "gr\uFFFDn"},
		"long":  {"0.5 x" + strings.Repeat("ü", flagBytes), 0.5, "x" + strings.Repeat("ü", (flagBytes-5)/2) + "\uFFFD"},
		"pipe":  {"", 0, "it cannot be read"},
	} {
		path := filepath.Join(dir, name)
		if name == "pipe" {
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := NewSet()
		f := s.Flags(&config.SourceLoad{FlagFile: path}, nil)
		var got []flow.Throttle
		for deadline := time.Now().Add(time.Minute); len(got) == 0 && time.Now().Before(deadline); {
			got = f.Now()
		}
		if len(got) != 1 || got[0].Ratio != c.ratio || got[0].Reason != c.reason {
			t.Errorf("%s: %+v", name, got)
		}
		for _, p := range s.SourceStates("s", got) {
			if _, err := proto.Marshal(p); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		s.Stop()
	}
	bad := flow.Throttle{Owner: "\xff", Reason: "\xff"}
	if _, err := proto.Marshal(stateOf(bad)); err != nil {
		t.Error(err)
	}
}

// One fault of a flag URL is told once, whatever ports it is found at; what comes and goes, once a minute.
func TestFlagsTellOnce(t *testing.T) {
	var broken atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !broken.Load() {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}))
	defer server.Close()
	s := NewSet()
	defer s.Stop()
	var told []string
	f := s.Flags(&config.SourceLoad{FlagURL: server.URL}, func(why string) { told = append(told, why) })
	for i := range 9 {
		broken.Store(i%3 != 0)
		f.ask()
	}
	if len(told) != 1 || strings.Contains(told[0], "->") {
		t.Errorf("told: %q", told)
	}
	for range 2 { // again, as it was well meanwhile; then not, as it was not
		f.toldAt = time.Now().Add(-tellEvery)
		f.ask()
	}
	if len(told) != 2 {
		t.Errorf("told: %q", told)
	}
}

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
