package flow

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"
)

// server is a simulated endpoint: workers that take requests from a queue, and what it does beyond them.
type server struct {
	workers float64 // side by side
	service float64 // seconds per request of mean size
	spread  float64 // of service, either way; 2: exponential
	queue   int     // requests that may wait; -1: no bound
	tokens  float64 // requests per second that pass a token bucket; 0: no bucket
	burst   float64 // seconds of tokens
	sized   bool    // service goes with the request's size
	drops   bool    // what has no room is never answered
	hung    bool    // takes everything, answers nothing

	busy    int
	waiting []*request
	level   float64
	filled  float64
}

type request struct {
	ticket   Ticket
	size     int
	at       float64 // of the event
	deadline float64
	started  bool
	over     bool
}

type eventKind uint8

const (
	served eventKind = iota
	refused
	expired
)

type event struct {
	at   float64
	kind eventKind
	r    *request
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// sim drives a Limiter that always has work against a server, in virtual time.
type sim struct {
	s       *server
	l       *Limiter
	rand    *rand.Rand
	now     float64
	timeout float64
	queue   events
	ok      []float64 // work done, per tenth of a second
	sent    []int
	bad     []int
}

var epoch = time.Unix(1_700_000_000, 0)

func at(s float64) time.Time { return epoch.Add(time.Duration(s * float64(time.Second))) }

func newSim(s *server, most int, timeout float64, seed uint64) *sim {
	r := rand.New(rand.NewPCG(seed, 1))
	return &sim{s: s, l: NewLimiter(most, r.Float64), rand: r, timeout: timeout}
}

func bump[T int | float64](s *[]T, now float64, n T) {
	i := int(now * 10)
	for len(*s) <= i {
		*s = append(*s, 0)
	}
	(*s)[i] += n
}

// until runs the simulation up to a moment.
func (m *sim) until(end float64) {
	for m.now < end {
		for m.l.Permits(at(m.now)) {
			m.send()
		}
		m.l.Waiting(at(m.now))
		next := end
		if len(m.queue) > 0 {
			next = min(next, m.queue[0].at)
		}
		if m.l.InFlight() < m.l.Limit() {
			if due := m.l.Due(); due.After(at(m.now)) {
				next = min(next, due.Sub(epoch).Seconds()+1e-6)
			}
		}
		m.now = max(next, m.now+1e-7)
		for len(m.queue) > 0 && m.queue[0].at <= m.now {
			m.happen(heap.Pop(&m.queue).(event))
		}
	}
}

func (m *sim) push(after float64, kind eventKind, r *request) {
	heap.Push(&m.queue, event{m.now + after, kind, r})
}

func (m *sim) send() {
	r := &request{ticket: m.l.Sent(at(m.now)), size: 50}
	if m.s.sized {
		r.size = 1 + m.rand.IntN(99)
	}
	bump(&m.sent, m.now, 1)
	m.push(m.timeout, expired, r)
	s := m.s
	if s.tokens > 0 {
		s.level = min(max(1, s.tokens*s.burst), s.level+(m.now-s.filled)*s.tokens)
		s.filled = m.now
		if s.level < 1 {
			m.push(0.002, refused, r)
			return
		}
		s.level--
	}
	switch {
	case s.hung:
	case float64(s.busy) < s.workers:
		m.start(r)
	case s.queue < 0 || len(s.waiting) < s.queue:
		s.waiting = append(s.waiting, r)
	case s.drops:
	default:
		m.push(0.002, refused, r)
	}
}

func (m *sim) start(r *request) {
	s := m.s
	s.busy++
	r.started = true
	took := s.service
	if s.sized {
		took *= float64(r.size) / 50
	}
	if s.spread == 2 {
		took *= m.rand.ExpFloat64()
	} else {
		took *= 1 - s.spread + 2*s.spread*m.rand.Float64()
	}
	m.push(took, served, r)
}

func (m *sim) happen(e event) {
	r, s := e.r, m.s
	if e.kind == served {
		s.busy--
		for len(s.waiting) > 0 && float64(s.busy) < s.workers {
			next := s.waiting[0]
			s.waiting = s.waiting[1:]
			if !next.over {
				m.start(next)
			}
		}
	}
	if r.over {
		return
	}
	r.over = true
	signal := [...]Signal{Accepted, Congested, TimedOut}[e.kind]
	m.l.Done(r.ticket, r.size, signal, at(m.now))
	if e.kind != served {
		bump(&m.bad, m.now, 1)
		return
	}
	bump(&m.ok, m.now, float64(r.size)/50)
}

func sum[T int | float64](s []T, from, to float64) (n float64) {
	for i := int(from*10 + 0.5); i < int(to*10+0.5) && i < len(s); i++ {
		n += float64(s[i])
	}
	return n
}

// capacity in work per second.
func (s *server) capacity() float64 {
	c := s.workers / s.service
	if s.tokens > 0 {
		c = min(c, s.tokens)
	}
	return c
}

// settled checks the stretch [from, to): throughput as a whole, its swings, and errors.
func (m *sim) settled(t *testing.T, what string, from, to, low, least, most float64) (mean, lowest, errors float64) {
	t.Helper()
	c := m.s.capacity()
	bin := max(1, 100/c)
	if m.s.sized {
		bin = max(2, 200/c)
	}
	if m.s.spread == 2 {
		bin = max(1, 400/c) // its own noise
	}
	lowest = 9
	highest := 0.0
	for a := from; a+bin <= to+1e-9; a += bin {
		x := sum(m.ok, a, a+bin) / bin / c
		lowest, highest = min(lowest, x), max(highest, x)
	}
	mean = sum(m.ok, from, to) / (to - from) / c
	errors = sum(m.bad, from, to) / max(1, sum(m.sent, from, to))
	if mean < least || mean > 1.15 || lowest < low || highest > 1.2 || errors > most {
		t.Errorf("%s: throughput %.2f of capacity (%.2f to %.2f), errors %.3f; %s", what, mean, lowest, highest, errors, m.l.Reason())
	}
	return mean, lowest, errors
}
