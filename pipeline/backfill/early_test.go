package backfill

import (
	"context"
	"errors"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// memory is a Store.
type memory []pipeline.Snapshot

func (m *memory) Snapshots(context.Context, string) ([]pipeline.Snapshot, error) {
	return append([]pipeline.Snapshot(nil), *m...), nil
}

func (m *memory) PutSnapshot(_ context.Context, j pipeline.Snapshot) error {
	for i := range *m {
		if (*m)[i].ID == j.ID {
			(*m)[i] = j
			return nil
		}
	}
	*m = append(*m, j)
	return nil
}

// A job that is cancelled or paused before its log is open is found so when it is.
func TestChangedBeforeTheLogIsOpen(t *testing.T) {
	for _, to := range []pipeline.JobState{pipeline.JobCancelled, pipeline.JobPaused} {
		l := pipetest.NewMemoryLog("log", 1)
		store := &memory{{ID: "j1", Source: "files", Log: l.ID(), State: pipeline.JobRunning}}
		s := New(Config{Source: "files", Store: store, Undelivered: func(string) (int64, string, bool) { return 0, "", false },
			Bound: func() int64 { return 1 }, Allowed: func() (float64, string) { return 1, "" }})
		if err := s.Change(t.Context(), "j1", to, "me"); err != nil {
			t.Fatal(err)
		}
		if j := (*store)[0]; j.State != to || j.Reason != "me" || j.Ended.IsZero() == to.Ended() {
			t.Fatalf("%+v", j)
		}
		if err := s.Open(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		if s.Has("j1") == to.Ended() {
			t.Fatalf("%s: under way: %v", to, s.Has("j1"))
		}
		var refused *RefusedError
		if err := s.Change(t.Context(), "j1", pipeline.JobRunning, ""); errors.As(err, &refused) != to.Ended() {
			t.Fatal(err)
		}
		if err := New(Config{Source: "files", Store: store}).Change(t.Context(), "j2", to, ""); !errors.As(err, &refused) {
			t.Fatal(err)
		}
	}
}
