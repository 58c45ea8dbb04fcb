package app

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// parkAll writes a park for each event of the log into the state of a server that is stopped.
func parkAll(t *testing.T, dir string, parks []pipeline.Park) {
	t.Helper()
	store, err := state.Open(t.Context(), filepath.Join(dir, "data", "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.PutParks(t.Context(), parks); err != nil {
		t.Fatal(err)
	}
}

// parksOfLog makes a park of each event in the log.
func parksOfLog(t *testing.T, s *Server, subscription string, n int) (parks []pipeline.Park) {
	t.Helper()
	log, err := s.engine.Log("files")
	if err != nil {
		t.Fatal(err)
	}
	oldest, _ := log.Bounds()
	r, err := log.Read(oldest)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for len(parks) < n {
		b, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Events {
			e := &b.Events[i]
			parks = append(parks, pipeline.Park{Subscription: subscription, Log: log.ID(), Space: b.Tables[e.Table].KeySpace, Key: append([]byte(nil), b.Bytes(e.Key)...),
				Hash: e.Hash, From: b.Offset(i), Reason: "422 from a test", Attempts: 3, Since: time.UnixMicro(1_700_000_000_000_000).UTC()})
		}
		b.Release()
	}
	return parks
}

// Parked keys are listed as people know them, with what they hold; what is not parked is refused, as is a key that
// two spaces have; a discard lists what it left out; each of that is in the audit log.
func TestParkedKeysAreListedAndDiscarded(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	db.exec(t, "CREATE TABLE users (id bigint PRIMARY KEY)")
	yaml := db.yaml("a: {source: files, deliver: {"+toHook(h)+"}}", "idle: {source: files, deliver: {pull: {}}}")
	var server *Server
	in := install(t, dir, yaml, func(o *Options) {
		started := o.Started
		o.Started = func(s *Server, a net.Addr) { server = s; started(s, a) }
	})
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (1), (2)", "INSERT INTO users VALUES (2)", "UPDATE files SET size = 7 WHERE id = 1")
	events := h.waits(t, 4)
	parks := parksOfLog(t, server, "a", 4)[:3]
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	parkAll(t, dir, parks)
	in = install(t, dir, yaml)
	in.streaming(t, "files")
	in.waitState(t, "a", "running")

	ctx := t.Context()
	r, err := in.admin.Parked(ctx, connect.NewRequest(&leatv1.ParkedRequest{Subscription: "a"}))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range r.Msg.Parked {
		got = append(got, fmt.Sprint(p.Key, p.Partitionkey, p.First, " ", p.Held, " ", p.Attempts, " ", p.Reason, " ", p.Since.AsTime().Unix()))
	}
	want := []string{`{"id":1}[1]` + events[0].ID + " 2 3 422 from a test 1700000000", `{"id":2}[2]` + events[1].ID + " 1 3 422 from a test 1700000000",
		`{"id":2}[2]` + events[2].ID + " 1 3 422 from a test 1700000000"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || r.Msg.ParkedTotal != 3 || r.Msg.Partial {
		t.Errorf("parked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, x := range []struct {
		name, key, want string
		code            connect.Code
	}{
		{"a", "[9]", "is not parked", connect.CodeFailedPrecondition},
		{"a", "[2]", "is parked in", connect.CodeFailedPrecondition},
		{"a", `{"id":9}`, "is not parked", connect.CodeFailedPrecondition},
		{"a", "files-1", "is not parked", connect.CodeFailedPrecondition},
		{"a", "[", "neither a routing key", connect.CodeInvalidArgument},
		{"a", "two", "neither a routing key", connect.CodeInvalidArgument},
		{"idle", "[1]", "no parked keys", connect.CodeFailedPrecondition},
		{"nobody", "[1]", "no subscription", connect.CodeNotFound},
	} {
		_, e1 := in.admin.Redrive(ctx, connect.NewRequest(&leatv1.RedriveRequest{Subscription: x.name, Keys: []string{x.key}}))
		_, e2 := in.admin.Discard(ctx, connect.NewRequest(&leatv1.DiscardRequest{Subscription: x.name, Keys: []string{x.key}}))
		for _, err := range []error{e1, e2} {
			if connect.CodeOf(err) != x.code || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%s %s: %v", x.name, x.key, err)
			}
		}
	}
	discard := func(r *leatv1.DiscardRequest) *leatv1.DiscardResponse {
		t.Helper()
		resp, err := in.admin.Discard(ctx, connect.NewRequest(r))
		if err != nil {
			t.Fatal(err)
		}
		return resp.Msg
	}
	if r := discard(&leatv1.DiscardRequest{Subscription: "a", All: true, DryRun: true}); r.Keys != 3 || r.Events != 4 {
		t.Errorf("dry run: %v", r)
	}
	if r := discard(&leatv1.DiscardRequest{Subscription: "a", Keys: []string{` {"id": 1}`[1:]}, Reason: "gone"}); r.Keys != 1 || r.Events != 2 {
		t.Errorf("one key: %v", r)
	}
	if r := discard(&leatv1.DiscardRequest{Subscription: "a", Keys: []string{events[2].ID, events[1].ID}}); r.Keys != 2 || r.Events != 2 {
		t.Errorf("two keys by their events: %v", r)
	}
	if r, err = in.admin.Parked(ctx, connect.NewRequest(&leatv1.ParkedRequest{Subscription: "a"})); err != nil || len(r.Msg.Parked) != 0 || len(r.Msg.Skipped) == 0 {
		t.Errorf("after the discard: %v %v", r, err)
	}
	audit := in.audited(t)
	for _, line := range []string{
		`loopback redrive a refused {"keys":["[9]"]} key [9] of "a" is not parked; leat parked a lists those that are`,
		`loopback discard a done {"keys":["{\"id\": 1}"],"reason":"gone"} 1 keys, 2 events`,
	} {
		if !strings.Contains(audit, line) {
			t.Errorf("the audit log lacks %s:\n%s", line, audit)
		}
	}
	if strings.Contains(audit, `"all":true`) {
		t.Errorf("a dry run is in the audit log:\n%s", audit)
	}
}
