package state

import (
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// TestJobsOutliveTheProcess: field by field, a subscription's own, and of those that ended the newest.
func TestJobsOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	at := time.Date(2026, 11, 21, 10, 0, 0, 1000, time.UTC)
	full := pipeline.Job{ID: "a1", Subscription: "search", Source: "files", Log: "l1", Kind: pipeline.JobFenced, From: 1, To: 1 << 60,
		Scope: pipeline.Scope{Tables: []string{"public.*"}, Keys: []pipeline.Key{{Space: "tree", Encoded: []byte{0, 255}}},
			Ranges: []pipeline.KeyInterval{{Space: "tree", Start: []byte{1}}}, Filter: `op == "insert"`},
		State: pipeline.JobPaused, Reason: "asked", At: 3, High: 9, Pending: []pipeline.OffsetRange{{From: 3, To: 4}, {From: 7, To: 9}}, Live: 5, Stop: 6,
		Done: 7, Total: 8, Dead: 1, Bytes: 1 << 40, Created: at, Owner: "ci"}
	ended := full
	ended.ID, ended.State, ended.Created, ended.Ended = "a2", pipeline.JobDone, at.Add(time.Second), at.Add(time.Hour)
	other := full
	other.ID, other.Subscription, other.Pending = "a3", "archive", nil
	for _, j := range []pipeline.Job{ended, other, full} {
		check(t, s.PutJob(t.Context(), j))
	}
	full.State = pipeline.JobRunning
	check(t, s.PutJob(t.Context(), full))
	check(t, s.Close())
	s = open(t, path)
	list := func(subscription string, want ...pipeline.Job) {
		t.Helper()
		if got, err := s.Jobs(t.Context(), subscription); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\n%+v, want\n%+v", err, got, want)
		}
	}
	list("search", full, ended)
	list("", full, other, ended)
	if _, err := s.write.ExecContext(t.Context(), `INSERT INTO jobs SELECT id || n, subscription, source, log, kind, from_offset, to_offset, scope, state, reason, at, high, pending,
		live, stop, done, total, dead, bytes, created + n, ended, owner FROM jobs, (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000) SELECT n FROM c) WHERE id = 'a2'`); err != nil {
		t.Fatal(err)
	}
	ended.ID, ended.Created = "newest", at.Add(time.Hour)
	check(t, s.PutJob(t.Context(), ended))
	all, err := s.Jobs(t.Context(), "search")
	if err != nil || len(all) != keptJobs || all[0].ID != "a1" || all[1].ID == "a2" || all[len(all)-1].ID != "newest" {
		t.Fatal(len(all), err, fmt.Sprint(all[0].ID, all[1].ID))
	}
	check(t, s.DropSubscription(t.Context(), "search"))
	list("search")
	list("archive", other)
}
