// Package records encodes events as records of a topic: a key and a value each, in the form that readers of a
// message system expect.
//
// An [Encoder] belongs to one subscription. A sink asks it for a [Topic] by name, once, and for a [Writer] per
// goroutine; the writer appends key and value of one event to the sink's memory. What is the same for all events of a
// table version is compiled once per topic; an event in steady state allocates nothing.
package records

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/shape"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Format of keys and values.
type Format uint8

const (
	// JSON: the value is a CloudEvent in structured JSON, the key a JSON object of the row's identity.
	JSON Format = iota
	// Avro: both are Avro with a schema's id before it (Confluent's wire format). Needs Options.Schemas.
	Avro
	// Protobuf: both are messages of a generated .proto file, framed likewise. Needs Options.Schemas.
	Protobuf
	// JSONSchema: as JSON, each with a JSON Schema's id before it. Needs Options.Schemas.
	JSONSchema
	// Debezium: the value is Debezium's change event as JSON without schemas, the key a JSON object of the identity.
	Debezium
)

// Subject says under which subject schemas are registered, in Confluent's words.
type Subject uint8

const (
	// SubjectTopic: TOPIC-key and TOPIC-value.
	SubjectTopic Subject = iota
	// SubjectRecord: the full name of the record, like public.files.Envelope.
	SubjectRecord
	// SubjectTopicRecord: TOPIC-RECORD.
	SubjectTopicRecord
)

// Schemas gives schemas their ids.
type Schemas interface {
	// Register returns the id of the schema under the subject, registering it when it is new there. An error is
	// for people: the registry cannot be reached, or it refuses the schema. May block until ctx ends.
	Register(ctx context.Context, subject string, f shape.Format, text string) (id uint32, err error)
	// Versions returns the texts of the subject's versions in that format, the oldest first.
	Versions(ctx context.Context, subject string, f shape.Format) ([]string, error)
}

// Options of an Encoder.
type Options struct {
	encode.Options
	Format Format
	// Schemas is needed by formats that have schemas.
	Schemas Schemas
	Subject Subject
}

// Encoder encodes the events of one subscription. Safe for concurrent use.
type Encoder struct {
	o       Options
	json    *encode.Encoder // instead of a codec
	codec   codec
	schemas registrar // nil: there are none
	writers sync.Pool

	mu     sync.Mutex
	topics map[string]*Topic
}

// registrar knows the schemas of a format.
type registrar interface {
	// schemas registers what the plan needs and sets what its keys and values begin with.
	schemas(ctx context.Context, t *Topic, p *plan, row *shape.Row, keys []shape.Field) error
	// messages does the same for logical messages.
	messages(ctx context.Context, t *Topic, p *plan) error
}

// codec is one typed format.
type codec interface {
	registrar
	// transaction formats what is the same for all events of tx.
	transaction(w *Writer, b *pipeline.Batch, tx *pipeline.Tx) error
	key(w *Writer, dst []byte, op pipeline.Op) ([]byte, error)
	value(w *Writer, dst []byte, b *pipeline.Batch, i int, ev *pipeline.Event, op pipeline.Op) ([]byte, error)
}

// Topic is what the records of one topic have in common: a schema is registered under the topic's name.
type Topic struct {
	e    *Encoder
	name string

	mu    sync.Mutex // held while a plan is made
	made  int        // how many plans has
	plans sync.Map   // *plan by *schemas.Table
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
	e.writers.New = func() any { return &Writer{e: e} }
	switch o.Format {
	case JSON:
		e.json = encode.JSON(o.Options)
		return e, nil
	case Avro:
		e.codec = avro{}
	case Protobuf:
		e.codec = protobuf{}
	case Debezium:
		e.codec = debezium{}
		e.schemas = e.codec
		return e, nil
	case JSONSchema:
		e.json, e.schemas = encode.JSON(o.Options), jsonSchemas{}
	default:
		return nil, fmt.Errorf("records of format %d are not known to this version", o.Format)
	}
	if o.Schemas == nil {
		return nil, errors.New("records with schemas need a registry")
	}
	if e.codec != nil {
		e.schemas = e.codec
	}
	return e, nil
}

// ContentType of the values, as a header names it.
func (e *Encoder) ContentType() string {
	switch e.o.Format {
	case JSON:
		return "application/cloudevents+json"
	case JSONSchema:
		return "application/vnd.confluent.json"
	case Protobuf:
		return "application/vnd.confluent.protobuf"
	case Debezium:
		return "application/json"
	}
	return "application/vnd.confluent.avro"
}

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
