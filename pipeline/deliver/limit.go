package deliver

import (
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/flow"
)

// newLimiter is nil where MaxInFlight alone counts.
func newLimiter(c *Config) *flow.Limiter {
	if _, ordered := c.Sink.(pipeline.Ordered); ordered || !c.Adaptive || c.MaxInFlight < 2 {
		return nil
	}
	return flow.NewLimiter(c.MaxInFlight, c.Rand)
}

// limit of the Deliveries in flight.
func (s *session) limit() int {
	if s.limiter == nil {
		return s.cfg.MaxInFlight
	}
	return s.limiter.Limit()
}

// flows reports whether the limiter lets a Delivery go.
func (s *session) flows(now time.Time) bool {
	if s.limiter == nil || s.limiter.Permits(now) {
		return true
	}
	s.wants(now)
	return false
}

// wants tells the limiter that work waits for room, if it does.
func (s *session) wants(now time.Time) {
	if s.limiter != nil && !s.outage.On() && (!s.stream.empty() || len(s.held.ready) > 0) {
		s.limiter.Waiting(now)
	}
}

func (s *session) flowDue() time.Time {
	if s.limiter == nil {
		return time.Time{}
	}
	return s.limiter.Due()
}

// learn tells the limiter how a Delivery ended.
func (s *session) learn(d *delivery, failed *pipeline.DeliveryError, now time.Time) {
	if s.limiter == nil {
		return
	}
	signal := flow.Accepted
	switch {
	case failed == nil:
	case s.stopping:
		signal = flow.Silent
	case failed.Congested:
		signal = flow.Congested
	case failed.TimedOut:
		signal = flow.TimedOut
	case failed.Class == pipeline.Unavailable:
		signal = flow.Silent
	}
	s.limiter.Done(d.ticket, d.Bytes, signal, now)
}

// tellFlow fills in the status; it runs under the subscription's lock.
func (s *session) tellFlow(st *Status) {
	st.Limit, st.Max = s.limit(), s.cfg.MaxInFlight
	if s.limiter != nil {
		st.Pace, st.Flow = s.limiter.Rate(), s.limiter.Reason()
	}
}
