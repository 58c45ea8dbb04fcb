package app

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Endpoints in every kind of trouble: nobody else and no source notices, status says why, all recover.
func TestTroubleStaysWithItsSubscription(t *testing.T) {
	t.Parallel()
	db, good := newPG(t), newHook(t)
	over := make(chan struct{})
	bad := map[string]func(http.ResponseWriter, []byte) bool{
		"fails": answering(500), "gone": answering(410), "missing": answering(404), "busy": answering(503),
		"hangs": func(w http.ResponseWriter, _ []byte) bool { <-over; w.WriteHeader(500); return false },
	}
	hooks := map[string]*hook{}
	subs := []string{"good: {source: files, deliver: {" + toHook(good) + "}}"}
	for name, f := range bad {
		hooks[name] = newHook(t)
		hooks[name].answers(f)
		subs = append(subs, name+": {source: files, retry: {initial: 50ms, max: 100ms}, deliver: {"+toHook(hooks[name])+"}}")
	}
	in := install(t, t.TempDir(), db.yaml(subs...))
	in.streaming(t, "files")
	t.Cleanup(func() { // before the hooks close
		select {
		case <-over:
		default:
			close(over)
		}
	})
	const n = 20
	db.exec(t, "INSERT INTO files SELECT i FROM generate_series(1,10) i")
	for name, want := range map[string][]string{"fails": {"retrying", "500"}, "gone": {"paused", "410"}, "missing": {"waiting", "404"}, "busy": {"waiting", "503"}} {
		if s := in.waitState(t, name, want[0]); !strings.Contains(s.Reason, want[1]) {
			t.Errorf("%s is %s: %q", name, s.State, s.Reason)
		}
	}
	lsn := db.ask(t, "SELECT pg_current_wal_lsn()::text")
	db.exec(t, "INSERT INTO files SELECT i FROM generate_series(11,20) i")
	good.waits(t, n)
	until(t, "the slot to advance", func() bool {
		return db.ask(t, "SELECT (confirmed_flush_lsn > '"+lsn+"')::text FROM pg_replication_slots WHERE slot_name = '"+db.slot()+"_files'") == "true"
	})
	if s := in.waitState(t, "hangs", "running"); s.InFlight == 0 {
		t.Errorf("hangs: %v", s)
	}
	for _, h := range hooks {
		h.answers(nil)
	}
	close(over)
	if _, err := in.admin.Resume(t.Context(), connect.NewRequest(&leatv1.ResumeRequest{Subscription: "gone"})); err != nil {
		t.Fatal(err)
	}
	want := ids(good.got(t))
	slices.Sort(want)
	for name, h := range hooks {
		got := ids(h.waits(t, n))
		slices.Sort(got)
		if !slices.Equal(slices.Compact(got), want) {
			t.Errorf("%s has %v, want %v", name, got, want)
		}
		in.waitState(t, name, "running")
	}
}

func TestExhaustedSkipsAndLists(t *testing.T) {
	t.Parallel()
	db, h := newPG(t), newHook(t)
	h.answers(func(w http.ResponseWriter, body []byte) bool {
		if strings.Contains(string(body), `"poison"`) {
			w.WriteHeader(500)
			return false
		}
		return true
	})
	in := install(t, t.TempDir(), db.yaml("a: {source: files, batch: {events: 1}, retry: {initial: 10ms, max: 20ms, attempts: 3}, exhausted: skip, deliver: {"+toHook(h)+"}}"))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (1, 'good'), (2, 'poison'), (3, 'good')", "UPDATE files SET name = 'better' WHERE id = 2")
	got := h.waits(t, 3)
	until(t, "a dead letter", func() bool { return in.subscription(t, "a").Dead == 1 })
	until(t, "the end", func() bool { s := in.subscription(t, "a"); return s.Low == s.Next })
	r, err := in.admin.Parked(t.Context(), connect.NewRequest(&leatv1.ParkedRequest{Subscription: "a"}))
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Msg.Dead; len(d) != 1 || d[0].Key != `{"id":2}` || len(d[0].Attempts) != 3 || !strings.Contains(d[0].Reason, "500") || slices.Contains(ids(got), d[0].Id) {
		t.Errorf("dead: %v", d)
	}
}

// A backup of a running installation, restored elsewhere: no offset is used again, cursors hold, and what
// the copy cannot know of the source is told with its cure.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	yaml := db.yaml("a: {source: files, deliver: {" + toHook(h) + "}}")
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files SELECT i FROM generate_series(1,100) i")
	h.waits(t, 100)
	until(t, "the cursor on disk", func() bool { s := in.subscription(t, "a"); return s.Persisted == s.Next })
	restored := t.TempDir()
	if err := Backup(t.Context(), filepath.Join(dir, "data"), filepath.Join(restored, "data")); err != nil {
		t.Fatal(err)
	}
	if err := Backup(t.Context(), filepath.Join(dir, "data"), filepath.Join(restored, "data")); err == nil {
		t.Error("a backup over another one")
	}
	lsn := db.ask(t, "SELECT pg_current_wal_insert_lsn()::text")
	db.exec(t, "INSERT INTO files VALUES (1000)")
	h.waits(t, 101)
	until(t, "all confirmed", func() bool {
		return db.ask(t, "SELECT (confirmed_flush_lsn >= '"+lsn+"')::text FROM pg_replication_slots WHERE slot_name = '"+db.slot()+"_files'") == "true"
	})
	verify := func(folder string) {
		t.Helper()
		damage, _, err := disklog.Verify(t.Context(), filepath.Join(folder, "data", "logs", "files"))
		if err != nil || len(damage) > 0 {
			t.Errorf("verify: %v %v", damage, err)
		}
	}
	verify(restored)

	// The original goes on, and only then the copy runs: the slot is ahead of it.
	db.exec(t, "INSERT INTO files SELECT i FROM generate_series(101,200) i")
	highest := slices.Max(ids(h.waits(t, 201)))
	lsn = db.ask(t, "SELECT pg_current_wal_insert_lsn()::text")
	db.exec(t, "INSERT INTO files VALUES (1001)")
	highest = slices.Max(append(ids(h.waits(t, 202)), highest))
	until(t, "the slot to be ahead", func() bool {
		return db.ask(t, "SELECT (confirmed_flush_lsn >= '"+lsn+"')::text FROM pg_replication_slots WHERE slot_name = '"+db.slot()+"_files'") == "true"
	})
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	in = install(t, restored, yaml)
	until(t, "the source to stop", func() bool { return in.source(t, "files").State == "stopped" })
	s := in.source(t, "files")
	if s.Code != "slot_ahead" || s.Reason == "" {
		t.Errorf("the restored source says %q: %s", s.Code, s.Reason)
	}
	sub := in.waitState(t, "a", "running")
	if sub.LagEvents != 0 || sub.LagBytes != 0 || sub.Delivered != 0 {
		t.Errorf("the gap of the restored offsets counts as events: %v", sub)
	}
	if next := "files-" + plainOffset(s.Next); next <= highest {
		t.Errorf("next is %s, the original gave out %s", next, highest)
	}
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	verify(restored)
	// Opened once more, the gap is still known.
	in = install(t, restored, yaml)
	if sub := in.waitState(t, "a", "running"); sub.LagEvents != 0 {
		t.Errorf("the gap counts after another start: %v", sub)
	}
}
