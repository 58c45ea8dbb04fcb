// Package encode turns events into what subscribers read: CloudEvents JSON, or the protobuf envelope.
//
// What is the same for all events of a table version (names, punctuation, the address of the schema) is
// compiled once into a plan; what is the same for a transaction is formatted once per transaction. An
// event in steady state allocates nothing.
//
// An event whose bytes cannot be read faithfully is never guessed: it has an [EventError].
package encode

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Options of an Encoder.
type Options struct {
	// Source is the name of the events' source.
	Source string
	// PublicURL is what the address of a schema begins with (JSON only); without a slash at its end.
	PublicURL string
	// Int64AsString writes 64-bit integers as JSON strings.
	Int64AsString bool
	// Columns to send, by glob over schema.table: globs of names, or of names to leave out with a
	// leading "!". Tables that no entry names are sent whole. A row's key is always sent.
	Columns map[string][]string
	// Mapping of columns, by glob over schema.table; all that match hold. View tells whether a table allows it.
	Mapping map[string]Mapping
	// Replay is the job that the events are copies of; empty for none. Gather goes by the Delivery's.
	Replay string
	// Separator ends each event (JSON only): ',' for arrays, '\n' for lines, 0 for none.
	Separator byte
	// Form reads the rows of a table version.
	Form func(*schemas.Table) *cell.Form
	// Share keeps what was encoded for others who want the same, once a second encoder with equal options
	// was made (an eager one: at once); nil = keep nothing.
	Share *Share
}

// Encoder appends events in one format. Safe for concurrent use.
type Encoder struct {
	o    Options
	json bool
	// key under which encoders with equal options share what they encoded.
	key any
	// users of that key; nil without a Share.
	users *atomic.Int32

	// JSON: what stands before the offset, after the position; the source and a dash.
	idHead, tail, source []byte

	plain   *plan // for events of no table
	mu      sync.Mutex
	plans   atomic.Pointer[map[*schemas.Table]*plan]
	fresh   map[*schemas.Table]*plan // not yet in plans, under mu; missed is how often one was not there
	missed  int
	states  sync.Pool
	maxPlan int
	build   func(*pipeline.Batch) (pipeline.Derived, error)
	// size of an event, guessed from the last ones; bytes.
	size atomic.Int64
	// copies encodes for the replay that was asked for last; nil: none was yet.
	copies atomic.Pointer[Encoder]
}

// shareKey is comparable: encoders with equal options have equal keys.
type shareKey struct{ options string }

// EventError says why one event cannot be encoded: it is a dead letter.
type EventError struct {
	// Event counts from 0: within the Delivery for Gather, within the batch else.
	Event int
	// Column is empty where the error is not about one value.
	Column string
	Err    error
}

// Error names the column and what is wrong, never the value.
func (e *EventError) Error() string {
	if e.Column != "" {
		return fmt.Sprintf("encode column %q: %v", e.Column, e.Err)
	}
	return fmt.Sprintf("encode event: %v", e.Err)
}

// Unwrap returns the cause.
func (e *EventError) Unwrap() error { return e.Err }

// JSON returns an encoder of CloudEvents in structured JSON.
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
func JSON(o Options) *Encoder { return newEncoder(o, true) }

// Proto returns an encoder of entries of leat.v1.Events.events: each is tag, length and Event, so that
// entries one behind the other are the field's content.
func Proto(o Options) *Encoder { return newEncoder(o, false) }

func newEncoder(o Options, json bool) *Encoder {
	if !json {
		o.Separator, o.PublicURL, o.Int64AsString = 0, "", false
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%t %q %q %t %q %d", json, o.Source, o.PublicURL, o.Int64AsString, o.Replay, o.Separator)
	for _, t := range slices.Sorted(maps.Keys(o.Columns)) {
		fmt.Fprintf(&b, " %q%q", t, o.Columns[t])
	}
	for _, t := range slices.Sorted(maps.Keys(o.Mapping)) {
		fmt.Fprintf(&b, " %q%#v", t, o.Mapping[t]) // maps are printed by the order of their keys
	}
	e := &Encoder{o: o, json: json, key: shareKey{b.String()}, maxPlan: 4096}
	e.source = append(appendText(nil, o.Source), '-')
	e.idHead = append([]byte(`{"specversion":"1.0","id":"`), e.source...)
	if o.Replay != "" {
		e.tail = append(appendText([]byte(`,"replay":{"job":"`), o.Replay), `"}`...)
	}
	e.tail = append(e.tail, "}}"...)
	if o.Separator != 0 {
		e.tail = append(e.tail, o.Separator)
	}
	e.build = e.newFragments
	if o.Share != nil {
		e.users = o.Share.join(e.key)
	}
	e.size.Store(256)
	e.plans.Store(&map[*schemas.Table]*plan{})
	e.fresh = map[*schemas.Table]*plan{}
	e.states.New = func() any { return &state{e: e} }
	e.plain = e.compilePlain()
	return e
}

// tagged returns the encoder of a replay's copies, e itself for what is none.
func (e *Encoder) tagged(replay string) *Encoder {
	if replay == e.o.Replay {
		return e
	}
	if c := e.copies.Load(); c != nil && c.o.Replay == replay {
		return c
	}
	o := e.o
	o.Replay, o.Share = replay, nil // nobody else wants these
	c := newEncoder(o, e.json)
	e.copies.Store(c)
	return c
}

// Append appends event i of b to dst. as, when not OpNone, is the op it is sent as. The error is an *EventError;
// then dst is returned as it was.
func (e *Encoder) Append(dst []byte, b *pipeline.Batch, i int, as pipeline.Op) ([]byte, error) {
	st := e.state()
	defer e.release(st)
	return st.append(dst, b, i, as)
}

// AppendRecord appends the event's key as a JSON object, then the event, as Append does. key is the length of the first,
// -1 when the event has no key. JSON only.
func (e *Encoder) AppendRecord(dst []byte, b *pipeline.Batch, i int, as pipeline.Op) (out []byte, key int, err error) {
	st := e.state()
	defer e.release(st)
	st.keyed, st.keyLen = true, -1
	out, err = st.append(dst, b, i, as)
	st.keyed = false
	return out, st.keyLen, err
}

// Key returns the event's key as a JSON object (null without one) and its partitionkey as a JSON
// array; for listings. The error is an *EventError.
func (e *Encoder) Key(b *pipeline.Batch, i int) (key, partition string, err error) {
	st := e.state()
	defer e.release(st)
	return st.keyText(b, i)
}

func (e *Encoder) state() *state {
	st := e.states.Get().(*state)
	st.batch = nil
	return st
}

func (e *Encoder) release(st *state) {
	st.batch, st.plan = nil, nil
	e.states.Put(st)
}

// planOf returns the table version's plan, compiled at first use.
func (e *Encoder) planOf(t *schemas.Table) (*plan, error) {
	if p := (*e.plans.Load())[t]; p != nil {
		return p, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	old := *e.plans.Load()
	p := e.fresh[t]
	if p == nil {
		p = old[t]
	}
	if p == nil {
		var err error
		if p, err = e.compile(t); err != nil {
			return nil, err
		}
		e.fresh[t] = p
	}
	if e.missed++; e.missed*4 < len(old) {
		return p, nil // to copy all for each one would cost the square of how many there are
	}
	plans := make(map[*schemas.Table]*plan, len(old)+len(e.fresh))
	if len(old) < e.maxPlan { // else begin anew: old versions are gone with their segments
		maps.Copy(plans, old)
	}
	maps.Copy(plans, e.fresh)
	e.plans.Store(&plans)
	clear(e.fresh)
	e.missed = 0
	return p, nil
}

// SchemaURL returns the address at which the schema of a table version can be had.
func SchemaURL(publicURL, source string, t *schemas.Table) string {
	return fmt.Sprintf("%s/schemas/%s/%s/%d", publicURL, url.PathEscape(source), t.Subject(), t.Version)
}
