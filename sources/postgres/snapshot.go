package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/sources/postgres/pgoutput"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// Snapshots reads the rows that the source's tables have: what the publication sends of them, in the form in which it
// is sent. It implements snapshot.Database, whose methods say the rest.
type Snapshots struct {
	s       *Source
	replica *Source // where rows are read, nil = where the stream is

	turn  chan struct{} // is full while somebody has the connection over which watermarks are written
	marks *pgx.Conn
	wal   atomic.Uint64 // the WAL's end when the last watermark was written

	shapes sync.Map // newest *schemas.Table by subject, so that a shape keeps its pointer
	forms  sync.Map // *cell.Form by *schemas.Table
}

var (
	_ snapshot.Database = (*Snapshots)(nil)
	_ snapshot.Settler  = (*Snapshots)(nil)
	_ snapshot.Hurrier  = (*Snapshots)(nil)
	_ snapshot.Cutter   = (*Stream)(nil)
)

// Snapshots returns the reader of the source's existing rows. With a replica's URL rows are read there, each time
// that it has replayed what it takes; tables without a key are read at the source itself all the same.
func (s *Source) Snapshots(replica string) (*Snapshots, error) {
	d := &Snapshots{s: s, turn: make(chan struct{}, 1)}
	if replica != "" {
		c := s.cfg
		c.URL = replica
		var err error
		if d.replica, err = New(c); err != nil {
			return nil, fmt.Errorf("snapshot: the replica's: %w", err)
		}
	}
	return d, nil
}

// Plain returns a reader of the rows of any table in the database of a URL, whether or not something is published
// there: for comparing.
func Plain(name, url string) (*Snapshots, error) {
	s, err := New(Config{Name: name, URL: url, Tables: []string{"*.*"}})
	if err != nil {
		return nil, err
	}
	s.cfg.Publication = ""
	return &Snapshots{s: s, turn: make(chan struct{}, 1)}, nil
}

// Tables lists what the publication sends of the tables that the globs name.
func (d *Snapshots) Tables(ctx context.Context, patterns []string) ([]snapshot.Table, error) {
	wanted, err := parseGlobs(patterns)
	if err != nil {
		return nil, &snapshot.TableError{Code: "glob", What: err.Error()}
	}
	c, err := d.s.catalog(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	all, err := c.tables(ctx, d.s.cfg.Publication)
	if err != nil {
		return nil, err
	}
	var list []snapshot.Table
	var ids []uint32
	for _, t := range all {
		if !t.published || t.kind == "f" || !wanted.match(t.schema, t.name) || !d.s.reads(t.schema, t.name, t.ancestors) {
			continue
		}
		st := snapshot.Table{Schema: t.schema, Name: t.name, Key: t.pageKey()}
		if st.Key == nil {
			st.Why = "it has neither a primary key nor a replica identity index: its rows cannot be told apart"
		}
		list, ids = append(list, st), append(ids, t.oid)
	}
	return list, c.estimates(ctx, ids, list)
}

// pageKey names the columns in whose order the table is read: those of an index that tell its rows apart, as the
// stream does (see identityOf).
func (t *table) pageKey() []string {
	switch {
	case len(t.key) > 0 && (t.identity != "i" || !slices.ContainsFunc(t.key, func(c string) bool { return !slices.Contains(t.identityColumns, c) })):
		if t.identity == "d" || !slices.ContainsFunc(t.key, func(c string) bool { return !slices.Contains(t.listed, c) }) {
			return t.key
		}
		return nil
	case t.identity == "i" && len(t.identityColumns) > 0:
		return t.identityColumns
	}
	return nil
}

// estimateQuery asks what ANALYZE and VACUUM noted last: rows, and bytes of one, also of what is kept outside.
const estimateQuery = `
select greatest(c.reltuples::float8, s.rows, 0)::bigint, coalesce(s.pages * current_setting('block_size')::float8 / nullif(s.rows, 0), 0)::bigint
from unnest($1::oid[]) with ordinality x(id, place) left join pg_class c on c.oid = x.id
left join lateral (
  select sum(greatest(l.reltuples, 0)::float8) as rows, sum(l.relpages::float8 + coalesce(t.relpages, 0)) as pages
  from (select c.oid as id union select relid from pg_partition_tree(c.oid) where isleaf) p join pg_class l on l.oid = p.id left join pg_class t on t.oid = l.reltoastrelid
) s on true order by x.place`

// estimates fills in how many rows the tables have, and how wide they are, as the planner believes.
func (c *catalog) estimates(ctx context.Context, ids []uint32, list []snapshot.Table) (err error) {
	ctx, end := c.begin(ctx, "estimate the tables' rows")
	defer end(&err)
	rows, err := c.conn.Query(ctx, estimateQuery, ids)
	if err != nil {
		return c.s.failure("estimate the tables' rows", err)
	}
	n := 0
	var count, width int64
	_, err = pgx.ForEachRow(rows, []any{&count, &width}, func() error {
		if n < len(list) {
			list[n].Estimate, list[n].Width = uint64(count), uint64(width)
		}
		n++
		return nil
	})
	return c.s.failure("estimate the tables' rows", err)
}

// Mark writes a transaction that holds nothing but a logical message. It waits for the local disk only: a standby
// that is away stops nobody (what it keeps invisible is told by Chunk.Unseen).
func (d *Snapshots) Mark(ctx context.Context, id string) error {
	return d.primary(ctx, "write a watermark", func(ctx context.Context, conn *pgx.Conn) error {
		err := emit(ctx, conn, id, "local")
		if err != nil || d.replica == nil {
			return err
		}
		var end string
		if err := conn.QueryRow(ctx, "select pg_current_wal_insert_lsn()::text").Scan(&end); err != nil {
			return err
		}
		d.wal.Store(uint64(lsnOf(end)))
		return nil
	})
}

// MarkSoon writes one that waits for no disk: what reads a chunk in between need not. The next one's commit brings it along.
func (d *Snapshots) MarkSoon(ctx context.Context, id string) error {
	if d.replica != nil { // it replays what is durable here
		return d.Mark(ctx, id)
	}
	return d.primary(ctx, "write a watermark", func(ctx context.Context, conn *pgx.Conn) error { return emit(ctx, conn, id, "off") })
}

// emit writes a watermark whose commit waits as the setting synchronous_commit says.
func emit(ctx context.Context, conn *pgx.Conn, id, commit string) error {
	_, err := conn.Exec(ctx, "select set_config('synchronous_commit', $1, true), pg_logical_emit_message(true, $2, $3)", commit, pgoutput.WatermarkPrefix, id)
	return err
}

// settling is how long the sessions that a standby's answer woke may take to make their transactions visible.
const settling = time.Second

// Settle writes a transaction that waits for synchronous standbys as the most careful one does; answers come in the
// log's order. It has a connection of its own: watermarks go on meanwhile.
func (d *Snapshots) Settle(ctx context.Context) error {
	c, err := d.s.catalog(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var standbys string
	err = c.conn.QueryRow(ctx, "select current_setting('synchronous_standby_names')").Scan(&standbys)
	if err != nil || standbys == "" {
		return d.s.failure("look for synchronous standbys", err)
	}
	limited, cancel := context.WithTimeout(ctx, d.s.cfg.LookupTimeout)
	defer cancel()
	if err := emit(limited, c.conn, "", "remote_apply"); err != nil {
		if limited.Err() != nil && ctx.Err() == nil {
			return &pipeline.SourceError{Code: CodeNoAnswer, What: fmt.Sprintf("source %s: wait for its synchronous standbys", d.s.cfg.Name),
				Err:  fmt.Errorf("they did not answer within %s", d.s.cfg.LookupTimeout),
				Cure: "bring them back, or take them out of synchronous_standby_names (" + standbys + "); it is tried again by itself"}
		}
		return d.s.failure("wait for synchronous standbys", err)
	}
	t := time.NewTimer(settling)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// primary runs f over the connection for watermarks.
func (d *Snapshots) primary(ctx context.Context, what string, f func(context.Context, *pgx.Conn) error) error {
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if d.marks == nil || d.marks.IsClosed() {
		c, err := d.s.catalog(ctx)
		if err != nil {
			return err
		}
		d.marks = c.conn
	}
	return d.s.failure(what, f(ctx, d.marks))
}

// Close ends the connection for watermarks; the next one makes a new one.
func (d *Snapshots) Close() error {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	if d.marks != nil {
		closeConn(d.marks.PgConn())
		d.marks = nil
	}
	return nil
}

// replayed is the place that a replica has to have come to.
func (d *Snapshots) replayed() pglogrepl.LSN { return pglogrepl.LSN(d.wal.Load()) }

// Key returns the identity's cells, each behind its length.
func (d *Snapshots) Key(t *schemas.Table, image []byte) ([]byte, error) {
	f, ok := d.forms.Load(t)
	if !ok {
		f, _ = d.forms.LoadOrStore(t, pgtext.Form(t))
	}
	refs, err := f.(*cell.Form).Walk(image, nil, len(t.Columns))
	if err != nil {
		return nil, fmt.Errorf("row of %s: %w", t.Subject(), err)
	}
	var key []byte
	for _, c := range t.Identity {
		if refs[c].Null() || refs[c].Absent() {
			return nil, fmt.Errorf("row of %s: its key column %s has no value", t.Subject(), t.Columns[c].Name)
		}
		key = append(binary.BigEndian.AppendUint32(key, refs[c].Len), refs[c].Of(image)...)
	}
	return key, nil
}

// Condition chooses the row of a key by its values as text, which take their columns' types.
func (d *Snapshots) Condition(t *schemas.Table, key []byte) (string, error) {
	values, err := cells(key, len(t.Identity))
	if err != nil {
		return "", err
	}
	all := make([]string, len(values))
	for n, i := range t.Identity {
		all[n] = quote(t.Columns[i].Name) + " = " + literal(string(values[n]))
	}
	return "(" + strings.Join(all, " AND ") + ")", nil
}

// literal writes a string whatever standard_conforming_strings is, without a backslash before a quote, which
// conditions may not have.
func literal(s string) string {
	if strings.ContainsRune(s, '\\') {
		return " E'" + strings.NewReplacer(`\`, `\x5c`, `'`, `\x27`).Replace(s) + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// cells takes a key apart; they alias it.
func cells(key []byte, want int) ([][]byte, error) {
	list := make([][]byte, 0, want)
	for len(key) >= 4 {
		n := binary.BigEndian.Uint32(key)
		if uint64(n) > uint64(len(key)-4) {
			break
		}
		list, key = append(list, key[4:4+n]), key[4+n:]
	}
	if len(key) > 0 || len(list) != want {
		return nil, errors.New("a key of the snapshot's progress is not one of this table")
	}
	return list, nil
}

// tableError says what an error means for the table that is read; nil when it is none of the table's.
func (d *Snapshots) tableError(q *snapshot.Query, err error) *snapshot.TableError {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return nil
	}
	name := quoteTable(q.Table.Schema, q.Table.Name)
	e := &snapshot.TableError{Err: errors.New(d.s.mask.text(pg.Message))}
	switch {
	case pg.Code == "42P01", pg.Code == "3F000":
		e.Code, e.What = "dropped", "table "+name+" is not there any more"
		e.Err = nil
	case pg.Code == "42501" && strings.Contains(pg.Message, "row-level security"):
		e.Code, e.What, e.Cure = "no_right", "row-level security hides rows of table "+name, "give the role of the source BYPASSRLS, or make it the table's owner"
	case pg.Code == "42501":
		e.Code, e.What, e.Cure = "no_right", "the role of the source may not read table "+name, "grant select on "+name+" to it"
	case q.Where != "" && (strings.HasPrefix(pg.Code, "42") || strings.HasPrefix(pg.Code, "22")):
		e.Code, e.What, e.Cure = "where", "the condition cannot be used on table "+name, "mend it: it is put behind WHERE, and columns are named as in the database"
	case pg.Code == "42883", pg.Code == "42704":
		e.Code, e.What = "key", "the key of table "+name+" cannot be put in order"
	default:
		return nil
	}
	return e
}

// Session connects to where rows are read.
func (d *Snapshots) Session(ctx context.Context) (snapshot.Session, error) {
	r := &rowReader{d: d, s: d.s, plans: map[string]*plan{}}
	if d.replica != nil {
		r.s = d.replica
	}
	var err error
	if r.c, err = r.connect(ctx, r.s); err != nil {
		return nil, err
	}
	return r, nil
}

// readSettings: rows that a policy would hide make the read fail; what would take the server more than one core, or
// sort what an index has in order, is not worth its cost; a consistent read may take as long as the log needs. Who holds a table's
// strongest lock may do so for an hour: the stream may be waiting for the first rows of a read.
const readSettings = "set row_security = off; set max_parallel_workers_per_gather = 0; set enable_sort = off; set jit = off; " +
	"set idle_in_transaction_session_timeout = 0; set statement_timeout = 0; set lock_timeout = '1s'"
