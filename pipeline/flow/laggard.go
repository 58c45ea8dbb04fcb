package flow

import (
	"fmt"
	"math"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// LagStage is how near a subscription is to what retention removes.
type LagStage uint8

const (
	// LagLive: it reads what is in memory.
	LagLive LagStage = iota
	// LagCatchUp: it reads files, and gains.
	LagCatchUp
	// LagAtRisk: retention may remove what it has not read before it gets there.
	LagAtRisk
	// LagExpired: retention has.
	LagExpired
)

// String is the stage as people see it.
func (s LagStage) String() string { return [...]string{"live", "catch-up", "at risk", "expired"}[s] }

// Constants of Laggard.
const (
	// riskRatio: at risk while the time to loss is below this many times the time to catch up; safeRatio: no
	// more above this many.
	riskRatio, safeRatio = 2, 3
	// gaining is the least of draining over ingest that counts as catching up, or noGain later it is at risk.
	gaining = 1.1
	noGain  = 10 * time.Minute
	// behindFor is how long it has to be behind the tail until it is told, safeFor how long out of danger.
	behindFor, safeFor = 5 * time.Second, 10 * time.Second
	// standing: who drains less than that, bytes per second, or a hundredth of the ingest, stands still.
	standing = 1 << 10
	// expiredFor is how long an expiry is shown.
	expiredFor = 10 * time.Second
	// farAway is a time to loss that nobody wants to read about.
	farAway = 365 * 24 * time.Hour
	// longRate is the time over which the log's growth is averaged, so that a pause of the writers is no end of
	// a danger.
	longRate = 10 * time.Minute
)

// LagSample is a moment of a subscription and its log.
type LagSample struct {
	At    time.Time
	Depth pipeline.Depth // of the first offset that is not done
	// Held: the log is held for it, age does not take it.
	Held bool
	// Lost counts the events that retention took from it so far.
	Lost uint64
}

// LagVerdict is what is made of the samples.
type LagVerdict struct {
	Stage LagStage
	Since time.Time
	// Why, for people; empty while live.
	Why string
	// ToLoss and ToCatchUp at the speeds of now; pipeline.Unknown: nothing is in danger, or to be caught up.
	ToLoss, ToCatchUp time.Duration
	// Drain and Ingest, bytes of the log per second; pipeline.Unknown.
	Drain, Ingest float64
	// Standing: it does not go on now. ToCatchUp is what it would take if it did.
	Standing bool
}

// Laggard judges one subscription, by about a sample each second. Pure: the samples say what time it is. The zero
// Laggard is ready. Not for concurrent use.
type Laggard struct {
	v             LagVerdict
	seen          bool
	ingest, drain pipeline.Meter
	long          float64 // Ingest over longRate
	best          float64 // the fastest that it was seen to drain while behind
	last          time.Time
	lost          uint64
	behind, stuck time.Time // since when; zero = it is not
	safe          time.Time
}

// Measured takes a sample and judges.
func (l *Laggard) Measured(s LagSample) LagVerdict {
	d := s.Depth
	l.rates(s)
	live := d.Behind == 0 || d.Memory && (d.Headroom < 0 || d.Headroom >= riskRatio*d.Behind)
	l.behind = sinceWhen(l.behind, !live, s.At)
	l.stuck = sinceWhen(l.stuck, !live && l.v.Ingest > 0 && l.v.Drain < gaining*l.v.Ingest, s.At)
	l.v.ToLoss, l.v.ToCatchUp = l.toLoss(s), l.toCatchUp(d)
	expires := d.Gone || s.Lost > l.lost && l.seen
	l.lost, l.seen = s.Lost, true
	stage := l.judge(s, live, expires)
	if stage != l.v.Stage || l.v.Since.IsZero() {
		l.v.Stage, l.v.Since = stage, s.At
	}
	l.v.Why = l.why(s, stage)
	return l.v
}

func (l *Laggard) rates(s LagSample) {
	l.v.Ingest = l.ingest.Add(s.At, uint64(s.Depth.Written))
	l.v.Drain = l.drain.Add(s.At, uint64(max(0, s.Depth.Written-s.Depth.Behind)))
	if l.v.Ingest >= 0 {
		if dt := s.At.Sub(l.last); l.long == 0 {
			l.long = l.v.Ingest
		} else {
			l.long += (l.v.Ingest - l.long) * min(float64(dt)/float64(longRate), 1)
		}
	}
	if !s.Depth.Memory {
		l.best = max(l.best, l.v.Drain)
	}
	l.last = s.At
}

// toLoss is how long it takes until retention removes what is next.
func (l *Laggard) toLoss(s LagSample) time.Duration {
	if s.Depth.Behind == 0 {
		return pipeline.Unknown
	}
	t := pipeline.ToLoss(s.Depth.Headroom, max(l.v.Ingest, l.long))
	if age := s.Depth.ToAge; !s.Held && age >= 0 && (t < 0 || age < t) {
		t = age
	}
	return t
}

// toCatchUp is how long it takes to come to the end. What a subscription that stands still could do is what it
// was seen to do, or else twice what comes in.
func (l *Laggard) toCatchUp(d pipeline.Depth) time.Duration {
	if l.v.Standing = false; d.Behind == 0 {
		return pipeline.Unknown
	}
	ingest := max(l.v.Ingest, 0)
	speed, least := l.v.Drain, ingest*(gaining-1)
	l.v.Standing = speed < max(standing, ingest/100)
	if l.v.Standing { // a mean falls slowly
		speed, least = max(l.best, 2*ingest, leastSpeed), ingest
	}
	return pipeline.ToLoss(d.Behind, max(speed-ingest, least, 1))
}

// danger: it would lose the race by that ratio.
func (l *Laggard) danger(ratio float64) bool {
	return l.v.ToLoss >= 0 && float64(l.v.ToLoss) < ratio*float64(max(l.v.ToCatchUp, 0))
}

func (l *Laggard) judge(s LagSample, live, expires bool) LagStage {
	stuck := !l.stuck.IsZero() && s.At.Sub(l.stuck) >= noGain
	l.safe = sinceWhen(l.safe, live || !l.danger(safeRatio) && !stuck, s.At)
	was := l.v.Stage
	switch {
	case expires:
		l.v.Since = s.At // shown for expiredFor after the last
		return LagExpired
	case was == LagExpired && s.At.Sub(l.v.Since) < expiredFor:
		return LagExpired
	case live:
		return LagLive
	case stuck || l.danger(riskRatio):
		return LagAtRisk
	case was == LagAtRisk && s.At.Sub(l.safe) < safeFor:
		return LagAtRisk
	case was == LagLive && s.At.Sub(l.behind) < behindFor:
		return LagLive
	}
	return LagCatchUp
}

func (l *Laggard) why(s LagSample, stage LagStage) string {
	behind := fmt.Sprintf("%s behind", size(s.Depth.Behind))
	switch stage {
	case LagLive:
		return ""
	case LagExpired:
		return "retention has removed what was not delivered"
	}
	if t := l.v.ToCatchUp; l.v.Standing {
		behind += ", standing still"
	} else if t >= 0 {
		behind += fmt.Sprintf(", %v to catch up", inWords(t))
	}
	if t := l.v.ToLoss; t >= 0 && t < farAway {
		behind += fmt.Sprintf(", %v until retention removes what is next", inWords(t))
	}
	if stage == LagAtRisk && !l.stuck.IsZero() && s.At.Sub(l.stuck) >= noGain {
		behind += fmt.Sprintf(", and it has not gained for %v", inWords(s.At.Sub(l.stuck)))
	}
	return behind
}

func inWords(d time.Duration) time.Duration {
	switch {
	case d > time.Hour:
		return d.Round(time.Minute)
	case d > 10*time.Second:
		return d.Round(time.Second)
	}
	return d.Round(100 * time.Millisecond)
}

// size is a number of bytes for people.
func size(n int64) string {
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, i := float64(n), 0
	for math.Abs(f) >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
