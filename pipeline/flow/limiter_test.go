package flow

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"testing"
)

// kinds are servers by how they show that they are full. Each gets its size from the seed.
var kinds = []struct {
	name    string
	make    func(r *rand.Rand) *server
	scale   func(s *server, by float64)
	timeout float64
	low     float64 // of the swings, as a share of capacity; 0: 0.8
	least   float64 // of the mean; 0: 0.85
	errors  float64 // share of requests; 0: 0.02
}{
	{"429 of a token bucket", func(r *rand.Rand) *server {
		rate := 100 + 1900*r.Float64()
		return &server{workers: 1e6, service: 0.005 + 0.1*r.Float64(), spread: 0.3, queue: 0, tokens: rate, burst: 0.02 + 0.2*r.Float64()}
	}, func(s *server, by float64) { s.tokens *= by; s.level = 0 }, 10, 0, 0, 0},
	{"429 beyond a concurrency", func(r *rand.Rand) *server {
		return &server{workers: float64(40 + r.IntN(60)), service: 0.02 + 0.1*r.Float64(), spread: 0.3, queue: 0}
	}, func(s *server, by float64) { s.workers = float64(int(s.workers*by + 0.5)) }, 10, 0.75, 0, 0},
	{"503 of a full queue", func(r *rand.Rand) *server {
		n := 40 + r.IntN(40)
		return &server{workers: float64(n), service: 0.02 + 0.1*r.Float64(), spread: 0.3, queue: n / 2}
	}, func(s *server, by float64) {
		s.workers = float64(int(s.workers*by + 0.5))
		s.queue = int(float64(s.queue)*by + 0.5)
	}, 10, 0, 0, 0},
	{"latency of a queue", func(r *rand.Rand) *server {
		return &server{workers: float64(40 + r.IntN(60)), service: 0.02 + 0.1*r.Float64(), spread: 0.3, queue: -1}
	}, func(s *server, by float64) { s.workers = float64(int(s.workers*by + 0.5)) }, 30, 0, 0, 0},
	{"latency, exponential", func(r *rand.Rand) *server {
		return &server{workers: float64(40 + r.IntN(60)), service: 0.02 + 0.1*r.Float64(), spread: 2, queue: -1}
	}, func(s *server, by float64) { s.workers = float64(int(s.workers*by + 0.5)) }, 30, 0.75, 0, 0},
	{"slower service", func(r *rand.Rand) *server {
		return &server{workers: float64(20 + r.IntN(40)), service: 0.01 + 0.05*r.Float64(), spread: 0.3, queue: -1}
	}, func(s *server, by float64) { s.service /= by }, 30, 0, 0, 0},
	{"timeouts of a queue", func(r *rand.Rand) *server {
		return &server{workers: float64(40 + r.IntN(60)), service: 0.02 + 0.05*r.Float64(), spread: 0.3, queue: -1}
	}, func(s *server, by float64) { s.workers = float64(int(s.workers*by + 0.5)) }, 1, 0.75, 0, 0},
	{"timeouts beyond a concurrency", func(r *rand.Rand) *server {
		return &server{workers: float64(40 + r.IntN(60)), service: 0.02 + 0.05*r.Float64(), spread: 0.3, queue: 0, drops: true}
		// A step too far is known after the timeout, and until then nothing has room.
	}, func(s *server, by float64) { s.workers = float64(int(s.workers*by + 0.5)) }, 1, 0.1, 0, 0},
	{"tiny windows", func(r *rand.Rand) *server {
		return &server{workers: float64(10 + r.IntN(20)), service: 0.02 + 0.08*r.Float64(), spread: 0.3, queue: 0}
	}, func(s *server, by float64) { s.workers = float64(int(s.workers*by + 0.5)) }, 10, 0.7, 0, 0},
	{"sizes vary, latency", func(r *rand.Rand) *server {
		return &server{workers: float64(40 + r.IntN(60)), service: 0.02 + 0.1*r.Float64(), spread: 0.2, queue: -1, sized: true}
	}, func(s *server, by float64) { s.workers = float64(int(s.workers*by + 0.5)) }, 30, 0.75, 0, 0},
	{"sizes vary, 429", func(r *rand.Rand) *server {
		return &server{workers: float64(40 + r.IntN(60)), service: 0.02 + 0.1*r.Float64(), spread: 0.2, queue: 0, sized: true}
	}, func(s *server, by float64) { s.workers = float64(int(s.workers*by + 0.5)) }, 10, 0.7, 0.8, 0},
}

// TestCapacityFallsAndReturns: within 10 s of each change throughput is at capacity, stays there without
// swings, and few requests fail.
func TestCapacityFallsAndReturns(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			worst, most, fails := 9.0, 0.0, 0
			for seed := range uint64(3) {
				s := k.make(rand.New(rand.NewPCG(seed, 7)))
				m := newSim(s, 256, k.timeout, seed)
				for i, by := range []float64{1, 0.1, 10} {
					k.scale(s, by)
					from := float64(i) * 30
					m.until(from + 30)
					mean, _, errors := m.settled(t, fmt.Sprintf("seed %d, phase %d", seed, i), from+10, from+30, cmp.Or(k.low, 0.8), cmp.Or(k.least, 0.85), cmp.Or(k.errors, 0.02))
					worst, most = min(worst, mean), max(most, errors)
					if mean < 0.85 {
						fails++
					}
				}
			}
			t.Logf("worst throughput %.2f, most errors %.4f", worst, most)
		})
	}
}

// TestAHungEndpointComesBack: while nothing is answered one request goes at a time; when it is, all of
// the capacity is found again.
func TestAHungEndpointComesBack(t *testing.T) {
	for seed := range uint64(2) {
		m := newSim(&server{workers: 50, service: 0.05, spread: 0.3, queue: -1}, 256, 2, seed)
		m.until(20)
		m.s.hung = true
		m.until(60)
		if l := m.l.Limit(); l > 2 || m.l.Rate() > 5 {
			t.Errorf("seed %d: nothing is answered, and the limit is %d at %.1f per second", seed, l, m.l.Rate())
		}
		m.s.hung = false
		m.until(100)
		m.settled(t, fmt.Sprintf("seed %d", seed), 70, 100, 0.8, 0.85, 0.02)
	}
}

// TestAnIdleSenderIsNotJudged: latency that rises while nothing waits for room changes nothing.
func TestAnIdleSenderIsNotJudged(t *testing.T) {
	l := NewLimiter(64, func() float64 { return 0.5 })
	now := 0.0
	for i := range 1000 {
		if !l.Permits(at(now)) {
			t.Fatalf("request %d is refused: %s", i, l.Reason())
		}
		k := l.Sent(at(now))
		took := 0.01
		if i > 500 {
			took = 0.5
		}
		now += took
		l.Done(k, 10, Accepted, at(now))
		now += 0.01
	}
	if l.Limit() != 1 || l.Reason() != "" {
		t.Fatalf("limit %d, reason %q", l.Limit(), l.Reason())
	}
}

// TestSlowStart: 64 in flight after six rounds; and after Restart again.
func TestSlowStart(t *testing.T) {
	m := newSim(&server{workers: 1000, service: 0.01, queue: -1}, 64, 1, 1)
	for range 2 {
		m.until(m.now + 0.075)
		if m.l.Limit() != 64 {
			t.Fatalf("limit %d after seven rounds", m.l.Limit())
		}
		m.l.Restart()
		if m.l.Limit() != 1 {
			t.Fatal("a restart begins with one")
		}
		m.until(m.now + 0.02)
	}
}
