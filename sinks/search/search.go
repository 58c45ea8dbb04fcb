// Package search keeps indices of Elasticsearch or OpenSearch as the tables are: a document for each row, by the
// row's key.
//
// Each document has the offset of its row's last event as its external version, so that what comes late, or twice,
// never overwrites what is newer. Documents are written to an alias, behind which one index stands; a rebuild fills
// another one beside it (rebuild.go) and moves the alias.
//
// https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk,
// https://docs.opensearch.org/latest/api-reference/document-apis/bulk/
package search

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Options of a Sink.
type Options struct {
	// URL of a node, with user and password where it wants them; APIKey instead of them.
	URL    string
	APIKey string
	TLS    *tls.Config // nil: the system's authorities
	// Timeout of a request.
	Timeout time.Duration
	// Index names the alias of a table; {source}, {schema} and {table} stand for their names. Letters become lower case.
	Index string
	// Soft keeps a deleted row's document, with leat_deleted, which the alias hides: what is late never brings it back.
	// Else it is removed, and its version is known for Tombstones.
	Soft       bool
	Tombstones time.Duration
	// Shards and Replicas of indices that are made.
	Shards, Replicas int
	// Encoding of the rows; its Source is the name of the events' source.
	Encoding encode.Options
}

// Fields that documents have beside the columns.
const (
	fieldOffset  = "leat_offset"
	fieldDeleted = "leat_deleted"
)

// Sink writes to one cluster.
type Sink struct {
	o   Options
	c   *client
	enc *encode.Encoder

	page   int           // of documents that are removed at once
	making chan struct{} // held while indices are made or change places

	mu      sync.Mutex
	targets map[string]*target        // by alias
	owners  map[string]*schemas.Table // whose rows go there, by alias
}

// New returns the sink of a cluster. It connects with the first Delivery.
func New(o Options) (*Sink, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	o.Encoding.Separator, o.Encoding.Share = 0, nil
	return &Sink{o: o, c: c, enc: encode.JSON(o.Encoding), page: page, making: make(chan struct{}, 1), targets: map[string]*target{}, owners: map[string]*schemas.Table{}}, nil
}

// Close implements pipeline.Sink.
func (s *Sink) Close() error {
	s.c.close()
	return nil
}

// item is one document to be written.
type item struct {
	event  int // of the Delivery
	target *target
	id     string
	offset uint64
	body   []byte // nil: to be removed
	absent []string
}

// Deliver implements pipeline.Sink.
func (s *Sink) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	if s.c.ended.Err() != nil {
		return nil, pipeline.ErrClosed
	}
	w := &work{s: s, out: make(pipeline.Outcomes, d.Events)}
	if !d.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, d.Deadline)
		defer cancel()
	}
	d.HandOver()
	err := d.Each(func(n int, b *pipeline.Batch, i int, as pipeline.Op) error { return w.add(ctx, n, b, i, as) })
	if err == nil {
		err = w.flush(ctx)
	}
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	if !w.some {
		return nil, nil
	}
	return w.out, nil
}

// work is one Delivery.
type work struct {
	s     *Sink
	items []item
	out   pipeline.Outcomes
	some  bool // outcomes that are not OK
}

func (w *work) fail(event int, o pipeline.Outcome) {
	if w.out[event].Class == pipeline.OK {
		w.out[event], w.some = o, true
	}
}

// add makes the document of an event. What is neither of a row nor empties a table has none.
func (w *work) add(ctx context.Context, n int, b *pipeline.Batch, i int, as pipeline.Op) error {
	op := b.Events[i].Op
	if as != pipeline.OpNone {
		op = as
	}
	table := b.TableOf(i)
	if table == nil || !op.Row() && op != pipeline.OpTruncate {
		return nil
	}
	t, err := w.s.target(ctx, table)
	if err != nil {
		return err
	}
	if op == pipeline.OpTruncate {
		if err := w.flush(ctx); err != nil {
			return err
		}
		return w.s.empty(ctx, t, uint64(b.Offset(i)))
	}
	body, row, err := w.s.enc.AppendRow(nil, b, i, as)
	var ee *encode.EventError
	switch {
	case errors.As(err, &ee):
		w.fail(n, pipeline.Outcome{Class: pipeline.Fatal, Reason: ee.Error()})
		return nil
	case err != nil:
		return err
	case len(row.Values) == 0:
		w.fail(n, pipeline.Outcome{Class: pipeline.Fatal, Reason: "table " + table.Subject() + " has no key, so that its rows cannot be told apart: give it a primary key"})
		return nil
	}
	it := item{event: n, target: t, id: documentID(row.Values), offset: uint64(b.Offset(i)), absent: row.Absent}
	head := fmt.Appendf(nil, `{"%s":%d`, fieldOffset, it.offset)
	switch {
	case row.Gone && w.s.o.Soft:
		it.body = append(append(head, `,"`+fieldDeleted+`":true`...), rest([]byte(row.Key))...)
	case !row.Gone:
		it.body = append(head, rest(body)...)
	}
	w.items = append(w.items, it)
	return nil
}

// rest is what stands behind the { of an object, as it goes on behind another column.
func rest(object []byte) []byte {
	if string(object) == "{}" {
		return object[1:]
	}
	object[0] = ','
	return object
}

// flush writes the items, with what the source did not send of them.
func (w *work) flush(ctx context.Context) error {
	if len(w.items) == 0 {
		return nil
	}
	if err := w.complete(ctx); err != nil {
		return err
	}
	if err := w.bulk(ctx); err != nil {
		return err
	}
	w.items = w.items[:0]
	return nil
}

// failed says what an error means for the whole Delivery.
func (s *Sink) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("search: %w", ctx.Err())
	}
	return err
}

// aliasOf is the alias of a table.
func (s *Sink) aliasOf(t *schemas.Table) string {
	return AliasOf(s.o.Index, s.o.Encoding.Source, t.Schema, t.Name)
}

// AliasOf is the name that Options.Index gives a table.
func AliasOf(index, source, schema, table string) string {
	name := strings.NewReplacer("{source}", source, "{schema}", schema, "{table}", table).Replace(index)
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune(`\/*?"<>| ,#:`, r) || r < ' ' {
			return '_'
		}
		return r
	}, strings.ToLower(name))
	return strings.TrimLeft(name, "-_+.")
}
