// Package table keeps tables of another database as the source's are: a replica, row by row, by the key.
//
// Each row has the offset of its last event beside it, so that what comes again changes nothing that is newer. A
// Delivery is one transaction, unless a row of it does not fit: then the others go without it.
package table

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/table/my"
	"github.com/leat-cdc/leat/sinks/table/pg"
	"github.com/leat-cdc/leat/sinks/table/target"
)

// Options of a Sink.
type Options struct {
	// URL of the database, as of a source: postgres://… or mysql://….
	URL string
	// Name of the target of a table: SCHEMA.TABLE or TABLE; {source}, {schema} and {table} stand for their names.
	Name string
	// Create makes tables that are missing, Evolve adds columns that are.
	Create, Evolve bool
	// Guard is the column that has the offset of a row's last event; empty: there is none.
	Guard string
	// Connections that are kept.
	Connections int
	// Timeout of a Delivery that has no deadline, and of connecting.
	Timeout time.Duration
	// Encoding says which columns are sent, and how; its Source is the name of the events' source.
	Encoding encode.Options
}

// Sink writes to one database.
type Sink struct {
	o  Options
	db target.Server

	making chan struct{} // held while tables are looked at, made or altered
	mu     sync.Mutex
	plans  map[*schemas.Table]*plan
	owners map[target.Name]*schemas.Table // whose rows go there
}

// New returns the sink of a database. It connects with the first Delivery.
func New(o Options) (*Sink, error) {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	s := &Sink{o: o, making: make(chan struct{}, 1), plans: map[*schemas.Table]*plan{}, owners: map[target.Name]*schemas.Table{}}
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("url: want postgres://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE")
	}
	switch u.Scheme {
	case "postgres", "postgresql":
		s.db, err = pg.New(o.URL, o.Timeout)
	case "mysql", "mariadb":
		s.db, err = my.New(o.URL, o.Timeout, o.Connections)
	default:
		err = errors.New("url: want postgres://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE")
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Close implements pipeline.Sink.
func (s *Sink) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close the target's connections: %w", err)
	}
	return nil
}

// mostTries of a transaction that was in another's way.
const mostTries = 5

// Deliver implements pipeline.Sink.
func (s *Sink) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	if d.Replay != "" {
		return nil, nil // copies of what the tables have, perhaps older than what they have
	}
	deadline := d.Deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(s.o.Timeout)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	w := &work{s: s, d: d, whole: true}
	err := w.all(ctx)
	var f *target.Fault
	if errors.As(err, &f) && (f.Kind == target.Unfit || f.Kind == target.Conflict) { // one of them: which?
		w = &work{s: s, d: d}
		err = w.all(ctx)
	}
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	return w.out, nil
}

// failed says what an error means for the whole Delivery.
func (s *Sink) failed(ctx context.Context, err error) error {
	var de *pipeline.DeliveryError
	var f *target.Fault
	switch {
	case errors.As(err, &de):
		return de
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &pipeline.DeliveryError{TimedOut: true, Reason: "the target took longer than the delivery may"}
	case ctx.Err() != nil:
		return fmt.Errorf("deliver to the target: %w", ctx.Err())
	case !errors.As(err, &f):
		return err
	}
	out := &pipeline.DeliveryError{Reason: "target: " + err.Error()}
	switch f.Kind {
	case target.Changed:
		s.forget()
		out.Class, out.RetryAfter = pipeline.Unavailable, time.Second
	case target.Away:
		out.Class = pipeline.Unavailable
	case target.TooLarge:
		out.Class = pipeline.TooLarge
	}
	return out
}

// forget has all tables looked at again.
func (s *Sink) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.plans)
}

// NameOf is the name that a template gives to the target of a table. The template's own dot, if there is one, parts the
// schema's name from the table's.
func NameOf(template, source, schema, table string) target.Name {
	fill := strings.NewReplacer("{source}", source, "{schema}", schema, "{table}", table)
	if a, b, ok := strings.Cut(template, "."); ok {
		return target.Name{Schema: fill.Replace(a), Table: fill.Replace(b)}
	}
	return target.Name{Table: fill.Replace(template)}
}
