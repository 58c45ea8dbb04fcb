// Package filter decides which events a subscription gets.
//
// A [Program] is compiled once from table globs and an expression in CEL; a [Filter] is one goroutine's
// use of it. Both work on whole batches and on cells in wire form: only the columns that the expression
// names are decoded.
//
// The expression speaks of op, table, key, before, after, message (prefix, content), tx (id, position) and time. Values are what
// the event's JSON shows, with three differences: instants (timestamptz) are CEL timestamps, JSON columns
// are their content, bytes are CEL bytes.
//
//   - A column that was not sent (unchanged TOAST, partial image), or a column of an image that the event
//     does not have, makes an outcome that depends on it unknown: the event passes.
//   - An update whose new row is out, and whose old row is known to have been in, is sent as a delete.
//   - An expression that fails on an event (no such column, null where a number is needed, cost limit)
//     makes the event a [Failure], to be dead-lettered.
//
// Most filters compare columns with literals. Those run as closures over typed cells (fast.go); all else,
// and values of kinds that need more than a comparison, go to the CEL interpreter (cel.go). A property
// test holds the two together.
package filter

import (
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Failure is an event that the expression failed on: it is to be dead-lettered, not dropped.
type Failure struct {
	// Index of the event in its batch.
	Index  uint32
	Reason string
}

// Options of a filter.
type Options struct {
	// Tables are globs over schema.table; see [Tables]. None: all.
	Tables []string
	// Expr in CEL; empty: everything passes.
	Expr string
	// Form reads the rows of a table version; required with Expr. It is called once per table version
	// and Filter.
	Form func(*schemas.Table) *cell.Form
}

// Program is a compiled filter. Safe for concurrent use.
type Program struct {
	tables Tables
	form   func(*schemas.Table) *cell.Form
	expr   *expression // nil: everything passes
}

// Compile compiles a filter. An *ExprError says where in the expression it is wrong.
func Compile(o Options) (*Program, error) {
	p := &Program{form: o.Form}
	var err error
	if p.tables, err = ParseTables(o.Tables); err != nil {
		return nil, err
	}
	if o.Expr == "" {
		return p, nil
	}
	if o.Form == nil {
		return nil, fmt.Errorf("compile a filter: Options.Form is required with an expression")
	}
	if p.expr, err = compile(o.Expr); err != nil {
		return nil, err
	}
	return p, nil
}

// Takes reports whether rows of a table can pass.
func (p *Program) Takes(schema, table string) bool { return p.tables.Match(schema, table) }

// Filter is one goroutine's use of a Program.
type Filter struct {
	p     *Program
	plans map[*schemas.Table]*plan
	last  *plan
	none  *plan // of events without a table
	row   row
	cel   *celEval
}

// maxPlans bounds what a Filter remembers of table versions: they come and go.
const maxPlans = 4096

// plan is what is known of a table version: decided once.
type plan struct {
	table *schemas.Table
	in    bool
	form  *cell.Form
	// columns maps the expression's columns to the table's; -1 = it has none of that name.
	columns []int
	upTo    int
}

// New returns a Filter of its own for the calling goroutine.
func (p *Program) New() *Filter {
	f := &Filter{p: p, plans: map[*schemas.Table]*plan{}, none: &plan{in: p.tables.everything()}}
	if p.expr != nil {
		f.none.columns = make([]int, len(p.expr.columns))
		for i := range f.none.columns {
			f.none.columns[i] = -1
		}
		f.cel = newCELEval(p.expr)
	}
	return f
}

func (f *Filter) plan(t *schemas.Table) *plan {
	if t == nil {
		return f.none
	}
	if f.last != nil && f.last.table == t {
		return f.last
	}
	pl := f.plans[t]
	if pl == nil {
		pl = &plan{table: t, in: f.p.tables.Match(t.Schema, t.Name)}
		if pl.in && f.p.expr != nil {
			pl.form = f.p.form(t)
			for _, name := range f.p.expr.columns {
				i := t.Column(name)
				if i >= 0 && t.Columns[i].Dropped {
					i = -1
				}
				pl.columns = append(pl.columns, i)
				pl.upTo = max(pl.upTo, i+1)
			}
		}
		if len(f.plans) >= maxPlans {
			clear(f.plans)
		}
		f.plans[t] = pl
	}
	f.last = pl
	return pl
}

// Select appends to runs what of b.Events[from:to] passes, in order, and to fails what the expression
// failed on. No allocation per event while the expression is a plain comparison.
func (f *Filter) Select(b *pipeline.Batch, from, to int, runs []pipeline.Run, fails []Failure) ([]pipeline.Run, []Failure) {
	first := len(runs)
	for i := from; i < to; i++ {
		pl := f.plan(b.TableOf(i))
		if !pl.in {
			continue
		}
		as := pipeline.OpNone
		if f.p.expr != nil {
			pass, how, err := f.event(pl, b, i)
			if err != nil {
				fails = append(fails, Failure{uint32(i), err.Error()})
				continue
			}
			if !pass {
				continue
			}
			as = how
		}
		if n := len(runs); n > first && runs[n-1].To == uint32(i) && runs[n-1].As == as {
			runs[n-1].To++
			continue
		}
		runs = append(runs, pipeline.Run{Batch: b, From: uint32(i), To: uint32(i) + 1, As: as})
	}
	return runs, fails
}

// event decides about one event.
func (f *Filter) event(pl *plan, b *pipeline.Batch, i int) (pass bool, as pipeline.Op, err error) {
	e := &b.Events[i]
	before, after := e.Before, e.After
	switch e.Op {
	case pipeline.OpDelete: // half of a key change carries both images; it is about the old row
		after = pipeline.Nowhere
	case pipeline.OpInsert, pipeline.OpSnapshot:
		before = pipeline.Nowhere
	case pipeline.OpTruncate, pipeline.OpSchema, pipeline.OpMessage: // what stands there is no row
		before, after = pipeline.Nowhere, pipeline.Nowhere
	}
	f.row.begin(pl, b, i, before, after)
	v, err := f.eval()
	switch {
	case err != nil:
		return false, pipeline.OpNone, err
	case v != no:
		return true, pipeline.OpNone, nil
	case e.Op != pipeline.OpUpdate || !before.Present():
		return false, pipeline.OpNone, nil
	}
	f.row.begin(pl, b, i, before, before)
	if v, err = f.eval(); err == nil && v == yes {
		return true, pipeline.OpDelete, nil
	}
	return false, pipeline.OpNone, nil // no proof that it was in
}

// truth is an outcome, or why there is none.
type truth uint8

const (
	no truth = iota
	yes
	// unknown: it depends on what was not sent.
	unknown
	// failed: an error.
	failed
	// unsure: closures cannot tell; ask CEL.
	unsure
)

func (f *Filter) eval() (truth, error) {
	if f.p.expr.fast != nil {
		if v := f.p.expr.fast(&f.row); v <= unknown {
			return v, nil
		}
	}
	return f.cel.eval(&f.row)
}

// row is the event in hand, its cells found and decoded when they are asked for.
type row struct {
	plan    *plan
	batch   *pipeline.Batch
	index   int
	event   *pipeline.Event
	images  [2]image
	scratch cell.Scratch
	cell    cell.Value
}

const (
	before = 0
	after  = 1
)

type image struct {
	span   pipeline.Span
	bytes  []byte
	refs   []cell.Ref
	walked int // columns
	err    error
}

func (r *row) begin(pl *plan, b *pipeline.Batch, i int, old, new pipeline.Span) {
	r.plan, r.batch, r.index, r.event = pl, b, i, &b.Events[i]
	r.scratch.Reset()
	for n, s := range [...]pipeline.Span{old, new} {
		m := &r.images[n]
		m.span, m.bytes, m.refs, m.walked, m.err = s, b.Bytes(s), m.refs[:0], 0, nil
	}
}

// ref finds a column's cell.
func (r *row) ref(which, column int) (cell.Ref, error) {
	m := &r.images[which]
	if m.err != nil {
		return cell.Ref{}, m.err
	}
	if m.walked <= column {
		upTo := max(r.plan.upTo, column+1)
		if m.refs, m.err = r.plan.form.Walk(m.bytes, m.refs[:0], upTo); m.err == nil && len(m.refs) <= column {
			m.err = fmt.Errorf("the row has %d columns, the table %d", len(m.refs), len(r.plan.table.Columns))
		}
		if m.err != nil {
			return cell.Ref{}, m.err
		}
		m.walked = upTo
	}
	return m.refs[column], nil
}

// value decodes a column of an image. What was not sent with the new row and is whole in the old one is
// taken from there.
func (r *row) value(v *cell.Value, which, column int) error {
	if !r.images[which].span.Present() {
		v.State = cell.Absent
		return nil
	}
	ref, err := r.ref(which, column)
	if err == nil && ref.Absent() && which == after && r.plan.table.FullBefore && r.images[before].span.Present() {
		which = before
		ref, err = r.ref(before, column)
	}
	if err != nil {
		return err
	}
	*v = cell.Value{}
	switch {
	case ref.Null():
		v.State = cell.Null
	case ref.Absent():
		v.State = cell.Absent
	default:
		if err := r.plan.form.Decode[column](v, ref.Of(r.images[which].bytes), &r.scratch); err != nil {
			return fmt.Errorf("column %s: %w", r.plan.table.Columns[column].Name, err)
		}
	}
	return nil
}
