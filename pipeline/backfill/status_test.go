package backfill

import (
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

type paced struct{}

func (paced) Start(pipeline.SnapshotJob)   {}
func (paced) Stop(string)                  {}
func (paced) Pace(string, float64, string) {}

// A job whose last mark names a reason waits, until a mark without one comes.
func TestMarkedReasonIsShownAsWaiting(t *testing.T) {
	l := pipetest.NewMemoryLog("log", 1)
	s := New(Config{Source: "files"})
	s.log, s.stream = l, paced{}
	s.active = []*job{{Snapshot: pipeline.Snapshot{ID: "j1", State: pipeline.JobRunning}, ratio: 1, warned: map[string]bool{}}}
	for _, reason := range []string{"the database is away", ""} {
		b := pipeline.NewBatch()
		b.Snapshot = &pipeline.SnapshotMark{Job: "j1", State: pipeline.JobRunning, Reason: reason}
		if _, err := l.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		s.marked()
		want := pipeline.JobRunning
		if reason != "" {
			want = pipeline.JobWaiting
		}
		if st := s.Status()[0]; st.State != want || st.Reason != reason {
			t.Fatalf("%s %q, want %s %q", st.State, st.Reason, want, reason)
		}
	}
}
