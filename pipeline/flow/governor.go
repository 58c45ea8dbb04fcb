package flow

import (
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Limits of the load that a source may show before Leat sheds; 0 = no such limit.
type Limits struct {
	MaxActive     int
	MaxReplicaLag time.Duration
}

// Constants of the governor.
const (
	// enterAfter is for how long the load has to be over a limit: two samples, a second apart.
	enterAfter = 900 * time.Millisecond
	// severe times a limit, snapshots stop without a try at a lower pace.
	severe = 1.5
	// leaveAfter is for how long it has to stay under leaveShare of the limits.
	leaveAfter = 10 * time.Second
	leaveShare = 0.7
	// dwell is the least time in a stage.
	dwell = 5 * time.Second
	// stale is the age from which on a measurement says nothing.
	stale = 5 * time.Second
	// safety: reading is not slowed while the time to loss is below this many times the time to drain.
	safety = 2
	// leastSpeed, bytes per second, is assumed of our reading until it was seen to be faster.
	leastSpeed = 2 << 20
	// leastRoom is kept besides: probes come each second, a rate is a mean.
	leastRoom = time.Minute
	// mostBehind is how much may gather because of load where the server keeps without a limit: on its disk.
	mostBehind = 1 << 30
)

// Stage is how much is shed; each holds what those before it hold.
type Stage uint8

const (
	ShedNothing   Stage = iota
	ShedPace            // nothing is replayed, snapshots run at a quarter
	ShedSnapshots       // snapshots stand still
	ShedReading         // the log is read at half speed
	ShedAll             // the log is not read
)

// Shares of what may go on.
var (
	stageReplay   = [...]float64{1, 0, 0, 0, 0}
	stageSnapshot = [...]float64{1, 0.25, 0, 0, 0}
	stageReading  = [...]float64{1, 1, 1, 0.5, 0}
)

// Verdict is what may be done with a source now: shares of the full speed, 0 (nothing) to 1.
type Verdict struct {
	Replay, Snapshot, Reading float64
	// Stage by load; throttles may ask for less.
	Stage Stage
	// Why something is below 1, in words that name the limit, the throttle's owner, or what is missing; and
	// End, what ends it. Empty when nothing is.
	Why, End string
	// Danger is set while retention forbids to slow reading: then Reading is 1 whatever is asked for.
	Danger bool
	// ToLoss and ToDrain as they were judged; pipeline.Unknown.
	ToLoss, ToDrain time.Duration
	// Throttles in force, the lowest ratio first.
	Throttles []Throttle
}

// Governor decides from a source's load, its retention and throttles what is read from it: it sheds replays,
// then the pace of snapshots, then snapshots, then the reading of the log, never that while loss is near.
// Pure: the caller says what time it is. Not for concurrent use.
type Governor struct {
	limits Limits
	stage  Stage
	since  time.Time // when the stage was entered
	bad    time.Time // since when the load has been over a limit; zero = it is not
	good   time.Time // since when it has been well below; zero = it is not
	breach string
	worst  float64 // the load as a multiple of its limit
	load   pipeline.SourceLoad
	have   bool
	speed  float64 // bytes per second that our reading was seen to make
	danger bool
}

// NewGovernor returns one that has seen nothing.
func NewGovernor(l Limits) *Governor { return &Governor{limits: l} }

// Measured takes a measurement; reading is the share at which the log was read since the one before.
func (g *Governor) Measured(l pipeline.SourceLoad, reading float64) {
	if g.have && l.At.Before(g.load.At) {
		return
	}
	if g.have {
		g.learn(l, reading)
	}
	g.load, g.have = l, true
	g.judge(l)
}

// learn sees how fast we read, while much is to be read at full speed.
func (g *Governor) learn(l pipeline.SourceLoad, reading float64) {
	d := l.At.Sub(g.load.At).Seconds()
	if reading < 1 || d <= 0 || l.Behind <= 0 || g.load.Behind <= 0 || l.Rate < 0 {
		return
	}
	if now := l.Rate + float64(g.load.Behind-l.Behind)/d; now > g.speed {
		g.speed += (now - g.speed) * min(d/10, 1) // believed slowly
	} else if l.Behind > 4<<20 { // not held back by a lack of work
		g.speed = max(now, 0)
	}
}

// judge compares the load with the limits.
func (g *Governor) judge(l pipeline.SourceLoad) {
	g.worst = 0
	breach := ""
	if m := g.limits.MaxActive; m > 0 && l.Active >= 0 {
		g.worst = float64(l.Active) / float64(m)
		breach = fmt.Sprintf("%d sessions are at work, max_active is %d", l.Active, m)
	}
	if m := g.limits.MaxReplicaLag; m > 0 && l.ReplicaLag >= 0 {
		if r := float64(l.ReplicaLag) / float64(m); r > g.worst {
			g.worst = r
			breach = fmt.Sprintf("a replica is %v behind, max_replica_lag is %v", l.ReplicaLag.Round(time.Millisecond), m)
		}
	}
	if g.worst > 1 {
		g.breach = breach
	}
	g.bad = sinceWhen(g.bad, g.worst > 1, l.At)
	g.good = sinceWhen(g.good, g.worst <= leaveShare, l.At)
}

// sinceWhen keeps since when something holds; zero = it does not.
func sinceWhen(was time.Time, holds bool, now time.Time) time.Time {
	switch {
	case !holds:
		return time.Time{}
	case was.IsZero():
		return now
	}
	return was
}

// At decides. It is called about once a second, also when no measurement came.
func (g *Governor) At(now time.Time, throttles []Throttle) Verdict {
	fresh := g.have && now.Sub(g.load.At) <= stale
	g.step(now, fresh)
	v := Verdict{Stage: g.stage, Replay: stageReplay[g.stage], Snapshot: stageSnapshot[g.stage], Reading: stageReading[g.stage],
		ToLoss: pipeline.Unknown, ToDrain: pipeline.Unknown, Throttles: throttles}
	if g.stage > ShedNothing {
		v.Why = g.breach
		if v.Reading < 1 && g.load.ToLoss < 0 && g.load.Behind > mostBehind {
			v.Reading = 1
			v.Why += fmt.Sprintf("; the log is read all the same, as %d MiB wait on the source's disk", g.load.Behind>>20)
		}
		v.End = fmt.Sprintf("it stays under %.0f %% of the limit for %v", 100*leaveShare, leaveAfter)
	}
	if !fresh && g.limits != (Limits{}) {
		v.Replay, v.Snapshot, v.Reading = 0, 0, 1
		v.Why, v.End = "the source's load is not known", "the source answers"
	}
	if len(throttles) > 0 && throttles[0].Ratio < v.Reading {
		r := throttles[0].Ratio
		v.Replay, v.Snapshot, v.Reading = min(v.Replay, r), min(v.Snapshot, r), r
		v.Why, v.End = throttles[0].String(), "its owner ends it, or its time is over"
	}
	if fresh {
		g.retention(&v)
	}
	return v
}

// step goes from stage to stage.
func (g *Governor) step(now time.Time, fresh bool) {
	if !fresh {
		g.bad, g.good = time.Time{}, time.Time{} // not a moment that is not known counts
		if g.stage > ShedSnapshots {
			g.enter(ShedSnapshots, now)
		}
		return
	}
	dwelt := g.stage == ShedNothing || now.Sub(g.since) >= dwell
	switch {
	case !dwelt:
	case !g.bad.IsZero() && g.load.At.Sub(g.bad) >= enterAfter && g.stage < ShedAll:
		next := g.stage + 1
		if g.worst >= severe && next < ShedSnapshots {
			next = ShedSnapshots
		}
		g.enter(next, now)
	case !g.good.IsZero() && g.load.At.Sub(g.good) >= leaveAfter:
		g.enter(ShedNothing, now)
	}
}

func (g *Governor) enter(s Stage, now time.Time) { g.stage, g.since = s, now }

// retention forbids to slow reading while loss is near.
func (g *Governor) retention(v *Verdict) {
	l := g.load
	v.ToLoss, v.ToDrain = l.ToLoss, g.drain()
	if l.ToLoss < 0 {
		g.danger = false
		return
	}
	need := leastRoom
	if v.ToDrain >= 0 {
		need += safety * v.ToDrain
	}
	if g.danger { // half as much again, or it would flutter at the border
		need += need / 2
	}
	g.danger = l.Lost || l.ToLoss < need
	v.Danger = g.danger
	if g.danger && v.Reading < 1 {
		v.Reading = 1
		v.Why = "reading goes on, as the source keeps what is not read for only " + l.ToLoss.Round(time.Second).String() + "; otherwise: " + v.Why
	}
}

// drain is how long it takes to read what is behind.
func (g *Governor) drain() time.Duration {
	if g.load.Behind < 0 {
		return pipeline.Unknown
	}
	left := max(g.speed, leastSpeed) - max(g.load.Rate, 0)
	if left < leastSpeed/8 {
		left = leastSpeed / 8 // we hardly gain: the drain is long, not endless
	}
	return min(pipeline.ToLoss(g.load.Behind, left), 100*time.Hour)
}
