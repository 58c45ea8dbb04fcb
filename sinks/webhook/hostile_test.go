package webhook

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// A subscriber that repeats what it was sent must not bring our secrets into status and logs, in whatever
// shape it repeats them.
func TestRepeatedSecretsAreMasked(t *testing.T) {
	var say string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "%s | %v | %v | %s", say, r.Header["Authorization"], r.Header["X-Key"], r.URL.RawQuery)
	}))
	defer srv.Close()
	base := strings.Replace(srv.URL, "http://", "http://user:pass%2Bword%2F1@", 1) + "/hook?token=query%2Fsecret&v=1"
	s := newSink(t, base, func(o *Options) {
		o.Headers = map[string]string{"X-Key": `Bearer bearer"secret`, "X-Other": "Basic dXNlcjpiYXNpY3NlY3JldA=="}
	})
	for _, text := range []string{"dXNlcjpwYXNzK3dvcmQvMQ==", "pass+word/1", "pass%2Bword%2F1", `bearer"secret`, `bearer\"secret`,
		"query/secret", "query%2Fsecret", "dXNlcjpiYXNpY3NlY3JldA==", "basicsecret"} {
		say = "you sent " + text
		_, err := s.Deliver(t.Context(), events(1, 1))
		if err == nil {
			t.Fatal("no error")
		}
		for _, bad := range []string{text, "dXNlcjpwYXNz", "secret", "word"} {
			if strings.Contains(err.Error(), bad) {
				t.Errorf("said %q, shown: %v", say, err)
			}
		}
		if !strings.Contains(err.Error(), "you sent ***") {
			t.Errorf("said %q, masked too much: %v", say, err)
		}
	}
}

func TestRetryAfterIsClamped(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{"": 0, "3": 3 * time.Second, " 7 ": 7 * time.Second, "4294967295": longestRetryAfter,
		"4294967296": longestRetryAfter, "99999999999999999999999": longestRetryAfter, "-1": 0, "soon": 0,
		"Sat, 21 Nov 2026 10:00:05 GMT": 5 * time.Second, "Sat, 21 Nov 2099 10:00:05 GMT": longestRetryAfter, "Sat, 21 Nov 2020 10:00:05 GMT": 0} {
		if got := retryAfter(in, now); got != want {
			t.Errorf("Retry-After %q: %s, want %s", in, got, want)
		}
	}
}

func TestNoReplySaysSo(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			c.Close()
		}
	}))
	defer srv.Close()
	_, err := newSink(t, srv.URL, nil).Deliver(t.Context(), events(1, 1))
	if d, ok := err.(*pipeline.DeliveryError); !ok || d.Class != pipeline.Retriable || !strings.Contains(d.Reason, "closed the connection") {
		t.Errorf("got %v", err)
	}
}
