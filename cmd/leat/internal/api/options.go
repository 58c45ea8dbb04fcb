package api

import (
	"crypto/tls"
	"errors"
	"log"
	"net/http"
	"time"

	"connectrpc.com/connect"
)

// Options of a Server. Backend is required.
type Options struct {
	Backend Backend
	// Subscriber makes the handler of SubscriberService and tells its path; it must pass the options on to
	// its Connect handlers: they carry the check of the subscribe:NAME role and the limits. nil: not served.
	Subscriber func(...connect.HandlerOption) (path string, h http.Handler)
	// Metrics answers /metrics; nil: not served.
	Metrics http.Handler
	// Registry answers /registry/…, the part of Confluent's API that reads; nil: not served.
	Registry http.Handler
	// Listen is the configured address, PublicURL what clients use: their hosts may stand in Host and
	// Origin where there are no tokens.
	Listen, PublicURL string
	// Tokens; none: everyone who reaches the server may do everything, and it must be on loopback.
	Tokens []Token
	// TLS, nil for plain HTTP.
	TLS *tls.Config
	// ErrorLog takes what net/http has to say about broken connections; nil: nobody.
	ErrorLog *log.Logger
	Limits   Limits
	// Grace is how long calls in flight may take once Serve's context has ended; default 10 s. Streams are
	// ended at once.
	Grace time.Duration
}

// Limits of what clients may ask for; zero fields have the defaults named.
type Limits struct {
	// Connections open at once: 1024. More wait to be accepted.
	Connections int
	// ConcurrentStreams of one HTTP/2 connection: 256.
	ConcurrentStreams int
	// Views are server-sent event streams and tails, together: 64.
	Views int
	// MessageBytes of one request message, decompressed: 4 MiB.
	MessageBytes int
	// HeaderBytes of a request: 32 KiB.
	HeaderBytes int
	// HeaderTime until the header of a request is there: 10 s; BodyTime until the body of a single call is: 30 s.
	HeaderTime, BodyTime time.Duration
	// Idle ends connections without requests: 2 min.
	Idle time.Duration
	// Write is how long the receiver of a view may take nothing before it is disconnected: 20 s.
	Write time.Duration
	// Heartbeat of server-sent event streams: 15 s.
	Heartbeat time.Duration
	// Quiet is how long an HTTP/2 client may say nothing before it is asked (PING) whether it is there: 30 s. Within
	// Answer, 15 s, it has to say so, or its connection is closed, and with it every stream and the leases of those.
	Quiet, Answer time.Duration
}

func (l Limits) fill() Limits {
	number := func(n *int, by int) {
		if *n <= 0 {
			*n = by
		}
	}
	span := func(d *time.Duration, by time.Duration) {
		if *d <= 0 {
			*d = by
		}
	}
	number(&l.Connections, 1024)
	number(&l.ConcurrentStreams, 256)
	number(&l.Views, 64)
	number(&l.MessageBytes, 4<<20)
	number(&l.HeaderBytes, 32<<10)
	span(&l.HeaderTime, 10*time.Second)
	span(&l.BodyTime, 30*time.Second)
	span(&l.Idle, 2*time.Minute)
	span(&l.Write, 20*time.Second)
	span(&l.Heartbeat, 15*time.Second)
	span(&l.Quiet, 30*time.Second)
	span(&l.Answer, 15*time.Second)
	return l
}

func (o *Options) check() error {
	if o.Backend == nil {
		return errors.New("api: no backend was given")
	}
	if o.Grace <= 0 {
		o.Grace = 10 * time.Second
	}
	o.Limits = o.Limits.fill()
	return nil
}
