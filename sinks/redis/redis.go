// Package redis appends events to streams of Redis, Valkey and what speaks like them: an entry for each event, in order
// per key, each once, also after a crash.
//
// The id of an entry is ours: <offset>-<n>, where offset is the highest of Leat's log that the stream has got so far. An
// event that comes in order has n = 0; one that is late (its key was retried, parked, or on its way beside others) gets the
// next n. Ids rise, so a command of which it is not known whether it ran is refused when it runs late or twice; and what
// may have been delivered before a crash stands at or above the cursor's offset, where it is looked up.
//
// Start at [Sink.Deliver], then pump.go (what goes out), stream.go (ids, what is known of a stream).
package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/encode/records"
)

// Options of a Sink.
type Options struct {
	// URL of the server, or of a node of the cluster: redis://USER:PASSWORD@HOST:PORT/DATABASE, rediss:// over TLS.
	URL string
	// Nodes besides that of the URL to begin with, HOST:PORT; of a cluster only.
	Nodes []string
	// Cluster: the server is a node of one.
	Cluster bool
	// TLS of rediss://; nil: the system's authorities.
	TLS *tls.Config
	// Source and Subscription are names.
	Source, Subscription string
	// Stream names the stream of each table.
	Stream *records.NameTemplate
	// Encoder of keys and events.
	Encoder *records.Encoder
	// MaxLen is how many entries a stream keeps, about; 0: all.
	MaxLen int64
	// Timeout of a Delivery that has no deadline, and of one answer; default 30 s.
	Timeout time.Duration
}

// Fields of an entry.
const (
	fieldID     = "id"     // of the event: source, -, offset
	fieldOp     = "op"     // insert, update, …
	fieldKey    = "key"    // the row's identity as a JSON object; of rows only
	fieldEvent  = "event"  // the event as the encoder has it
	fieldReplay = "replay" // the job that it is a copy of
)

// Sink appends to the streams of one server or cluster. Safe for concurrent use.
type Sink struct {
	o      Options
	client redis.UniversalClient
	prefix string // of event ids
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	queue   []*load
	running bool
	cursor  pipeline.Cursor
	resumed int // how often

	// Of the pump.
	streams map[string]*stream
	session int             // what resumed was
	began   pipeline.Cursor // of the session
}

// New returns the sink. It connects to nothing.
func New(o Options) (*Sink, error) {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	quietOnce.Do(func() { redis.SetLogger(quiet{}) })
	s := &Sink{o: o, prefix: o.Source + "-", streams: map[string]*stream{}}
	var err error
	if s.client, err = dial(o); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// quiet drops what go-redis would log: errors are returned.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

var quietOnce sync.Once

// URLForm is how a URL looks.
const URLForm = "redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// over TLS"

// URLError says what is wrong with a URL, without its secrets.
type URLError struct{ What string }

// Error says how it should look.
func (e *URLError) Error() string {
	return e.What + ": want " + URLForm
}

// parse reads a URL: default port 6379, database 0.
func parse(raw string) (u *url.URL, host string, db int, err error) {
	if u, err = url.Parse(raw); err != nil {
		return nil, "", 0, &URLError{"the URL cannot be read"}
	}
	switch {
	case u.Scheme != "redis" && u.Scheme != "rediss":
		return nil, "", 0, &URLError{"the URL does not begin with redis:// or rediss://"}
	case u.Hostname() == "":
		return nil, "", 0, &URLError{"the URL has no host"}
	case u.RawQuery != "" || u.Fragment != "":
		return nil, "", 0, &URLError{"the URL has something behind the database"}
	}
	if path := strings.Trim(u.Path, "/"); path != "" {
		if db, err = strconv.Atoi(path); err != nil || db < 0 {
			return nil, "", 0, &URLError{"the database in the URL is no number"}
		}
	}
	return u, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "6379")), db, nil
}

// CheckURL tells by a *URLError what is wrong with a URL.
func CheckURL(raw string, cluster bool) error {
	_, _, db, err := parse(raw)
	if err == nil && cluster && db != 0 {
		err = &URLError{"a cluster has database 0 only"}
	}
	return err
}

// dial makes the client: it sends nothing twice by itself, as that is ours to decide.
func dial(o Options) (redis.UniversalClient, error) {
	if err := CheckURL(o.URL, o.Cluster); err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	u, host, db, err := parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	password, _ := u.User.Password()
	c := &redis.UniversalOptions{Addrs: append([]string{host}, o.Nodes...), Username: u.User.Username(), Password: password, DB: db, Protocol: 2,
		DisableIdentity: true, MaxRetries: -1, DialTimeout: 10 * time.Second, DialerRetries: 1, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout,
		PoolSize: 4, MaxRedirects: 3, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}}
	if u.Scheme == "rediss" {
		if c.TLSConfig = o.TLS.Clone(); c.TLSConfig == nil {
			c.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
	}
	if o.Cluster {
		return redis.NewClusterClient(c.Cluster()), nil
	}
	return redis.NewClient(c.Simple()), nil
}

// Resume implements pipeline.Resumer.
func (s *Sink) Resume(c pipeline.Cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = c
	s.cursor.Pending = nil // the caller's
	s.resumed++
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
		return nil, s.classify(err)
	}
	if len(l.entries) == 0 {
		return l.outcomes, nil
	}
	if err := s.enqueue(l); err != nil {
		return nil, err
	}
	d.HandOver()
	select {
	case <-l.done:
	case <-ctx.Done():
		if l.leave() {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, &pipeline.DeliveryError{Class: pipeline.Unavailable, TimedOut: true, Reason: fmt.Sprintf("Redis did not answer within %s", s.o.Timeout)}
			}
			return nil, fmt.Errorf("redis: %w", ctx.Err())
		}
	}
	if l.err != nil {
		return nil, s.classify(l.err)
	}
	return l.outcomes, nil
}

// Close implements pipeline.Sink.
func (s *Sink) Close() error {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	err := s.client.Close() // ends what waits for an answer
	s.wg.Wait()
	if err != nil && !errors.Is(err, redis.ErrClosed) {
		return fmt.Errorf("redis: close: %w", err)
	}
	return nil
}
