package table

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/table/target"
)

// Asked is a table that Check looks at: the names of its columns as they are sent.
type Asked struct {
	Schema, Name string
	Columns      []string
}

// Check looks at the target, and at the tables there; it changes nothing.
func (s *Sink) Check(ctx context.Context, tables []Asked) []pipeline.Finding {
	found := s.db.Check(ctx)
	if slices.ContainsFunc(found, func(f pipeline.Finding) bool { return f.Code == "unreachable" || f.Code == "target_user" }) {
		return found
	}
	of := map[target.Name]string{}
	for _, t := range tables {
		name, subject := NameOf(s.o.Name, s.o.Encoding.Source, t.Schema, t.Name), t.Schema+"."+t.Name
		if other := of[name]; other != "" {
			found = append(found, pipeline.Finding{Level: "error", Code: "target_table", Place: "name", What: fmt.Sprintf("%s and %s would stand in one table %s", other, subject, name), Cure: "write {schema} in it too"})
			continue
		}
		of[name] = subject
		f, err := s.checkTable(ctx, name, &t)
		if err != nil {
			f = append(f, pipeline.Finding{Level: "error", Code: "target_table", What: err.Error(), Cure: "give the user the rights SELECT, INSERT, UPDATE and DELETE on it"})
		}
		for i := range f {
			f[i].Place = "table " + name.String()
		}
		found = append(found, f...)
	}
	return found
}

func (s *Sink) checkTable(ctx context.Context, name target.Name, t *Asked) (found []pipeline.Finding, err error) {
	add := func(level, what, cure string) {
		found = append(found, pipeline.Finding{Level: level, Code: "target_table", What: what, Cure: cure})
	}
	shape, err := s.db.Look(ctx, name)
	if err != nil {
		return nil, err
	}
	if shape == nil {
		if !s.o.Create {
			add("error", "there is no such table (or the user has no right on it)", "make it, or let Leat do so with create: true")
		}
		return found, nil
	}
	want := t.Columns
	if s.o.Guard != "" {
		want = append(slices.Clone(want), s.o.Guard)
	}
	var missing []string
	for _, c := range want {
		if shape.Column(c) == nil {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		if !s.o.Evolve {
			add("error", "it has no column "+strings.Join(missing, ", "), "add it, or let Leat do so with evolve: true")
		}
		return found, nil
	}
	if len(t.Columns) == 0 { // not known which are sent
		return found, nil
	}
	unique := slices.IndexFunc(shape.Uniques, func(u []string) bool {
		return len(u) > 0 && !slices.ContainsFunc(u, func(c string) bool { return !slices.Contains(t.Columns, c) })
	})
	if unique < 0 {
		add("error", "it has no primary key or unique index of the source's columns", "make one of the columns of the source's primary key")
		return found, nil
	}
	return found, s.try(ctx, name, shape, shape.Uniques[unique], t.Columns)
}

// try asks for the rights to write.
func (s *Sink) try(ctx context.Context, name target.Name, shape *target.Shape, key, columns []string) error {
	var all []target.Column
	for _, c := range key {
		all = append(all, *shape.Column(c))
	}
	for _, c := range columns {
		if col := shape.Column(c); !slices.Contains(key, c) && !col.Generated {
			all = append(all, *col)
		}
	}
	var errs []error
	for _, verb := range []target.Verb{target.Upsert, target.Delete} {
		c := &target.Change{Verb: verb, Name: name, Columns: all, Keys: len(key), Guard: s.o.Guard}
		if verb == target.Delete {
			c.Columns = all[:len(key)]
		}
		errs = append(errs, s.db.Try(ctx, c))
	}
	return errors.Join(errs...)
}
