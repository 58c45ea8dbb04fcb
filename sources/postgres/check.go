package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// findings gathers what a check finds.
type findings struct{ list []pipeline.Finding }

func (f *findings) add(level, code, place, what, cure string, args ...any) {
	f.list = append(f.list, pipeline.Finding{Level: level, Code: code, Place: place, What: what, Cure: fmt.Sprintf(cure, args...)})
}

// Check looks for what will not work, or not well, and says what to do about it. It changes nothing.
// The findings come in no order that means anything; none is good.
func (s *Source) Check(ctx context.Context) []pipeline.Finding {
	f := &findings{}
	s.checkTLS(f)
	c, err := s.catalog(ctx)
	if err != nil {
		f.failed(s.place0(), err)
		return f.list
	}
	defer c.close()
	settings, err := c.settings(ctx)
	if err != nil {
		f.failed(s.place0(), err)
		return f.list
	}
	if !s.checkServer(f, settings) {
		return f.list
	}
	for _, look := range []func(context.Context, *findings, *catalog, map[string]string) error{
		s.checkRole, s.checkCapacity, s.checkSlotState, s.checkPublication, s.checkTables, s.checkStandbys,
	} {
		if err := s.oneLook(ctx, func(ctx context.Context) error { return look(ctx, f, c, settings) }); err != nil {
			f.failed(s.place0(), err)
		}
	}
	if settings["wal_level"] == "logical" {
		s.checkStream(ctx, f)
	}
	return f.list
}

// oneLook gives a part of Check its limit: what it asks of the server takes moments.
func (s *Source) oneLook(ctx context.Context, look func(context.Context) error) (err error) {
	ctx, end := s.limited(ctx, "look at the server")
	defer end(&err)
	return look(ctx)
}

// place0 is where findings about the source as a whole are.
func (s *Source) place0() string { return "source " + s.cfg.Name }

// failed adds an error as a finding.
func (f *findings) failed(place string, err error) {
	var se *pipeline.SourceError
	if errors.As(err, &se) {
		what := se.What
		if se.Err != nil {
			what += ": " + se.Err.Error()
		}
		for _, have := range f.list {
			if have.Code == se.Code {
				return // said before, more precisely
			}
		}
		f.add("error", se.Code, place, strings.TrimPrefix(what, place+": "), "%s", se.Cure)
		return
	}
	f.add("error", CodeServer, place, strings.TrimPrefix(err.Error(), place+": "), "")
}

func (c *catalog) settings(ctx context.Context) (have map[string]string, err error) {
	const what = "read the server's settings"
	ctx, end := c.begin(ctx, what)
	defer end(&err)
	have = map[string]string{}
	rows, err := c.conn.Query(ctx, "select name, coalesce(setting, '') from pg_settings")
	if err == nil {
		var name, value string
		_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error { have[name] = value; return nil })
	}
	return have, c.s.failure(what, err)
}

// checkTLS: a password and rows in the clear over a network.
func (s *Source) checkTLS(f *findings) {
	host := s.conn.Host
	ip := net.ParseIP(host)
	local := strings.HasPrefix(host, "/") || host == "localhost" || ip != nil && ip.IsLoopback()
	if s.conn.TLSConfig == nil && !local {
		f.add("warning", "tls_off", s.place0(), "rows and password travel to "+host+" unencrypted", "add sslmode=verify-full&sslrootcert=… to the source's url")
	}
}

func (s *Source) checkServer(f *findings, set map[string]string) bool {
	if n, err := strconv.Atoi(set["server_version_num"]); err != nil || n < 150000 {
		f.add("error", CodeVersion, s.place0(), "the server is PostgreSQL "+set["server_version"], "15 or later is needed: upgrade the server")
		return false
	}
	if set["wal_level"] != "logical" {
		f.add("error", CodeWalLevel, "setting wal_level", "it is "+set["wal_level"]+": the WAL does not hold what logical replication needs", "ALTER SYSTEM SET wal_level = logical; then restart the server")
	}
	if set["max_slot_wal_keep_size"] == "-1" {
		f.add("info", "slot_keep_size", "setting max_slot_wal_keep_size", "it is -1: while Leat is away the slot keeps all WAL, until the disk is full", "set it to what the disk can bear; a slot beyond it is lost, and with it the changes since")
	}
	if ms, err := strconv.Atoi(set["wal_sender_timeout"]); err == nil && ms > 0 && ms < 5000 {
		f.add("warning", "sender_timeout", "setting wal_sender_timeout", fmt.Sprintf("it is %d ms: a short stall ends the stream", ms), "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf()")
	}
	if set["server_encoding"] == "SQL_ASCII" {
		f.add("warning", "encoding", "database "+s.conn.Database, "its encoding is SQL_ASCII: text that is not UTF-8 becomes dead letters", "dump it and restore it into a database with encoding UTF8")
	}
	return true
}

func (s *Source) checkRole(ctx context.Context, f *findings, c *catalog, _ map[string]string) error {
	var user string
	var replication, super, create bool
	err := c.conn.QueryRow(ctx, `select rolname::text, rolreplication, rolsuper, has_database_privilege(current_database(), 'CREATE')
		from pg_roles where rolname = current_user`).Scan(&user, &replication, &super, &create)
	if err != nil {
		return s.failure("look up the role", err)
	}
	if !replication && !super {
		f.add("error", CodePermission, "role "+user, "it lacks REPLICATION", "as a superuser: ALTER ROLE %s REPLICATION", quote(user))
	}
	pub, err := c.publication(ctx, s.cfg.Publication)
	if err != nil {
		return err
	}
	if pub == nil && s.cfg.Create && !create {
		all, err := c.tables(ctx, s.cfg.Publication)
		if err != nil {
			return err
		}
		f.add("error", CodePublicationRights, "role "+user, "it may not create publication "+s.cfg.Publication,
			"as the owner of the tables: %s; or: GRANT CREATE ON DATABASE %s TO %s", s.create(readable(s.wanted(all)), false), quote(s.conn.Database), quote(user))
	}
	return nil
}

func readable(tables []*table) []*table {
	return slices.DeleteFunc(slices.Clone(tables), func(t *table) bool { return t.readable() != "" })
}

func (s *Source) checkCapacity(ctx context.Context, f *findings, c *catalog, set map[string]string) error {
	var slots, senders int
	var ours bool
	err := c.conn.QueryRow(ctx, `select (select count(*) from pg_replication_slots), (select count(*) from pg_stat_activity where backend_type = 'walsender'),
		exists (select from pg_replication_slots where slot_name = $1)`, s.cfg.Slot).Scan(&slots, &senders, &ours)
	if err != nil {
		return s.failure("count the slots", err)
	}
	if n, _ := strconv.Atoi(set["max_replication_slots"]); slots >= n && !ours {
		f.add("error", CodeSlotLimit, "setting max_replication_slots", fmt.Sprintf("all %d replication slots are taken", n), "ALTER SYSTEM SET max_replication_slots = %d; then restart the server; or drop a slot that nobody needs", n+4)
	}
	if n, _ := strconv.Atoi(set["max_wal_senders"]); senders >= n {
		f.add("error", CodeSenderLimit, "setting max_wal_senders", fmt.Sprintf("all %d are taken", n), "ALTER SYSTEM SET max_wal_senders = %d; then restart the server", n+4)
	}
	return nil
}

func (s *Source) checkSlotState(ctx context.Context, f *findings, c *catalog, set map[string]string) error {
	place := "replication slot " + s.cfg.Slot
	slot, err := c.slot(ctx, s.cfg.Slot)
	if err != nil {
		return err
	}
	if slot == nil {
		if !s.cfg.Create {
			f.add("error", CodeSlotMissing, place, "it does not exist and create is false", "SELECT pg_create_logical_replication_slot('%s', 'pgoutput'); or set create: true", s.cfg.Slot)
		}
		return nil
	}
	if slot.active { // by Leat itself, perhaps
		f.add("info", CodeSlotActive, place, fmt.Sprintf("it is being read (pid %d)", slot.pid), "if that is not this Leat: SELECT pg_terminate_backend(%d)", slot.pid)
		slot.active = false
	}
	if err := s.checkSlot(slot, s.conn.Database); err != nil {
		f.failed(place, err)
	}
	if slot.walStatus == "unreserved" {
		f.add("warning", "slot_endangered", place, "it keeps more WAL than max_slot_wal_keep_size: it is lost with the next checkpoint", "raise max_slot_wal_keep_size now and let Leat catch up")
	}
	if n, _ := strconv.Atoi(set["server_version_num"]); n >= 170000 && !slot.failover {
		f.add("info", "slot_failover", place, "it does not follow a failover to a standby", "while Leat is stopped, over a replication connection: ALTER_REPLICATION_SLOT %s (FAILOVER true); the standby needs sync_replication_slots = on", quote(s.cfg.Slot))
	}
	return nil
}

func (s *Source) checkPublication(ctx context.Context, f *findings, c *catalog, _ map[string]string) error {
	place := "publication " + s.cfg.Publication
	pub, err := c.publication(ctx, s.cfg.Publication)
	if err != nil {
		return err
	}
	tables, err := c.tables(ctx, s.cfg.Publication)
	if err != nil {
		return err
	}
	wanted := readable(s.wanted(tables))
	if pub == nil {
		if !s.cfg.Create {
			f.add("error", CodePublicationMissing, place, "it does not exist and create is false", "%s; or set create: true", s.create(wanted, false))
		}
		return nil
	}
	for i, op := range []string{"insert", "update", "delete", "truncate"} {
		if !pub.operations[i] {
			f.add("warning", "publication_operations", place, "it leaves out every "+op, "ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate')", quote(s.cfg.Publication))
		}
	}
	for _, t := range wanted {
		name := t.schema + "." + t.name
		switch {
		case !t.published && !s.cfg.Create:
			f.add("error", "not_published", "table "+name, "publication "+s.cfg.Publication+" lacks it and create is false", "ALTER PUBLICATION %s ADD TABLE %s", quote(s.cfg.Publication), s.item(t))
		case !t.published && t.kind == "p" && !pub.viaRoot:
			f.add("info", "partitions", "table "+name, "its partitions are published under their own names", "ALTER PUBLICATION %s SET (publish_via_partition_root = true)", quote(s.cfg.Publication))
		}
		if t.filter != "" {
			f.add("info", "row_filter", "table "+name, "the publication sends only rows with "+t.filter, "if that is not meant: ALTER PUBLICATION %s SET TABLE %s", quote(s.cfg.Publication), quoteTable(t.schema, t.name))
		}
		if t.published && len(t.listed)+len(t.generated) < len(t.columns) && s.columnList(t) == nil {
			f.add("info", "column_list", "table "+name, "the publication sends only the columns "+strings.Join(t.listed, ", "), "if that is not meant: ALTER PUBLICATION %s SET TABLE %s", quote(s.cfg.Publication), quoteTable(t.schema, t.name))
		}
	}
	return nil
}

func (s *Source) checkTables(ctx context.Context, f *findings, c *catalog, _ map[string]string) error {
	tables, err := c.tables(ctx, s.cfg.Publication)
	if err != nil {
		return err
	}
	wanted := s.wanted(tables)
	if len(readable(wanted)) == 0 {
		f.add("warning", "no_tables", s.place0(), "no table matches tables:", "check the globs; tables that are created later join by themselves")
	}
	foreign := s.owners(ctx, f, c, wanted)
	for _, t := range wanted {
		s.checkTable(f, t, foreign[t.oid])
	}
	return nil
}

// owners returns the owners of the tables that the role may not add to a publication.
func (s *Source) owners(ctx context.Context, f *findings, c *catalog, tables []*table) map[uint32]string {
	ids := make([]uint32, len(tables))
	for i, t := range tables {
		ids[i] = t.oid
	}
	owners := map[uint32]string{}
	rows, err := c.conn.Query(ctx, "select oid, pg_get_userbyid(relowner)::text from pg_class where oid = any($1::oid[]) and not pg_has_role(relowner, 'USAGE')", ids)
	if err == nil {
		var id uint32
		var owner string
		_, err = pgx.ForEachRow(rows, []any{&id, &owner}, func() error { owners[id] = owner; return nil })
	}
	if err != nil {
		f.failed(s.place0(), s.failure("look up the owners of the tables", err))
	}
	return owners
}

func (s *Source) checkTable(f *findings, t *table, owner string) {
	name, place := quoteTable(t.schema, t.name), "table "+t.schema+"."+t.name
	if why := t.readable(); why != "" {
		f.add("warning", "unreadable_table", place, why, `take it out of tables: "!%s.%s"`, t.schema, t.name)
		return
	}
	if owner != "" && !t.published && s.cfg.Create {
		f.add("error", CodePublicationRights, place, "it belongs to "+owner+", so the role may not publish it", "as %s: ALTER PUBLICATION %s ADD TABLE %s; or: GRANT %s TO %s", owner, quote(s.cfg.Publication), s.item(t), quote(owner), quote(s.conn.User))
	}
	if info := t.info(); info.Problem != "" {
		f.add("error", "replica_identity", place, info.Problem, "%s", info.Cure)
	}
	for _, c := range named(s.cfg.Columns, t) {
		// Also one to be left out: misspelt, it would enter the log.
		if c = strings.TrimPrefix(c, "!"); !slices.Contains(t.columns, c) {
			f.add("error", "column_unknown", place, "columns: names the column "+c+", which it does not have", "check the name")
		}
	}
	key := s.cfg.routing(t)
	var missing []string
	for _, k := range key {
		if !slices.Contains(t.columns, k) {
			f.add("error", "key_unknown", place, "keys: names the column "+k+", which it does not have", "check the name")
		} else if t.identity != "f" && !slices.Contains(t.identityColumns, k) {
			missing = append(missing, k)
		}
		if s.excluded(t.schema, t.name, k) {
			f.add("error", "key_excluded", place, "its routing column "+k+" is left out by columns:", "let it in, or route by another column")
		}
	}
	if len(missing) > 0 {
		f.add("error", "key_not_in_identity", place, "its routing columns "+strings.Join(missing, ", ")+" are not in its replica identity: deletes and moves could not be routed", "ALTER TABLE %s REPLICA IDENTITY FULL; or a unique index over NOT NULL columns with them and ALTER TABLE %s REPLICA IDENTITY USING INDEX …", name, name)
	}
	for _, k := range append(slices.Clone(t.identityColumns), t.key...) {
		if s.excluded(t.schema, t.name, k) {
			f.add("error", "key_excluded", place, "its key column "+k+" is left out by columns:", "let it in: without it rows cannot be told apart")
			break
		}
	}
	if len(t.generated) > 0 {
		f.add("info", "generated_columns", place, "generated columns do not travel unless the publication says so (PostgreSQL 18): "+strings.Join(t.generated, ", "), "compute them where they are needed")
	}
	if t.identity == "i" && len(t.key) > 0 {
		for _, k := range t.key {
			if !slices.Contains(t.identityColumns, k) {
				f.add("info", "identity_not_key", place, "its replica identity index does not hold the primary key: rows are identified by "+strings.Join(t.identityColumns, ", "), "ALTER TABLE %s REPLICA IDENTITY DEFAULT, if that is not meant", name)
				break
			}
		}
	}
}

// checkStandbys: commits would wait for us.
func (s *Source) checkStandbys(_ context.Context, f *findings, _ *catalog, set map[string]string) error {
	names := set["synchronous_standby_names"]
	if names == "" {
		return nil
	}
	app := s.conn.RuntimeParams["application_name"]
	for _, part := range strings.FieldsFunc(names, func(r rune) bool { return strings.ContainsRune(",()", r) }) {
		part = strings.Trim(strings.TrimSpace(part), `"`)
		if part == "*" || strings.EqualFold(part, app) {
			f.add("warning", "synchronous_standby", "setting synchronous_standby_names", fmt.Sprintf("%q matches Leat's application_name %q: commits in the database wait for Leat", names, app), "name the standbys that are meant, or give the source's url another application_name")
			return nil
		}
	}
	return nil
}

// checkStream opens a replication connection as the stream does.
func (s *Source) checkStream(ctx context.Context, f *findings) {
	conn, _, err := s.connect(ctx)
	if err != nil {
		f.failed(s.place0(), err)
		return
	}
	closeConn(conn)
}

// named gathers what the lists say whose globs name the table.
func named(lists map[string][]string, t *table) []string {
	var all []string
	for _, glob := range schemas.Globs(lists) {
		if schemas.MatchTable(glob, t.schema, t.name) {
			all = append(all, lists[glob]...)
		}
	}
	return all
}

// routing returns the configured routing columns of the table: the first glob that names it rules.
func (c *Config) routing(t *table) []string {
	for _, glob := range schemas.Globs(c.Keys) {
		if schemas.MatchTable(glob, t.schema, t.name) {
			return c.Keys[glob]
		}
	}
	return nil
}
