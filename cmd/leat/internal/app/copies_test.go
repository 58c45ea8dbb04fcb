package app

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// TestParkedEventsOutliveRetention: a parked key holds no retention back; what the log lets go comes from the copies,
// in order, then the log, and is the same.
func TestParkedEventsOutliveRetention(t *testing.T) {
	t.Parallel()
	db, h, control, dir := newPG(t), newHook(t), newHook(t), t.TempDir()
	bad := func(_ http.ResponseWriter, body []byte) bool { return !bytes.Contains(body, []byte("poison")) }
	h.answers(func(w http.ResponseWriter, body []byte) bool {
		if !bad(w, body) {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return false
		}
		return true
	})
	yaml := strings.Replace(db.yaml("a: {source: files, batch: {events: 20}, deliver: {"+toHook(h)+"}}", "all: {source: files, deliver: {"+toHook(control)+"}}"),
		"sources:", "public_url: http://leat.test\nlog: {retention: {age: 1h, size: 16MiB}}\nsources:", 1)
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (-1, 'poison')", "UPDATE files SET size = 1 WHERE id = -1", "UPDATE files SET name = 'well', size = 2 WHERE id = -1")
	until(t, "the key to be parked", func() bool { return in.subscription(t, "a").Parked == 1 })
	oldest, rows := in.source(t, "files").Oldest, 0
	for in.source(t, "files").Oldest == oldest {
		db.fill(t, rows)
		rows += 50
		h.waits(t, rows)
	}
	db.exec(t, "UPDATE files SET size = 3 WHERE id = -1")
	r, err := in.admin.Parked(t.Context(), connect.NewRequest(&leatv1.ParkedRequest{Subscription: "a"}))
	if err != nil || len(r.Msg.Parked) != 1 || len(r.Msg.Skipped) != 0 {
		t.Fatalf("%v %v", r, err)
	}
	until(t, "what it holds to be counted, in copies and log", func() bool {
		r, err = in.admin.Parked(t.Context(), connect.NewRequest(&leatv1.ParkedRequest{Subscription: "a"}))
		return err == nil && r.Msg.Parked[0].Held == 4
	})
	if p := r.Msg.Parked[0]; p.Key != `{"id":-1}` {
		t.Errorf("%v", p)
	}
	if err := in.stop(); err != nil { // copies and parks outlive the process
		t.Fatal(err)
	}
	h.answers(nil)
	in = install(t, dir, yaml)
	in.waitState(t, "a", "running")
	if _, err := in.admin.Redrive(t.Context(), connect.NewRequest(&leatv1.RedriveRequest{Subscription: "a", All: true})); err != nil {
		t.Fatal(err)
	}
	h.waits(t, rows+4)
	until(t, "nothing to be parked", func() bool { return in.subscription(t, "a").Parked == 0 })
	control.waits(t, rows+4)
	var sizes []any
	for _, e := range h.got(t) {
		if e.Data.Key["id"] == float64(-1) {
			sizes = append(sizes, e.Data.After["size"])
			control.mu.Lock()
			if control.bodies[e.ID] != h.bodies[e.ID] {
				t.Errorf("not as it was delivered elsewhere:\n%s\n%s", h.bodies[e.ID], control.bodies[e.ID])
			}
			control.mu.Unlock()
		}
	}
	if len(sizes) != 4 || sizes[0] != nil || sizes[1] != 1.0 || sizes[2] != 2.0 || sizes[3] != 3.0 {
		t.Errorf("sizes %v", sizes)
	}
	if r, err = in.admin.Parked(t.Context(), connect.NewRequest(&leatv1.ParkedRequest{Subscription: "a"})); err != nil || len(r.Msg.Skipped) != 0 {
		t.Errorf("%v %v", r, err)
	}
}
