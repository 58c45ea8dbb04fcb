package records

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/shape"
	"github.com/leat-cdc/leat/sinks/encode"
)

// plan is what is known of a table version in one topic before its rows are seen.
type plan struct {
	table *schemas.Table
	form  *cell.Form
	cols  []column
	keys  []column // of the identity: always sent, also where cols lack them
	walk  int
	// key and value begin with what registries put before them, and what is the same for all events.
	key, value, fixed []byte
	// err and until: a registry did not take the schema; it is not asked again before.
	err   error
	until time.Time
}

// column is one field of a row.
type column struct {
	encode.Column
	shape    shape.Type
	optional bool
	key      bool
	// name as it stands among absent columns, and in front of the value, as the format has them.
	name []byte
	// number of the field, in formats that have some.
	number int
}

// again is how long a registry that failed is left alone.
const again = time.Second

var errNoForm = errors.New("the table's wire form is not known to this version")

// planOf returns the plan of a table version (nil: of messages), made at first use; that may wait for the registry.
func (t *Topic) planOf(ctx context.Context, table *schemas.Table) (*plan, error) {
	if p := t.known(table); p != nil && p.err == nil {
		return p, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.known(table)
	if p := before; p != nil && (p.err == nil || time.Now().Before(p.until)) {
		return p, p.err
	}
	p, err := t.compile(ctx, table)
	if err != nil {
		p = &plan{err: err, until: time.Now().Add(again)}
	}
	if before == nil {
		if t.made++; t.made > maxPlans { // begin anew: old versions are gone with their segments
			t.plans.Clear()
			t.made = 1
		}
	}
	t.plans.Store(table, p)
	return p, err
}

const maxPlans = 4096

// known is the plan that was made for a table version, nil: none was.
func (t *Topic) known(table *schemas.Table) *plan {
	p, _ := t.plans.Load(table)
	known, _ := p.(*plan)
	return known
}

func (t *Topic) compile(ctx context.Context, table *schemas.Table) (*plan, error) {
	if table == nil {
		return t.compileMessages(ctx)
	}
	p := &plan{table: table, form: t.e.o.Form(table)}
	if p.form == nil && table.Wire == schemas.WireNone {
		p.form = &cell.Form{}
	}
	if p.form == nil || table.Wire != schemas.WireNone && len(p.form.Decode) != len(table.Columns) {
		return nil, &encode.EventError{Err: errNoForm}
	}
	view, err := t.e.o.View(table, p.form)
	if err != nil {
		return nil, &encode.EventError{Err: err}
	}
	row, keys := p.layout(view)
	if err := t.e.schemas.schemas(ctx, t, p, row, keys); err != nil {
		return nil, err
	}
	return p, nil
}

// compileMessages makes the plan of logical messages.
func (t *Topic) compileMessages(ctx context.Context) (*plan, error) {
	p := &plan{form: &cell.Form{}}
	return p, t.e.schemas.messages(ctx, t, p)
}

// columnError says which column of a key an error is about.
func columnError(c *column, err error) error { return &encode.EventError{Column: c.Name, Err: err} }

// layout fills the plan's columns and returns them as shapes.
func (p *plan) layout(view *encode.View) (*shape.Row, []shape.Field) {
	row, keys := view.Shape(p.table)
	add := func(to []column, c *encode.Column, f *shape.Field) []column {
		p.walk = max(p.walk, c.Index+1)
		return append(to, column{Column: *c, shape: f.Type, optional: f.Optional(), key: f.Key})
	}
	for i := range view.Columns {
		p.cols = add(p.cols, &view.Columns[i], &row.Fields[i])
	}
	for i, c := range view.Keys(p.table) {
		p.keys = add(p.keys, c, &keys[i])
	}
	return row, keys
}

// register returns the id of a schema under the topic's subject; kind is "key" or "value".
func (t *Topic) register(ctx context.Context, kind string, record string, f shape.Format, text string) (uint32, error) {
	subject := t.subject(kind, record)
	id, err := t.e.o.Schemas.Register(ctx, subject, f, text)
	if err != nil {
		return 0, noSchema(subject, err)
	}
	return id, nil
}

// noSchema makes the Delivery wait, and says for what.
func noSchema(subject string, err error) error {
	reason := fmt.Sprintf("the schema registry has no id yet for the schema of %s: %v", subject, err)
	if len(reason) > mostReason {
		reason = strings.ToValidUTF8(reason[:mostReason], "") + "…"
	}
	return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: reason, Err: err}
}

// mostReason is the longest reason that is told, in bytes: of two schemas all the differences may be.
const mostReason = 600

func (t *Topic) subject(kind, record string) string {
	switch t.e.o.Subject {
	case SubjectRecord:
		return record
	case SubjectTopicRecord:
		return t.name + "-" + record
	}
	return t.name + "-" + kind
}

// framed is what stands before what a schema of that id describes.
// https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
func framed(id uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0}, id) }
