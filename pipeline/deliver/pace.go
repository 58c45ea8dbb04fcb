package deliver

import "time"

// paceBurst is how long unused allowance is kept.
const paceBurst = 100 * time.Millisecond

// pace bounds the rate of events: a Delivery may leave once those before it are paid for (the generic
// cell rate algorithm, ITU-T I.371). The zero pace bounds nothing.
type pace struct {
	perEvent time.Duration // 0: no bound
	free     time.Time     // when what was sent is paid for
}

func newPace(rate float64) pace {
	if rate <= 0 {
		return pace{}
	}
	return pace{perEvent: time.Duration(float64(time.Second) / rate)}
}

// permits reports whether a Delivery may leave.
func (p *pace) permits(now time.Time) bool { return !now.Before(p.free) }

// sent charges a Delivery of n events; ratio, above 0, is what a throttle leaves of the rate.
func (p *pace) sent(n int, ratio float64, now time.Time) {
	if p.perEvent == 0 {
		return
	}
	if earliest := now.Add(-paceBurst); p.free.Before(earliest) {
		p.free = earliest
	}
	p.free = p.free.Add(time.Duration(float64(n) * float64(p.perEvent) / ratio))
}
