package sched

import (
	"fmt"
	"time"
)

// Class of a subscription. The zero one is Normal.
type Class uint8

const (
	Normal Class = iota
	Critical
	High
	Low
	classes
)

var (
	classNames = [...]string{Critical: "critical", High: "high", Normal: "normal", Low: "low"}
	weights    = [...]float64{Critical: 8, High: 4, Normal: 2, Low: 1}
	rising     = [...]Class{Low, Normal, High, Critical}
)

// String is the class as it stands in the configuration.
func (c Class) String() string { return classNames[c] }

// ParseClass returns the class of that name.
func ParseClass(name string) (Class, error) {
	for i, n := range classNames {
		if n == name {
			return Class(i), nil
		}
	}
	return Normal, fmt.Errorf("priority %q: it is critical, high, normal or low", name)
}

// Kind of what a lane does.
type Kind uint8

const (
	// Live: it keeps up.
	Live Kind = iota
	// CatchUp: it reads what is not in memory any more.
	CatchUp
	// Replay: copies of what was delivered before.
	Replay
	kinds
)

const (
	// Patience is how long a lane waits before its age counts.
	Patience = time.Second
	// AgeEvery is how many grants there are to one by age.
	AgeEvery = 8
	// Floor is the least share of its class's cost that a kind gets while it wants.
	Floor = 0.05

	// byteCost, in nanoseconds, is what is spent on a byte after the sink let go of it: copying, framing, the
	// kernel, TLS.
	byteCost = 0.5
	// firstCost is assumed of a lane, and of all of them, before there was one.
	firstCost = 50_000
	leastCost = 1_000
	// smooth is the weight of the newest cost in a mean.
	smooth = 1.0 / 8
)

// Cost in nanoseconds of a Delivery that took cpu to encode and hand over, and has that many bytes.
func Cost(cpu time.Duration, bytes int) float64 {
	return max(leastCost, float64(cpu)+byteCost*float64(bytes))
}

// Lane is one that competes. Only its Scheduler's owner uses it.
type Lane struct {
	// Owner is whoever made the lane; not used here.
	Owner any

	turn  turn
	class *class
	kind  Kind
	wants int
	mean  float64 // cost of its grants
	since time.Time
	// waited is how long its last grant took from when it was wished for, or from the grant before.
	waited time.Duration
	// among those that wait, the longest first
	older, younger *Lane
}

// class of lanes, by kind.
type class struct {
	name   Class
	turn   turn
	base   float64 // its weight to others
	lanes  int     // that want something
	kinds  [kinds]ring
	credit [kinds]float64 // of the floor
}

// Scheduler decides who goes next. The zero one is not valid: see New.
type Scheduler struct {
	ring    ring // of classes
	classes [classes]class
	oldest  *Lane
	newest  *Lane
	waiting int // lanes that want something
	picks   uint
	// quantum is near the mean cost of a grant: a turn is about one of them, so few looks find whose turn it is. It
	// changes seldom: following each cost it favoured whoever came after the one that paid it, by up to 8 %.
	quantum, mean float64
}

// New returns a scheduler without lanes.
func New() *Scheduler {
	s := &Scheduler{quantum: firstCost, mean: firstCost}
	for i := range s.classes {
		c := &s.classes[i]
		c.name, c.turn.class, c.turn.weight, c.base = Class(i), c, 1, weights[i]
	}
	return s
}

// Lane makes a lane that wants nothing.
func (s *Scheduler) Lane(c Class, k Kind) *Lane {
	l := &Lane{class: &s.classes[c], kind: k, mean: firstCost}
	l.turn.lane, l.turn.weight = l, 1
	return l
}

// Waiting is how many lanes want something.
func (s *Scheduler) Waiting() int { return s.waiting }

// Oldest returns since when the lane waits that waits longest; zero when none does.
func (s *Scheduler) Oldest() time.Time {
	if s.oldest == nil {
		return time.Time{}
	}
	return s.oldest.since
}

// Wants is how many more grants the lane wants.
func (l *Lane) Wants() int { return l.wants }

// Want says how many more grants the lane wants, in all; 0: none.
func (s *Scheduler) Want(l *Lane, n int, now time.Time) {
	was := l.wants
	l.wants = max(0, n)
	switch {
	case was == 0 && l.wants > 0:
		s.waiting++
		s.join(l)
		s.enlist(l, now)
	case was > 0 && l.wants == 0:
		s.cease(l)
	}
}

// Shift changes what the lane does.
func (s *Scheduler) Shift(l *Lane, c Class, k Kind) {
	to := &s.classes[c]
	if l.kind == k && l.class == to {
		return
	}
	if l.wants > 0 {
		s.leave(l)
	}
	l.class, l.kind = to, k
	l.turn.given = l.ring().given
	if l.wants > 0 { // and keeps its age
		s.join(l)
	}
}

func (l *Lane) ring() *ring { return &l.class.kinds[l.kind] }

func (s *Scheduler) join(l *Lane) {
	l.class.lanes++
	s.weigh()
	l.ring().join(&l.turn, s.quantum)
	s.ring.join(&l.class.turn, s.quantum)
}

func (s *Scheduler) leave(l *Lane) {
	c, r := l.class, l.ring()
	c.lanes--
	s.weigh()
	r.leave(&l.turn)
	if r.empty() {
		c.credit[l.kind] = min(c.credit[l.kind], 0)
	}
	if c.empty() {
		s.ring.leave(&c.turn)
	}
}

// weigh gives each class that wants something, the lowest first, the least weight that keeps its ratio to those
// below it, as a class and for each of its lanes.
func (s *Scheduler) weigh() {
	for i, c := range rising {
		up := &s.classes[c]
		if up.lanes == 0 {
			continue
		}
		w := 1.0
		for _, d := range rising[:i] {
			if low := &s.classes[d]; low.lanes > 0 {
				w = max(w, up.base/low.base*low.turn.weight*max(1, float64(up.lanes)/float64(low.lanes)))
			}
		}
		up.turn.weight = w
	}
}

func (s *Scheduler) cease(l *Lane) {
	s.waiting--
	s.leave(l)
	s.delist(l)
}

func (c *class) empty() bool {
	for k := range c.kinds {
		if !c.kinds[k].empty() {
			return false
		}
	}
	return true
}

// Next grants: it returns the lane and the cost that it was charged for the time being, to be told to Done. Nil:
// no lane wants anything.
func (s *Scheduler) Next(now time.Time) (l *Lane, charged float64) {
	if s.waiting == 0 {
		return nil, 0
	}
	s.picks++
	if s.picks%AgeEvery == 0 && now.Sub(s.oldest.since) >= Patience {
		l = s.oldest
	} else {
		l = s.ring.pick(s.quantum).class.pick(s.quantum)
	}
	charged, l.waited = l.mean, now.Sub(l.since)
	l.class.raise(l.kind, charged)
	s.charge(l, charged)
	if l.wants--; l.wants == 0 {
		s.cease(l)
	} else { // it waits anew
		s.delist(l)
		s.enlist(l, now)
	}
	return l, charged
}

// pick returns the lane of the class that goes next.
func (c *class) pick(quantum float64) *Lane {
	first := -1
	for k := range c.kinds {
		r := &c.kinds[k]
		if r.empty() {
			continue
		}
		if first < 0 {
			first = k
		} else if c.credit[k] > 0 {
			first = k
			break
		}
	}
	return c.kinds[first].pick(quantum).lane
}

// raise notes what a grant of kind k means for the floors of the kinds that want something.
func (c *class) raise(k Kind, cost float64) {
	before := false // a kind that goes first waits
	for i := range c.kinds {
		if c.kinds[i].empty() {
			continue
		}
		if before {
			c.credit[i] += Floor * cost
			if Kind(i) == k {
				c.credit[i] = max(c.credit[i]-cost, -worstDebt)
			}
		}
		before = true
	}
}

func (s *Scheduler) charge(l *Lane, cost float64) {
	l.ring().charge(&l.turn, cost)
	s.ring.charge(&l.class.turn, cost)
}

// Done says what a grant cost.
func (s *Scheduler) Done(l *Lane, charged, cost float64) {
	s.charge(l, cost-charged)
	s.Learn(l, cost)
}

// Learn notes what a grant cost that was not charged, as nobody was kept waiting.
func (s *Scheduler) Learn(l *Lane, cost float64) {
	l.mean += (cost - l.mean) * smooth
	s.mean += (cost - s.mean) * smooth / 32
	if s.mean > 2*s.quantum || 2*s.mean < s.quantum {
		s.quantum = s.mean
	}
}

// Unused takes a grant back that nobody needs.
func (s *Scheduler) Unused(l *Lane, charged float64) { s.charge(l, -charged) }

// enlist puts l behind all that wait.
func (s *Scheduler) enlist(l *Lane, since time.Time) {
	l.since, l.older, l.younger = since, s.newest, nil
	if s.newest != nil {
		s.newest.younger = l
	} else {
		s.oldest = l
	}
	s.newest = l
}

func (s *Scheduler) delist(l *Lane) {
	if l.older != nil {
		l.older.younger = l.younger
	} else {
		s.oldest = l.younger
	}
	if l.younger != nil {
		l.younger.older = l.older
	} else {
		s.newest = l.older
	}
	l.older, l.younger = nil, nil
}
