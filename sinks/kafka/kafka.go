// Package kafka produces events to Kafka, each once: a record per event, in order per key, its place in Leat's log in
// a header.
//
// A producer has an id and an epoch of its own and numbers the batches of each partition, of which one is in
// flight, so that Kafka drops what comes twice. When it is not known whether a batch was taken (a crash, a deadline),
// the producer ends; the next one fences it by the transactional id and finds out, from the ends of the partitions, which
// events are there. kafka-go's Client carries the requests; its Writer is not used, as it cannot do that.
//
// Start at [Sink.Deliver], then lane.go (a partition), producer.go (an identity), tail.go (what was delivered already).
package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sinks/encode/records"
)

// Options of a Sink.
type Options struct {
	// Brokers to begin with, HOST:PORT.
	Brokers []string
	// Source and Subscription are names.
	Source, Subscription string
	// Topic names the topic of each table.
	Topic *Template
	// Encoder of keys and values.
	Encoder *records.Encoder
	// ID is the transactional id; default leat-SUBSCRIPTION- and the first digits of the log's id, so that no two
	// installations have the same. Who uses one fences who used it before.
	ID          string
	Compression Compression
	// Tombstones: behind each delete goes a record of the same key without a value, for compacted topics.
	Tombstones bool
	Create     Create
	Whole      Whole
	SASL       SASL
	TLS        *tls.Config // nil: none
	// Tables that the subscription may have events of, as far as they are known: their topics are told what is
	// resolved. Nil: those of which an event came since the sink was opened.
	Tables func() []*schemas.Table
	// Timeout of a Delivery that has no deadline; default 30 s.
	Timeout time.Duration

	dialer func(ctx context.Context, network, address string) (net.Conn, error) // of tests; nil = the system's
}

// Create says how missing topics are made.
type Create struct {
	// Off: they are not.
	Off bool
	// Partitions and Replicas; -1: the brokers' default.
	Partitions, Replicas int
	// Config of the topic, by Kafka's names.
	Config map[string]string
}

// Sink produces to a cluster. Safe for concurrent use.
type Sink struct {
	o      Options
	client *kafka.Client
	close  func()
	ctx    context.Context
	cancel context.CancelFunc
	loads  chan *load // that are free
	room   chan struct{}
	log    string    // id of the log that the cursor is of
	id     string    // the transactional id
	heads  [8][]byte // by op: the headers that are the same for all records
	idHead []byte

	walksMu sync.Mutex
	walks   map[string]walk // by topic/partition: what producers have looked at

	lately atomic.Value // string: what went wrong last

	turn   chan struct{} // is full while somebody has a transaction: Options.Whole
	opened open
	anew   atomic.Bool // Resume was called

	mu       sync.Mutex
	cursor   pipeline.Cursor
	producer *producer        // nil: none is open
	kept     map[string]*kept // by topic
}

// Headers of a record, beside content-type.
const (
	headerID       = "leat-id"       // the event's id
	headerOffset   = "leat-offset"   // its sequence
	headerOp       = "leat-op"       // insert, update, …
	headerProducer = "leat-producer" // the transactional id: whose record it is
	headerAside    = "leat-aside"    // delivered beside the stream of whole transactions: tells nothing of what is before it
	headerReplay   = "leat-replay"   // the job that it is a copy of
	headerResolved = "leat-resolved" // of a resolved record: below that offset all is done
)

// New returns the sink. It connects to nothing.
func New(o Options) (*Sink, error) {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Whole.Timeout <= 0 {
		o.Whole.Timeout = 5 * time.Minute
	}
	s := &Sink{o: o, turn: make(chan struct{}, 1), kept: map[string]*kept{}, walks: map[string]walk{}, loads: make(chan *load, mostLoads), room: make(chan struct{}, mostLoads)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.identify()
	return s, s.dial()
}

// Resume implements pipeline.Resumer.
func (s *Sink) Resume(c pipeline.Cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cursor = c
	s.cursor.Pending = nil // the caller's
	s.anew.Store(true)
	if s.producer != nil { // the next one sees how many partitions there are now
		s.producer.fail(context.Canceled)
	}
	if s.id == "" || s.log != c.Log {
		s.log = c.Log
		s.identify()
	}
}

// identify sets what goes by the transactional id. Called with s.mu held, and before any Deliver runs.
func (s *Sink) identify() {
	if s.id = s.o.ID; s.id == "" {
		s.id = "leat-" + s.o.Subscription
		if log := strings.ReplaceAll(s.log, "-", ""); log != "" {
			s.id += "-" + log[:min(8, len(log))]
		}
	}
	for op := pipeline.OpInsert; op <= pipeline.OpMessage; op++ {
		h := appendHeader(nil, "content-type", []byte(s.o.Encoder.ContentType()))
		h = appendHeader(h, headerProducer, []byte(s.id))
		s.heads[op] = appendHeader(h, headerOp, []byte(op.String()))
	}
}

// TransactionalID is the one that is used.
func (s *Sink) TransactionalID() string { return s.id }

// open returns the producer, a new one when there is none that works.
func (s *Sink) open(ctx context.Context) (*producer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, pipeline.ErrClosed
	}
	if p := s.producer; p != nil {
		if p.ctx.Err() == nil {
			return p, nil
		}
		p.end()
		s.producer = nil
		var fenced *FencedError
		if errors.As(p.err, &fenced) && !p.told.Load() {
			return nil, p.err // else who was told has said that we go on
		}
	}
	p, err := s.newProducer(ctx)
	if err != nil {
		return nil, err
	}
	s.producer = p
	return p, nil
}

// Deliver implements pipeline.Sink.
func (s *Sink) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	deadline := d.Deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(s.o.Timeout)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if s.o.Whole.On {
		return s.deliverWhole(ctx, d)
	}
	if err := s.enter(ctx, d.HandOver); err != nil {
		return nil, s.classify(ctx, err)
	}
	defer s.leave()
	p, err := s.open(ctx)
	if err != nil {
		return nil, s.classify(ctx, err)
	}
	l := s.load(p, d)
	if err := l.pack(ctx, d); err != nil {
		return nil, s.classify(ctx, err)
	}
	return s.send(ctx, p, l, d.HandOver)
}

// enter waits until fewer than mostLoads Deliveries are encoded and on their way, so that max_in_flight does not decide how
// much memory that takes; waits is called when there is a wait. leave makes room for the next.
func (s *Sink) enter(ctx context.Context, waits func()) error {
	select {
	case s.room <- struct{}{}:
		return nil
	default:
	}
	waits()
	select {
	case s.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Sink) leave() { <-s.room }

// send queues the load and waits for what becomes of it; waits, when set, is called once only that is left to do.
func (s *Sink) send(ctx context.Context, p *producer, l *load, waits func()) (pipeline.Outcomes, error) {
	p.begin(l)
	l.queue()
	if waits != nil {
		waits()
	}
	select {
	case <-l.finished:
		p.done(l)
		out := l.outcomes
		l.free()
		return out, nil
	case <-p.broken:
	case <-ctx.Done():
		// Whether it is taken is not known now, and nothing of it may be sent behind the caller's back.
		p.fail(ctx.Err())
	}
	if waits != nil { // of a Delivery
		p.told.Store(true)
	}
	if p.err != nil && !errors.Is(p.err, context.Canceled) && !errors.Is(p.err, context.DeadlineExceeded) {
		return nil, s.classify(ctx, p.err)
	}
	return nil, s.classify(ctx, cmp.Or(ctx.Err(), errors.New("it is not known whether Kafka took an earlier delivery: its partitions are looked at")))
}

// Close implements pipeline.Sink.
func (s *Sink) Close() error {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.producer != nil {
		s.producer.end()
		s.producer = nil
	}
	s.close()
	return nil
}

// trouble notes what goes wrong while it is tried again.
func (s *Sink) trouble(err error) { s.lately.Store(s.mask(err)) }

func (s *Sink) lastTrouble() string {
	text, _ := s.lately.Load().(string)
	return text
}

// route says where a table's records go.
type route struct {
	table *schemas.Table
	topic *topic
	codec *records.Topic
	// subject and fixed are of events without a key: what they are of, and their partition.
	subject string
	fixed   int
	other   bool // the routing key is not the identity: it decides the partition
}

func appendDecimal(dst []byte, n uint64) []byte { return strconv.AppendUint(dst, n, 10) }
