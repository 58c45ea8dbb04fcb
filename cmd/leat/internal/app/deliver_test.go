package app

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The same rows arrive through every kind of sink, under the same ids and with the same content.
func TestOneSourceFourSinks(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	in := install(t, dir, db.yaml(
		"hook: {source: files, resolved: 100ms, deliver: {"+toHook(h)+"}}",
		"pull: {source: files, deliver: {pull: {}}}",
		"file: {source: files, deliver: {file: {path: ./out.jsonl}}}",
		"print: {source: files, deliver: {stdout: {}}}"))
	in.streaming(t, "files")
	first := in.source(t, "files").Next
	db.exec(t, "INSERT INTO files SELECT i, 'f'||i, i*10 FROM generate_series(1,50) i", "UPDATE files SET size = 0 WHERE id % 5 = 0",
		"DELETE FROM files WHERE id = 7", "UPDATE files SET id = 100 WHERE id = 8")
	const n = 50 + 10 + 1 + 2
	want := ids(h.waits(t, n))
	slices.Sort(want)
	if len(want) != n {
		t.Fatalf("%d events, want %d", len(want), n)
	}
	pulled := in.pull(t, "pull", n)
	slices.Sort(pulled)
	if !slices.Equal(pulled, want) {
		t.Errorf("pull: %v, want %v", pulled, want)
	}
	h.mu.Lock()
	bodies := h.bodies
	h.mu.Unlock()
	for what, read := range map[string]func() string{
		"file":   func() string { b, _ := os.ReadFile(filepath.Join(dir, "out.jsonl")); return string(b) },
		"stdout": in.out.String,
		"sse":    func() string { return in.view(t, "hook", n, fmt.Sprintf("files-%d", first-1)) },
	} {
		var text string
		until(t, what+" to have all", func() bool { text = read(); return strings.Count(text, "\n") >= n })
		for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
			var e event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%s: %v: %s", what, err, line)
			}
			h.mu.Lock()
			if bodies[e.ID] != line {
				t.Errorf("%s: %s\nwebhook: %s", what, line, bodies[e.ID])
			}
			h.mu.Unlock()
		}
	}
	next := strconv.FormatUint(in.source(t, "files").Next, 10)
	until(t, "all to be resolved", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.ContainsFunc(h.events, func(e event) bool { return e.Type == "leat.resolved" && e.Data.Resolved == next })
	})
	s := in.source(t, "files")
	if s.LogBytes == 0 || s.Lag.AsDuration() <= 0 || strings.ContainsAny(s.Position, " =") {
		t.Errorf("status shows log bytes %d, lag %v, position %q", s.LogBytes, s.Lag.AsDuration(), s.Position)
	}
}

// view reads n events of the SSE view, one JSON a line.
func (in *installation) view(t *testing.T, name string, n int, after string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+in.addr+"/v1/subscriptions/"+name+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", after)
	resp, err := in.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("events: %s", resp.Status)
	}
	var all strings.Builder
	for lines := bufio.NewScanner(resp.Body); n > 0 && lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "data:"); ok {
			all.WriteString(strings.TrimSpace(text) + "\n")
			n--
		}
	}
	return all.String()
}

func TestFilterColumnsAndSourceOrder(t *testing.T) {
	t.Parallel()
	db, some, all := newPG(t), newHook(t), newHook(t)
	in := install(t, t.TempDir(), db.yaml(
		"some: {source: files, filter: 'op == \"delete\" || after.size > 100', columns: {'public.files': ['!name']}, deliver: {"+toHook(some)+"}}",
		"ordered: {source: files, tables: ['public.files'], order: source, batch: {events: 7}, deliver: {"+toHook(all)+"}}"))
	in.streaming(t, "files")
	db.exec(t, "CREATE TABLE others (id int PRIMARY KEY)", "ALTER TABLE files REPLICA IDENTITY FULL",
		"INSERT INTO files SELECT i, 'secret', i*10 FROM generate_series(1,40) i", "INSERT INTO others VALUES (1)",
		"UPDATE files SET size = 5 WHERE id = 30", "DELETE FROM files WHERE id = 1")
	ordered := all.waits(t, 42)
	if !slices.IsSortedFunc(ordered, func(a, b event) int { return strings.Compare(a.Sequence, b.Sequence) }) {
		t.Errorf("order: source: %v", ids(ordered))
	}
	// 30 above 100, the one that leaves the filter as a delete, and the delete
	got := some.waits(t, 32)
	for _, e := range got {
		if _, there := e.Data.After["name"]; there {
			t.Errorf("a column that is left out was sent: %+v", e)
		}
	}
	if last := got[len(got)-2:]; !slices.ContainsFunc(last, func(e event) bool { return e.Data.Op == "delete" && e.Data.Key["id"] == 30.0 }) {
		t.Errorf("the row that left the filter is no delete: %+v", last)
	}
	until(t, "low to reach the end", func() bool {
		s := in.subscription(t, "some")
		return s.Low == s.Next && s.LagEvents == 0 && s.LagBytes == 0
	})
}

// from is read when a subscription is new: earliest, latest, an offset, a time.
func TestFrom(t *testing.T) {
	t.Parallel()
	db, dir := newPG(t), t.TempDir()
	early := newHook(t)
	subs := []string{"early: {source: files, deliver: {" + toHook(early) + "}}"}
	in := install(t, dir, db.yaml(subs...))
	in.streaming(t, "files")
	for i := 1; i <= 5; i++ {
		db.exec(t, fmt.Sprintf("INSERT INTO files VALUES (%d)", i))
	}
	events := early.waits(t, 5)
	slices.SortFunc(events, func(a, b event) int { return strings.Compare(a.Sequence, b.Sequence) })
	third, _ := strings.CutPrefix(events[2].ID, "files-")
	hooks := map[string]*hook{"latest": newHook(t), "{offset: " + third + "}": newHook(t), "{time: " + events[3].Time.Format(time.RFC3339Nano) + "}": newHook(t)}
	i := 0
	for from, h := range hooks {
		subs = append(subs, fmt.Sprintf("s%d: {source: files, from: %s, deliver: {%s}}", i, from, toHook(h)))
		i++
	}
	in.apply(t, db.yaml(subs...))
	until(t, "all to run", func() bool {
		for i := range 3 {
			if in.subscription(t, fmt.Sprintf("s%d", i)).State != "running" {
				return false
			}
		}
		return true
	})
	db.exec(t, "INSERT INTO files VALUES (6)")
	last := early.waits(t, 6)
	all := ids(events)
	all = append(all, last[len(last)-1].ID)
	for from, n := range map[string]int{"latest": 1, "{offset: " + third + "}": 4, "{time: " + events[3].Time.Format(time.RFC3339Nano) + "}": 3} {
		got := ids(hooks[from].waits(t, n))
		slices.Sort(got)
		if !slices.Equal(got, all[6-n:]) {
			t.Errorf("from %s: %v, want %v", from, got, all[6-n:])
		}
	}
}
