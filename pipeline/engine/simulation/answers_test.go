package simulation

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

var errFault = errors.New("simulated fault")

// reply answers a call as the nemesis likes.
func (w *world) reply(x *call) string {
	r := w.rng
	dice := r.Float64()
	fault := func(share float64) bool { return dice < share }
	switch x.kind {
	case callDisk:
		if fault(w.set.diskFaults) && strings.Contains(x.name, " sync ") {
			w.disk.FailSyncs(1)
			w.calls.answer(x, nil)
			return x.name + ": fails"
		}
	case callRead:
		if fault(w.set.readFaults) {
			return w.fail(x, errFault)
		}
	case callStore, callCopies, callJobs:
		if fault(w.set.storeFaults) {
			if r.IntN(2) == 0 {
				w.apply(x) // done, but nobody is told
			}
			return w.fail(x, errFault)
		}
	case callResolve, callOpenSink:
		if fault(0.05) {
			return w.fail(x, errFault)
		}
	case callOpenSource, callNext:
		if fault(w.set.sourceFaults) {
			if r.IntN(2) == 0 {
				return w.fail(x, &pipeline.SourceError{Class: pipeline.Stopped, Code: "simulated", What: "simulated fault", Cure: "wait"})
			}
			return w.fail(x, errFault)
		}
	case callDeliver:
		return w.judge(x)
	}
	return w.grant(x)
}

func (w *world) fail(x *call, err error) string {
	w.calls.answer(x, err)
	return x.name + ": refused"
}

// grant answers a call with success.
func (w *world) grant(x *call) string {
	what := x.what
	switch x.kind {
	case callStore, callCopies, callJobs:
		w.apply(x)
	case callResolve:
		x.sub.resolved = max(x.sub.resolved, x.offset)
	case callNext:
		what = x.next.fill(w.db, 1+w.rng.IntN(4), time.Now())
	case callDeliver:
		w.takes(x.delivery)
		w.accepts(x.delivery)
	}
	w.calls.answer(x, nil)
	return x.name + ": ok " + what
}

func (w *world) apply(x *call) {
	if err := x.apply(); err != nil {
		w.breaks("%s: %v", x.name, err)
	}
}

// takes: the subscriber uses all events of the Delivery, whatever it will answer.
func (w *world) takes(f *flight) {
	for _, i := range f.at {
		f.sub.take(&w.db.history[i], i)
	}
}

// accepts notes the events that the outcomes say were taken; of a key those before its first failure.
func (w *world) accepts(f *flight) {
	failed := map[string]bool{}
	for n, i := range f.at {
		e := &w.db.history[i]
		k := f.sub.key(e, i)
		if f.outcomes != nil && f.outcomes[n].Class != pipeline.OK {
			failed[k] = true
		}
		if failed[k] {
			continue
		}
		f.sub.take(e, i)
		w.brings(f.sub, i)
		if f.job != "" {
			f.sub.copied[f.job].acked[i] = true
			continue
		}
		f.sub.acked[i] = true
	}
}

// judge is what a subscriber answers, by its mood.
func (w *world) judge(x *call) string {
	f, r := x.delivery, w.rng
	s := f.sub
	poisoned := false
	for _, i := range f.at {
		poisoned = poisoned || s.poison[i]
	}
	whole := func(e pipeline.DeliveryError) string {
		if e.Reason == "" {
			e.Reason = "the seed says so"
		}
		if r.IntN(3) == 0 {
			w.takes(f) // it did the work before it failed
		}
		w.revokes(f)
		w.calls.answer(x, &e)
		return fmt.Sprintf("%s: %s %s", x.name, e.Class, e.RetryAfter)
	}
	trouble := [...]int{well: 2, flaky: 40, congested: 60, down: 100}[s.mood]
	if r.IntN(100) < trouble {
		switch s.mood {
		case congested:
			e := pipeline.DeliveryError{Class: pipeline.Unavailable, Congested: true}
			if r.IntN(3) == 0 {
				e.RetryAfter = time.Duration(1+r.IntN(100)) * time.Second
			}
			return whole(e)
		case down:
			return whole(pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "down"})
		}
		switch r.IntN(9) {
		case 0, 1:
			return whole(pipeline.DeliveryError{Class: pipeline.Retriable, TimedOut: r.IntN(2) == 0})
		case 2:
			return whole(pipeline.DeliveryError{Class: pipeline.Unavailable})
		case 3:
			if len(f.at) > 1 {
				return whole(pipeline.DeliveryError{Class: pipeline.TooLarge})
			}
		case 4:
			if r.IntN(10) == 0 {
				return whole(pipeline.DeliveryError{Class: pipeline.Gone, Reason: "gone"})
			}
		case 5:
			f.outcomes = make(pipeline.Outcomes, len(f.at)+1) // malformed
			w.revokes(f)
			w.calls.answer(x, nil)
			return x.name + ": malformed"
		}
		return w.partly(x, true)
	}
	if poisoned && r.IntN(3) == 0 {
		class := pipeline.Retriable
		if r.IntN(3) == 0 && len(f.at) == 1 {
			class = pipeline.Poison
		}
		return whole(pipeline.DeliveryError{Class: class, Reason: "poison"})
	}
	if poisoned || len(f.revoked) > 0 {
		return w.partly(x, false)
	}
	return w.grant(x)
}

// partly answers with an outcome for each event.
func (w *world) partly(x *call, dice bool) string {
	f, r := x.delivery, w.rng
	s := f.sub
	f.outcomes = make(pipeline.Outcomes, len(f.at))
	text := ""
	for n, i := range f.at {
		o := &f.outcomes[n]
		k := s.key(&w.db.history[i], i)
		from, revoked := f.revoked[k]
		switch {
		case revoked && i >= from:
			*o = pipeline.Outcome{Class: pipeline.Retry, Reason: "an earlier one failed"}
		case s.poison[i]:
			*o = pipeline.Outcome{Class: pipeline.Retry, Reason: "poison"}
			if r.IntN(4) == 0 {
				o.Class = pipeline.Fatal
			}
		case dice && r.IntN(3) == 0:
			*o = pipeline.Outcome{Class: pipeline.Retry + pipeline.Class(r.IntN(3)), Delay: time.Duration(r.IntN(3)) * time.Second, Reason: "the seed says so"}
			if o.Class == pipeline.Fatal && r.IntN(4) > 0 {
				o.Class = pipeline.Defer
			}
		}
		text += o.Class.String() + " "
	}
	if s.ordered && f.job == "" { // what follows a failure of its key fails
		failed := map[string]bool{}
		for n, i := range f.at {
			k := s.key(&w.db.history[i], i)
			if failed[k] && f.outcomes[n].Class == pipeline.OK {
				f.outcomes[n] = pipeline.Outcome{Class: pipeline.Retry, Reason: "an earlier one failed"}
			}
			failed[k] = failed[k] || f.outcomes[n].Class != pipeline.OK
		}
	}
	w.revokes(f)
	w.accepts(f)
	w.calls.answer(x, nil)
	return x.name + ": " + text
}

// revokes makes later Deliveries of keys that failed fail too: an Ordered sink's duty.
func (w *world) revokes(f *flight) {
	if !f.sub.ordered || f.job != "" {
		return
	}
	from := map[string]int{}
	for n, i := range f.at {
		k := f.sub.key(&w.db.history[i], i)
		bad := len(f.outcomes) != len(f.at) || f.outcomes[n].Class != pipeline.OK
		if _, ok := from[k]; bad && !ok {
			from[k] = i
		}
	}
	for _, o := range f.sub.flying {
		if o == f || o.number < f.number {
			continue
		}
		for k, i := range from {
			if old, ok := o.revoked[k]; !ok || i < old {
				o.revoked[k] = i
			}
		}
	}
}
