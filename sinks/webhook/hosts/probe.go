package hosts

import (
	"context"
	"time"
)

// Probes returns the ejected hosts that are to be probed now; each is followed by one Probed. next is when to
// ask again, zero while no host is ejected.
func (p *Pool[T]) Probes(now time.Time) (due []*Host[T], next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		if !h.ejected || h.probing {
			continue
		}
		if !now.Before(h.nextTry) {
			h.probing, h.nextTry = true, now.Add(p.o.Probe)
			due = append(due, h)
		}
		if next.IsZero() || h.nextTry.Before(next) {
			next = h.nextTry
		}
	}
	return due, next
}

// Probed says how a probe went: failed is why it did not go well, empty when it did. Deep: it asked for what a request
// needs, so its success ends any ejection; that of another one ends only those of hosts that could not be connected to.
func (p *Pool[T]) Probed(h *Host[T], now time.Time, failed string, deep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.probing, h.nextTry = false, now.Add(p.o.Probe)
	if !h.ejected {
		return
	}
	h.probed, h.answers = failed, failed == ""
	if h.answers && (deep || h.silent) && now.Before(h.until) {
		h.until = now
		p.wakeAll()
	}
}

// Get is Pick that waits for room until ctx ends; it returns nil and ctx's error then, and nil, nil when there is no
// host to wait for.
func (p *Pool[T]) Get(ctx context.Context, now func() time.Time, tried ...*Host[T]) (*Host[T], error) {
	for {
		p.mu.Lock()
		h, full := p.pick(now(), tried)
		if h != nil || !full {
			p.mu.Unlock()
			return h, nil
		}
		turn := make(chan struct{}, 1)
		p.waiting = append(p.waiting, turn)
		p.mu.Unlock()
		select {
		case <-turn:
		case <-ctx.Done():
			p.mu.Lock()
			p.leave(turn)
			p.mu.Unlock()
			return nil, ctx.Err()
		}
	}
}

// leave gives up a place in the queue, and its turn, if it has come, to the next.
func (p *Pool[T]) leave(turn chan struct{}) {
	for i, w := range p.waiting {
		if w == turn {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return
		}
	}
	p.wake()
}

func (p *Pool[T]) wake() {
	if len(p.waiting) > 0 {
		p.waiting[0] <- struct{}{}
		p.waiting = p.waiting[1:]
	}
}

func (p *Pool[T]) wakeAll() {
	for len(p.waiting) > 0 {
		p.wake()
	}
}

// State is what is known of a host.
type State struct {
	ID       string
	Rank     int
	Requests uint64 // since it came into the pool
	Under    int    // under way
	Ejected  bool
	Until    time.Time // of the ejection
	Why      string    // of the ejection, and of the last probe that failed since
}

// States lists the hosts; panicking: more are ejected than may be, so all are used.
func (p *Pool[T]) States() (list []State, panicking bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		why := h.why
		if h.probed != "" {
			why += "; its probe fails: " + h.probed
		}
		list = append(list, State{ID: h.ID, Rank: h.Rank, Requests: h.requests, Under: h.under, Ejected: h.ejected, Until: h.until, Why: why})
	}
	_, sound := p.rank()
	return list, !sound && len(p.hosts) > 0
}
