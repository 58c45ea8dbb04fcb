package flow

import (
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// race is a log that grows, and a subscription that reads it, second by second.
type race struct {
	l                    Laggard
	now                  time.Time
	written, read, quota int64
	ingest, drain, tail  int64
	age                  time.Duration
	held                 bool
	lost                 uint64
	stages               []LagStage
	v                    LagVerdict
}

func newRace(ingest, drain, quota int64) *race {
	return &race{now: time.Unix(1_700_000_000, 0), ingest: ingest, drain: drain, quota: quota, tail: 64 << 20, age: pipeline.Unknown, held: true}
}

// run lets seconds pass.
func (r *race) run(seconds int) {
	for range seconds {
		r.now = r.now.Add(time.Second)
		r.written += r.ingest
		r.read = min(r.written, r.read+r.drain)
		if gone := r.written - r.quota; r.quota > 0 && r.read < gone {
			r.read, r.lost = gone, r.lost+1
		}
		d := pipeline.Depth{Behind: r.written - r.read, Written: r.written, Headroom: pipeline.Unknown, ToAge: r.age}
		d.Memory = d.Behind <= r.tail
		if r.quota > 0 {
			d.Headroom = r.quota - d.Behind
		}
		if r.age > 0 {
			r.age = max(0, r.age-time.Second)
		}
		r.v = r.l.Measured(LagSample{At: r.now, Depth: d, Held: r.held, Lost: r.lost})
		if n := len(r.stages); n == 0 || r.stages[n-1] != r.v.Stage {
			r.stages = append(r.stages, r.v.Stage)
		}
	}
}

func (r *race) want(t *testing.T, stages ...LagStage) {
	t.Helper()
	if len(r.stages) != len(stages) {
		t.Fatalf("stages %v, want %v (%+v)", r.stages, stages, r.v)
	}
	for i := range stages {
		if r.stages[i] != stages[i] {
			t.Fatalf("stages %v, want %v", r.stages, stages)
		}
	}
	r.stages = r.stages[len(r.stages)-1:]
}

const mib = 1 << 20

// TestALaggardIsAnnounced: live, catch-up, at risk well before retention takes something, expired, and back.
func TestALaggardIsAnnounced(t *testing.T) {
	r := newRace(mib, 4*mib, 1000*mib)
	r.run(600)
	r.want(t, LagLive)
	r.drain = 0 // it stands still
	r.run(100)
	r.want(t, LagLive, LagCatchUp)
	r.run(800)
	r.want(t, LagCatchUp, LagAtRisk)
	if r.v.ToLoss < 90*time.Second || !strings.Contains(r.v.Why, "until retention removes what is next") {
		t.Fatalf("announced with %v left: %+v", r.v.ToLoss, r.v)
	}
	r.run(200)
	r.want(t, LagAtRisk, LagExpired)
	r.drain = 4 * mib
	r.run(600)
	r.want(t, LagExpired, LagAtRisk, LagCatchUp, LagLive)
	if r.v.Why != "" {
		t.Fatal(r.v.Why)
	}
}

// TestOneThatDoesNotGainIsAtRisk: after ten minutes, however much room there is.
func TestOneThatDoesNotGainIsAtRisk(t *testing.T) {
	r := newRace(mib, mib, 1<<50)
	r.written, r.read = 1000*mib, 0
	r.run(595)
	r.want(t, LagLive, LagCatchUp)
	r.run(20)
	r.want(t, LagCatchUp, LagAtRisk)
	r.drain = 3 * mib
	r.run(30)
	r.want(t, LagAtRisk, LagCatchUp)
}

// TestAFastOneIsNotAtRisk, and one that stands still a short time of a long retention neither.
func TestAFastOneIsNotAtRisk(t *testing.T) {
	r := newRace(mib, 20*mib, 50_000*mib)
	r.written = 5000 * mib
	r.run(300)
	r.want(t, LagLive, LagCatchUp, LagLive)
	r.drain = 0
	r.run(500)
	r.want(t, LagLive, LagCatchUp)
	r.run(200) // not gained for ten minutes
	r.want(t, LagCatchUp, LagAtRisk)
}

// TestAgeTakesWhatNobodyHolds: it counts for laggard: skip alone.
func TestAgeTakesWhatNobodyHolds(t *testing.T) {
	for _, held := range []bool{true, false} {
		r := newRace(0, 0, 0)
		r.written, r.held, r.age = 1000*mib, held, time.Hour
		r.run(3600 - 30)
		if risk := r.v.Stage == LagAtRisk; risk == held {
			t.Fatalf("held %v: %+v", held, r.v)
		}
	}
}

// TestNoFlapping: a subscription that is live now behind the tail, now not, is not told each time, and a pause of
// the writers ends no danger.
func TestNoFlapping(t *testing.T) {
	r := newRace(mib, 0, 1000*mib)
	for i := range 100 {
		r.tail = 0
		if i%2 == 0 {
			r.tail = 1 << 50
		}
		r.read = r.written
		r.run(3)
	}
	r.want(t, LagLive)
	r.tail = 0
	r.run(900)
	r.want(t, LagLive, LagCatchUp, LagAtRisk)
	r.ingest = 0
	r.run(120)
	r.want(t, LagAtRisk)
}

// Who stands still is not said to be about to catch up; who goes on again is.
func TestOneThatStandsStillIsSaidTo(t *testing.T) {
	r := newRace(1<<20, 0, 0)
	r.run(120)
	if !r.v.Standing || !strings.Contains(r.v.Why, "standing still") || strings.Contains(r.v.Why, "to catch up") {
		t.Errorf("stands: %+v", r.v)
	}
	r.drain = 4 << 20
	r.run(10)
	if r.v.Standing || !strings.Contains(r.v.Why, "to catch up") {
		t.Errorf("goes on: %+v", r.v)
	}
}
