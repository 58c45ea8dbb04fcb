package app

import (
	"bytes"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

func (in *installation) explain(t *testing.T, r *leatv1.ExplainRequest) *leatv1.ExplainResponse {
	t.Helper()
	resp, err := in.admin.Explain(t.Context(), connect.NewRequest(r))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg
}

// A key whose event is not taken is parked, by default, while others go on; explain tells what became of each event:
// parked with its attempts, held behind it, delivered, filtered out, skipped, not read yet.
func TestExplain(t *testing.T) {
	t.Parallel()
	db, h := newPG(t), newHook(t)
	h.answers(func(w http.ResponseWriter, body []byte) bool {
		if bytes.Contains(body, []byte(`"key":{"id":4}`)) {
			w.WriteHeader(http.StatusInternalServerError)
			return false
		}
		if bytes.Contains(body, []byte(`"key":{"id":1}`)) {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return false
		}
		return true
	})
	var running *Server
	in := install(t, t.TempDir(), db.yaml("a: {source: files, filter: 'op == \"delete\" || after.size != 9', batch: {events: 1}, deliver: {"+toHook(h)+"}}",
		"idle: {source: files, deliver: {pull: {}}}"), func(o *Options) {
		started := o.Started
		o.Started = func(s *Server, a net.Addr) { running = s; started(s, a) }
	})
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (2)", "INSERT INTO files VALUES (1)", "INSERT INTO files VALUES (3, 'x', 9)", "UPDATE files SET size = 7 WHERE id = 1", "UPDATE files SET size = 7 WHERE id = 2")
	taken := h.waits(t, 2)
	until(t, "a park", func() bool { s := in.subscription(t, "a"); return s.Parked == 1 && s.LagEvents == 0 })

	first := uint64(in.source(t, "files").Oldest)
	db.exec(t, "INSERT INTO files VALUES (4)", "UPDATE files SET size = 7 WHERE id = 4")
	until(t, "a retry", func() bool {
		r, err := in.admin.Explain(t.Context(), connect.NewRequest(&leatv1.ExplainRequest{Subscription: "a", EventId: idOf("files", first+6)}))
		if err != nil { // the log does not have it yet
			return false
		}
		if e := r.Msg.Events[0]; e.State != "held" || !strings.Contains(e.Reason, idOf("files", first+5)) { // behind what is tried again
			return false
		}
		e := in.explain(t, &leatv1.ExplainRequest{Subscription: "a", EventId: idOf("files", first+5)}).Events[0]
		return e.State == "retrying" && len(e.Attempts) > 1 && strings.Contains(e.Reason, "500") && e.Until != nil
	})
	wants := []string{"delivered insert [2]", "parked insert [1]", "filtered insert [3]", "held update [1]", "delivered update [2]"}
	for i, want := range wants {
		id := idOf("files", first+uint64(i))
		r := in.explain(t, &leatv1.ExplainRequest{Subscription: "a", EventId: id})
		e := r.Events[0]
		if got := e.State + " " + e.Op + " " + e.Partitionkey; got != want || e.Id != id || e.Table != "public.files" || e.Transaction == "" || e.Position == "" || e.Sequence != 1 || e.Committed == nil {
			t.Errorf("%s: %v, want %s", id, e, want)
		}
		if strings.HasPrefix(want, "parked") && (len(e.Attempts) != 1 || !strings.Contains(e.Reason, "422")) {
			t.Errorf("the attempts of a parked event: %v", e)
		}
	}
	if taken[0].ID != idOf("files", first) {
		t.Errorf("delivered %v", ids(taken))
	}
	states := func(r *leatv1.ExplainResponse) string {
		var all []string
		for _, e := range r.Events {
			all = append(all, e.State)
		}
		if r.More {
			all = append(all, "…")
		}
		return strings.Join(all, " ")
	}
	for _, x := range []struct {
		sub, key string
		limit    uint32
		want     string
	}{
		{"a", `{"id": 1}`, 0, "parked held"}, {"a", "[1]", 1, "held …"}, {"a", "[2]", 0, "delivered delivered"}, {"a", "[9]", 0, ""},
		{"idle", "[1]", 0, "in_flight in_flight"},
	} {
		if got := states(in.explain(t, &leatv1.ExplainRequest{Subscription: x.sub, Key: x.key, Limit: x.limit})); got != x.want {
			t.Errorf("%s %s: %s, want %s", x.sub, x.key, got, x.want)
		}
	}
	if _, err := in.admin.Seek(t.Context(), connect.NewRequest(&leatv1.SeekRequest{Subscription: "idle", To: &leatv1.SeekRequest_Latest{Latest: true}})); err != nil {
		t.Fatal(err)
	}
	if got := states(in.explain(t, &leatv1.ExplainRequest{Subscription: "idle", Key: "[1]"})); got != "skipped skipped" {
		t.Errorf("after a seek: %s", got)
	}
	for _, x := range []struct {
		sub, id string
		want    connect.Code
	}{
		{"nobody", idOf("files", first), connect.CodeNotFound}, {"a", idOf("other", first), connect.CodeInvalidArgument}, {"a", "x", connect.CodeInvalidArgument},
		{"a", idOf("files", first+100), connect.CodeNotFound},
	} {
		if _, err := in.admin.Explain(t.Context(), connect.NewRequest(&leatv1.ExplainRequest{Subscription: x.sub, EventId: x.id})); connect.CodeOf(err) != x.want {
			t.Errorf("%s %s: %v", x.sub, x.id, err)
		}
	}
	if r := in.explain(t, &leatv1.ExplainRequest{Subscription: "a", EventId: idOf("files", first-1)}); r.Events[0].State != "expired" {
		t.Errorf("older than the log: %v", r)
	}
	// What the parked key holds is told, and discarded by its row's key.
	p, err := in.admin.Parked(t.Context(), connect.NewRequest(&leatv1.ParkedRequest{Subscription: "a"}))
	if err != nil || len(p.Msg.Parked) != 1 || p.Msg.Parked[0].Held != 2 || p.Msg.Parked[0].Key != `{"id":1}` || p.Msg.Parked[0].Attempts != 1 {
		t.Fatalf("parked: %v %v", p, err)
	}
	if _, err := in.admin.Discard(t.Context(), connect.NewRequest(&leatv1.DiscardRequest{Subscription: "a", Keys: []string{`{"id":1}`}, Reason: "a test"})); err != nil {
		t.Fatal(err)
	}
	r := in.explain(t, &leatv1.ExplainRequest{Subscription: "a", Key: "[1]"})
	if got := states(r); got != "dead skipped" || !strings.Contains(r.Events[1].Reason, "discarded by loopback: a test") {
		t.Errorf("after the discard: %v", r)
	}
	log, err := running.engine.Log("files")
	if err != nil {
		t.Fatal(err)
	}
	parkAll(t, in.dir, []pipeline.Park{{Subscription: "a", Log: log.ID(), Space: "public.files", Interval: true, Hash: 1, From: pipeline.Offset(first + 4), Since: time.Now()}})
	r = in.explain(t, &leatv1.ExplainRequest{Subscription: "a", Key: "[2]"})
	if got := states(r); got != "delivered held" || !strings.Contains(r.Events[1].Reason, "its range pauses") {
		t.Errorf("in a range that pauses: %v", r)
	}
}

func idOf(source string, o uint64) string { return pipeline.EventID(source, pipeline.Offset(o)) }
