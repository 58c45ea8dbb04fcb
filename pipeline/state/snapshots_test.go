package state

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// TestSnapshotsOutliveTheProcess: field by field, a source's own; they go with their source or subscription.
func TestSnapshotsOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	at := time.Date(2026, 11, 21, 10, 0, 0, 1000, time.UTC)
	full := pipeline.Snapshot{ID: "a1", Source: "files", Log: "l1", For: "search", Cause: pipeline.CauseBackfill, Tables: []string{"public.*", "!public.tmp"}, Where: "a > 'ä'",
		After: 1 << 60, State: pipeline.JobPaused, Reason: "asked", Progress: []pipeline.TableProgress{{Table: "public.a", Rows: 3, Bytes: 1 << 40, Overtaken: 1, Estimate: 9, Whole: true, Fault: "f", Cure: "c"}},
		Created: at, Owner: "ci"}
	ended := full
	ended.ID, ended.For, ended.Cause, ended.State, ended.Created, ended.Ended = "a2", "", pipeline.CauseInitial, pipeline.JobDone, at.Add(time.Second), at.Add(time.Hour)
	other := full
	other.ID, other.Source, other.For, other.Progress = "a3", "orders", "archive", nil
	for _, j := range []pipeline.Snapshot{ended, other, full} {
		check(t, s.PutSnapshot(t.Context(), j))
	}
	full.State = pipeline.JobRunning
	check(t, s.PutSnapshot(t.Context(), full))
	check(t, s.Close())
	s = open(t, path)
	list := func(source string, want ...pipeline.Snapshot) {
		t.Helper()
		if got, err := s.Snapshots(t.Context(), source); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\n%+v, want\n%+v", err, got, want)
		}
	}
	list("files", full, ended)
	list("", full, other, ended)
	check(t, s.DropSubscription(t.Context(), "search"))
	list("files", ended)
	check(t, s.DropSource(t.Context(), "files"))
	list("", other)
}
