package chunks

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/sources/mysql/internal/catalog"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// The catalogue tells what a table is now, and a SELECT reads what it is then. So SHOW CREATE TABLE is asked for before
// the catalogue is read and behind each SELECT: when it says the same, the rows had the shape that the catalogue told.

// shape returns what is known of a table, looking at it when nothing is.
func (s *session) shape(ctx context.Context, t *snapshot.Table) (*shaped, error) {
	name := t.Schema + "." + t.Name
	if sh := s.known[name]; sh != nil {
		return sh, nil
	}
	for range 10 {
		create, err := s.create(ctx, t)
		if err != nil {
			return nil, err
		}
		sh, err := s.look(ctx, t)
		if err != nil {
			return nil, err
		}
		sh.create = create
		if same, err := s.still(ctx, t, sh); err != nil || !same {
			if err != nil {
				return nil, err
			}
			continue
		}
		s.known[name] = sh
		return sh, nil
	}
	return nil, transient("shape", "look at "+name, errors.New("it changes all the time"))
}

var counter = regexp.MustCompile(` AUTO_INCREMENT=\d+`)

// create returns what the server says of the table, without what rows change.
func (s *session) create(ctx context.Context, t *snapshot.Table) (string, error) {
	list, err := s.conn.Rows(ctx, "SHOW CREATE TABLE "+from(t.Schema, t.Name))
	if err != nil {
		return "", faulty(t, err)
	}
	if len(list) != 1 || len(list[0]) < 2 {
		return "", protocol("look at "+t.Schema+"."+t.Name, "SHOW CREATE TABLE gives no table")
	}
	return counter.ReplaceAllString(list[0][1], ""), nil
}

// still tells whether the table is what it was when sh was made; else sh is forgotten.
func (s *session) still(ctx context.Context, t *snapshot.Table, sh *shaped) (bool, error) {
	create, err := s.create(ctx, t)
	if err != nil {
		return false, err
	}
	if create != sh.create {
		delete(s.known, t.Schema+"."+t.Name)
		return false, nil
	}
	return true, nil
}

// look reads the catalogue.
func (s *session) look(ctx context.Context, t *snapshot.Table) (*shaped, error) {
	name := t.Schema + "." + t.Name
	where := fmt.Sprintf("TABLE_SCHEMA = %s AND TABLE_NAME = %s", quote(t.Schema), quote(t.Name))
	engine, err := s.conn.Rows(ctx, `SELECT t.ENGINE, COALESCE(e.TRANSACTIONS, 'NO'), TABLE_TYPE FROM information_schema.TABLES t
		LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE WHERE `+where)
	if err != nil {
		return nil, err
	}
	switch {
	case len(engine) == 0:
		return nil, &snapshot.TableError{Code: "dropped", What: "the table " + name + " does not exist any more"}
	case engine[0][1] != "YES":
		return nil, &snapshot.TableError{
			Code: "engine", What: fmt.Sprintf("the table %s is of %s, which has no transactions: what is read of it stands at no place of the binlog", name, engine[0][0]),
			Cure: "ALTER TABLE " + from(t.Schema, t.Name) + " ENGINE=InnoDB",
		}
	case engine[0][2] == "SYSTEM VERSIONED":
		return nil, &snapshot.TableError{
			Code: "shape", What: "the table " + name + " is system-versioned: its hidden columns are not in the catalogue",
			Cure: "bring its rows by your own means",
		}
	}
	if s.collations == nil {
		if s.collations, err = catalog.Collations(ctx, s.conn.Rows); err != nil {
			return nil, err
		}
	}
	columns, err := catalog.Columns(ctx, s.conn.Rows, s.collations, where)
	if err != nil {
		return nil, err
	}
	keys, err := primary(ctx, s.conn.Rows, where)
	if err != nil {
		return nil, err
	}
	return s.made(t, columns[name], keys[name])
}

// index is a key: its name and columns, in its order.
type index struct {
	name    string
	columns []string
}

// primary reads the keys that the servers take for the primary one: that, else the first unique one without NULL, as
// COLUMN_KEY tells.
func primary(ctx context.Context, rows catalog.Rows, where string) (map[string]index, error) {
	marked, err := rows(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS WHERE COLUMN_KEY = 'PRI' AND "+where)
	if err != nil {
		return nil, err
	}
	want := map[string][]string{}
	for _, row := range marked {
		name := row[0] + "." + row[1]
		want[name] = append(want[name], row[2])
	}
	list, err := rows(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 AND "+where+
		" ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME = 'PRIMARY' DESC, INDEX_NAME, SEQ_IN_INDEX")
	if err != nil {
		return nil, err
	}
	out := map[string]index{}
	for len(list) > 0 {
		head, n := list[0], 0
		k := index{name: head[2]}
		for ; n < len(list) && slices.Equal(list[n][:3], head[:3]); n++ {
			k.columns = append(k.columns, list[n][3])
		}
		list = list[n:]
		name := head[0] + "." + head[1]
		if _, ok := out[name]; !ok && same(k.columns, want[name]) {
			out[name] = k
		}
	}
	return out, nil
}

// same tells whether two lists name the same columns.
func same(a, b []string) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(c string) bool { return !slices.Contains(b, c) })
}

// made puts a table's shape together as the stream would.
func (s *session) made(t *snapshot.Table, columns []catalog.Column, key index) (*shaped, error) {
	d := s.db
	name := t.Schema + "." + t.Name
	misfit := func(err error) error {
		return &snapshot.TableError{Code: "shape", What: "the table " + name + " cannot be read", Cure: "take the column out with columns:, or upgrade Leat", Err: err}
	}
	table := &schemas.Table{Schema: t.Schema, Name: t.Name, Wire: schemas.WireBinlog, FullBefore: s.server.RowImageFull}
	live := d.cfg.Live(t.Schema, t.Name)
	for i := range columns {
		k := &columns[i]
		ty, err := k.Type(s.server.MariaDB, s.server.MetadataFull)
		if err != nil {
			return nil, misfit(err)
		}
		if err := relabel(&ty, live, k.Name); err != nil {
			return nil, misfit(err)
		}
		dropped := d.cfg.Drops(t.Schema, t.Name, k.Name, s.server.Fold)
		if dropped && slices.Contains(key.columns, k.Name) {
			return nil, misfit(fmt.Errorf("columns: leaves out %s, a column of the primary key", k.Name))
		}
		table.Columns = append(table.Columns, schemas.Column{Name: k.Name, Type: ty, Nullable: k.Nullable, Hidden: k.Invisible(s.server.MariaDB, s.server.MetadataFull), Dropped: dropped})
	}
	if len(columns) == 0 {
		return nil, faulty(t, misfit(errors.New("the catalogue shows none of its columns")))
	}
	for _, k := range key.columns {
		table.Identity = append(table.Identity, table.Column(k))
	}
	if !s.server.MetadataFull {
		slices.Sort(table.Identity) // the stream has it from the columns
	}
	if _, err := binlog.NewLayout(table); err != nil {
		return nil, misfit(err)
	}
	sh := &shaped{table: d.stable(table, live), index: key.name, order: key.columns}
	for _, i := range sh.table.Identity {
		sh.key = append(sh.key, sh.table.Columns[i].Name)
	}
	keyed := *sh.table
	keyed.Columns = slices.Clone(keyed.Columns)
	for i := range keyed.Columns {
		keyed.Columns[i].Dropped = !slices.Contains(keyed.Identity, i)
	}
	sh.keyed = &keyed
	return sh, nil
}

// relabel gives a type the labels that the stream knows where the catalogue's text cannot hold them: it has ? for
// characters beyond the basic plane.
func relabel(ty *schemas.Type, live *schemas.Table, column string) error {
	if !slices.ContainsFunc(ty.Labels, func(l string) bool { return strings.Contains(l, "?") }) {
		return nil
	}
	if live != nil {
		if i := live.Column(column); i >= 0 && len(live.Columns[i].Type.Labels) == len(ty.Labels) {
			ty.Labels, ty.Name = live.Columns[i].Type.Labels, live.Columns[i].Type.Name
			return nil
		}
	}
	return fmt.Errorf("column %s: a label has ? in it, for which the catalogue may have lost another character; change a row of the table, so that the stream tells the labels", column)
}

// stable returns one pointer for one shape: the stream's own where that is the same.
func (d *Database) stable(t, live *schemas.Table) *schemas.Table {
	name := t.Schema + "." + t.Name
	if live != nil {
		t.FullBefore = live.FullBefore // what images carry shows in the stream alone
		if live.ShapeHash() == t.ShapeHash() {
			return live
		}
	}
	t.Seal()
	if old, ok := d.shapes.Load(name); ok && old.(*schemas.Table).ShapeHash() == t.ShapeHash() {
		return old.(*schemas.Table)
	}
	d.shapes.Store(name, t)
	return t
}
