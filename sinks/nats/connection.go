package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// inFlight messages of all Deliveries wait for their acknowledgement at most: below what servers queue for a stream.
	inFlight = 4000
	// stall is how long a Delivery waits for others' acknowledgements before it fails.
	stall = 5 * time.Second
	// dialTime bounds connecting to one server, and one write.
	dialTime = 5 * time.Second
)

// connection is one to a server. It is never repaired: what was on its way is then in doubt, and another one is made.
type connection struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	raw *dialer
	// closed: what waits for an acknowledgement gets none.
	closed chan struct{}

	mu      sync.Mutex
	refused error // what the server said about our rights
}

// dialer makes the connections of one attempt to connect, and ends them with ctx until it is released.
type dialer struct {
	ctx  context.Context
	mu   sync.Mutex
	conn net.Conn
	stop func() bool
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(d.ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conn, d.stop = conn, context.AfterFunc(d.ctx, func() { _ = conn.Close() })
	return conn, nil
}

func (d *dialer) release() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stop == nil || d.stop()
}

func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close()
	}
}

// close ends it, also while it hangs in a write.
func (c *connection) close() {
	c.raw.close()
	c.nc.Close()
}

// deny notes what the server refused and ends the connection: it does not say of which message that is the answer.
func (c *connection) deny(err error) {
	c.mu.Lock()
	if c.refused == nil {
		c.refused = err
	}
	c.mu.Unlock()
	c.raw.close()
}

// denied is what it refused, nil when nothing.
func (c *connection) denied() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// dial connects to one of the servers.
func (s *Sink) dial(ctx context.Context) (*connection, error) {
	u, err := url.Parse(s.o.URL)
	if err != nil {
		return nil, &URLError{"the URL cannot be read"}
	}
	user := u.User
	u.User = nil
	c := &connection{raw: &dialer{ctx: ctx}, closed: make(chan struct{})}
	servers := append([]string{u.String()}, s.o.Servers...)
	options := []nats.Option{nats.Name("leat " + s.o.Subscription), nats.NoReconnect(), nats.Timeout(dialTime), nats.FlusherTimeout(dialTime), nats.SetCustomDialer(c.raw),
		nats.PingInterval(20 * time.Second), nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) || errors.Is(err, nats.ErrAuthorization) {
				c.deny(err)
			}
		})}
	if password, both := user.Password(); both {
		options = append(options, nats.UserInfo(user.Username(), password))
	} else if user.Username() != "" {
		options = append(options, nats.Token(user.Username()))
	}
	if s.o.TLS != nil || u.Scheme == "tls" {
		config := s.o.TLS.Clone()
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		options = append(options, nats.Secure(config))
	}
	if s.o.Credentials != "" {
		options = append(options, nats.UserCredentials(s.o.Credentials))
	}
	if s.o.NKey != "" {
		key, err := nats.NkeyOptionFromSeed(s.o.NKey)
		if err != nil {
			return nil, fmt.Errorf("nkey %s: %w", s.o.NKey, err)
		}
		options = append(options, key)
	}
	if c.nc, err = nats.Connect(strings.Join(servers, ","), options...); err != nil {
		c.raw.close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	if !c.raw.release() {
		c.close()
		return nil, context.Cause(ctx)
	}
	if c.js, err = jetstream.New(c.nc, jetstream.WithPublishAsyncMaxPending(inFlight)); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// connect returns a connection to the stream, of which is known what stands there.
func (s *Sink) connect(ctx context.Context) (*connection, error) {
	if c, ready := s.connected(); ready {
		return c, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c, ready := s.connected()
	if ready {
		return c, nil
	}
	if c == nil {
		var err error
		if c, err = s.dial(ctx); err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.conn = c
		s.mu.Unlock()
	}
	return c, s.look(ctx, c)
}

// connected returns the connection, nil when there is none that is open; ready: nothing of the stream is in doubt.
func (s *Sink) connected() (c *connection, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn.nc.IsClosed() {
		s.conn = nil
		s.tail.looked = false // it may be another stream by now
	}
	return s.conn, s.conn != nil && s.tail.looked && s.tail.read
}

// stream asks for the stream, and makes it where that is wanted.
func (s *Sink) stream(ctx context.Context, c *connection) (jetstream.Stream, error) {
	stream, err := c.js.Stream(ctx, s.o.Stream)
	if err == nil || s.o.Create == nil || !errors.Is(err, jetstream.ErrStreamNotFound) {
		return stream, err
	}
	o := s.o.Create
	if stream, err = c.js.CreateStream(ctx, jetstream.StreamConfig{Name: s.o.Stream, Subjects: []string{Wildcard(s.o.Subject, s.o.Source, s.o.Subscription)}, Replicas: max(o.Replicas, 1),
		MaxAge: o.MaxAge, MaxBytes: o.MaxBytes, Duplicates: o.Duplicates}); err != nil {
		return nil, fmt.Errorf("create it: %w", err)
	}
	return stream, nil
}
