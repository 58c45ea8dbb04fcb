package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ourComment marks a publication that Leat made: only such a one is dropped, and has its column lists kept
// in step. Those of others only gain tables.
const ourComment = "made by Leat"

// lockTimeout is an SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
const lockTimeout = "55P03"

// publication is a row of pg_publication.
type publication struct {
	allTables, viaRoot bool
	operations         [4]bool // insert, update, delete, truncate
	ours               bool
	schemas            []string // FOR TABLES IN SCHEMA
}

// publication returns the named publication, nil when there is none.
func (c *catalog) publication(ctx context.Context, name string) (p *publication, err error) {
	ctx, end := c.begin(ctx, "look up publication "+name)
	defer end(&err)
	p = &publication{}
	err = c.conn.QueryRow(ctx, `select puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate,
		coalesce(obj_description(oid, 'pg_publication') like $2 || '%', false),
		array(select nspname::text from pg_publication_namespace r join pg_namespace n on n.oid = r.pnnspid where r.pnpubid = p.oid)
		from pg_publication p where pubname = $1`, name, ourComment).Scan(&p.allTables, &p.viaRoot,
		&p.operations[0], &p.operations[1], &p.operations[2], &p.operations[3], &p.ours, &p.schemas)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, c.s.failure("look up publication "+name, err)
	}
	return p, nil
}

// readable says why a table cannot be published at all, "" when it can.
func (t *table) readable() string {
	switch {
	case t.kind == "f":
		return "it is a foreign table: its rows are not in this server's WAL"
	case t.persistence == "u":
		return "it is unlogged: its rows are not in the WAL"
	case t.persistence == "t":
		return "it is temporary"
	}
	return ""
}

// wanted picks the tables that the globs name. A partition travels as the root above it, when that is
// wanted itself.
func (s *Source) wanted(tables []*table) []*table {
	var list []*table
	for _, t := range tables {
		if !s.tables.match(t.schema, t.name) {
			continue
		}
		inRoot := false
		for i := 0; i+1 < len(t.ancestors); i += 2 {
			inRoot = inRoot || s.tables.match(t.ancestors[i], t.ancestors[i+1])
		}
		if !inRoot {
			list = append(list, t)
		}
	}
	return list
}

// columnList returns the columns to publish, nil for all: when columns: leaves some out and the replica
// identity does without them. Otherwise they are cut off when they arrive.
func (s *Source) columnList(t *table) []string {
	var in []string
	for _, name := range t.columns {
		if slices.Contains(t.generated, name) {
			continue
		}
		if !s.excluded(t.schema, t.name, name) {
			in = append(in, name)
		} else if slices.Contains(t.identityColumns, name) {
			return nil
		}
	}
	// Under FULL, updates and deletes of a table with a column list fail in the database.
	if len(in)+len(t.generated) == len(t.columns) || len(in) == 0 || t.identity == "f" {
		return nil
	}
	return in
}

// item is how a table stands in a publication's statement.
func (s *Source) item(t *table) string {
	item := quoteTable(t.schema, t.name)
	if t.kind == "r" {
		item = "only " + item // children by inheritance are tables of their own
	}
	if list := s.columnList(t); list != nil {
		quoted := make([]string, len(list))
		for i, c := range list {
			quoted[i] = quote(c)
		}
		item += " (" + strings.Join(quoted, ", ") + ")"
	}
	return item
}

// ensured is what ensurePublication found or did.
type ensured struct {
	joined []joined          // tables that were added
	left   map[*table]string // tables that are not published, and why
	all    []*table          // as they stood when it looked
	// viaRoot: rows of partitions travel under the name of the table above.
	viaRoot bool
	again   bool // one of them, or all is nil, only because somebody holds a lock
}

// ensurePublication makes the publication, or adds to it what it lacks. may says that it may be made: with
// WAL to be read that is older than it, making it would not help.
func (s *Source) ensurePublication(ctx context.Context, c *catalog, may bool) (*ensured, error) {
	all, err := c.tables(ctx, s.cfg.Publication)
	if pg := (*pgconn.PgError)(nil); !may && errors.As(err, &pg) && pg.Code == lockTimeout {
		return &ensured{again: true}, nil // a stream that goes on does not wait for it
	}
	if err != nil {
		return nil, err
	}
	pub, err := c.publication(ctx, s.cfg.Publication)
	if err != nil {
		return nil, err
	}
	var tables []*table
	for _, t := range s.wanted(all) {
		if t.readable() == "" {
			tables = append(tables, t)
		}
	}
	if pub == nil {
		e, err := s.createPublication(ctx, c, tables, may)
		if err == nil {
			e.all, e.viaRoot = all, true
		}
		return e, err
	}
	e := &ensured{left: map[*table]string{}, all: all, viaRoot: pub.viaRoot}
	for _, t := range tables {
		if t.published && !(pub.ours && s.listChanged(t)) {
			continue
		}
		if !s.cfg.Create {
			e.left[t] = "the publication lacks it, and create is false"
			continue
		}
		xid, err := c.addTable(ctx, t)
		if err != nil {
			var pg *pgconn.PgError
			if !errors.As(err, &pg) {
				return nil, s.failure("add a table to publication "+s.cfg.Publication, err)
			}
			e.left[t] = s.mask.text(pg.Message)
			e.again = e.again || pg.Code == lockTimeout
			continue
		}
		e.joined = append(e.joined, joined{t, xid})
	}
	return e, nil
}

// listChanged reports whether the published columns are not the ones to publish.
func (s *Source) listChanged(t *table) bool {
	want := s.columnList(t)
	if want == nil {
		return false // a wider list is no harm: what is excluded is cut off
	}
	have := slices.Clone(t.listed)
	slices.Sort(have)
	slices.Sort(want)
	return !slices.Equal(have, want)
}

// addTable adds a table, or gives it its new column list: both within one transaction, so that no change
// falls between.
func (c *catalog) addTable(ctx context.Context, t *table) (xid string, err error) {
	ctx, end := c.begin(ctx, "add a table to publication "+c.s.cfg.Publication)
	defer end(&err)
	pub := quote(c.s.cfg.Publication)
	statements := []string{"alter publication " + pub + " add table " + c.s.item(t)}
	if t.published {
		statements = append([]string{"alter publication " + pub + " drop table only " + quoteTable(t.schema, t.name)}, statements...)
	}
	return xid, c.patiently(ctx, "lock_timeout", func(tx pgx.Tx) error {
		for _, q := range statements {
			if _, err := tx.Exec(ctx, q); err != nil {
				return err
			}
		}
		return tx.QueryRow(ctx, "select pg_current_xact_id()::text").Scan(&xid)
	})
}

// super reports whether the role is a superuser's.
func (c *catalog) super(ctx context.Context) (is bool, err error) {
	ctx, end := c.begin(ctx, "look up the role")
	defer end(&err)
	if err := c.conn.QueryRow(ctx, "select rolsuper from pg_roles where rolname = current_user").Scan(&is); err != nil {
		return false, c.s.failure("look up the role", err)
	}
	return is, nil
}

// create is the statement that makes the publication: explicit tables, which needs no more than to own them.
// Only a superuser may say FOR ALL TABLES and FOR TABLES IN SCHEMA; it does where the globs say exactly
// that and no column is left out, as a table that is created later is then in from its first row.
func (s *Source) create(tables []*table, super bool) string {
	head := "create publication " + quote(s.cfg.Publication)
	const tail = " with (publish_via_partition_root = true)"
	if super && len(s.cfg.Columns) == 0 {
		if s.tables.all() {
			return head + " for all tables" + tail
		}
		if names, ok := s.tables.wholeSchemas(); ok {
			quoted := make([]string, len(names))
			for i, n := range names {
				quoted[i] = quote(n)
			}
			return head + " for tables in schema " + strings.Join(quoted, ", ") + tail
		}
	}
	if len(tables) == 0 {
		return head + tail
	}
	items := make([]string, len(tables))
	for i, t := range tables {
		items[i] = s.item(t)
	}
	return head + " for table " + strings.Join(items, ", ") + tail
}

func (c *catalog) dropPublication(ctx context.Context, name string) (err error) {
	what := "drop publication " + name
	ctx, end := c.begin(ctx, what)
	defer end(&err)
	_, err = c.conn.Exec(ctx, "drop publication "+quote(name))
	return c.s.failure(what, err)
}

func (s *Source) createPublication(ctx context.Context, c *catalog, tables []*table, may bool) (e *ensured, err error) {
	name := s.cfg.Publication
	super, err := c.super(ctx)
	if err != nil {
		return nil, err
	}
	statement := s.create(tables, super)
	if !s.cfg.Create {
		return nil, s.stopped(CodePublicationMissing, fmt.Sprintf("publication %s does not exist and create is false", name), "as the owner of the tables: %s; or set create: true", statement)
	}
	if !may {
		return nil, s.stopped(CodePublicationMissing, fmt.Sprintf("publication %s is gone; the server cannot send what was written without it", name), anew, s.cfg.Name)
	}
	ctx, end := c.begin(ctx, "create publication "+name)
	defer end(&err)
	err = c.patiently(ctx, "lock_timeout", func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, statement)
		if err == nil {
			_, err = tx.Exec(ctx, "comment on publication "+quote(name)+" is '"+ourComment+"'")
		}
		return err
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" {
		return nil, s.stopped(CodePublicationRights, fmt.Sprintf("the role may not create publication %s (%s)", name, s.mask.text(pg.Message)), "as the owner of the tables, with CREATE on the database: %s", statement)
	}
	if err != nil {
		return nil, s.failure("create publication "+name, err)
	}
	return &ensured{}, nil
}

// info is t for others.
func (t *table) info() TableInfo {
	names := map[string]string{"d": "default", "i": "index", "f": "full", "n": "nothing"}
	i := TableInfo{
		Schema: t.schema, Name: t.name, Key: t.key, ReplicaIdentity: names[t.identity], IdentityColumns: t.identityColumns,
		Partitioned: t.kind == "p", Published: t.published, Problem: t.readable(),
	}
	if i.Problem != "" {
		i.Cure = fmt.Sprintf("leave it out: \"!%s.%s\"", t.schema, t.name)
	} else if t.identity == "n" || t.identity == "d" && len(t.key) == 0 {
		i.Problem = "it has no replica identity: while it is published, the database refuses updates and deletes of it"
		i.Cure = fmt.Sprintf("alter table %s add primary key (…); or alter table %s replica identity full", quoteTable(t.schema, t.name), quoteTable(t.schema, t.name))
	}
	return i
}
