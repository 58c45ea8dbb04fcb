// Package webhook posts events to an HTTP endpoint: CloudEvents JSON, signed as Standard Webhooks say.
// https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/webhook/hosts"
)

// Options of a Sink.
type Options struct {
	// URL of the endpoint. Plain http only reaches loopback and private addresses. User information in
	// it is sent as Basic authorization. A name with several addresses is several hosts.
	URL string
	// URLs of the endpoint, instead of URL: each takes any request.
	URLs []Endpoint
	// PerHost is how many requests one host gets at once; 0 = any number.
	PerHost int
	// Probe is the path that a GET of an ejected host asks for; a 2xx says that it is well. Empty: it is
	// only connected to.
	Probe string
	// Secrets sign each request, all of them: several while rotating. At least one.
	Secrets []Secret
	// Timeout of one request; default 15 s. Delivery.Deadline ends it earlier.
	Timeout time.Duration
	// Headers to send beside ours; their values are secrets.
	Headers map[string]string
	// Fatal lists the statuses that make an event a dead letter at once; default 422.
	Fatal []int
	// MaxInFlight is how many connections are kept; default 64.
	MaxInFlight int
	// Source is the name of the events' source.
	Source string
	// Encoder of the events: encode.JSON with the Separator ','.
	Encoder *encode.Encoder
	// Permit says whether a connection to this address may be made; asked for the address that is dialed.
	// Nil permits none. Link-local addresses are refused whatever it says.
	Permit func(netip.Addr) bool
	// Unordered: a failure of one event says nothing about the later ones of its key.
	Unordered bool

	// Proxy to go through, if any; then every URL must be https.
	Proxy Proxy
	// TLS: authorities and client certificate, if any.
	TLS TLS
	// Origin is what we call ourselves when we ask an endpoint whether it wants to be called.
	Origin string

	transport transport // of tests; nil = the guarded one
	lookup    lookup    // of tests; nil = the system's
	pool      hosts.Options
}

// Endpoint is one of several URLs that take the same requests.
type Endpoint struct {
	URL string
	// Rank: 0 = in the zone of this process, 1 = in its region, 2 = elsewhere. The nearest that are well get all.
	Rank int
	// Ask whether it wants to be called, by OPTIONS, before the first request.
	Ask bool
}

// transport is what is used of an *http.Transport.
type transport interface {
	http.RoundTripper
	CloseIdleConnections()
}

// Sink posts to the hosts of an endpoint. Safe for concurrent use: as many requests at once as there are calls.
type Sink struct {
	o         Options
	endpoints []*endpoint
	pool      *hosts.Pool[*target]
	keeper    keeper
	signers   []*signer
	masks     []string
	proxy     *url.URL // nil: none
	tls       *tls.Config
	requests  sync.Pool
}

// New returns the sink of an endpoint. It connects to nothing.
func New(o Options) (*Sink, error) {
	if len(o.URLs) == 0 {
		o.URLs = []Endpoint{{URL: o.URL}}
	}
	if len(o.Secrets) == 0 {
		return nil, errors.New("webhook: no secret to sign with")
	}
	if o.Timeout <= 0 {
		o.Timeout = 15 * time.Second
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = 64
	}
	if o.Fatal == nil {
		o.Fatal = []int{http.StatusUnprocessableEntity}
	}
	s := &Sink{o: o}
	for _, secret := range o.Secrets {
		s.signers = append(s.signers, newSigner(secret))
	}
	if err := s.outward(); err != nil {
		return nil, err
	}
	for _, e := range o.URLs {
		if err := s.add(e); err != nil {
			return nil, err
		}
	}
	s.masks = maskedTexts(s.urls(), o.Headers)
	o.pool.PerHost = o.PerHost
	if o.pool.Rand == nil {
		o.pool.Rand = rand.IntN
	}
	s.pool = hosts.New[*target](o.pool)
	s.keeper.ctx, s.keeper.cancel = context.WithCancel(context.Background())
	s.requests.New = func() any { return new(request) }
	return s, nil
}

// Endpoint returns the first URL without user information and query.
func (s *Sink) Endpoint() string { return s.endpoints[0].shown }

// Close implements pipeline.Sink.
func (s *Sink) Close() error {
	s.keeper.cancel()
	s.keeper.wg.Wait()
	for _, e := range s.endpoints {
		e.transport.CloseIdleConnections()
	}
	return nil
}

// request is the memory of one Deliver.
type request struct {
	g       encode.Gathered
	offsets []uint64
	scratch []byte
}

// Deliver implements pipeline.Sink.
func (s *Sink) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	r := s.requests.Get().(*request)
	defer s.requests.Put(r)
	defer r.g.Release()
	s.o.Encoder.Gather(d, &r.g)
	r.collect(d)
	if len(r.offsets) == 0 {
		return s.withErrors(d, r, nil), nil
	}
	contentType := "application/cloudevents-batch+json"
	var body [][]byte
	if n := len(r.g.Parts); len(r.offsets) == 1 {
		contentType = "application/cloudevents+json"
		body = append(body, bytes.TrimSuffix(r.g.Parts[n-1], []byte{','}))
	} else {
		body = append(body, []byte{'['})
		body = append(body, r.g.Parts...)
		body[n] = bytes.TrimSuffix(body[n], []byte{','})
		body = append(body, []byte{']'})
	}
	out, err := s.post(ctx, message{id: s.id(r, d.Replay), contentType: contentType, parts: body, attempt: d.Attempt, reason: d.Reason, deadline: d.Deadline, handOver: d.HandOver}, r)
	if err != nil {
		return nil, err
	}
	if out != nil && len(r.g.Errs) > 0 { // back to the places within the Delivery
		spread := make(pipeline.Outcomes, len(r.g.Ends))
		n := 0
		for i := range spread {
			if r.sent(i) {
				spread[i] = out[n]
				n++
			}
		}
		out = spread
	}
	out = s.withErrors(d, r, out)
	if out != nil && !s.o.Unordered {
		holdSuffix(d, out)
	}
	return out, nil
}

// sent reports whether event i of the Delivery stands in the body.
func (r *request) sent(i int) bool {
	if i == 0 {
		return r.g.Ends[0] > 0
	}
	return r.g.Ends[i] > r.g.Ends[i-1]
}

// collect notes the offsets of what is sent.
func (r *request) collect(d *pipeline.Delivery) {
	r.offsets = r.offsets[:0]
	n := 0
	for i := range d.Runs {
		run := &d.Runs[i]
		for e := run.From; e < run.To; e++ {
			if len(r.g.Errs) == 0 || r.sent(n) {
				r.offsets = append(r.offsets, uint64(run.Batch.Offset(int(e))))
			}
			n++
		}
	}
}

// withErrors adds the events that cannot be encoded: they are fatal.
func (s *Sink) withErrors(_ *pipeline.Delivery, r *request, out pipeline.Outcomes) pipeline.Outcomes {
	if len(r.g.Errs) == 0 {
		return out
	}
	if out == nil {
		out = make(pipeline.Outcomes, len(r.g.Ends))
	}
	for _, ee := range r.g.Errs {
		out[ee.Event] = pipeline.Outcome{Class: pipeline.Fatal, Reason: ee.Error()}
	}
	return out
}

// holdSuffix makes what follows a key's first failure a Retry: results after it do not count.
func holdSuffix(d *pipeline.Delivery, out pipeline.Outcomes) {
	failed := map[uint64]bool{}
	n := 0
	for i := range d.Runs {
		run := &d.Runs[i]
		for e := run.From; e < run.To; e++ {
			hash := run.Batch.Events[e].Hash
			switch {
			case out[n].Class == pipeline.OK && failed[hash]:
				out[n] = pipeline.Outcome{Class: pipeline.Retry, Reason: "an earlier event of the key failed"}
			case out[n].Class != pipeline.OK:
				failed[hash] = true
			}
			n++
		}
	}
}

// id is the webhook-id: the same for the same events only, and another for the copies of a replay.
func (s *Sink) id(r *request, replay string) string {
	var b []byte
	b = append(b, s.o.Source...)
	if n := len(r.offsets); n == 1 {
		b = strconv.AppendUint(append(b, '-'), r.offsets[0], 10)
	} else {
		r.scratch = r.scratch[:0]
		for _, o := range r.offsets {
			r.scratch = binary.BigEndian.AppendUint64(r.scratch, o)
		}
		b = strconv.AppendUint(append(b, '_'), r.offsets[0], 10)
		b = strconv.AppendUint(append(b, '_'), r.offsets[n-1], 10)
		b = fmt.Appendf(b, "_%08x", crc32.ChecksumIEEE(r.scratch))
	}
	if replay != "" {
		b = append(append(b, "_r"...), replay...)
	}
	return string(b)
}

// Resolve implements pipeline.Resolver: it posts a leat.resolved event.
func (s *Sink) Resolve(ctx context.Context, o pipeline.Offset, t time.Time) error {
	r := &request{offsets: []uint64{uint64(o)}}
	_, err := s.post(ctx, message{id: encode.ResolvedID(s.o.Source, o), contentType: "application/cloudevents+json",
		parts: [][]byte{encode.Resolved(s.o.Source, o, t)}, attempt: 1}, r)
	return err
}

// message is one request to make.
type message struct {
	id, contentType string
	parts           [][]byte
	attempt         int
	reason          pipeline.Reason
	deadline        time.Time
	handOver        func() // see pipeline.Delivery; nil: none
}

// waits: from here on it is not CPU that the message needs.
func (m message) waits() {
	if m.handOver != nil {
		m.handOver()
	}
}

func (s *Sink) header(e *endpoint, m message, now, deadline time.Time) http.Header {
	h := s.ownHeader(e, 10)
	stamp := strconv.FormatInt(now.Unix(), 10)
	set := func(k, v string) { h[k] = []string{v} } // keys are canonical already
	set("Content-Type", m.contentType)
	set("User-Agent", "leat")
	set("Webhook-Id", m.id)
	set("Webhook-Timestamp", stamp)
	set("Webhook-Signature", signatures(s.signers, m.id, stamp, m.parts))
	set("Delivery-Attempt", strconv.Itoa(max(m.attempt, 1)))
	set("Delivery-Deadline", deadline.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	set("Delivery-Reason", m.reason.String())
	// Not sent when empty; says that the request may be made again on another connection.
	h["Idempotency-Key"] = []string{}
	return h
}

// ownHeader holds what the subscription adds to each request; room is how many more there will be.
func (s *Sink) ownHeader(e *endpoint, room int) http.Header {
	h := make(http.Header, room+len(s.o.Headers))
	for k, v := range s.o.Headers {
		h.Set(k, v)
	}
	if e.url.User != nil {
		p, _ := e.url.User.Password()
		setBasic(h, e.url.User.Username(), p)
	}
	return h
}
