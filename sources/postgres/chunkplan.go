package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/postgres/pgoutput"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// plan is how one table is read, as long as its fingerprint holds.
type plan struct {
	print   string
	shape   *schemas.Table
	columns string // of the select
	keyOnly string // the same with NULL for what is not of the key
	from    string
	lock    string // the statement that locks it; empty: the role may not, it has some of its columns only
	oid     uint32
	filter  string
	key     []keyColumn // in the order of paging
}

// keyColumn is one column of the key, with the operators of its index.
type keyColumn struct {
	name                          string
	typ                           uint32
	schema                        string // of the operators: =, >, >=, <=, <
	equal, more, from, upTo, less string
	place                         int // in Identity
}

// fingerprint is of everything that a plan is made of; $1 is the table's name, $2 the publication's.
const fingerprint = `select c.oid::text || ' ' || c.relkind::text || c.relreplident::text || (select count(*) from pg_enum)
  || ' ' || (select string_agg(concat_ws(',', attnum, attname, atttypid, atttypmod, attnotnull, attgenerated, atthasdef), ' ' order by attnum) from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped)
  || ' ' || coalesce((select string_agg(concat_ws(',', indexrelid, indisprimary, indisreplident), ' ' order by indexrelid) from pg_index where indrelid = c.oid), '')
  || ' ' || coalesce((select concat_ws(',', attnames, rowfilter) from pg_publication_tables where pubname = $3 and schemaname = $1 and tablename = $2), '-')
from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2`

// rewritten tells, of a table that could not be locked before the transaction's snapshot was taken and is locked now by
// having been read, whether it got another file in between: to that snapshot a rewritten table is empty. pg_class
// answers as the snapshot saw it, pg_relation_filenode as it is.
const rewritten = `select exists (select from (select $1::oid as id union select relid from pg_partition_tree($1::oid) where isleaf) p
  join pg_class c on c.oid = p.id where c.relkind in ('r', 'm') and c.relfilenode is distinct from pg_relation_filenode(c.oid))::text`

const keyQuery = `
select a.attname::text, a.atttypid, n.nspname::text,
  max(o.oprname) filter (where m.amopstrategy = 3), max(o.oprname) filter (where m.amopstrategy = 5),
  max(o.oprname) filter (where m.amopstrategy = 4), max(o.oprname) filter (where m.amopstrategy = 2),
  max(o.oprname) filter (where m.amopstrategy = 1)
from pg_index i, unnest(i.indkey[0:i.indnkeyatts-1], i.indclass[0:i.indnkeyatts-1]) with ordinality k(num, class, place)
join pg_attribute a on a.attnum = k.num join pg_opclass oc on oc.oid = k.class
join pg_amop m on m.amopfamily = oc.opcfamily and m.amoplefttype = oc.opcintype and m.amoprighttype = oc.opcintype and m.amoppurpose = 's'
join pg_operator o on o.oid = m.amopopr join pg_namespace n on n.oid = o.oprnamespace
where i.indrelid = $1 and a.attrelid = $1 and (case when $2 then i.indisprimary else i.indisreplident end)
group by a.attname, a.atttypid, n.nspname, k.place order by k.place`

// plan finds out how the table of q is read.
func (r *rowReader) plan(ctx context.Context, q *snapshot.Query, print string) (*plan, error) {
	name := quoteTable(q.Table.Schema, q.Table.Name)
	all, err := r.c.tables(ctx, r.s.cfg.Publication)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(t *table) bool { return t.schema == q.Table.Schema && t.name == q.Table.Name })
	if i < 0 || !all[i].published {
		return nil, &snapshot.TableError{Code: "dropped", What: fmt.Sprintf("table %s is not in publication %s any more", name, r.s.cfg.Publication)}
	}
	t := all[i]
	rel, err := r.relation(ctx, t)
	if err != nil {
		return nil, err
	}
	shape, err := r.s.resolve(ctx, r.c, rel)
	var refused *pgoutput.Refused
	switch {
	case errors.As(err, &refused):
		return nil, &snapshot.TableError{Code: "shape", What: refused.Reason, Cure: refused.Cure}
	case err != nil:
		return nil, err
	case shape.Table == nil:
		return nil, &snapshot.TableError{Code: "dropped", What: "the source does not read table " + name}
	}
	p := &plan{print: print, oid: t.oid, filter: t.filter, from: name, shape: r.d.shape(shape.Table.Seal())}
	if t.kind == "r" {
		p.from = "only " + name
	}
	if may, err := r.mayLock(ctx, t); err != nil {
		return nil, err
	} else if may {
		p.lock = "lock table " + p.from + " in access share mode"
	}
	if key := t.pageKey(); !slices.Equal(key, q.Table.Key) {
		return nil, &snapshot.TableError{Code: "key", What: "the key of table " + name + " is another than when its snapshot began", Cure: "begin its snapshot anew: leat backfill"}
	} else if len(key) > 0 {
		if err := r.key(ctx, p, t, slices.Equal(key, t.key)); err != nil {
			return nil, err
		}
	}
	for i, col := range p.shape.Columns {
		if i > 0 {
			p.columns += ", "
			p.keyOnly += ", "
		}
		p.columns += quote(col.Name)
		if slices.Contains(p.shape.Identity, i) {
			p.keyOnly += quote(col.Name)
		} else {
			p.keyOnly += "null"
		}
	}
	return p, nil
}

// relation is what the stream would say of the table.
func (r *rowReader) relation(ctx context.Context, t *table) (rel *pgoutput.Relation, err error) {
	what := "look up table " + quoteTable(t.schema, t.name)
	ctx, end := r.c.begin(ctx, what)
	defer end(&err)
	rows, err := r.c.conn.Query(ctx, `select attname::text, atttypid, atttypmod, (pg_snapshot_xmax(pg_current_snapshot())::text::numeric % 4294967296)::bigint from pg_attribute
		where attrelid = $1 and attnum > 0 and not attisdropped and attname = any($2::text[]) order by attnum`, t.oid, t.listed)
	if err != nil {
		return nil, r.s.failure(what, err)
	}
	rel = &pgoutput.Relation{OID: t.oid, Schema: t.schema, Name: t.name, Identity: t.identity[0]}
	var col pgoutput.RelationColumn
	var next int64 // no column was changed by a transaction that is yet to come
	_, err = pgx.ForEachRow(rows, []any{&col.Name, &col.OID, &col.Mod, &next}, func() error {
		rel.XID = uint32(next)
		col.Key = t.identity == "f" || slices.Contains(t.identityColumns, col.Name)
		rel.Columns = append(rel.Columns, col)
		return nil
	})
	return rel, r.s.failure(what, err)
}

// mayLock reports whether the role may lock the table against ALTER TABLE: a right to some columns is too little.
func (r *rowReader) mayLock(ctx context.Context, t *table) (may bool, err error) {
	what := "look up the rights to table " + quoteTable(t.schema, t.name)
	ctx, end := r.c.begin(ctx, what)
	defer end(&err)
	err = r.c.conn.QueryRow(ctx, "select coalesce(has_table_privilege($1::oid, 'select'), false)", t.oid).Scan(&may)
	return may, r.s.failure(what, err)
}

func (r *rowReader) key(ctx context.Context, p *plan, t *table, primary bool) (err error) {
	what := "look up the key of table " + p.from
	ctx, end := r.c.begin(ctx, what)
	defer end(&err)
	rows, err := r.c.conn.Query(ctx, keyQuery, t.oid, primary)
	if err != nil {
		return r.s.failure(what, err)
	}
	var k keyColumn
	if _, err = pgx.ForEachRow(rows, []any{&k.name, &k.typ, &k.schema, &k.equal, &k.more, &k.from, &k.upTo, &k.less}, func() error {
		p.key = append(p.key, k)
		return nil
	}); err != nil {
		return r.s.failure(what, err)
	}
	for i := range p.key {
		p.key[i].place = slices.IndexFunc(p.shape.Identity, func(c int) bool { return p.shape.Columns[c].Name == p.key[i].name })
		if p.key[i].place < 0 {
			return &snapshot.TableError{Code: "key", What: "key column " + p.key[i].name + " of table " + p.from + " does not travel in the stream"}
		}
	}
	if len(p.key) != len(p.shape.Identity) {
		return &snapshot.TableError{Code: "key", What: "the key of table " + p.from + " cannot be put in order"}
	}
	return nil
}

// shape returns the one pointer for a shape.
func (d *Snapshots) shape(t *schemas.Table) *schemas.Table {
	if was, ok := d.shapes.Load(t.Subject()); ok && was.(*schemas.Table).ShapeHash() == t.ShapeHash() {
		return was.(*schemas.Table)
	}
	d.shapes.Store(t.Subject(), t)
	return t
}

// query is the statement that reads q.
func (p *plan) query(q *snapshot.Query) (sql string, args [][]byte, types []uint32, err error) {
	param := func(v []byte, k *keyColumn) string {
		args, types = append(args, v), append(types, k.typ)
		return "$" + strconv.Itoa(len(args))
	}
	var where []string
	if p.filter != "" {
		where = append(where, p.filter)
	}
	if q.Where != "" {
		where = append(where, q.Where+"\n") // a comment at its end does not hide the bracket
	}
	bounds := []struct {
		key  []byte
		last bool
	}{{q.After, false}, {q.Until, true}}
	for _, bound := range bounds {
		if bound.key == nil {
			continue
		}
		values, err := cells(bound.key, len(p.key))
		if err != nil {
			return "", nil, nil, err
		}
		where = append(where, p.bound(values, bound.last, param))
	}
	if q.Keys != nil {
		var any []string
		for _, key := range q.Keys {
			values, err := cells(key, len(p.key))
			if err != nil {
				return "", nil, nil, err
			}
			var all []string
			for i := range p.key {
				k := &p.key[i]
				all = append(all, k.operator(k.equal, param(values[k.place], k)))
			}
			any = append(any, "("+strings.Join(all, " and ")+")")
		}
		where = append(where, strings.Join(any, " or "))
	}
	columns := p.columns
	if q.Scout {
		columns = p.keyOnly
	}
	sql = "select " + columns + " from " + p.from
	if len(where) > 0 {
		sql += " where (" + strings.Join(where, ") and (") + ")"
	}
	for i, k := range p.key {
		sql += map[bool]string{true: " order by ", false: ", "}[i == 0] + quote(k.name)
		if !k.own() { // the column's own order may be another than its index's (text_pattern_ops)
			sql += fmt.Sprintf(" using operator(%s.%s)", quote(k.schema), k.less)
		}
	}
	if q.Scout {
		return sql + " offset " + strconv.Itoa(q.Limit-1) + " limit 1", args, types, nil
	}
	return sql + " limit " + strconv.Itoa(q.Limit), args, types, nil
}

// own reports whether the index is in the order that the server's own operators give.
func (k *keyColumn) own() bool { return k.schema == "pg_catalog" && k.more == ">" && k.upTo == "<=" }

func (k *keyColumn) operator(op, param string) string {
	return fmt.Sprintf("%s operator(%s.%s) %s", quote(k.name), quote(k.schema), op, param)
}

// bound is key > values, with last key <= values. As a row comparison where the operators are the server's own, so
// that the index is used for all columns; a type of an extension has its own, which a row comparison would not find
// for some columns only.
func (p *plan) bound(values [][]byte, last bool, param func([]byte, *keyColumn) string) string {
	params, own := make([]string, len(p.key)), true
	var names []string
	for i := range p.key {
		k := &p.key[i]
		params[i] = param(values[k.place], k)
		names = append(names, quote(k.name))
		own = own && k.own()
	}
	if own {
		return "(" + strings.Join(names, ", ") + ") " + map[bool]string{false: ">", true: "<="}[last] + " (" + strings.Join(params, ", ") + ")"
	}
	text := "false" // a > x or a = x and (b > y or …), from the end
	for i := len(p.key) - 1; i >= 0; i-- {
		k := &p.key[i]
		text = fmt.Sprintf("(%s or %s and %s)", k.operator(k.more, params[i]), k.operator(k.equal, params[i]), text)
	}
	first := &p.key[0] // by which the index can be used
	if last {
		return first.operator(first.upTo, params[0]) + " and not " + text
	}
	return first.operator(first.from, params[0]) + " and " + text
}
