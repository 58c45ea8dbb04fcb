package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/pipeline"
)

const anew = "stop leat run, leat source accept %s, start it again (subscriptions keep their cursors); " + pipeline.BringRows

// place finds where the stream begins: exactly behind `after`, or for an empty log where the slot stands. It
// creates the slot when that loses nothing. created says that it did.
func (s *Source) place(ctx context.Context, c *catalog, conn *pgconn.PgConn, srv *server, after pipeline.Position) (at pglogrepl.LSN, created bool, err error) {
	var from token
	if !after.Begins() {
		if from, err = parseToken(after.Token); err != nil {
			return 0, false, s.stopped(CodePosition, err.Error(), "the log is of another source, or damaged: leat log verify")
		}
		if err := s.checkHistory(ctx, conn, srv, from); err != nil {
			return 0, false, err
		}
	}
	slot, err := c.slot(ctx, s.cfg.Slot)
	if err != nil {
		return 0, false, err
	}
	if _, anew := after.Lost(); anew && s.cfg.Create && slot != nil && slot.lost() && !slot.active {
		if err := c.dropSlot(ctx, s.cfg.Slot); err != nil {
			return 0, false, err
		}
		slot = nil
	}
	if slot == nil {
		return s.newSlot(ctx, c, conn, srv, after)
	}
	if _, anew := after.Lost(); anew && slot.lost() { // create is false: accepting it once more changes nothing
		return 0, false, s.stopped(CodeSlotLost, fmt.Sprintf("replication slot %s cannot be read any more and create is false", s.cfg.Slot),
			"as a role with REPLICATION: select pg_drop_replication_slot('%s'); %s; or set create: true", s.cfg.Slot, createSlot(s.cfg.Slot, srv.version))
	}
	if err := s.checkSlot(slot, srv.DBName); err != nil {
		return 0, false, err
	}
	if after.Begins() {
		at = slot.confirmed
		if start, _ := parseStart(s.cfg.Start); start != 0 && after.Zero() { // an accepted position begins where it can
			if start < at {
				return 0, false, s.startTooEarly(start, at)
			}
			at = start
		}
		return at, false, nil
	}
	if slot.confirmed > from.lsn {
		return 0, false, s.stopped(CodeSlotAhead,
			fmt.Sprintf("replication slot %s stands at %s, beyond %s where the log ends: changes between were confirmed by somebody else, or the log was replaced by an older one", s.cfg.Slot, slot.confirmed, from.lsn),
			anew, s.cfg.Name)
	}
	return from.lsn, false, nil
}

// newSlot makes the slot for an empty log.
func (s *Source) newSlot(ctx context.Context, c *catalog, conn *pgconn.PgConn, srv *server, after pipeline.Position) (pglogrepl.LSN, bool, error) {
	if !after.Begins() {
		return 0, false, s.stopped(CodeSlotMissing,
			fmt.Sprintf("replication slot %s is gone; what was written since %s is lost to the log", s.cfg.Slot, lsnOf(after.Token)), anew, s.cfg.Name)
	}
	if !s.cfg.Create {
		return 0, false, s.stopped(CodeSlotMissing, fmt.Sprintf("replication slot %s does not exist and create is false", s.cfg.Slot),
			"as a role with REPLICATION: %s; or set create: true", createSlot(s.cfg.Slot, srv.version))
	}
	standby, err := c.standby(ctx)
	if err != nil {
		return 0, false, err
	}
	create := "CREATE_REPLICATION_SLOT " + quote(s.cfg.Slot) + " LOGICAL pgoutput (SNAPSHOT 'nothing'"
	if srv.version >= 17 && !standby { // it comes along to a standby that synchronizes slots
		create += ", FAILOVER"
	}
	var r pglogrepl.CreateReplicationSlotResult
	err = s.attended(ctx, c, conn, "create replication slot "+s.cfg.Slot, func(ctx context.Context) (err error) {
		r, err = pglogrepl.ParseCreateReplicationSlot(conn.Exec(ctx, create+")"))
		return err
	})
	if err != nil {
		return 0, false, s.failure("create replication slot "+s.cfg.Slot, err)
	}
	point, err := parseLSN(r.ConsistentPoint)
	if err != nil {
		return 0, false, fmt.Errorf("create replication slot %s: %w", s.cfg.Slot, err)
	}
	if start, _ := parseStart(s.cfg.Start); start != 0 && after.Zero() {
		if start < point {
			err := c.dropSlot(ctx, s.cfg.Slot) // nobody needs it
			return 0, false, errors.Join(s.startTooEarly(start, point), err)
		}
		point = start
	}
	return point, true, nil
}

// createSlot is the statement that makes a slot as this source would.
func createSlot(name string, version int) string {
	if version >= 17 {
		return fmt.Sprintf("select pg_create_logical_replication_slot('%s', 'pgoutput', failover => true)", name)
	}
	return fmt.Sprintf("select pg_create_logical_replication_slot('%s', 'pgoutput')", name)
}

func (c *catalog) standby(ctx context.Context) (is bool, err error) {
	const what = "ask whether the server is a standby"
	ctx, end := c.begin(ctx, what)
	defer end(&err)
	err = c.conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&is)
	return is, c.s.failure(what, err)
}

func (c *catalog) dropSlot(ctx context.Context, name string) (err error) {
	what := "drop replication slot " + name
	ctx, end := c.begin(ctx, what)
	defer end(&err)
	_, err = c.conn.Exec(ctx, "select pg_drop_replication_slot($1)", name)
	return c.s.failure(what, err)
}

func (s *Source) startTooEarly(start, slot pglogrepl.LSN) error {
	return s.stopped(CodeStart, fmt.Sprintf("start is %s, but replication slot %s reaches back to %s only", start, s.cfg.Slot, slot),
		"set start: now, or name a slot that is old enough")
}

// checkHistory sees that the server's WAL is the one that the log was read from: the same system, and a
// timeline that left ours, if it did, behind where we stand. So a standby that was promoted with our slot is
// read on, and a server restored to an earlier point is not.
func (s *Source) checkHistory(ctx context.Context, conn *pgconn.PgConn, srv *server, from token) error {
	if srv.SystemID != from.system {
		return s.stopped(CodeSystem, fmt.Sprintf("the server's system identifier is %s, the log was read from %s: it is another server, or was made anew (a major upgrade does that)", srv.SystemID, from.system), anew, s.cfg.Name)
	}
	if srv.Timeline != from.timeline {
		left, err := s.leftAt(ctx, conn, srv.Timeline, from.timeline)
		if err != nil {
			return s.failure("read the timeline's history", err)
		}
		if left == 0 || left < from.lsn {
			where := "never was on"
			if left != 0 {
				where = fmt.Sprintf("left at %s", left)
			}
			return s.stopped(CodeTimeline, fmt.Sprintf("the server is on timeline %d, which %s timeline %d; the log was read from that up to %s: it holds changes that the server does not have", srv.Timeline, where, from.timeline, from.lsn), anew, s.cfg.Name)
		}
	}
	if srv.XLogPos < from.lsn {
		return s.stopped(CodeServerBehind, fmt.Sprintf("the server's WAL ends at %s, before %s where the log ends: the server was restored to an earlier state", srv.XLogPos, from.lsn), anew, s.cfg.Name)
	}
	return nil
}

// leftAt returns where timeline now left timeline was, 0 when it is no descendant of it.
func (s *Source) leftAt(ctx context.Context, conn *pgconn.PgConn, now, was int32) (at pglogrepl.LSN, err error) {
	if now < was {
		return 0, nil
	}
	ctx, end := s.limited(ctx, "read the timeline's history")
	defer end(&err)
	h, err := pglogrepl.TimelineHistory(ctx, conn, now)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(h.Content)) {
		f := strings.Fields(line) // "1\t0/5000000\tno recovery target specified"
		if len(f) < 2 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if n, err := strconv.ParseInt(f[0], 10, 32); err == nil && int32(n) == was {
			return parseLSN(f[1])
		}
	}
	return 0, nil
}

// checkSlot tells apart what can be wrong with a slot that exists.
func (s *Source) checkSlot(slot *slotState, database string) error {
	name := s.cfg.Slot
	switch {
	case slot.kind != "logical":
		return s.stopped(CodeSlotPlugin, fmt.Sprintf("replication slot %s is a %s one", name, slot.kind), "give the source another one (leat.yaml: sources.%s.postgres.slot)", s.cfg.Name)
	case slot.plugin != "pgoutput":
		return s.stopped(CodeSlotPlugin, fmt.Sprintf("replication slot %s has the plugin %s, want pgoutput", name, slot.plugin), "give the source another one (leat.yaml: sources.%s.postgres.slot)", s.cfg.Name)
	case slot.database != database:
		return s.stopped(CodeSlotDatabase, fmt.Sprintf("replication slot %s is of database %s, the source of %s", name, slot.database, database), "give the source another one (leat.yaml: sources.%s.postgres.slot)", s.cfg.Name)
	case slot.lost():
		code, why := CodeSlotLost, "the server removed WAL that it should have kept (max_slot_wal_keep_size)"
		if slot.invalidation != "" && slot.invalidation != "wal_removed" {
			code, why = CodeSlotInvalidated, "the server invalidated it: "+slot.invalidation
		}
		return s.stopped(code, fmt.Sprintf("replication slot %s cannot be read any more: %s", name, why), anew, s.cfg.Name)
	case slot.following:
		return &pipeline.SourceError{
			Class: pipeline.Transient, Code: CodeStandby,
			What: fmt.Sprintf("source %s: the server is a standby that keeps replication slot %s in step with its primary's", s.cfg.Name, name),
			Cure: "point the url at the primary, or promote this server: it is read on exactly from then on",
		}
	case slot.active:
		return s.slotActive(slot)
	}
	return nil
}

// lost reports whether the slot can never be read again.
func (slot *slotState) lost() bool { return slot.walStatus == "lost" || slot.invalidation != "" }

func (s *Source) slotActive(slot *slotState) error {
	return &pipeline.SourceError{
		Class: pipeline.Transient, Code: CodeSlotActive,
		What: fmt.Sprintf("source %s: replication slot %s is read by another connection (pid %d)", s.cfg.Name, s.cfg.Slot, slot.pid),
		Cure: fmt.Sprintf("if it is no other Leat that should go on: select pg_terminate_backend(%d)", slot.pid),
	}
}
