package webhook

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/webhook/hosts"
)

// agreement is an endpoint's yes to be called, and how often. CloudEvents, HTTP 1.1 Web Hooks, section 4
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md).
type agreement struct {
	mu    sync.Mutex
	given bool
	every time.Duration // between requests; 0 = as they come
	next  time.Time
}

// agreed asks the endpoint once whether it wants to be called, where that is to be asked.
func (s *Sink) agreed(ctx context.Context, t *target) (answer, error) {
	a := &t.endpoint.agreement
	if !t.endpoint.ask {
		return answer{}, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.given {
		return answer{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, min(s.o.Timeout, 10*time.Second))
	defer cancel()
	h := s.ownHeader(t.endpoint, 2)
	h["User-Agent"] = []string{"leat"}
	h["Webhook-Request-Origin"] = []string{s.o.Origin}
	resp, err := t.endpoint.transport.RoundTrip((&http.Request{Method: http.MethodOptions, URL: t.url, Host: t.endpoint.url.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h}).WithContext(ctx))
	if err != nil {
		return s.unanswered(ctx, err, s.o.Timeout)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, replyBase)
	every, refused := readAgreement(resp, s.o.Origin)
	if refused != "" {
		return answer{hosts.Failed, true}, &pipeline.DeliveryError{Class: pipeline.Unavailable,
			Reason: s.mask("the endpoint did not agree to be called: OPTIONS answered " + refused)}
	}
	a.given, a.every = true, every
	return answer{}, nil
}

// readAgreement returns the time between requests, or what is wrong with the reply.
func readAgreement(resp *http.Response, origin string) (every time.Duration, refused string) {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return 0, fmt.Sprintf("%d", resp.StatusCode)
	}
	allowed := strings.TrimSpace(resp.Header.Get("WebHook-Allowed-Origin"))
	if allowed != "*" && !strings.EqualFold(allowed, origin) {
		return 0, fmt.Sprintf("WebHook-Allowed-Origin %q, want * or %s", shorten(allowed), origin)
	}
	rate := strings.TrimSpace(resp.Header.Get("WebHook-Allowed-Rate"))
	if rate == "" || rate == "*" {
		return 0, ""
	}
	n, err := strconv.ParseUint(rate, 10, 31)
	if err != nil || n == 0 {
		return 0, fmt.Sprintf("WebHook-Allowed-Rate %q, want * or requests per minute", shorten(rate))
	}
	return time.Minute / time.Duration(n), ""
}

// turn takes the next place of the rate. Not ok: it would come later than most; wait says when to ask again.
func (a *agreement) turn(now time.Time, most time.Duration) (wait time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.every <= 0 {
		return 0, true
	}
	if a.next.Before(now) {
		a.next = now
	}
	if wait = a.next.Sub(now); wait > most {
		return wait, false
	}
	a.next = a.next.Add(a.every)
	return wait, true
}

// paced waits for the request's turn; an Outcomes says that it comes too late for this Delivery.
func (s *Sink) paced(ctx context.Context, t *target, deadline time.Time, events int) (pipeline.Outcomes, error) {
	if !t.endpoint.ask {
		return nil, nil
	}
	now := time.Now()
	most := s.o.Timeout / 2
	if !deadline.IsZero() {
		most = min(most, deadline.Sub(now)/2)
	}
	wait, ok := t.endpoint.agreement.turn(now, most)
	switch {
	case !ok:
		return deferred(events, wait, "the endpoint's WebHook-Allowed-Rate is used up"), nil
	case wait <= 0:
		return nil, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil, nil
	case <-ctx.Done():
		return nil, s.failed(ctx, ctx.Err(), s.o.Timeout)
	}
}
