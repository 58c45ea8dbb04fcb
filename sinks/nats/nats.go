// Package nats publishes events to a stream of NATS JetStream: a message for each event, in order per key, each once, also
// after a crash.
//
// Of a key one message is on its way at a time: the next goes when the stream has acknowledged it. So whatever is lost or
// sent again, a key's messages stand in order, and those of many keys go side by side. Each carries a Nats-Msg-Id made of
// the event's id: what is sent again within the stream's duplicate window the server drops. Beyond that window it is the
// stream's end that tells what stands there: it is read when a subscription begins, and when an answer was lost.
//
// Start at [Sink.Deliver], then load.go (what goes out), tail.go (what stands there), connection.go. The protocol:
// https://docs.nats.io/reference/reference-protocols/nats_api_reference.
package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/encode/records"
)

// Options of a Sink.
type Options struct {
	// URL of a server: nats://USER:PASSWORD@HOST:PORT, nats://TOKEN@HOST:PORT, tls:// over TLS.
	URL string
	// Servers besides that of the URL, HOST:PORT: any one is connected to.
	Servers []string
	// Credentials and NKey are files that say who we are: of a user's JWT with its seed, or of a seed.
	Credentials, NKey string
	// TLS where the server asks for it or the URL does; nil: the system's authorities.
	TLS *tls.Config
	// Source and Subscription are names.
	Source, Subscription string
	// Stream that acknowledges.
	Stream string
	// Create it where it is missing; nil: it has to be there.
	Create *Create
	// Subject names that of each table's messages.
	Subject *records.NameTemplate
	// Encoder of keys and events.
	Encoder *records.Encoder
	// Timeout of a Delivery that has no deadline; default 30 s.
	Timeout time.Duration
}

// Create says how a missing stream is made.
type Create struct {
	// Replicas of it; 0: 1.
	Replicas int
	// MaxAge and MaxBytes of what it keeps; 0: all.
	MaxAge   time.Duration
	MaxBytes int64
	// Duplicates is the window within which the server drops what comes again; 0: the server's default, 2 min.
	Duplicates time.Duration
}

// Headers of a message, beside Nats-Msg-Id.
const (
	headerID     = "id"     // of the event: source, -, offset
	headerOp     = "op"     // insert, update, …
	headerKey    = "key"    // the row's identity as a JSON object; of rows only
	headerReplay = "replay" // the job that it is a copy of
)

// Sink publishes to one stream. Safe for concurrent use.
type Sink struct {
	o      Options
	prefix string // of event ids
	own    string // of message ids: the subscription's, so that another's messages of the same events are not taken for ours
	// turn is held by the one who connects or reads the stream's end.
	turn chan struct{}

	mu   sync.Mutex
	conn *connection
	tail tail
}

// New returns the sink. It connects to nothing.
func New(o Options) (*Sink, error) {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if err := CheckURL(o.URL); err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	s := &Sink{o: o, prefix: o.Source + "-", turn: make(chan struct{}, 1)}
	s.own = o.Subscription + "/" + s.prefix
	s.tail.begin(pipeline.Cursor{})
	return s, nil
}

// URLForm is how a URL looks.
const URLForm = "nats://USER:PASSWORD@HOST:PORT, or tls:// over TLS"

// URLError says what is wrong with a URL, without its secrets.
type URLError struct{ What string }

// Error says how it should look.
func (e *URLError) Error() string { return e.What + ": want " + URLForm }

// CheckURL tells by a *URLError what is wrong with a URL.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return &URLError{"the URL cannot be read"}
	case u.Scheme != "nats" && u.Scheme != "tls":
		return &URLError{"the URL does not begin with nats:// or tls://"}
	case u.Hostname() == "":
		return &URLError{"the URL has no host"}
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return &URLError{"the URL has something behind the port"}
	}
	return nil
}

// Resume implements pipeline.Resumer.
func (s *Sink) Resume(c pipeline.Cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tail.begin(c)
}

// Deliver implements pipeline.Sink.
func (s *Sink) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	deadline := d.Deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(s.o.Timeout)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	l := newLoad(d)
	if err := s.pack(ctx, l, d); err != nil {
		return nil, s.classify(nil, err)
	}
	if len(l.entries) == 0 {
		return l.outcomes, nil
	}
	d.HandOver()
	c, err := s.connect(ctx)
	if err == nil {
		err = s.send(ctx, c, l)
	}
	if err == nil {
		return l.outcomes, nil
	}
	if c != nil && errors.Is(err, context.DeadlineExceeded) {
		c.close() // it hangs: a new one may not
	}
	return nil, s.classify(c, err)
}

// Close implements pipeline.Sink.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
	return nil
}
