package sched

import "time"

// Beside live lanes replays go in the gaps: one grant at a time, none while another lane's is in use, and with a
// rest behind each that keeps them to ReplayShare. A share at saturation alone, as the Scheduler gives, is too
// much for latency: long before, what is live comes upon cores that are busy with copies. What is rested goes by
// the time that a copy took, so that a busy machine gets fewer.
//
// The idea is that of a scavenger (RFC 6817, LEDBAT): to use what nobody else does, and to be no part of the queue.

const (
	// ReplayShare of the process's CPU is what replays together take at most while something is live.
	ReplayShare = 0.05
	// Calm is how long nothing was live when replays go as they like.
	Calm = time.Second
	// yield is the longest that a replay whose time has come waits for the grants of others to end.
	yield = 100 * time.Millisecond
)

// gaps is what a Gate knows of replays beside live lanes.
type gaps struct {
	live    time.Time // a live lane asked last
	used    int       // grants of replays in their slots
	free    time.Time // replays rest until then
	resting []*Entry  // replays that asked, and are woken when there is a gap
	timer   *time.Timer
}

// gap reports whether a replay may go, and if not, when there is one at the latest; zero: when a grant ends.
func (g *Gate) gap(now time.Time) (open bool, until time.Time) {
	switch {
	case now.Sub(g.gaps.live) >= Calm:
	case g.gaps.used > 0:
		return false, time.Time{}
	case now.Before(g.gaps.free):
		return false, g.gaps.free
	case g.used > 0 && now.Before(g.gaps.free.Add(yield)):
		return false, g.gaps.free.Add(yield)
	}
	return true, time.Time{}
}

// rests notes that a replay asked, and reports whether it is to wait for a gap.
func (g *Gate) rests(e *Entry, now time.Time) bool {
	open, until := g.gap(now)
	if open {
		return false
	}
	if !e.resting {
		e.resting = true
		g.gaps.resting = append(g.gaps.resting, e)
	}
	g.alarm(now, until)
	return true
}

func (g *Gate) alarm(now, until time.Time) {
	switch {
	case until.IsZero():
	case g.gaps.timer == nil:
		g.gaps.timer = time.AfterFunc(until.Sub(now), func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.wakeReplays(time.Now())
		})
	default:
		g.gaps.timer.Reset(until.Sub(now))
	}
}

// wakeReplays lets those that rest ask again, when there is a gap.
func (g *Gate) wakeReplays(now time.Time) {
	if len(g.gaps.resting) == 0 {
		return
	}
	open, until := g.gap(now)
	if !open {
		g.alarm(now, until)
		return
	}
	for _, e := range g.gaps.resting {
		e.resting = false
		e.signal()
	}
	clear(g.gaps.resting)
	g.gaps.resting = g.gaps.resting[:0]
}

// rest follows a replay's grant that took so long.
func (g *Gate) rest(took time.Duration, now time.Time) {
	cores := max(1, float64(g.slots)/slotsPerCore)
	g.gaps.free = now.Add(max(0, time.Duration(float64(took)*(1/(ReplayShare*cores)-1))))
}

// Gentle reports whether the lane is a replay beside what is live: then its Deliveries should be small, as each keeps
// a core from others for as long as it takes.
func (e *Entry) Gentle(now time.Time) bool {
	if e == nil || !e.replay {
		return false
	}
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	return now.Sub(e.gate.gaps.live) < Calm
}
