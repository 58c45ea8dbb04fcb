package backfill

import (
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Status is a job at a moment.
type Status struct {
	pipeline.Snapshot
	// Ratio is the share of the time that its chunks may take now.
	Ratio float64
	// Rate in rows per second lately; Left is about how long it still takes, zero when that is not known.
	Rate float64
	Left time.Duration
	// Ends is what lets a job that waits go on; empty: what Reason names is over.
	Ends string
}

// Status of the jobs that have not ended, the oldest first.
func (s *Jobs) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.active))
	for _, j := range s.active {
		st := Status{Snapshot: j.Snapshot, Ratio: max(0, j.ratio)}
		done, total := j.Rows()
		st.Rate = j.rate.rate
		if st.Rate > 0 && total > done {
			st.Left = time.Duration(float64(total-done) / st.Rate * float64(time.Second))
		}
		switch {
		case j.State == pipeline.JobPaused:
			st.Ends = "leat jobs resume " + j.ID
		case s.stream == nil && s.unable:
			st.State, st.Reason = pipeline.JobWaiting, "its source cannot be snapshotted"
			st.Ends = "leat jobs cancel " + j.ID
		case s.stream == nil:
			st.State, st.Reason, st.Ends = pipeline.JobWaiting, "the source is not connected", "it is: leat status "+j.Source+" says why it is not"
		case j.ratio <= 0:
			st.State, st.Reason = pipeline.JobWaiting, j.why
		case j.held != "":
			st.State, st.Reason = pipeline.JobWaiting, j.held
		default:
			st.Reason = j.why
		}
		all = append(all, st)
	}
	return all
}

// Meter measures the rate of a job over about ten seconds. The zero value begins. Not for concurrent use.
type Meter struct {
	at   time.Time
	done uint64
	rate float64
}

// Measure returns the rate, a second, at now, when done have been done in all; fewer than before begins anew.
func (m *Meter) Measure(now time.Time, done uint64) float64 {
	d := now.Sub(m.at).Seconds()
	switch {
	case m.at.IsZero() || done < m.done:
		*m = Meter{at: now, done: done}
	case d >= 1:
		keep := max(0, 1-d/10)
		if m.rate == 0 {
			keep = 0
		}
		*m = Meter{at: now, done: done, rate: keep*m.rate + (1-keep)*float64(done-m.done)/d}
	}
	return m.rate
}
