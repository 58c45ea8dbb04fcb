package app

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// The dataschema of an event resolves as long as the log keeps the event, whatever became of its table since, and
// after a restart.
func TestOldSchemasAreServed(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	yaml := db.yaml("a: {source: files, deliver: {" + toHook(h) + "}}")
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (1)", "ALTER TABLE files ADD COLUMN extra text", "INSERT INTO files VALUES (2)", "ALTER TABLE files DROP COLUMN size", "INSERT INTO files VALUES (3)")
	var urls []string
	until(t, "three shapes", func() bool {
		seen := map[string]bool{}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, body := range h.bodies {
			var e struct{ Dataschema string }
			if json.Unmarshal([]byte(body), &e) == nil && e.Dataschema != "" {
				seen[e.Dataschema] = true
			}
		}
		urls = urls[:0]
		for u := range seen {
			urls = append(urls, u)
		}
		return len(urls) >= 3
	})
	look := func(in *installation) {
		t.Helper()
		for _, u := range urls {
			_, path, _ := strings.Cut(strings.TrimPrefix(u, "http://"), "/")
			r, err := in.http.Get("http://" + in.addr + "/" + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err != nil || r.StatusCode != http.StatusOK || !strings.Contains(string(body), `"x-leat-version":`+path[strings.LastIndex(path, "/")+1:]) {
				t.Errorf("%s: %d %s %v", u, r.StatusCode, body, err)
			}
		}
	}
	look(in)
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	look(install(t, dir, yaml))
}
