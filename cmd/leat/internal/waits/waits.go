// Package waits says why a source or subscription does not go on, or not at full speed, and what ends that: each
// pause has a resume condition, and here is the one place where it is put in words. Pure.
package waits

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Levels, the worst first.
const (
	// Error needs somebody.
	Error = "error"
	// Warning ends by itself.
	Warning = "warning"
	// Notice is on purpose, or harmless.
	Notice = "notice"
)

var rank = map[string]int{Error: 0, Warning: 1, Notice: 2}

// list collects waits.
type list []*leatv1.Wait

func (l *list) add(level, kind, reason, ends string, until *timestamppb.Timestamp) {
	*l = append(*l, &leatv1.Wait{Level: level, Kind: kind, Reason: reason, EndsWhen: ends, Until: until})
}

// sorted puts the worst first and keeps the order otherwise.
func (l list) sorted() []*leatv1.Wait {
	slices.SortStableFunc(l, func(a, b *leatv1.Wait) int { return cmp.Compare(rank[a.Level], rank[b.Level]) })
	return l
}

// state is what a state that is not the good one means.
type state struct{ level, reason, ends string }

var sourceStates = map[string]state{
	"connecting": {Notice, "it is connecting", "the database answers"},
	"retrying":   {Warning, "the database does not answer as it should", "the database answers: it is tried again by itself"},
	"stopped":    {Error, "it cannot be read", "the cause is repaired: it is tried every half minute"},
	"closed":     {Notice, "it was told to stop", "leat apply or a restart starts it"},
	"gone":       {Warning, "leat.yaml no longer names it; it is kept and not read", "leat.yaml names it again, or leat apply --drop %s forgets it"},
	"":           {Warning, "leat.yaml no longer names it; it is kept and not read", "leat.yaml names it again, or leat apply --drop %s forgets it"},
}

var subscriptionStates = map[string]state{
	"retrying": {Warning, "a delivery failed", "the next attempt is taken"},
	"waiting":  {Warning, "the endpoint is unavailable", "the endpoint answers a probe (no attempt is spent meanwhile)"},
	"blocked":  {Error, "an event's attempts are spent", "the event is taken, or leat seek %s gives up on it"},
	"paused":   {Notice, "it is paused", "leat resume %s"},
	"stopped":  {Error, "it cannot run", "the cause is repaired, or leat seek %s goes on behind it"},
	"closed":   {Notice, "it was told to stop", "leat apply or a restart starts it"},
	"gone":     {Warning, "leat.yaml no longer names it; it is kept and paused", "leat.yaml names it again, or leat apply --drop %s forgets it"},
}

// of fills in a state's words; an unknown one is told as it is.
func of(states map[string]state, name, in, reason string) (level, why, ends string) {
	s, known := states[in]
	if !known {
		s = state{Warning, "its state is " + in, "that is over"}
	}
	if reason == "" {
		reason = s.reason
	}
	if strings.Contains(s.ends, "%s") {
		s.ends = fmt.Sprintf(s.ends, name)
	}
	return s.level, reason, s.ends
}

// OfSource are the waits of a source.
func OfSource(s *leatv1.SourceStatus) []*leatv1.Wait {
	var l list
	if s.GetState() != "streaming" {
		level, why, ends := of(sourceStates, s.GetName(), s.GetState(), s.GetReason())
		if s.GetCode() != "" {
			why = s.GetCode() + ": " + why
		}
		l.add(level, "state", why, ends, nil)
	}
	l.throttles(s.GetName(), s.GetThrottles())
	p := s.GetPressure()
	if slow := min(p.GetReading(), p.GetSnapshot(), p.GetReplay()) < 1; p.GetWhy() != "" && slow && !throttled(s) && !(s.GetDisk() == "reading" && strings.Contains(p.GetWhy(), "disk is full")) {
		l.add(Warning, "load", fmt.Sprintf("the log is read at %.0f %%, snapshots at %.0f %%, replays at %.0f %%: %s",
			100*p.GetReading(), 100*p.GetSnapshot(), 100*p.GetReplay(), p.GetWhy()), orElse(p.GetEndsWhen(), "the load is lower"), nil)
	}
	if d := p.GetTimeToLoss(); d != nil && (p.GetDanger() || d.AsDuration() < nearLoss) {
		ends := "what is behind is read"
		if drain := p.GetTimeToDrain(); drain != nil {
			ends += fmt.Sprintf(", in about %v", drain.AsDuration().Round(time.Second))
		}
		l.add(Error, "loss", fmt.Sprintf("the database may remove what is not read in %v", d.AsDuration().Round(time.Second)), ends, nil)
	}
	if p.GetSignalsError() != "" {
		l.add(Warning, "signals", p.GetSignalsError()+": nobody throttles through it", "it can be read: "+p.GetSignalsCure(), nil)
	}
	if d, is := disks[s.GetDisk()]; is {
		if s.GetDisk() == "reading" && p.GetReading() > 0 {
			d.reason = p.GetWhy()
		}
		l.add(d.level, "disk", d.reason, d.ends, nil)
	}
	if o := s.GetOpen(); o.GetBoundBytes() > 0 && o.GetRunningBytes()+o.GetPreparedBytes() > o.GetBoundBytes() {
		l.add(Warning, "disk", fmt.Sprintf("transactions that have not ended hold %d MiB of the log (%d MiB of them prepared), more than half of its bound: it may grow to twice of that",
			(o.GetRunningBytes()+o.GetPreparedBytes())>>20, o.GetPreparedBytes()>>20), "they end (XA RECOVER on MySQL and MariaDB lists prepared ones), or log.retention.size is raised", nil)
	}
	if s.GetLogFull() {
		l.add(Error, "disk", "the log's disk is full: reading waits", "there is space: free some, or lower log.retention.size", nil)
	}
	return l.sorted()
}

// disks are the stages of our own disk, by SourceStatus.disk.
var disks = map[string]state{
	"replays":  {Warning, "the disk is full to 80 %: nothing is replayed", "it is below 78 %: free space, or lower log.retention.size and leat apply"},
	"laggards": {Error, "the disk is full to 90 %: the log grows no more, its oldest goes, also what subscriptions have not read", "it is below 88 %: free space, or lower log.retention.size and leat apply"},
	"reading":  {Error, "the disk is full to 95 %: the source is not read", "it is below 93 %: free space, or lower log.retention.size and leat apply"},
}

// nearLoss is the time to loss from which on it is told.
const nearLoss = time.Hour

// throttled: what slows the source is one of its throttles, which are told themselves.
func throttled(s *leatv1.SourceStatus) bool {
	return slices.ContainsFunc(s.GetThrottles(), func(t *leatv1.ThrottleState) bool { return t.GetRatio() <= s.GetPressure().GetReading() })
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// throttles are named with their owners.
func (l *list) throttles(name string, all []*leatv1.ThrottleState) {
	for _, t := range all {
		ends := "leat throttle " + name + " --off"
		switch {
		case t.GetSince() == nil: // not by hand: a file, a URL, a table
			ends = "its owner ends it"
		case t.GetUntil() != nil:
			ends = "its time is over, or leat throttle " + name + " --off"
		}
		l.add(Notice, "throttle", Throttle(t), ends, t.GetUntil())
	}
}

// Throttle says one in words, but for its end: throttled to 25 % (ops): index rebuild.
func Throttle(t *leatv1.ThrottleState) string {
	what := "throttled to " + strconv.FormatFloat(t.GetRatio()*100, 'g', 4, 64) + " %"
	if t.GetRatio() == 0 {
		what = "stopped by a throttle"
	}
	if t.GetOwner() != "" {
		what += " (" + t.GetOwner() + ")"
	}
	if t.GetReason() != "" {
		what += ": " + t.GetReason()
	}
	return what
}

// laggard tells that retention comes nearer than the subscription goes on.
func (l *list) laggard(g *leatv1.Laggard) {
	level, then := Error, "; what retention takes is skipped and listed by leat parked (laggard: "+g.GetPolicy()+")"
	switch g.GetStage() {
	case "", "live":
		return
	case "catch-up":
		level, then = Warning, ""
	}
	text := g.GetStage()
	if g.GetWhy() != "" {
		text += ": " + g.GetWhy()
	}
	ends := "it has caught up"
	if g.GetTimeToCatchUp() == nil {
		ends = "it goes on, and has caught up"
	}
	if d := g.GetTimeToCatchUp(); d != nil {
		ends += fmt.Sprintf(", in about %v", d.AsDuration().Round(time.Second))
	}
	l.add(level, "lag", text+then, ends, nil)
}

// longFull is the lag from which on a full window is told.
const longFull = 5 * time.Second

// OfSubscription are the waits of a subscription.
func OfSubscription(s *leatv1.SubscriptionStatus) []*leatv1.Wait {
	var l list
	name := s.GetName()
	if s.GetState() != "running" {
		level, why, ends := of(subscriptionStates, name, s.GetState(), s.GetReason())
		l.add(level, "state", why, ends, s.GetUntil())
	}
	l.throttles(name, s.GetThrottles())
	l.laggard(s.GetLaggard())
	if n := s.GetParked(); n > 0 {
		what := fmt.Sprintf("%d keys are parked with all their later events", n)
		if n == 1 {
			what = "1 key is parked with all its later events"
		}
		l.add(Error, "parked", what, "leat redrive "+name+" delivers them, leat discard gives them up; leat parked "+name+" shows them", nil)
	}
	for _, r := range s.GetLanes() {
		if r.GetPausedFrom() > 0 {
			l.add(Error, "range", fmt.Sprintf("range %d of %s pauses from offset %d on, as too many of its keys are parked (%d); other ranges go on", r.GetRange(), r.GetSpace(), r.GetPausedFrom(), r.GetParked()),
				"leat redrive "+name+" or leat discard "+name+" makes room: a tenth of what a range may have", nil)
		}
	}
	for _, h := range s.GetHosts() {
		switch {
		case !h.GetEjected():
		case s.GetHostsPanic(): // it is used all the same
			l.add(Warning, "host", "host "+h.GetName()+" fails: "+orElse(h.GetReason(), "it failed"), "a probe or the next try of it succeeds", nil)
		default:
			l.add(Warning, "host", "host "+h.GetName()+" gets nothing: "+orElse(h.GetReason(), "it failed"), "a probe or the next try of it succeeds", h.GetUntil())
		}
	}
	if s.GetHostsPanic() && len(s.GetHosts()) > 1 {
		l.add(Warning, "host", "so many hosts fail that all are used", "more of them answer", nil)
	}
	limit := s.GetLimit()
	switch full := limit > 0 && s.GetInFlight() >= limit; {
	case s.GetState() != "running":
	case s.GetFlow() != "" && (limit < s.GetMaxInFlight() || s.GetPace() > 0):
		l.add(Notice, "flow", s.GetFlow(), "the endpoint takes more: it is tried step by step", nil)
	case full && s.GetLag().AsDuration() > longFull:
		l.add(Notice, "flow", fmt.Sprintf("all %d deliveries that may be in flight are", limit), "answers come", nil)
	}
	if s.GetSaveError() != "" {
		l.add(Error, "cursor", "its cursor is not saved: "+s.GetSaveError(), "the data folder can be written (a restart would deliver again what is done)", nil)
	}
	return l.sorted()
}
