package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/sources/postgres/pgoutput"
)

// about is what the catalogue says about the table of a Relation message; empty when it is gone.
type about struct {
	key       []string // primary key, in its order
	ancestors []string
	notNull   map[string]bool
	defaults  map[string]bool
	generated map[string]bool
	number    map[string]int16
}

// resolve says how the rows of a relation are read.
func (s *Source) resolve(ctx context.Context, c *catalog, rel *pgoutput.Relation) (shape pgoutput.Shape, err error) {
	ctx, end := c.begin(ctx, fmt.Sprintf("look up table %s.%s", rel.Schema, rel.Name))
	defer end(&err)
	a, err := c.about(ctx, rel.OID, rel.XID)
	if err != nil {
		return shape, s.failure(fmt.Sprintf("look up table %s.%s", rel.Schema, rel.Name), err)
	}
	if !s.reads(rel.Schema, rel.Name, a.ancestors) {
		return shape, nil
	}
	types, err := c.types(ctx, rel.Columns)
	if err != nil {
		return shape, s.failure(fmt.Sprintf("look up the types of table %s.%s", rel.Schema, rel.Name), err)
	}
	t := &schemas.Table{Schema: rel.Schema, Name: rel.Name, Wire: schemas.WirePGText, FullBefore: rel.Identity == pgoutput.IdentityFull, Number: rel.OID}
	shape = pgoutput.Shape{Table: t, Defaulted: a.defaults}
	var identity []string
	for i, col := range rel.Columns {
		out := s.excluded(rel.Schema, rel.Name, col.Name)
		if out && (col.Key && rel.Identity != pgoutput.IdentityFull || slices.Contains(a.key, col.Name)) {
			return shape, &pgoutput.Refused{
				Code:   pgoutput.ColumnsOut,
				Reason: fmt.Sprintf("its key column %s is excluded by columns:, so its rows cannot be told apart", col.Name),
				Cure:   "let the column in, or take the table out of tables:",
			}
		}
		if out && shape.Keep == nil {
			shape.Keep = make([]bool, len(rel.Columns))
			for j := range i {
				shape.Keep[j] = true
			}
		}
		if shape.Keep != nil {
			shape.Keep[i] = !out
		}
		if out {
			continue
		}
		if col.Key && rel.Identity != pgoutput.IdentityFull {
			identity = append(identity, col.Name)
		}
		t.Columns = append(t.Columns, schemas.Column{
			Name: col.Name, Type: types[i], Nullable: !a.notNull[col.Name], Generated: a.generated[col.Name],
			Number: a.number[col.Name],
		})
		if last := &t.Columns[len(t.Columns)-1]; last.Number <= 0 {
			last.Number = -1
			a.defaults[col.Name] = true // renamed or gone since: who knows
		}
	}
	shape.KeyLost = len(a.number) == 0 || slices.ContainsFunc(a.key, func(name string) bool { return t.Column(name) < 0 })
	for _, name := range identityOf(rel.Identity, identity, a.key, t) {
		t.Identity = append(t.Identity, t.Column(name))
	}
	for _, name := range identity {
		if i := t.Column(name); !slices.Contains(t.Identity, i) {
			t.Carried = append(t.Carried, i)
		}
	}
	return shape, nil
}

// identityOf picks what identifies a row. It has to be in every image that the stream carries, before
// images of deletes included, so the primary key serves only if it lies inside of the replica identity:
//
//   - default: the columns of the replica identity are the primary key; the catalogue gives their order.
//   - index: the primary key if the index contains it, else the index's columns.
//   - full: the primary key; without one nothing does (the table is one key).
//   - nothing: only inserts travel: the primary key, if there is one.
func identityOf(kind byte, stream, key []string, t *schemas.Table) []string {
	switch kind {
	case pgoutput.IdentityFull, pgoutput.IdentityNothing:
		for _, name := range key {
			if t.Column(name) < 0 {
				return nil // renamed since, or not published
			}
		}
		return key
	}
	for _, name := range key {
		if !slices.Contains(stream, name) {
			return stream
		}
	}
	if len(key) == 0 || kind == pgoutput.IdentityDefault && len(key) != len(stream) {
		return stream
	}
	return key
}

// reads reports whether rows of the table are wanted: by its own name, or as a partition by that of one
// above it (a publication without publish_via_partition_root sends partitions).
func (s *Source) reads(schema, name string, ancestors []string) bool {
	if s.tables.match(schema, name) {
		return true
	}
	for i := 0; i+1 < len(ancestors); i += 2 {
		if s.tables.match(ancestors[i], ancestors[i+1]) {
			return true
		}
	}
	return false
}

// about asks for a table, of which a row of transaction xid is to be read. A column that the catalogue shows as changed by
// that one or by a later one is numbered -1 (xid 0: none is): what the row has may be what was before. (A transaction that got its number
// before xid, and changed the column behind it, is taken for an earlier one.)
func (c *catalog) about(ctx context.Context, oid, xid uint32) (*about, error) {
	a := &about{notNull: map[string]bool{}, defaults: map[string]bool{}, generated: map[string]bool{}, number: map[string]int16{}}
	rows, err := c.conn.Query(ctx, `select attname::text, attnotnull, atthasdef or atthasmissing, attgenerated <> '',
		case when $2::text <> '0' and age(xmin) between 0 and age($2::text::xid) then -1 else attnum end from pg_attribute
		where attrelid = $1 and attnum > 0 and not attisdropped`, oid, strconv.FormatUint(uint64(xid), 10))
	if err != nil {
		return nil, err
	}
	var name string
	var notNull, def, generated bool
	var number int16
	if _, err := pgx.ForEachRow(rows, []any{&name, &notNull, &def, &generated, &number}, func() error {
		a.number[name] = number
		a.notNull[name], a.defaults[name], a.generated[name] = notNull, def, generated
		return nil
	}); err != nil {
		return nil, err
	}
	err = c.conn.QueryRow(ctx, `select
		array(select a.attname::text from pg_index i, unnest(i.indkey[0:i.indnkeyatts-1]) with ordinality k(num, place)
			join pg_attribute a on a.attnum = k.num where i.indrelid = $1 and a.attrelid = $1 and i.indisprimary order by k.place),
		array(select x from pg_partition_ancestors($1) p(id) join pg_class r on r.oid = p.id
			join pg_namespace n on n.oid = r.relnamespace, unnest(array[n.nspname::text, r.relname::text]) x where p.id <> $1)`, oid).Scan(&a.key, &a.ancestors)
	return a, err
}

// typeRow is a row of pg_type. Types are read anew for each Relation message: those are rare, and the
// labels of an enum may have changed.
type typeRow struct {
	name, schema string
	kind         byte
	array        bool
	elem, base   uint32
	delim        byte
	baseMod      int32
	labels       []string
}

const typesQuery = `
with recursive t(id) as (
  select unnest($1::oid[])
  union
  select x.id from t join pg_type y on y.oid = t.id, lateral (values (y.typelem), (y.typbasetype)) x(id) where x.id <> 0
)
select y.oid, y.typname::text, n.nspname::text, y.typtype::text, y.typoutput = 'pg_catalog.array_out'::regproc, y.typelem,
  y.typbasetype, y.typdelim::text, y.typtypmod, array(select enumlabel::text from pg_enum where enumtypid = y.oid order by enumsortorder)
from t join pg_type y on y.oid = t.id join pg_namespace n on n.oid = y.typnamespace`

// firstOwn is the number from which on objects are not the server's own: those below never change.
// https://www.postgresql.org/docs/current/system-catalog-initial-data.html
const firstOwn = 16384

// lasting is what the catalogue said of the server's own types, which is asked for once: with many tables pg_type
// is large, and each table is asked about when its first row comes.
type lasting struct {
	types map[uint32]*typeRow
	names map[[2]int64]string
}

// types maps the columns' types. A type that is gone since has only its number and is read as text.
func (c *catalog) types(ctx context.Context, columns []pgoutput.RelationColumn) ([]schemas.Type, error) {
	known := map[uint32]*typeRow{}
	var ids []uint32
	for _, col := range columns {
		if !c.lasting.has(known, col.OID) {
			ids = append(ids, col.OID)
		}
	}
	if err := c.describe(ctx, known, ids); err != nil {
		return nil, err
	}
	facts := make([]*pgtext.Facts, len(columns))
	var all []*pgtext.Facts
	for i, col := range columns {
		facts[i] = factsOf(known, col.OID, col.Mod, 0)
		for f := facts[i]; f != nil; f = next(f) {
			all = append(all, f)
		}
	}
	if err := c.name(ctx, all); err != nil {
		return nil, err
	}
	types := make([]schemas.Type, len(columns))
	for i, f := range facts {
		types[i] = pgtext.TypeOf(f)
	}
	return types, nil
}

// has adds a type to known with all that it is made of, when that is known for good.
func (l *lasting) has(known map[uint32]*typeRow, id uint32) bool {
	r := l.types[id]
	if r == nil {
		return false
	}
	known[id] = r
	return (r.elem == 0 || known[r.elem] != nil || l.has(known, r.elem)) && (r.base == 0 || known[r.base] != nil || l.has(known, r.base))
}

// describe adds types and what they are made of to known.
func (c *catalog) describe(ctx context.Context, known map[uint32]*typeRow, ids []uint32) error {
	if len(ids) == 0 {
		return nil
	}
	rows, err := c.conn.Query(ctx, typesQuery, ids)
	if err != nil {
		return err
	}
	if c.lasting.types == nil {
		c.lasting.types = map[uint32]*typeRow{}
	}
	var id uint32
	var r typeRow
	var kind, delim string
	_, err = pgx.ForEachRow(rows, []any{&id, &r.name, &r.schema, &kind, &r.array, &r.elem, &r.base, &delim, &r.baseMod, &r.labels}, func() error {
		row := r
		row.kind, row.delim = kind[0], delim[0]
		row.labels = slices.Clone(r.labels)
		known[id] = &row
		if id < firstOwn {
			c.lasting.types[id] = &row
		}
		return nil
	})
	return err
}

func next(f *pgtext.Facts) *pgtext.Facts {
	if f.Elem != nil {
		return f.Elem
	}
	return f.Base
}

// factsOf gathers what is known about a type; depth guards against a catalogue that names itself.
func factsOf(known map[uint32]*typeRow, id uint32, mod int32, depth int) *pgtext.Facts {
	f := &pgtext.Facts{OID: id, Mod: mod, TypType: 'p'}
	r := known[id]
	if r == nil || depth > 32 {
		return f
	}
	f.TypName, f.Schema, f.TypType, f.Delim, f.Labels = r.name, r.schema, r.kind, r.delim, r.labels
	switch {
	case r.kind == 'd':
		f.Base = factsOf(known, r.base, r.baseMod, depth+1)
	case r.array:
		f.Array, f.Elem = true, factsOf(known, r.elem, mod, depth+1) // the modifier is the elements'
	}
	return f
}

// name fills in what format_type says.
func (c *catalog) name(ctx context.Context, all []*pgtext.Facts) error {
	if c.lasting.names == nil {
		c.lasting.names = map[[2]int64]string{}
	}
	var ask []*pgtext.Facts
	var ids []uint32
	var mods []int32
	for _, f := range all {
		if f.Name = c.lasting.names[[2]int64{int64(f.OID), int64(f.Mod)}]; f.Name == "" {
			ask, ids, mods = append(ask, f), append(ids, f.OID), append(mods, f.Mod)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	rows, err := c.conn.Query(ctx, `select coalesce(format_type(x.id, x.mod), '???') from unnest($1::oid[], $2::int4[]) with ordinality x(id, mod, place) order by x.place`, ids, mods)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for i, f := range ask {
		f.Name = names[i]
		if strings.HasPrefix(f.Name, "???") {
			f.Name = fmt.Sprintf("oid %d", f.OID)
		}
		if f.OID < firstOwn {
			c.lasting.names[[2]int64{int64(f.OID), int64(f.Mod)}] = f.Name
		}
	}
	return nil
}
