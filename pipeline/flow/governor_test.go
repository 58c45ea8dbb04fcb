package flow

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

var limits = Limits{MaxActive: 10, MaxReplicaLag: 4 * time.Second}

// moment is a second of a random history.
type moment struct {
	load pipeline.SourceLoad
	had  bool
}

func drawMoment(t *rapid.T, now time.Time, was pipeline.SourceLoad) moment {
	l := was
	l.At = now
	if rapid.IntRange(0, 4).Draw(t, "changes") == 0 {
		l.Active = rapid.SampledFrom([]int{pipeline.Unknown, 0, 5, 7, 8, 10, 11, 14, 15, 90}).Draw(t, "active")
	}
	if rapid.IntRange(0, 9).Draw(t, "lag changes") == 0 {
		l.ReplicaLag = rapid.SampledFrom([]time.Duration{pipeline.Unknown, 0, 3 * time.Second, 5 * time.Second}).Draw(t, "lag")
	}
	if rapid.IntRange(0, 9).Draw(t, "retention changes") == 0 {
		l.ToLoss = rapid.SampledFrom([]time.Duration{pipeline.Unknown, 0, time.Minute, 10 * time.Minute, 30 * time.Hour}).Draw(t, "to loss")
		l.Behind = rapid.SampledFrom([]int64{pipeline.Unknown, 0, 1 << 20, 1 << 30, 1 << 40}).Draw(t, "behind")
		l.Rate = rapid.SampledFrom([]float64{pipeline.Unknown, 0, 1e5, 1e8}).Draw(t, "rate")
	}
	return moment{l, rapid.IntRange(0, 19).Draw(t, "answers") > 0}
}

func over(l pipeline.SourceLoad) bool {
	return l.Active > limits.MaxActive || l.ReplicaLag > limits.MaxReplicaLag
}

func calm(l pipeline.SourceLoad) bool {
	return l.Active <= 7 && l.ReplicaLag <= 2800*time.Millisecond
}

// TestGovernorKeepsItsRules over random histories of load, retention, silence and throttles.
func TestGovernorKeepsItsRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g, now, load := NewGovernor(limits), noon, pipeline.NewSourceLoad(noon)
		var throttles Throttles
		var history []pipeline.SourceLoad // answers, newest last
		var stage Stage
		entered, silence, reading := noon, 0, 1.0
		for range rapid.IntRange(1, 120).Draw(t, "seconds") {
			now = now.Add(time.Second)
			switch rapid.IntRange(0, 14).Draw(t, "event") {
			case 0:
				throttles.Set(Throttle{Owner: rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "owner"),
					Ratio: rapid.SampledFrom([]float64{-1, 0, 0.5, 1, 2}).Draw(t, "ratio"), Until: now.Add(7 * time.Second)})
			case 1: // silence, of which only the end is drawn
				silence = rapid.IntRange(1, 12).Draw(t, "silence")
			}
			m := drawMoment(t, now, load)
			load = m.load
			if silence--; silence < 0 && m.had {
				history = append(history, load)
				g.Measured(load, reading)
			}
			in := throttles.In(now)
			v := g.At(now, in)
			reading = v.Reading
			fresh := len(history) > 0 && now.Sub(history[len(history)-1].At) <= 5*time.Second
			if v.Stage != stage {
				checkStep(t, stage, v.Stage, now.Sub(entered), history, fresh)
				stage, entered = v.Stage, now
			}
			checkVerdict(t, v, in, history, fresh)
		}
		// Every pause ends: calm, owners gone.
		for range 30 {
			now = now.Add(time.Second)
			g.Measured(pipeline.SourceLoad{At: now, ToLoss: pipeline.Unknown}, reading)
			reading = g.At(now, throttles.In(now)).Reading
		}
		if v := g.At(now, throttles.In(now)); v.Stage != ShedNothing || v.Reading != 1 || v.Snapshot != 1 || v.Replay != 1 || v.Why != "" {
			t.Fatalf("30 calm seconds later: %+v", v)
		}
	})
}

// checkStep: a change of stage has its cause in the history.
func checkStep(t *rapid.T, was, is Stage, after time.Duration, history []pipeline.SourceLoad, fresh bool) {
	if !fresh {
		if is != ShedSnapshots || was <= ShedSnapshots {
			t.Fatalf("from %d to %d while nothing is known", was, is)
		}
		return
	}
	if was != ShedNothing && after < dwell {
		t.Fatalf("from %d to %d after %v", was, is, after)
	}
	last := history[len(history)-1]
	if is > was {
		if len(history) < 2 || !over(last) || !over(history[len(history)-2]) {
			t.Fatalf("from %d to %d without two bad samples", was, is)
		}
		if is > was+1 && is != ShedSnapshots {
			t.Fatalf("from %d to %d: out of order", was, is)
		}
		return
	}
	for i := len(history) - 1; i >= 0 && last.At.Sub(history[i].At) < leaveAfter; i-- {
		if !calm(history[i]) {
			t.Fatalf("from %d to %d, %v after %+v", was, is, last.At.Sub(history[i].At), history[i])
		}
	}
}

func checkVerdict(t *rapid.T, v Verdict, in []Throttle, history []pipeline.SourceLoad, fresh bool) {
	if (v.Reading < 1 || v.Snapshot < 1 || v.Replay < 1) && (v.Why == "" || v.End == "") {
		t.Fatalf("a pause without a name or an end: %+v", v)
	}
	if v.Replay > v.Snapshot || v.Snapshot > v.Reading {
		t.Fatalf("shed out of order: %+v", v)
	}
	lowest := 1.0
	for _, x := range in {
		lowest = min(lowest, x.Ratio)
	}
	if v.Replay > lowest || v.Snapshot > lowest || v.Reading > lowest && !v.Danger {
		t.Fatalf("more than the lowest throttle allows: %+v", v)
	}
	if !fresh {
		if v.Snapshot > 0 || v.Reading < lowest {
			t.Fatalf("nothing is known: snapshots closed, reading open: %+v", v)
		}
		return
	}
	l := history[len(history)-1]
	if v.Reading < 1 && l.ToLoss >= 0 && (l.ToLoss < 2*v.ToDrain || l.ToLoss < time.Minute) {
		t.Fatalf("reading is slowed %v before loss, %v to drain", l.ToLoss, v.ToDrain)
	}
	if v.Reading < 1 && lowest == 1 && l.ToLoss < 0 && l.Behind > 1<<30 {
		t.Fatalf("the source's disk fills: %+v", v)
	}
}

// TestGovernorInTime: what may be shed stops within 3 s of the breach and is back 15 s after it.
func TestGovernorInTime(t *testing.T) {
	g := NewGovernor(limits)
	at := func(s int, active int) Verdict {
		now := noon.Add(time.Duration(s) * time.Second)
		l := pipeline.NewSourceLoad(now)
		l.Active = active
		g.Measured(l, 1)
		return g.At(now, nil)
	}
	for s := range 30 {
		at(s, 10)
	}
	if v := at(30, 90); v.Stage != ShedNothing {
		t.Fatalf("one bad sample: %+v", v)
	}
	at(31, 90)
	if v := at(32, 90); v.Snapshot > 0 || v.Replay > 0 || v.Reading < 1 {
		t.Fatalf("2 s after: %+v", v)
	}
	for s := 33; s < 60; s++ {
		at(s, 90)
	}
	if v := at(60, 90); v.Reading > 0 {
		t.Fatalf("half a minute: %+v", v)
	}
	for s := 61; s < 75; s++ {
		at(s, 7)
	}
	if v := at(75, 7); v.Stage != ShedNothing || v.Reading < 1 {
		t.Fatalf("15 s of calm: %+v", v)
	}
}

func TestThrottlesOfATable(t *testing.T) {
	var s Throttles
	s.Set(Throttle{Owner: "ann", Ratio: 0.5})
	s.Replace("table: ", []Throttle{{Owner: "bob", Ratio: 0.2, Reason: "peak"}, {Owner: "eve", Ratio: 3}})
	if in := s.In(noon); len(in) != 2 || in[0].Owner != "table: bob" || in[0].String() != "table: bob throttles to 20 % (peak)" {
		t.Fatalf("%v", in)
	}
	s.Replace("table: ", nil)
	s.Set(Throttle{Owner: "ann", Ratio: 1})
	if in := s.In(noon); len(in) != 0 {
		t.Fatalf("%v", in)
	}
}
