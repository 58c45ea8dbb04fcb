// Package hosts chooses which of an endpoint's hosts gets a request.
//
// A host that fails [Options.Failures] times in a row is ejected for a while; the while grows each time. When it
// is over, and no probe has said otherwise since, one request tries the host: a success takes it back, a failure
// ejects it again. A probe of a host that could not be connected to ends the ejection early.
//
// Hosts have ranks: 0 for the zone of this process, 1 for its region, 2 for the rest. The nearest rank of which
// at most [Options.Share] is ejected takes all requests and the others none; without such a rank every host is
// used, ejected or not (panic): that so many hosts are ill is then less likely than an error of ours.
// After Envoy's outlier detection, panic threshold and locality priorities
// (https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier).
//
// Among the hosts that may be used, the one with fewer requests under way of two drawn by lot gets the request
// (M. Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001).
package hosts

import (
	"sync"
	"time"
)

// Options of a Pool; zero values mean the defaults.
type Options struct {
	// Failures in a row that eject a host; default 5.
	Failures int
	// Eject is how long the first time; doubling up to Longest. Defaults 30 s, 5 min; both ±10 %.
	Eject, Longest time.Duration
	// Forget is how long a host must have been back before an ejection counts as its first again; default 10 min.
	Forget time.Duration
	// Share of a rank's hosts that may be ejected while it is used; default 0.5.
	Share float64
	// Probe is how often an ejected host is probed; default 5 s.
	Probe time.Duration
	// PerHost is how many requests one host may have under way; 0 = any number.
	PerHost int
	// Rand returns a number in [0, n); needed.
	Rand func(n int) int
}

// Host is one member of a Pool. Its state is the Pool's.
type Host[T any] struct {
	// ID tells hosts apart; a host that stays in the Pool keeps its state by it.
	ID string
	// Rank: 0 = same zone, 1 = same region, 2 = elsewhere.
	Rank int
	// Target is the caller's own.
	Target T

	under    int // requests under way
	fails    int // in a row
	ejected  bool
	trial    bool // one request tries it
	until    time.Time
	back     time.Time // when it came back last
	times    int       // ejections without a long time between
	silent   bool      // ejected for lack of a connection
	answers  bool      // no probe failed since the last that did not
	probing  bool
	nextTry  time.Time // of a probe
	why      string
	probed   string // why the last probe failed, since the ejection
	gone     bool
	requests uint64
}

// Cause says what a failure was.
type Cause uint8

const (
	// Fine: no failure of the host.
	Fine Cause = iota
	// Unknown: says nothing about the host; a trial goes on with the next request.
	Unknown
	// Failed: connected, but no good reply.
	Failed
	// Silent: no connection.
	Silent
)

// Pool of hosts. Safe for concurrent use.
type Pool[T any] struct {
	o Options

	mu      sync.Mutex
	hosts   []*Host[T]
	ranks   [3]struct{ all, ejected int }
	ejected int // of hosts; when 0 nothing but the counts of requests is looked at
	waiting []chan struct{}
}

// New returns a Pool without hosts.
func New[T any](o Options) *Pool[T] {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	if o.Failures <= 0 {
		o.Failures = 5
	}
	if o.Share <= 0 {
		o.Share = 0.5
	}
	def(&o.Eject, 30*time.Second)
	def(&o.Longest, 5*time.Minute)
	def(&o.Forget, 10*time.Minute)
	def(&o.Probe, 5*time.Second)
	return &Pool[T]{o: o}
}

// Set makes list the hosts. One whose ID was there before keeps its state, rank and target. The first of equal
// IDs counts.
func (p *Pool[T]) Set(list []Host[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := make(map[string]*Host[T], len(p.hosts))
	for _, h := range p.hosts {
		h.gone = true
		old[h.ID] = h
	}
	p.hosts = make([]*Host[T], 0, len(list))
	for i := range list {
		h := old[list[i].ID]
		if h == nil {
			h = &Host[T]{ID: list[i].ID, Rank: min(max(list[i].Rank, 0), 2), Target: list[i].Target}
			old[h.ID] = h
		} else if !h.gone {
			continue
		}
		h.gone = false
		p.hosts = append(p.hosts, h)
	}
	p.count()
	p.wakeAll()
}

// Len is how many hosts there are.
func (p *Pool[T]) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.hosts)
}

func (p *Pool[T]) count() {
	p.ranks, p.ejected = [3]struct{ all, ejected int }{}, 0
	for _, h := range p.hosts {
		p.ranks[h.Rank].all++
		if h.ejected {
			p.ranks[h.Rank].ejected++
			p.ejected++
		}
	}
}

// rank returns the rank to use; false: panic.
func (p *Pool[T]) rank() (int, bool) {
	for r := range p.ranks {
		if n := p.ranks[r]; n.all > 0 && float64(n.ejected) <= p.o.Share*float64(n.all) {
			return r, true
		}
	}
	return 0, false
}

// Pick chooses a host for one request that is to begin now, other than those tried; each Pick of a host is
// followed by one Done. Nil: there is none, or, when full, each that could be used has PerHost requests.
func (p *Pool[T]) Pick(now time.Time, tried ...*Host[T]) (h *Host[T], full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pick(now, tried)
}

func (p *Pool[T]) pick(now time.Time, tried []*Host[T]) (h *Host[T], full bool) {
	if len(p.hosts) == 0 {
		return nil, false
	}
	rank, sound := p.rank()
	if sound && p.ejected > 0 {
		if h := p.due(now, rank, tried); h != nil {
			h.trial = true
			return p.begin(h), false
		}
	}
	if h, full = p.draw(rank, sound, tried); h == nil && !full && sound && len(tried) > 0 {
		// The good ones were tried: any other is better than none.
		h, full = p.draw(0, false, tried)
	}
	if h == nil {
		return nil, full
	}
	return p.begin(h), false
}

func (p *Pool[T]) begin(h *Host[T]) *Host[T] {
	h.under++
	h.requests++
	return h
}

// due returns a host whose ejection is over and which nobody tries yet. Farther ones wait until they are needed.
func (p *Pool[T]) due(now time.Time, rank int, tried []*Host[T]) *Host[T] {
	for _, h := range p.hosts {
		if h.ejected && h.Rank <= rank && !h.trial && h.answers && !now.Before(h.until) && p.room(h) && !in(h, tried) {
			return h
		}
	}
	return nil
}

func (p *Pool[T]) room(h *Host[T]) bool { return p.o.PerHost <= 0 || h.under < p.o.PerHost }

func in[T any](h *Host[T], list []*Host[T]) bool {
	for _, t := range list {
		if t == h {
			return true
		}
	}
	return false
}

// draw takes the less busy of two hosts drawn among those that may be used.
func (p *Pool[T]) draw(rank int, sound bool, tried []*Host[T]) (h *Host[T], full bool) {
	may := func(h *Host[T]) bool {
		return !sound || h.Rank == rank && !h.ejected
	}
	n := 0
	for _, h := range p.hosts {
		if !may(h) || in(h, tried) {
			continue
		}
		if !p.room(h) {
			full = true
			continue
		}
		n++
	}
	if n == 0 {
		return nil, full
	}
	a, b := 0, 0
	if n > 1 {
		a = p.o.Rand(n)
		if b = p.o.Rand(n - 1); b >= a {
			b++
		}
	}
	i := 0
	for _, c := range p.hosts {
		if !may(c) || in(c, tried) || !p.room(c) {
			continue
		}
		if (i == a || i == b) && (h == nil || c.under < h.under || c.under == h.under && i == a) {
			h = c
		}
		i++
	}
	return h, false
}

// Done ends a request; why is for people.
func (p *Pool[T]) Done(h *Host[T], now time.Time, c Cause, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.under--
	trial := h.trial && h.ejected
	switch c {
	case Fine:
		h.fails = 0
		if h.ejected {
			p.restore(h, now)
		}
	case Failed, Silent:
		h.fails++
		if trial || !h.ejected && h.fails >= p.o.Failures {
			p.eject(h, now, c == Silent, why)
		}
	}
	if trial && h.under == 0 {
		h.trial = false
	}
	p.wake()
}

func (p *Pool[T]) eject(h *Host[T], now time.Time, silent bool, why string) {
	if h.times > 0 && !h.ejected && now.Sub(h.back) > p.o.Forget {
		h.times = 0
	}
	d := p.o.Longest
	if h.times < 16 {
		d = min(p.o.Eject<<h.times, p.o.Longest)
	}
	h.times++
	h.until = now.Add(d*9/10 + time.Duration(p.o.Rand(int(d/time.Millisecond)/5+1))*time.Millisecond)
	h.silent, h.answers, h.why, h.probed, h.nextTry = silent, true, why, "", now.Add(p.o.Probe)
	h.ejected, h.trial = true, false
	p.count()
}

func (p *Pool[T]) restore(h *Host[T], now time.Time) {
	h.ejected, h.trial, h.fails, h.back, h.why, h.probed = false, false, 0, now, "", ""
	p.count()
	p.wakeAll()
}
