// Package records encodes events as records of a topic: a key and a value each, in the form that readers of a
// message system expect.
//
// An [Encoder] belongs to one subscription. A sink asks it for a [Topic] by name, once, and for a [Writer] per
// goroutine; the writer appends key and value of one event to the sink's memory. What is the same for all events of a
// table version is compiled once per topic; an event in steady state allocates nothing.
package records

import (
	"context"
	"fmt"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Format of keys and values.
type Format uint8

const (
	// JSON: the value is a CloudEvent in structured JSON, the key a JSON object of the row's identity.
	JSON Format = iota
)

// Options of an Encoder.
type Options struct {
	encode.Options
	Format Format
}

// Encoder encodes the events of one subscription. Safe for concurrent use.
type Encoder struct {
	o    Options
	json *encode.Encoder

	mu     sync.Mutex
	topics map[string]*Topic
}

// Topic is what the records of one topic have in common: a schema is registered under the topic's name.
type Topic struct {
	e    *Encoder
	name string
}

// Record says where key and value lie in what Append appended: first the key, then the value.
type Record struct {
	// Key and Value are lengths in bytes; -1: the record has none (null).
	Key, Value int
}

// New returns an encoder. Errors are about the options.
func New(o Options) (*Encoder, error) {
	o.Separator = 0
	e := &Encoder{o: o, topics: map[string]*Topic{}}
	if o.Format != JSON {
		return nil, fmt.Errorf("records of format %d are not known to this version", o.Format)
	}
	e.json = encode.JSON(o.Options)
	return e, nil
}

// ContentType of the values, as a header names it.
func (e *Encoder) ContentType() string { return "application/cloudevents+json" }

// Topic returns the topic of that name; the same for the same name.
func (e *Encoder) Topic(name string) *Topic {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.topics[name]
	if t == nil {
		t = &Topic{e: e, name: name}
		e.topics[name] = t
	}
	return t
}

// Writer is one goroutine's memory for encoding.
type Writer struct {
	e *Encoder
	// ctx ends what a first event of a table version waits for.
	ctx context.Context
}

// Writer returns a writer for one Delivery: ctx is the Delivery's, and replay its job, or empty. Not safe for
// concurrent use; end it with Close.
func (e *Encoder) Writer(ctx context.Context, replay string) *Writer { return &Writer{e: e, ctx: ctx} }

// Close gives the writer's memory back.
func (w *Writer) Close() {}

// Append appends key and value of event i of b to dst; as, when not OpNone, is the op it is sent as.
//
// The first event of a table version may wait for a schema registry. An error is an [*encode.EventError] when this
// event can never be encoded (it is fatal, others go on), else a [*pipeline.DeliveryError] that holds for the whole
// Delivery (a registry that is down, a schema that it refuses). Then dst is returned as it was.
func (w *Writer) Append(dst []byte, t *Topic, b *pipeline.Batch, i int, as pipeline.Op) ([]byte, Record, error) {
	start := len(dst)
	out, key, err := w.e.json.AppendRecord(dst, b, i, as)
	if err != nil {
		return out, Record{-1, -1}, err
	}
	return out, Record{key, len(out) - start - max(key, 0)}, nil
}
