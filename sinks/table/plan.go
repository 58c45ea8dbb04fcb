package table

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/table/target"
)

// plan is how rows of one table version are written.
type plan struct {
	table *schemas.Table
	form  *cell.Form
	name  target.Name
	// columns that are written, the key's first; to are the target's.
	columns []encode.Column
	to      []target.Column
	raw     []bool
	keys    int
	keyed   string // the names of the key's columns
	walk    int    // how many columns of an image are read
}

// mostPlans that are kept: of so many table versions.
const mostPlans = 2048

// plan returns the table version's, with its target made ready.
func (s *Sink) plan(ctx context.Context, t *schemas.Table) (*plan, error) {
	s.mu.Lock()
	p := s.plans[t]
	s.mu.Unlock()
	if p != nil {
		return p, nil
	}
	select {
	case s.making <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.making }()
	s.mu.Lock()
	p = s.plans[t]
	s.mu.Unlock()
	if p != nil {
		return p, nil
	}
	p, err := s.prepare(ctx, t)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.plans) >= mostPlans {
		clear(s.plans)
	}
	s.plans[t] = p
	return p, nil
}

// held is an error that holds the subscription until somebody has done something about it.
func held(format string, args ...any) error {
	return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "target: " + fmt.Sprintf(format, args...)}
}

// noKey is the error of rows that cannot be told apart.
func noKey(t *schemas.Table) error {
	return &encode.EventError{Err: fmt.Errorf("table %s has no key, so that its rows cannot be told apart: give it a primary key", t.Subject())}
}

func (s *Sink) prepare(ctx context.Context, t *schemas.Table) (*plan, error) {
	p := &plan{table: t, form: s.o.Encoding.Form(t), name: NameOf(s.o.Name, s.o.Encoding.Source, t.Schema, t.Name)}
	if err := s.claim(p.name, t); err != nil {
		return nil, err
	}
	if p.form == nil || len(p.form.Decode) != len(t.Columns) {
		return nil, &encode.EventError{Err: fmt.Errorf("the wire form of table %s is not known to this version", t.Subject())}
	}
	view, err := s.o.Encoding.View(t, p.form)
	if err != nil {
		return nil, err
	}
	for _, k := range view.Keys(t) {
		p.columns = append(p.columns, *k)
	}
	if p.keys = len(p.columns); p.keys == 0 {
		return nil, noKey(t)
	}
	for i := range p.columns {
		p.keyed += p.columns[i].Name + "\x00"
	}
	for _, c := range view.Columns {
		if !slices.ContainsFunc(p.columns[:p.keys], func(k encode.Column) bool { return k.Index == c.Index }) {
			p.columns = append(p.columns, c)
		}
	}
	for _, c := range p.columns {
		if s.o.Guard != "" && strings.EqualFold(c.Name, s.o.Guard) {
			return nil, held("%s has a column %s too: give another name as guard, or rename the column (mapping)", t.Subject(), c.Name)
		}
		p.walk = max(p.walk, c.Index+1)
	}
	shape, err := s.shape(ctx, p)
	if err != nil {
		return nil, err
	}
	p.bind(s, shape)
	return p, nil
}

// claim says whose rows go to a target: those of two tables would overwrite each other.
func (s *Sink) claim(name target.Name, t *schemas.Table) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner := s.owners[name]
	if owner == nil || owner.Number != 0 && owner.Number == t.Number { // the same one, whatever its name
		s.owners[name], owner = t, t
	}
	if owner.Subject() != t.Subject() {
		return held("the rows of %s and %s would stand in one table %s: write {schema} in name, or leave one of them out (tables); if it was renamed, restart", owner.Subject(), t.Subject(), name)
	}
	return nil
}

// shape returns the target's, made ready for the plan.
func (s *Sink) shape(ctx context.Context, p *plan) (*target.Shape, error) {
	shape, err := s.db.Look(ctx, p.name)
	if err != nil {
		return nil, err
	}
	if shape == nil {
		if !s.o.Create {
			return nil, held("there is no table %s: make it, or let Leat do so with create: true", p.name)
		}
		if err := s.db.Create(ctx, p.name, p.fields(p.columns), s.o.Guard); err != nil {
			return nil, untouched("make", p.name, err)
		}
		if shape, err = s.db.Look(ctx, p.name); err != nil {
			return nil, err
		}
		if shape == nil {
			return nil, held("the table %s was made, but is not to be seen: the user lacks rights on it", p.name)
		}
	}
	var missing []encode.Column
	for _, c := range p.columns {
		if shape.Column(c.Name) == nil {
			missing = append(missing, c)
		}
	}
	guard := s.o.Guard
	if guard != "" && shape.Column(guard) != nil {
		guard = ""
	}
	if len(missing) > 0 || guard != "" {
		if !s.o.Evolve {
			return nil, s.lacks(p, missing, guard)
		}
		if err := s.db.Add(ctx, p.name, p.fields(missing), guard); err != nil {
			return nil, untouched("add columns to", p.name, err)
		}
		if shape, err = s.db.Look(ctx, p.name); err != nil {
			return nil, err
		}
	}
	return shape, p.fits(shape, s.o.Guard)
}

// untouched is the error of a table that could not be made or altered: whatever it is, no row is to blame.
func untouched(verb string, name target.Name, err error) error {
	var f *target.Fault
	if errors.As(err, &f) && f.Kind != target.Changed {
		return held("%s %s: %s", verb, name, f.Error())
	}
	return fmt.Errorf("%s %s: %w", verb, name, err)
}

// lacks is the error of a target without columns.
func (s *Sink) lacks(p *plan, missing []encode.Column, guard string) error {
	if len(missing) == 0 {
		return held("%s has no column %s, in which the offset of each row's last event stands: add it (bigint, NOT NULL DEFAULT 0), let Leat do so with evolve: true, or do without it, guard: none", p.name, guard)
	}
	var names []string
	for _, c := range missing {
		names = append(names, c.Name)
	}
	return held("%s has no column %s, which %s has: add it, let Leat do so with evolve: true, or leave it out (columns, mapping)", p.name, strings.Join(names, ", "), p.table.Subject())
}

// fields are columns that are to be made.
func (p *plan) fields(of []encode.Column) []target.Field {
	var all []target.Field
	for i := range of {
		c := &of[i]
		f := target.Field{Name: c.Name, Type: &c.Type, Key: slices.ContainsFunc(p.columns[:p.keys], func(k encode.Column) bool { return k.Name == c.Name })}
		if c.Index >= 0 && !c.Mapped {
			f.Native = p.table.Wire
		}
		all = append(all, f)
	}
	return all
}

// fits says whether rows can be upserted.
func (p *plan) fits(shape *target.Shape, guard string) error {
	var keys []string
	for _, c := range p.columns[:p.keys] {
		keys = append(keys, c.Name)
	}
	for _, c := range p.columns {
		if shape.Column(c.Name) == nil {
			return held("%s has no column %s that could be written", p.name, c.Name)
		}
	}
	if guard != "" && shape.Column(guard) == nil {
		return held("%s has no column %s", p.name, guard)
	}
	for i := range p.columns[:p.keys] {
		c := &p.columns[i]
		word, _, _ := strings.Cut(c.Type.Name, "(")
		if by := shape.Column(c.Name).Merges; by != "" && by != c.Type.Collation && word != "uuid" && (c.Type.Kind == schemas.KindText || c.Type.Kind == schemas.KindUnknown) {
			return held("%s has the collation %s on %s, by which keys that differ in the source may be one row: give the column the collation utf8mb4_0900_bin (MariaDB: utf8mb4_nopad_bin), or the source's", p.name, by, c.Name)
		}
	}
	slices.Sort(keys)
	for _, u := range shape.Uniques {
		u = slices.Clone(u)
		slices.Sort(u)
		if slices.Equal(u, keys) {
			return nil
		}
	}
	return held("%s has no primary key or unique index of just %s (of columns that are NOT NULL), so that no row could be found again: make one", p.name, strings.Join(keys, ", "))
}

// bind gives each column its place in the target. What the server computes by itself is left out.
func (p *plan) bind(s *Sink, shape *target.Shape) {
	columns := p.columns
	p.columns, p.to, p.raw = nil, nil, nil
	for i := range columns {
		to := shape.Column(columns[i].Name)
		if to.Generated && i >= p.keys {
			continue
		}
		p.columns, p.to = append(p.columns, columns[i]), append(p.to, *to)
		p.raw = append(p.raw, columns[i].Index >= 0 && !columns[i].Mapped && s.db.Raw(p.table.Wire))
	}
}
