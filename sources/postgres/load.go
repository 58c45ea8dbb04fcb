package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/pipeline"
)

// prober is the state of Load: its connection and what it measured before.
type prober struct {
	mu    sync.Mutex
	c     *catalog
	wrote pipeline.Meter
}

// loadQuery asks for everything that any role may see, and for the rest where ours may.
// https://www.postgresql.org/docs/current/monitoring-stats.html
// The state of other roles' sessions needs pg_read_all_stats; without it the counts are null.
const loadQuery = `
with may as materialized (select pg_has_role(current_user, 'pg_read_all_stats', 'usage') as stats),
busy as materialized (
  select count(*) filter (where state in ('active', 'fastpath function call')) as active,
    count(*) filter (where state = 'active' and wait_event_type in ('Lock', 'LWLock', 'BufferPin', 'IO')) as waiting
  from pg_stat_activity
  where backend_type = 'client backend' and pid <> pg_backend_pid() and application_name <> current_setting('application_name')),
lag as materialized (
  select max(coalesce(r.replay_lag, '0')) as worst from pg_stat_replication r
  where not exists (select from pg_replication_slots l where l.active_pid = r.pid and l.slot_type = 'logical')),
here as materialized (
  select case when pg_is_in_recovery() then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) else pg_current_wal_lsn() end as lsn,
    case when pg_is_in_recovery() and pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn() then now() - pg_last_xact_replay_timestamp() end as own)
select json_build_object(
  'stats', may.stats,
  'active', case when may.stats then busy.active end,
  'waiting', case when may.stats then busy.waiting end,
  'lag', extract(epoch from greatest(here.own, case when may.stats then lag.worst end)),
  'lsn', here.lsn - '0/0'::pg_lsn,
  'user', quote_ident(current_user),
  'slot', (select json_build_object('status', wal_status, 'safe', safe_wal_size, 'behind', here.lsn - coalesce(confirmed_flush_lsn, restart_lsn), 'xmin', age(catalog_xmin))
    from pg_replication_slots where slot_name = $1))::text
from may, busy, lag, here`

type loadRow struct {
	Stats           bool
	Active, Waiting *int
	Lag             *float64
	LSN             *float64
	User            string
	Slot            *struct {
		Status       *string
		Safe, Behind *float64
		Xmin         *int64
	}
}

// oldXmin is how many transactions a slot may hold vacuum of the catalogue back before that is told: half of what
// makes autovacuum work against wraparound (autovacuum_freeze_max_age).
const oldXmin = 100_000_000

// Load implements [pipeline.Prober]. The sessions of other roles and the replicas' lag need
// pg_read_all_stats; everything about the slot needs no right.
func (s *Source) Load(ctx context.Context) (l pipeline.SourceLoad, err error) {
	p := &s.probe
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, end := s.limited(ctx, "ask for the load")
	defer end(&err)
	if p.c == nil || p.c.conn.IsClosed() {
		c, err := s.catalog(ctx)
		if err != nil {
			return pipeline.SourceLoad{}, err
		}
		p.c = c
	}
	var text []byte
	if err := p.c.conn.QueryRow(ctx, loadQuery, s.cfg.Slot).Scan(&text); err != nil {
		p.drop()
		return pipeline.SourceLoad{}, s.failure("ask for the load", err)
	}
	var row loadRow
	if err := json.Unmarshal(text, &row); err != nil {
		return pipeline.SourceLoad{}, fmt.Errorf("source %s: read the load: %w", s.cfg.Name, err)
	}
	l = pipeline.NewSourceLoad(time.Now())
	p.fill(&l, &row)
	if !row.Stats {
		l.Findings = append(l.Findings, pipeline.Finding{
			Level: "warning", Code: "load_right_missing", Place: "pg_read_all_stats",
			What: "how many sessions are at work, and how far replicas are behind, cannot be seen",
			Cure: "GRANT pg_read_all_stats TO " + row.User,
		})
	}
	if row.Slot != nil && row.Slot.Xmin != nil && *row.Slot.Xmin > oldXmin {
		l.Findings = append(l.Findings, pipeline.Finding{
			Level: "warning", Code: "slot_xmin", Place: s.cfg.Slot,
			What: fmt.Sprintf("the slot keeps what %d transactions have replaced in the catalogue from vacuum", *row.Slot.Xmin),
			Cure: "end what keeps it: a transaction open or prepared for long (pg_stat_activity, pg_prepared_xacts), a source that stands",
		})
	}
	s.signals(ctx, p, &l, row.User)
	return l, nil
}

// fill turns the answer into the words of the pipeline.
func (p *prober) fill(l *pipeline.SourceLoad, row *loadRow) {
	if row.Active != nil {
		l.Active, l.Waiting = *row.Active, *row.Waiting
	}
	if row.Lag != nil {
		l.ReplicaLag = time.Duration(*row.Lag * float64(time.Second))
	}
	if row.LSN != nil {
		l.Rate = p.wrote.Add(l.At, uint64(*row.LSN))
	}
	slot := row.Slot
	if slot == nil {
		return // not made yet, or gone: the stream finds that out
	}
	if slot.Behind != nil {
		l.Behind = max(int64(*slot.Behind), 0)
	}
	if slot.Safe != nil {
		l.Headroom = max(int64(*slot.Safe), 0)
	}
	l.ToLoss = pipeline.ToLoss(l.Headroom, l.Rate)
	l.Kept = deref(slot.Status)
	if slot.Xmin != nil {
		l.Xmin = *slot.Xmin
	}
	switch deref(slot.Status) {
	case "unreserved": // the next checkpoint may take it
		l.ToLoss, l.Headroom = 0, 0
	case "lost":
		l.ToLoss, l.Headroom, l.Lost = 0, 0, true
	}
}

// signals reads the signal table, where there is one. That it cannot be read is a finding: a throttle that is
// not seen must not stop the rest.
func (s *Source) signals(ctx context.Context, p *prober, l *pipeline.SourceLoad, user string) {
	if s.cfg.SignalTable == "" {
		return
	}
	schema, name, ok := strings.Cut(s.cfg.SignalTable, ".")
	if !ok {
		schema, name = "public", schema
	}
	rows, err := p.c.conn.Query(ctx, "select coalesce(owner::text, ''), coalesce(reason::text, ''), coalesce(ratio, 0)::float8, until::timestamptz from "+
		quoteTable(schema, name)+" where until is null or until::timestamptz > now() limit 100")
	if err == nil {
		defer rows.Close()
		for rows.Next() {
			var g pipeline.Signal
			var until *time.Time
			if err = rows.Scan(&g.Owner, &g.Reason, &g.Ratio, &until); err != nil {
				break
			}
			g.Until, g.Ratio = deref(until), min(max(g.Ratio, 0), 1)
			l.Signals = append(l.Signals, g)
		}
		if err == nil {
			err = rows.Err()
		}
	}
	if err == nil {
		return
	}
	cure := fmt.Sprintf("CREATE TABLE %s (owner text, reason text, ratio real, until timestamptz)", quoteTable(schema, name))
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "42501" {
		cure = fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s; GRANT SELECT ON %s TO %[2]s", quote(schema), user, quoteTable(schema, name))
	}
	l.Findings = append(l.Findings, pipeline.Finding{Level: "warning", Code: "signal_table", Place: s.cfg.SignalTable, What: "the signal table cannot be read: " + s.mask.text(err.Error()), Cure: cure})
}

func (p *prober) drop() {
	if p.c != nil {
		p.c.close()
		p.c = nil
	}
}

// Rest implements [pipeline.Prober].
func (s *Source) Rest() {
	s.probe.mu.Lock()
	defer s.probe.mu.Unlock()
	s.probe.drop()
}

var _ pipeline.Prober = (*Source)(nil)
