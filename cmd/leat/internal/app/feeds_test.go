package app

import (
	"encoding/json"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sources/status"
)

// message is what the tests look at of a leat.message.
type message struct {
	ID, Type, Partitionkey string
	Data                   struct {
		Prefix, Content string
		Position        string
	}
}

// changes are the messages that a webhook got, in order.
func (h *hook) changes(t *testing.T) (all []status.Change) {
	t.Helper()
	for _, e := range h.got(t) {
		h.mu.Lock()
		text := h.bodies[e.ID]
		h.mu.Unlock()
		var m message
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		var c status.Change
		if err := json.Unmarshal([]byte(m.Data.Content), &c); err != nil || m.Type != "leat.message" || m.Data.Prefix != status.Prefix {
			t.Fatalf("%v: %s", err, text)
		}
		all = append(all, c)
	}
	return all
}

// TestStatusSource: changes of state of subscriptions and sources are events like any other, durable, in order; those of
// who hears of them are not.
func TestStatusSource(t *testing.T) {
	t.Parallel()
	db, h, ops, some, dir := newPG(t), newHook(t), newHook(t), newHook(t), t.TempDir()
	yaml := strings.Replace(db.yaml("some: {source: leat, filter: 'message.content.kind == \"source\"', deliver: {"+toHook(some)+"}}", "a: {source: files, deliver: {"+toHook(h)+"}}", "ops: {source: leat, deliver: {"+toHook(ops)+"}}", "late: {source: leat, deliver: {pull: {}}}"),
		"sources:\n", "sources:\n  leat: {status: {}}\n", 1)
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	in.streaming(t, "leat")
	told := func(kind, name, state string) status.Change {
		t.Helper()
		var found status.Change
		until(t, name+" to be told as "+state, func() bool {
			for _, c := range ops.changes(t) {
				if c.Kind == kind && c.Name == name && c.State == state {
					found = c
				}
			}
			return found.Name != ""
		})
		return found
	}
	told("source", "files", "streaming")
	if c := told("subscription", "a", "running"); c.Source != "files" || c.Time.IsZero() {
		t.Errorf("%+v", c)
	}
	// Who hears of it is throttled and paused, which nobody is told.
	for _, name := range []string{"late", "a"} {
		if _, err := in.admin.Pause(t.Context(), connect.NewRequest(&leatv1.PauseRequest{Subscription: name, Reason: "index rebuild"})); err != nil {
			t.Fatal(err)
		}
	}
	if c := told("subscription", "a", "paused"); c.Reason != "index rebuild" || c.Was != "running" {
		t.Errorf("%+v", c)
	}
	ops.answers(answering(500)) // a subscriber that fails tells nobody either
	if _, err := in.admin.Resume(t.Context(), connect.NewRequest(&leatv1.ResumeRequest{Subscription: "a"})); err != nil {
		t.Fatal(err)
	}
	until(t, "the subscriber's trouble", func() bool { return in.subscription(t, "ops").State != "running" })
	ops.answers(nil)
	n := len(ops.changes(t))
	until(t, "what happened meanwhile", func() bool { return len(ops.changes(t)) > n })
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	in = install(t, dir, yaml)
	in.streaming(t, "leat")
	until(t, "the state after the restart", func() bool {
		all := ops.changes(t)
		return all[len(all)-1].State == "streaming" || all[len(all)-1].State == "running"
	})
	for _, c := range ops.changes(t) {
		if c.Name == "ops" || c.Name == "some" || c.Name == "late" || c.Name == "leat" {
			t.Errorf("a loop: %+v", c)
		}
	}
	until(t, "what passes the filter", func() bool { return len(some.changes(t)) > 1 })
	for _, c := range some.changes(t) {
		if c.Kind != "source" {
			t.Errorf("passed a filter for sources: %+v", c)
		}
	}
	if st := in.source(t, "leat"); st.Kind != "status" || st.LogId == "" || st.Position == "" {
		t.Errorf("%v", st)
	}
}
