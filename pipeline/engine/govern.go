package engine

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/flow"
)

const (
	// probeEvery is how often a source is asked for its load; probeTime bounds the answer.
	probeEvery = time.Second
	probeTime  = 4 * time.Second
	// decideEvery is for how long a verdict holds: the gate asks once per batch.
	decideEvery = 50 * time.Millisecond
	// Up to brimAt of the disk the source is read for the ends of open transactions, and again below brimEnd.
	brimAt, brimEnd = 0.98, 0.97
	// signalOwner is in front of the owners of a signal table's rows.
	signalOwner = "signal table: "
)

// governor decides how fast a source is read. Safe for concurrent use.
type governor struct {
	spec Source
	obs  pipeline.Observer

	mu      sync.Mutex
	g       *flow.Governor
	signals flow.Throttles
	disk    flow.Disk
	full    flow.DiskStage
	brim    bool // the disk is full to brimAt, and since then not below brimEnd
	load    pipeline.SourceLoad
	failed  string // why the load is not known
	verdict flow.Verdict
	decided time.Time
	told    string // the last reason that was warned of
	// unended asks the log what open transactions hold, when set; held is what it said last.
	unended func() pipeline.Unended
	held    pipeline.Unended
	over    bool            // that was told to be too much
	found   map[string]bool // findings that were
}

func newGovernor(s Source, obs pipeline.Observer) *governor {
	return &governor{spec: s, obs: obs, g: flow.NewGovernor(s.Limits), load: pipeline.NewSourceLoad(time.Time{}), found: map[string]bool{}}
}

// run asks source and disk until ctx ends.
func (g *governor) run(ctx context.Context) {
	prober, _ := g.spec.Source.(pipeline.Prober)
	if prober != nil {
		defer prober.Rest()
	}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		if prober != nil {
			g.probe(ctx, prober)
		}
		g.look()
		g.tell()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (g *governor) probe(ctx context.Context, p pipeline.Prober) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	l, err := p.Load(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.failed = err.Error()
		return
	}
	g.failed, g.load = "", l
	g.g.Measured(l, g.verdict.Reading)
	rows := make([]flow.Throttle, 0, len(l.Signals))
	for _, s := range l.Signals {
		rows = append(rows, flow.Throttle{Owner: strings.ToValidUTF8(s.Owner, "\uFFFD"), Reason: strings.ToValidUTF8(s.Reason, "\uFFFD"), Ratio: s.Ratio, Until: s.Until})
	}
	g.signals.Replace(signalOwner, rows)
}

// look measures our own disk, and what open transactions hold of the log.
func (g *governor) look() {
	if g.unended != nil {
		held := g.unended() // may have a lock of its own
		g.mu.Lock()
		g.held = held
		g.mu.Unlock()
	}
	if g.spec.Disk == nil {
		return
	}
	free, total, err := g.spec.Disk()
	if err != nil {
		return // the log itself tells what is wrong with its folder
	}
	g.mu.Lock()
	was := g.full
	g.full = g.disk.Measured(free, total)
	now := g.full
	if used := 1 - float64(free)/float64(max(total, 1)); used >= brimAt || used < brimEnd {
		g.brim = used >= brimAt
	}
	g.mu.Unlock()
	if now != was && now > was && g.spec.DiskStage != nil {
		g.spec.DiskStage(now)
	}
}

// stage is how full our disk is.
func (g *governor) stage() flow.DiskStage {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.full
}

// now is the verdict in force.
func (g *governor) now() flow.Verdict {
	now := time.Now()
	var throttles []flow.Throttle
	if g.spec.Throttles != nil {
		throttles = g.spec.Throttles() // may have a lock of its own
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if d := now.Sub(g.decided); d >= 0 && d < decideEvery {
		return g.verdict
	}
	v := g.g.At(now, g.signals.And(throttles).In(now))
	if g.full >= flow.DiskReplays {
		v.Replay = 0
		if v.Why == "" {
			v.Why, v.End = "the log's disk is full to 80 %", "it is below 78 %: free space, or give retention a lower size"
		}
	}
	if g.full >= flow.DiskStop {
		reading := v.Reading
		v.Snapshot, v.Reading = 0, 0
		v.Why, v.End = "the log's disk is full to 95 %", "it is below 93 %: free space, or give retention a lower size"
		switch {
		case !g.held.Pinned:
		case g.brim:
			v.Why = "the log's disk is full to 98 %, and old segments wait for open transactions"
			v.End = "it is below 97 %: free space, or end those transactions in the database"
		default: // what would make room is the end of a transaction, which is still to be read
			v.Reading = reading
			v.Why += ", and old segments wait for open transactions, whose ends are still to be read"
		}
	}
	g.verdict, g.decided = v, now
	return v
}

// reading is the share of the time in which the source may be read.
func (g *governor) reading() float64 { return g.now().Reading }

// replaying is the share of their speed that replays have, and why it is not all.
func (g *governor) replaying() (ratio float64, why string) {
	v := g.now()
	if v.Replay >= 1 {
		return 1, ""
	}
	return v.Replay, fmt.Sprintf("replays are held back: %s; they go on when %s", v.Why, v.End)
}

// tell warns once of each finding and each reason to read less.
func (g *governor) tell() {
	v := g.now()
	g.mu.Lock()
	var findings []pipeline.Finding
	for _, f := range g.load.Findings {
		if !g.found[f.Code+f.Place] && g.matters(f) {
			g.found[f.Code+f.Place] = true
			findings = append(findings, f)
		}
	}
	state := fmt.Sprint(v.Stage, v.Reading < 1, v.Danger && v.Why != "")
	changed := state != g.told && v.Why != ""
	g.told = state
	over := g.held.Over() && g.held.Pinned
	tooMuch := over && !g.over
	g.over = over
	held := g.held
	g.mu.Unlock()
	place := "source " + g.spec.Name
	if tooMuch {
		g.obs.Warned("log of "+g.spec.Name, fmt.Sprintf("transactions that have not ended hold %d MiB (%d MiB of them prepared), more than half of what the log may take: it grows to twice of that", (held.Open+held.Prepared)>>20, held.Prepared>>20),
			"end them in the database (prepared ones of MySQL and MariaDB: XA RECOVER lists them)")
	}
	for _, f := range findings {
		g.obs.Warned(place, f.What, f.Cure)
	}
	if changed {
		g.obs.Warned(place, fmt.Sprintf("reading at %.0f %%, snapshots at %.0f %%: %s", 100*v.Reading, 100*v.Snapshot, v.Why), "ends when "+v.End)
	}
}

// shed names the open transaction that holds too much of a log that could shrink but for such ones; "": there is none.
func (g *governor) shed() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held.Pinned && g.held.Over() && g.held.Open >= g.held.Bound/2 {
		return g.held.Most
	}
	return ""
}

// matters: a right that is missing is told to those who asked for limits. g.mu is held.
func (g *governor) matters(f pipeline.Finding) bool {
	return f.Code != "load_right_missing" || g.spec.Limits != flow.Limits{}
}

// status adds what is known to a source's status.
func (g *governor) status(s *SourceStatus) {
	s.Verdict = g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Load, s.LoadError, s.Disk, s.Unended = g.load, g.failed, g.full, g.held
}
