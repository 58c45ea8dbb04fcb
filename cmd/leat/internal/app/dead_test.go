package app

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// What was given up on is still there after a restart, so status goes on showing it.
func TestDeadLettersStayInStatus(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	yaml := db.yaml("a: {source: files, exhausted: skip, deliver: {" + toHook(h) + "}}")
	h.answers(answering(http.StatusUnprocessableEntity))
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (1)")
	until(t, "the dead letter", func() bool { return in.subscription(t, "a").Dead == 1 })
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	in = install(t, dir, yaml)
	if n := in.subscription(t, "a").Dead; n != 1 {
		t.Errorf("%d dead letters after a restart, want 1", n)
	}
}

// One of many is found by its id, also beyond what a list holds.
func TestDeadLetterByID(t *testing.T) {
	store, err := state.Open(t.Context(), stateFile(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var all []pipeline.DeadLetter
	for i := range 1200 {
		all = append(all, pipeline.DeadLetter{Subscription: "a", ID: fmt.Sprintf("files-%d", i+1), Offset: pipeline.Offset(i + 1), Event: []byte("{}")})
	}
	if err := store.PutDeadLetters(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	s := &Server{store: store, cfg: &config.Config{Subscriptions: map[string]*config.Subscription{"a": {}}}}
	get := func(ids ...string) []*leatv1.DeadLetter {
		t.Helper()
		r, err := s.Parked(context.Background(), &leatv1.ParkedRequest{Subscription: "a", Ids: ids})
		if err != nil || r.Total != 1200 {
			t.Fatal(r, err)
		}
		return r.Dead
	}
	if d := get("files-1150", "files-9999", "other-7", "files-1"); len(d) != 2 || d[0].Id != "files-1150" || string(d[0].Event) != "{}" || d[1].Id != "files-1" {
		t.Errorf("by id: %v", d)
	}
	if d := get(); len(d) != 1000 || d[0].Id != "files-1" || d[0].Event != nil {
		t.Errorf("listed: %d", len(d))
	}
}
