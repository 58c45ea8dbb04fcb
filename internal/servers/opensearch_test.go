package servers_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// An OpenSearch that was killed has its documents again, on the same port.
func TestOpenSearch(t *testing.T) {
	s := servertest.ExclusiveOpenSearch(t)
	ask := func(method, path, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode > 299 {
			t.Fatalf("%s: %s %v", resp.Status, text, err)
		}
		return string(text)
	}
	ask("PUT", "/kept/_doc/1", `{"a":1}`)
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := ask("GET", "/kept/_doc/1", ""); !strings.Contains(text, `"a":1`) {
		t.Errorf("after a kill: %s", text)
	}
}
