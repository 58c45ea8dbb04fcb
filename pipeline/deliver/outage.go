package deliver

import (
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// outage is what is known of the endpoint as a whole. While it is on, one Delivery at a time probes,
// from 1 s to 60 s apart, or when the endpoint asked for; nothing spends attempts or age.
type outage struct {
	on      bool
	since   time.Time
	until   time.Time
	backoff time.Duration
	probe   *delivery
	number  uint64 // of the last Delivery before it began: what those say is no news
	last    uint64
	reason  string
	total   time.Duration // of earlier outages
}

const (
	probeFirst    = time.Second
	probeMax      = time.Minute
	maxRetryAfter = 15 * time.Minute
)

func (o *outage) permits(now time.Time) bool {
	return !o.on || o.probe == nil && !now.Before(o.until)
}

func (o *outage) sent(d *delivery) {
	o.last = d.Number
	if o.on {
		o.probe = d
	}
}

func (o *outage) failed(d *delivery, e *pipeline.DeliveryError, now time.Time, rand func() float64) {
	switch {
	case !o.on:
		*o = outage{on: true, since: now, backoff: probeFirst, number: o.last, last: o.last, total: o.total}
	case d == o.probe:
		o.probe = nil
		o.backoff = min(2*o.backoff, probeMax)
	case e.RetryAfter == 0:
		return
	}
	o.reason = clipReason("the endpoint is unavailable: " + e.Reason)
	until := now.Add(jitter(o.backoff, rand))
	if e.RetryAfter > 0 {
		wait := min(e.RetryAfter, maxRetryAfter)
		until = now.Add(wait + time.Duration(0.2*rand()*float64(wait)))
	}
	if until.After(o.until) {
		o.until = until
	}
}

// answered: the endpoint is there, if d was sent after it went away.
func (o *outage) answered(d *delivery, now time.Time) {
	if o.on && d.Number > o.number {
		*o = outage{last: o.last, total: o.total + now.Sub(o.since)}
	}
}

// away is how long it was not there, all in all.
func (o *outage) away(now time.Time) time.Duration {
	if o.on {
		return o.total + now.Sub(o.since)
	}
	return o.total
}

func (o *outage) due() time.Time {
	if !o.on || o.probe != nil {
		return time.Time{}
	}
	return o.until
}
