package flow

import "time"

// Pacer bounds a rate: what is next may leave once what went before is paid for (the generic cell rate
// algorithm, ITU-T I.371). The zero Pacer bounds nothing. Not for concurrent use.
type Pacer struct {
	rate  float64 // per second; 0: no bound
	burst time.Duration
	free  time.Time // when what was sent is paid for
}

// NewPacer bounds to rate units per second (0: no bound); burst is for how long unused allowance keeps.
func NewPacer(rate float64, burst time.Duration) Pacer {
	return Pacer{rate: max(0, rate), burst: burst}
}

// SetRate changes the bound; what was sent stays charged, at the new rate from now on.
func (p *Pacer) SetRate(rate float64, burst time.Duration) {
	p.rate, p.burst = max(0, rate), burst
}

// Rate in units per second; 0: no bound.
func (p *Pacer) Rate() float64 { return p.rate }

// Permits reports whether something may leave, of whatever size.
func (p *Pacer) Permits(now time.Time) bool { return p.rate == 0 || !now.Before(p.free) }

// Due is when Permits turns true; the zero time when nothing is bound.
func (p *Pacer) Due() time.Time {
	if p.rate == 0 {
		return time.Time{}
	}
	return p.free
}

// Sent charges n units.
func (p *Pacer) Sent(n int, now time.Time) {
	if p.rate == 0 {
		return
	}
	if earliest := now.Add(-p.burst); p.free.Before(earliest) {
		p.free = earliest
	}
	p.free = p.free.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
}
