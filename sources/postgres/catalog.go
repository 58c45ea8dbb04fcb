package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// catalog is an ordinary connection, over which the catalogue is read. Its methods may be called by several
// goroutines, one at a time.
type catalog struct {
	s    *Source
	mu   sync.Mutex
	conn *pgx.Conn
	// lasting is guarded by mu.
	lasting lasting
}

// catalog connects; the session's settings are checked as those of the stream are.
func (s *Source) catalog(ctx context.Context) (*catalog, error) { return s.catalogBy(ctx, s.plain) }

func (s *Source) catalogBy(ctx context.Context, config *pgx.ConnConfig) (*catalog, error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, s.failure("connect", err)
	}
	c := &catalog{s: s, conn: conn}
	have, err := c.settings(ctx)
	if err == nil {
		err = s.checkSettings(have)
	}
	if err != nil {
		c.close()
		return nil, s.failure("read the session's settings", err)
	}
	return c, nil
}

func (c *catalog) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx) // of no more use, whatever it says
}

// slotState is a row of pg_replication_slots.
// https://www.postgresql.org/docs/current/view-pg-replication-slots.html
type slotState struct {
	kind, plugin, database string
	active                 bool
	pid                    int
	temporary              bool
	confirmed              pglogrepl.LSN
	walStatus              string
	invalidation           string // why, from version 16 or 17 on
	failover               bool
	following              bool // a standby keeps it in step with its primary's: it cannot be read there
	safeWAL                *int64
}

// slot returns the state of the named slot, nil when there is none.
func (c *catalog) slot(ctx context.Context, name string) (st *slotState, err error) {
	ctx, end := c.begin(ctx, "look up replication slot "+name)
	defer end(&err)
	// As JSON, because the view has other columns in each version.
	var text []byte
	var standby bool
	err = c.conn.QueryRow(ctx, "select to_jsonb(s)::text, pg_is_in_recovery() from pg_replication_slots s where slot_name = $1", name).Scan(&text, &standby)
	if err == pgx.ErrNoRows {
		return nil, nil
	}
	if err != nil {
		return nil, c.s.failure("look up replication slot "+name, err)
	}
	var row struct {
		Type         string  `json:"slot_type"`
		Plugin       *string `json:"plugin"`
		Database     *string `json:"database"`
		Active       bool    `json:"active"`
		PID          *int    `json:"active_pid"`
		Temporary    bool    `json:"temporary"`
		Confirmed    *string `json:"confirmed_flush_lsn"`
		WALStatus    *string `json:"wal_status"`
		SafeWAL      *int64  `json:"safe_wal_size"`
		Conflicting  *bool   `json:"conflicting"`
		Invalidation *string `json:"invalidation_reason"`
		Failover     *bool   `json:"failover"`
		Synced       *bool   `json:"synced"`
	}
	if err := json.Unmarshal(text, &row); err != nil {
		return nil, fmt.Errorf("read the state of replication slot %s: %w", name, err)
	}
	st = &slotState{
		kind: row.Type, plugin: deref(row.Plugin), database: deref(row.Database), active: row.Active, pid: deref(row.PID),
		temporary: row.Temporary, walStatus: deref(row.WALStatus), invalidation: deref(row.Invalidation),
		failover: deref(row.Failover), safeWAL: row.SafeWAL, confirmed: lsnOf(deref(row.Confirmed)),
		following: standby && deref(row.Synced), // left over where a standby was promoted
	}
	if st.invalidation == "" && deref(row.Conflicting) {
		st.invalidation = "conflict with recovery"
	}
	return st, nil
}

func deref[T comparable](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// table is one table of the catalogue.
type table struct {
	oid                uint32
	schema, name       string
	kind               string // r, p, f
	persistence        string // p, u, t
	identity           string // d, i, f, n
	key                []string
	identityColumns    []string // of the replica identity index, the primary key under default
	ancestors          []string // roots above a partition, "schema.name" pairs flattened: schema, name, schema, name, …
	columns, generated []string
	published          bool
	listed             []string // the columns that the publication sends
	filter             string   // the publication's row filter
}

const tablesQuery = `
with published as (
  select schemaname, tablename, attnames::text[] as attnames, coalesce(rowfilter, '') as rowfilter
  from pg_publication_tables where pubname = $1
)
select c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relreplident::text,
  array(select a.attname::text from pg_index i, unnest(i.indkey[0:i.indnkeyatts-1]) with ordinality k(num, place)
    join pg_attribute a on a.attnum = k.num where i.indrelid = c.oid and a.attrelid = c.oid and i.indisprimary order by k.place),
  array(select a.attname::text from pg_index i, unnest(i.indkey[0:i.indnkeyatts-1]) with ordinality k(num, place)
    join pg_attribute a on a.attnum = k.num where i.indrelid = c.oid and a.attrelid = c.oid
    and (c.relreplident = 'd' and i.indisprimary or c.relreplident = 'i' and i.indisreplident) order by k.place),
  case when c.relispartition then array(select x from pg_partition_ancestors(c.oid) p(id) join pg_class r on r.oid = p.id
    join pg_namespace rn on rn.oid = r.relnamespace, unnest(array[rn.nspname::text, r.relname::text]) x where p.id <> c.oid) else '{}' end,
  array(select attname::text from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped order by attnum),
  array(select attname::text from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped and attgenerated <> '' order by attnum),
  p.tablename is not null, coalesce(p.attnames, '{}'), coalesce(p.rowfilter, '')
from pg_class c join pg_namespace n on n.oid = c.relnamespace
left join published p on p.schemaname = n.nspname and p.tablename = c.relname
where c.relkind in ('r', 'p', 'f') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
order by n.nspname, c.relname`

// tables lists all tables of users, and what the publication has of them.
func (c *catalog) tables(ctx context.Context, publication string) (list []*table, err error) {
	ctx, end := c.begin(ctx, "list the tables")
	defer end(&err)
	err = pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
		// The view of publications opens tables. Whoever loads one under its strongest lock may take an hour, and the
		// reader of the stream waits for this connection.
		if _, err := tx.Exec(ctx, "set local lock_timeout = '1s'"); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, tablesQuery, publication)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*table, error) {
			t := &table{}
			return t, row.Scan(&t.oid, &t.schema, &t.name, &t.kind, &t.persistence, &t.identity, &t.key, &t.identityColumns,
				&t.ancestors, &t.columns, &t.generated, &t.published, &t.listed, &t.filter)
		})
		if publication == "" { // all, as if they were sent whole
			for _, t := range list {
				t.published, t.listed = true, slices.DeleteFunc(slices.Clone(t.columns), func(c string) bool { return slices.Contains(t.generated, c) })
			}
		}
		return err
	})
	if err != nil {
		return nil, c.s.failure("list the tables", err)
	}
	return list, nil
}

// prints are fingerprints of what decides which tables are in the publication, and of all enums: scans of
// small catalogues, so that they may be asked for every few seconds.
func (c *catalog) prints(ctx context.Context, publication string) (tables, enums string, err error) {
	ctx, end := c.begin(ctx, "look for new tables")
	defer end(&err)
	err = c.conn.QueryRow(ctx, `select coalesce(sum(hashtextextended(concat_ws(' ', c.oid, c.relname, c.relnamespace, c.relreplident, c.relispartition, c.relnatts, n.nspname), 0)), 0)::text
		|| ' ' || (select count(*) from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where p.pubname = $1),
		(select coalesce(sum(hashtextextended(concat_ws(' ', enumtypid, enumlabel, enumsortorder), 0)), 0)::text from pg_enum)
		from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p') and n.nspname !~ '^pg_'`, publication).Scan(&tables, &enums)
	if err != nil {
		return "", "", c.s.failure("look for new tables", err)
	}
	return tables, enums, nil
}
