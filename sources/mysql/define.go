package mysql

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/mysql/internal/ddl"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

// define does what a statement about the shape of tables means. A shape itself comes with the next rows'
// table map; what no table map tells is told here: that a table is gone, or that its rows are others.
func (r *reader) define(q *event.Statement, text string, s statement.Statement) error {
	if s.Secret {
		text = "" // not for subscribers
	}
	switch s.Kind {
	case statement.Create, statement.Drop:
		if s.Temporary {
			r.temporary(q.Thread, s)
			return nil
		}
		for _, n := range s.Tables {
			if err := r.made(n, text, s); err != nil {
				return err
			}
		}
	case statement.Alter:
		return r.altered(text, s)
	case statement.Rename:
		for i := range min(len(s.Tables), len(s.Taken)) {
			if err := r.renamed(s.Tables[i], s.Taken[i], text, s); err != nil {
				return err
			}
		}
	case statement.DropSchema:
		return r.dropped(text, s)
	}
	return nil
}

// made tells of a table that was created or dropped.
func (r *reader) made(n statement.Name, text string, s statement.Statement) error {
	if s.Kind == statement.Drop || s.Replaces {
		if err := r.gone(n, text); err != nil {
			return err
		}
	}
	if s.Kind == statement.Create && (r.tables.newest(n.Schema+"."+n.Table) != nil || r.ghostly(n)) {
		r.defined(n, text, s)
	}
	if s.Rows {
		r.quarantine(n.Schema, n.Table, codeStatement, "the table was filled by a statement (CREATE TABLE … SELECT) that was logged as text", cureStatement)
	}
	return nil
}

// gone tells that there is no table of this name any more: its newest shape has no columns.
func (r *reader) gone(n statement.Name, text string) error {
	full := n.Schema + "." + n.Table
	wanted, err := r.wanted(n.Schema, n.Table)
	if err != nil {
		return err
	}
	delete(r.tables.ghosts, full)
	delete(r.tables.ddl, full)
	if !wanted {
		return nil
	}
	r.tables.ddl[full] = ddl.Absent()
	delete(r.tables.byName, full)
	none := (&schemas.Table{Schema: n.Schema, Name: n.Table, Wire: schemas.WireNone}).Seal()
	r.tables.known[full] = none
	return r.schemaEvent(none, text, false)
}

// dropped tells that all tables of a database are gone.
func (r *reader) dropped(text string, s statement.Statement) error {
	tables := map[string]statement.Name{}
	for _, sh := range r.tables.byName {
		tables[sh.schema+"."+sh.name] = statement.Name{Schema: sh.schema, Table: sh.name}
	}
	for name, t := range r.tables.known {
		tables[name] = statement.Name{Schema: t.Schema, Table: t.Name}
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		n := tables[name]
		if t := r.tables.newest(name); len(s.Tables) != 1 || n.Schema != s.Tables[0].Schema || t != nil && len(t.Columns) == 0 {
			continue
		}
		if err := r.gone(n, text); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) altered(text string, s statement.Statement) error {
	for _, n := range s.Tables {
		pending := r.defined(n, text, s)
		if s.Rows {
			r.gap(n.Schema, n.Table, codePartition, "rows came or went with a partition or a tablespace, without events: "+firstWords(text))
		}
		if pending == nil {
			continue
		}
		if err := r.foreseen(n, text, s); err != nil {
			return err
		}
	}
	if len(s.Tables) == 0 || len(s.Taken) == 0 {
		return nil
	}
	return r.renamed(s.Tables[0], s.Taken[len(s.Taken)-1], text, s)
}

// foreseen tells what a statement did that the next table map does not show for sure: after a restart it
// would not be seen that a column was dropped and came again, or that two changed their names.
func (r *reader) foreseen(n statement.Name, text string, s statement.Statement) error {
	full := n.Schema + "." + n.Table
	if !s.Rows && len(s.Dropped) == 0 && len(s.Renames) == 0 {
		return nil
	}
	wanted, err := r.wanted(n.Schema, n.Table)
	t := r.latest(full)
	if err != nil || !wanted || t == nil || len(t.Columns) == 0 {
		return err
	}
	next := ddl.Foresee(t, s)
	if next != nil {
		r.tables.byName[full] = &shape{schema: n.Schema, name: n.Table, wanted: true, table: next}
		t = next
	} else if !s.Rows {
		return nil
	}
	return r.schemaEvent(t, text, s.Rows || len(s.Renames) > 0)
}

// renamed tells of a table that took another name, with its rows. When that ends the work of gh-ost or
// pt-online-schema-change, the rows are those that the name had: the same table continues.
func (r *reader) renamed(from, to statement.Name, text string, s statement.Statement) error {
	source, target := from.Schema+"."+from.Table, to.Schema+"."+to.Table
	if ghostOf(to, from) && r.swaps(from, text, s) { // the old one leaves: the ghost follows
		r.defined(from, text, s)
		return nil
	}
	swapped := ghostOf(from, to) && r.swaps(to, text, s)
	pending := r.tables.ddl[source]
	delete(r.tables.ddl, source)
	if swapped {
		delete(r.tables.ghosts, source)
		next := r.tables.touched(target)
		next.Follow(pending)
		next.Add(text, statement.Statement{Kind: statement.Rename})
		return nil
	}
	moved := r.latest(source)
	if err := r.gone(from, text); err != nil {
		return err
	}
	wanted, err := r.wanted(to.Schema, to.Table)
	if err != nil || !wanted {
		return err
	}
	r.gap(to.Schema, to.Table, codeRenamed, "another table took this name, with its rows")
	delete(r.tables.byName, target)
	delete(r.tables.ddl, target)
	if moved == nil || len(moved.Columns) == 0 || pending != nil || s.Kind != statement.Rename {
		if t := r.tables.newest(target); t == nil || len(t.Columns) > 0 {
			if err := r.gone(to, text); err != nil { // in the log, so that another stream knows of it
				return err
			}
		}
		next := r.tables.touched(target) // its shape comes with its next rows
		next.Follow(pending)
		if s.Kind == statement.Rename { // else it is among the pending ones
			next.Add(text, s)
		}
		next.Replaced()
		return nil
	}
	t := *moved
	t.Schema, t.Name, t.ID, t.Version = to.Schema, to.Table, 0, 0
	r.tables.known[target] = t.Seal()
	return r.schemaEvent(&t, text, true)
}

// swaps tells whether a statement ends the work of gh-ost or pt-online-schema-change on a table: at once the old
// one leaves under a ghost's name and its filled copy comes. Who archives a table may use the same names with an
// empty one: a copy without rows counts only where gh-ost signed the statement.
func (r *reader) swaps(n statement.Name, text string, s statement.Statement) bool {
	full := n.Schema + "." + n.Table
	if t := r.tables.newest(full); s.Kind != statement.Rename || t != nil && len(t.Columns) == 0 {
		return false
	}
	left := false
	for i := range min(len(s.Tables), len(s.Taken)) {
		from, to := s.Tables[i], s.Taken[i]
		switch {
		case from == n:
			left = ghostOf(to, n)
		case to == n:
			filled := r.tables.ddl[from.Schema+"."+from.Table].Filled()
			signed := strings.HasSuffix(from.Table, "_gho") && strings.Contains(text, signature)
			return left && ghostOf(from, n) && (filled || signed)
		}
	}
	return false
}

// signature is the comment in gh-ost's statements.
const signature = "/* gh-ost */"

// latest is the newest shape of a table, also one that came into the log by other ways than this stream.
func (r *reader) latest(name string) *schemas.Table {
	if t := r.tables.newest(name); t != nil || r.src.cfg.Known == nil {
		return t
	}
	for _, t := range r.src.cfg.Known() {
		if t.Schema+"."+t.Name == name {
			return t
		}
	}
	return nil
}

// defined notes a statement about a table until its next table map; nil when the table does not matter.
func (r *reader) defined(n statement.Name, text string, s statement.Statement) *ddl.Pending {
	if !r.src.tables.match(n.Schema, n.Table, r.srv.fold) && !r.ghostly(n) {
		return nil
	}
	p := r.tables.touched(n.Schema + "." + n.Table)
	p.Add(text, s)
	return p
}

// truncated adds the event of a table that lost its rows.
func (r *reader) truncated(names []statement.Name) error {
	for _, n := range names {
		wanted, err := r.wanted(n.Schema, n.Table)
		if err != nil {
			return err
		}
		if !wanted {
			continue
		}
		if err := r.tableEvent(pipeline.OpTruncate, r.stand(n.Schema, n.Table), nil); err != nil {
			return err
		}
	}
	return nil
}

// schemaEvent adds the event that tells of a table's shape.
func (r *reader) schemaEvent(t *schemas.Table, text string, rewrites bool) error {
	change := pipeline.SchemaChange{Columns: make([]schemas.Column, 0, len(t.Columns)), Statement: text, Rewrites: rewrites}
	for _, c := range t.Columns {
		if !c.Dropped {
			change.Columns = append(change.Columns, c)
		}
	}
	content, err := json.Marshal(change)
	if err != nil {
		return fmt.Errorf("write the schema change of %s.%s: %w", t.Schema, t.Name, err)
	}
	return r.tableEvent(pipeline.OpSchema, t, content)
}

// ghostOf tells whether one table is the ghost of the other, by its name.
func ghostOf(ghost, of statement.Name) bool {
	base, ok := ddl.Ghost(ghost.Table)
	return ok && base == of.Table && ghost.Schema == of.Schema
}

// ghostly tells whether a table is named as the ghost of one that is read; its own name may not be in tables:.
func (r *reader) ghostly(n statement.Name) bool {
	of, ok := ddl.Ghost(n.Table)
	return ok && r.src.tables.match(n.Schema, of, r.srv.fold)
}

// ghostOf tells of which table another is the copy or the remains while gh-ost or pt-online-schema-change changes
// it, if that exists: by its name, where the configuration does not name it.
func (s *Source) ghostOf(schema, name string, fold bool) (of string, ok bool) {
	of, ok = ddl.Ghost(name)
	return of, ok && !s.tables.exactly(schema, name, fold) && s.tables.match(schema, of, fold)
}

// ghost tells whether a table is such a one.
func (r *reader) ghost(schema, name string) (bool, error) {
	of, ok := r.src.ghostOf(schema, name, r.srv.fold)
	if !ok {
		return false, nil
	}
	full := schema + "." + name
	if is, seen := r.tables.ghosts[full]; seen {
		return is, nil
	}
	is := false
	if t := r.tables.newest(schema + "." + of); t != nil && len(t.Columns) > 0 {
		is = true
	} else {
		var err error
		if is, err = r.look.exists(schema, of); err != nil {
			return false, err
		}
	}
	r.tables.ghosts[full] = is
	if is {
		r.src.cfg.Observer.Warned("source "+r.src.cfg.Name, fmt.Sprintf("table %s is taken for the ghost of %s.%s (gh-ost, pt-online-schema-change): its rows are not delivered", full, schema, of),
			"if it is a table of its own, name it in tables: without a wildcard")
	}
	return is, nil
}

// exists asks the catalogue for a table.
func (l *lookups) exists(schema, name string) (bool, error) {
	ctx, cancel := context.WithTimeout(l.ctx, lookupTimeout)
	defer cancel()
	c, err := l.src.connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }()
	rows, err := c.rows(ctx, fmt.Sprintf("SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s", quote(schema), quote(name)))
	return len(rows) > 0, err
}
