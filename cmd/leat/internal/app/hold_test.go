package app

import (
	"context"
	"testing"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/state"
)

// Retention must know what subscriptions want before they run: all of them while they are being started,
// afterwards those that the file no longer names.
func TestHoldsOfWhatDoesNotRun(t *testing.T) {
	ctx := context.Background()
	store, err := state.Open(ctx, t.TempDir()+"/state.db")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for name, low := range map[string]pipeline.Offset{"named": 10, "gone": 20, "goner": 30} {
		if err := store.PutSubscription(ctx, state.Subscription{Name: name, Source: "files"}); err != nil {
			t.Fatal(err)
		}
		if err := store.Save(ctx, name, pipeline.Cursor{Log: "x", Low: low, High: low}); err != nil {
			t.Fatal(err)
		}
	}
	s := &Server{store: store}
	if err := s.holdAll(ctx); err != nil || s.holds["files"] != 10 {
		t.Errorf("while starting: %v %v", s.holds, err)
	}
	cfg := &config.Config{Subscriptions: map[string]*config.Subscription{"named": {}}}
	if err := s.refreshGone(ctx, cfg); err != nil || s.holds["files"] != 20 || len(s.gone) != 2 {
		t.Errorf("when all runs: %v %v %v", s.holds, s.gone, err)
	}
}
