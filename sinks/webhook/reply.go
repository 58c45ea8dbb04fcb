package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/leat-cdc/leat/pipeline"
)

const (
	longestRetryAfter = 15 * time.Minute
	longestDelay      = 366 * 24 * time.Hour
	// A reply may be as long as a list of results for each event, and some more.
	replyBase, replyPerEvent = 64 << 10, 512
	// maxReason bounds what is kept of a reply.
	maxReason = 300
)

// failed says what a request without a reply means.
func (s *Sink) failed(ctx context.Context, err error, timeout time.Duration) error {
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("webhook: %w", ctx.Err())
	}
	out := &pipeline.DeliveryError{Class: pipeline.Retriable, Reason: s.mask(err.Error())}
	var (
		forbidden *ForbiddenError
		dns       *net.DNSError
		cert      *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
		authority x509.UnknownAuthorityError
		own       *certificateError
		timed     net.Error
	)
	switch {
	case errors.As(err, &forbidden):
		out.Class, out.Reason = pipeline.Unavailable, forbidden.Error()
	case errors.As(err, &dns), unconnected(err), proxyFailed(err):
		out.Class = pipeline.Unavailable
	case errors.As(err, &cert), errors.As(err, &record), errors.As(err, &alert), errors.As(err, &authority), errors.As(err, &own):
		out.Class, out.Reason = pipeline.Unavailable, s.mask("tls: "+err.Error())
	case errors.As(err, &timed) && timed.Timeout():
		out.TimedOut = true
		out.Reason = fmt.Sprintf("no reply within %s", timeout.Round(time.Millisecond))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, net.ErrClosed): // while the body was being written
		out.Reason = "the endpoint closed the connection before its reply was whole"
	}
	return out
}

// unconnected reports whether there was no connection to send over.
func unconnected(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// reply says what the reply means: delivery.md's table.
func (s *Sink) reply(ctx context.Context, resp *http.Response, offsets []uint64, timeout time.Duration) (pipeline.Outcomes, error) {
	defer resp.Body.Close()
	limit := replyBase + replyPerEvent*len(offsets)
	text, tooLong, err := readReply(resp, limit)
	status := resp.StatusCode
	if status == http.StatusNoContent {
		return nil, nil
	}
	if status >= 200 && status <= 299 {
		if err != nil {
			f := s.failed(ctx, err, timeout)
			if d := (*pipeline.DeliveryError)(nil); errors.As(f, &d) {
				d.Class, d.Reason = pipeline.Retriable, fmt.Sprintf("%d, but the reply broke off: %s", status, d.Reason)
			}
			return nil, f
		}
		if tooLong {
			return nil, &pipeline.DeliveryError{Reason: fmt.Sprintf("%d, but the reply is longer than %d bytes", status, limit)}
		}
		return s.success(status, text, offsets)
	}
	reason := strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
	if status < 300 || status > 399 { // a redirect's page says nothing
		if more := s.excerpt(text); more != "" {
			reason += ": " + more
		}
	}
	return nil, s.refusal(status, reason, resp.Header, len(offsets))
}

func (s *Sink) refusal(status int, reason string, h http.Header, events int) *pipeline.DeliveryError {
	out := &pipeline.DeliveryError{Reason: reason}
	switch {
	case slices.Contains(s.o.Fatal, status):
		if events == 1 {
			out.Class = pipeline.Poison
		} // of several it is not known which one: tried once more, then bisected
	case status == http.StatusRequestEntityTooLarge:
		out.Class = pipeline.TooLarge
	case status == http.StatusGone:
		out.Class = pipeline.Gone
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		out.Class, out.Congested, out.RetryAfter = pipeline.Unavailable, true, retryAfter(h.Get("Retry-After"), time.Now())
	case status >= 300 && status <= 399:
		out.Class = pipeline.Unavailable
		out.Reason += ": redirects are never followed; set the final url"
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusNotFound:
		out.Class = pipeline.Unavailable
	}
	return out
}

// readReply reads at most limit bytes; beyond them the connection is given up.
func readReply(resp *http.Response, limit int) (text []byte, tooLong bool, err error) {
	if resp.ContentLength == 0 {
		return nil, false, nil
	}
	text, err = io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	return text[:min(len(text), limit)], len(text) > limit, err
}

// retryAfter reads seconds or a date, at most 15 minutes.
func retryAfter(v string, now time.Time) time.Duration {
	if v == "" {
		return 0
	}
	switch n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 32); {
	case err == nil:
		return min(time.Duration(n)*time.Second, longestRetryAfter)
	case errors.Is(err, strconv.ErrRange):
		return longestRetryAfter
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(t.Sub(now), 0), longestRetryAfter)
	}
	return 0
}

// success says what a 2xx with this body means, per event sent.
func (s *Sink) success(status int, text []byte, offsets []uint64) (pipeline.Outcomes, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil, nil
	}
	var reply struct {
		Results *[]json.RawMessage `json:"results"`
	}
	err := json.Unmarshal(text, &reply)
	if err == nil && reply.Results != nil {
		return s.results(*reply.Results, offsets), nil
	}
	listed := err != nil && json.Valid(text) && hasResults(text) // there, but no list
	if status == http.StatusAccepted && !listed || len(offsets) == 1 && !listed {
		return nil, nil
	}
	why := "no results in it"
	if err != nil {
		why = shorten(s.mask(err.Error()))
	}
	return nil, &pipeline.DeliveryError{Reason: fmt.Sprintf("%d with a body that is no list of results (%s); reply 204, or %s", status, why, `{"results":[…]}`)}
}

func hasResults(text []byte) bool {
	var m map[string]json.RawMessage
	return json.Unmarshal(text, &m) == nil && m["results"] != nil
}

// results maps the list onto the events sent; what is missing or cannot be read is tried again.
func (s *Sink) results(list []json.RawMessage, offsets []uint64) pipeline.Outcomes {
	out := make(pipeline.Outcomes, len(offsets))
	said := make([]bool, len(offsets))
	index := make(map[string]int, len(offsets))
	for i, o := range offsets {
		index[pipeline.EventID(s.o.Source, pipeline.Offset(o))] = i
	}
	fine := 0
	for _, raw := range list {
		var item struct {
			ID     string          `json:"id"`
			Status string          `json:"status"`
			Delay  json.RawMessage `json:"delay"`
			Reason string          `json:"reason"`
		}
		// A field of another type still leaves the id readable.
		err := json.Unmarshal(raw, &item)
		i, ok := index[item.ID]
		if !ok || said[i] && out[i].Class != pipeline.OK {
			continue
		}
		if !said[i] {
			said[i] = true
			fine++
		}
		if out[i] = s.outcome(item.Status, item.Delay, item.Reason, err); out[i].Class != pipeline.OK {
			fine--
		}
	}
	if fine == len(offsets) {
		return nil
	}
	for i := range out {
		if !said[i] {
			out[i] = pipeline.Outcome{Class: pipeline.Retry, Reason: "the reply's results do not name this event"}
		}
	}
	return out
}

func (s *Sink) outcome(status string, delay json.RawMessage, reason string, err error) pipeline.Outcome {
	unreadable := func(why string) pipeline.Outcome {
		return pipeline.Outcome{Class: pipeline.Retry, Reason: "the reply's result cannot be read: " + why}
	}
	if err != nil {
		return unreadable(shorten(s.mask(err.Error())))
	}
	d, ok := parseDelay(delay)
	if !ok {
		return unreadable(`delay: want a duration such as "5s"`)
	}
	for _, c := range []pipeline.Class{pipeline.OK, pipeline.Retry, pipeline.Fatal, pipeline.Defer} {
		if c.String() != status {
			continue
		}
		if c == pipeline.OK {
			return pipeline.Outcome{}
		}
		o := pipeline.Outcome{Class: c, Delay: d, Reason: "the subscriber said " + status}
		if reason != "" {
			o.Reason += ": " + shorten(s.mask(reason))
		}
		return o
	}
	return unreadable("status: want ok, retry, fatal or defer")
}

// parseDelay reads "5s", or a number of seconds.
func parseDelay(raw json.RawMessage) (time.Duration, bool) {
	if len(raw) == 0 || string(raw) == "null" {
		return 0, true
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		d, err := time.ParseDuration(text)
		return min(d, longestDelay), err == nil && d >= 0
	}
	var n float64
	if json.Unmarshal(raw, &n) != nil || !(n >= 0) {
		return 0, false
	}
	return time.Duration(min(n, longestDelay.Seconds()) * float64(time.Second)), true
}

// excerpt is what a person may want to see of an error's body: one line, no secrets.
func (s *Sink) excerpt(text []byte) string {
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, string(text))
	return shorten(strings.Join(strings.Fields(s.mask(line)), " "))
}

func shorten(text string) string {
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason], "") + "…"
}
