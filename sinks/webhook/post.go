package webhook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/webhook/hosts"
)

// mostHosts bounds on how many hosts one Delivery may be tried before it counts as failed.
const mostHosts = 4

// post sends the message and reads the reply. Outcomes are per event sent, nil when all is done. Where a host
// cannot have taken it, another host is asked.
func (s *Sink) post(ctx context.Context, m message, r *request) (pipeline.Outcomes, error) {
	if s.o.PerHost > 0 || !s.keeper.known.Load() {
		m.waits()
	}
	if err := s.ready(ctx); err != nil {
		return nil, s.failed(ctx, err, s.o.Timeout)
	}
	var tried [mostHosts]*hosts.Host[*target]
	var last error
	for n := range tried {
		h, err := s.host(ctx, m.deadline, tried[:n])
		switch {
		case err != nil:
			return s.busy(ctx, r)
		case h == nil && last == nil:
			return nil, &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "the endpoint's name has no address"}
		case h == nil:
			return nil, last
		}
		out, a, err := s.ask(ctx, h.Target, m, r)
		why := ""
		if err != nil {
			why = pipeline.AsDeliveryError(err).Reason
		}
		s.pool.Done(h, time.Now(), a.cause, why)
		if !a.elsewhere || ctx.Err() != nil {
			return out, err
		}
		tried[n], last = h, err
	}
	return nil, last
}

// host waits for a host with room, for half of the time that there is at most: the rest is for the request.
func (s *Sink) host(ctx context.Context, deadline time.Time, tried []*hosts.Host[*target]) (*hosts.Host[*target], error) {
	if s.o.PerHost <= 0 {
		h, _ := s.pool.Pick(time.Now(), tried...)
		return h, nil
	}
	wait := s.o.Timeout / 2
	if !deadline.IsZero() {
		wait = min(wait, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return s.pool.Get(ctx, time.Now, tried...)
}

// busy defers everything: nothing was sent.
func (s *Sink) busy(ctx context.Context, r *request) (pipeline.Outcomes, error) {
	if ctx.Err() != nil {
		return nil, s.failed(ctx, ctx.Err(), s.o.Timeout)
	}
	return deferred(len(r.offsets), time.Second, "each host has as many requests as flow.per_host allows"), nil
}

func deferred(n int, delay time.Duration, reason string) pipeline.Outcomes {
	out := make(pipeline.Outcomes, n)
	for i := range out {
		out[i] = pipeline.Outcome{Class: pipeline.Defer, Delay: delay, Reason: reason}
	}
	return out
}

// answer is what a request says about its host.
type answer struct {
	cause hosts.Cause
	// elsewhere: the host cannot have taken the events, so that another may be asked at once.
	elsewhere bool
}

// ask sends, when the endpoint has agreed and its rate allows it.
func (s *Sink) ask(ctx context.Context, t *target, m message, r *request) (pipeline.Outcomes, answer, error) {
	if t.endpoint.ask {
		m.waits()
	}
	if a, err := s.agreed(ctx, t); err != nil {
		return nil, a, err
	}
	if out, err := s.paced(ctx, t, m.deadline, len(r.offsets)); out != nil || err != nil {
		return out, answer{cause: hosts.Unknown}, err
	}
	return s.send(ctx, t, m, r)
}

// unanswered says what a request without a reply means, for the events and for the host.
func (s *Sink) unanswered(ctx context.Context, err error, timeout time.Duration) (answer, error) {
	failed := s.failed(ctx, err, timeout)
	cause := causeOf(ctx, err)
	return answer{cause, cause != hosts.Unknown && pipeline.AsDeliveryError(failed).Class == pipeline.Unavailable}, failed
}

// send makes one request of one host.
func (s *Sink) send(ctx context.Context, t *target, m message, r *request) (pipeline.Outcomes, answer, error) {
	now := time.Now()
	deadline := now.Add(s.o.Timeout)
	if !m.deadline.IsZero() && m.deadline.Before(deadline) {
		deadline = m.deadline
	}
	var open sync.WaitGroup
	defer open.Wait() // the body's memory is not ours to keep
	reqCtx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	req := (&http.Request{Method: http.MethodPost, URL: t.url, Host: t.endpoint.url.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: s.header(t.endpoint, m, now, deadline)}).WithContext(reqCtx)
	size := 0
	for _, p := range m.parts {
		size += len(p)
	}
	req.ContentLength = int64(size)
	req.Body = newBody(m.parts, &open)
	// A kept connection that the server closed meanwhile: once more on a fresh one.
	req.GetBody = func() (io.ReadCloser, error) { return newBody(m.parts, &open), nil }
	m.waits()
	resp, err := t.endpoint.transport.RoundTrip(req)
	if err != nil {
		a, failed := s.unanswered(ctx, err, deadline.Sub(now))
		return nil, a, failed
	}
	out, err := s.reply(ctx, resp, r.offsets, deadline.Sub(now))
	return out, answerOf(resp.StatusCode), err
}

// causeOf says what a request without a reply means for its host.
func causeOf(ctx context.Context, err error) hosts.Cause {
	switch {
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return hosts.Unknown
	case proxyFailed(err):
		var p *proxyError
		if errors.As(err, &p) && p.status >= 500 { // it did not reach the host
			return hosts.Failed
		}
		return hosts.Unknown
	case unconnected(err):
		return hosts.Silent
	}
	return hosts.Failed
}

// answerOf a status. What speaks of events or of the pace is no failure of the host; 503 is, but may ask to wait,
// so it is not answered by asking another host at once.
func answerOf(status int) answer {
	switch {
	case status == http.StatusTooManyRequests:
		return answer{cause: hosts.Unknown}
	case status >= 500:
		return answer{cause: hosts.Failed}
	case status >= 300 && status <= 399, status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusNotFound:
		return answer{hosts.Failed, true}
	}
	return answer{cause: hosts.Fine}
}
