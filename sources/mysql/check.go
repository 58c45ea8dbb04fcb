package mysql

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/mysql/internal/catalog"
)

// Check connects and says what must be different on the server, each with its cure. What it cannot ask
// for lack of a right is a finding too.
func (s *Source) Check(ctx context.Context) []pipeline.Finding {
	c, err := s.connect(ctx)
	if err != nil {
		return []pipeline.Finding{errorFinding(err)}
	}
	defer func() { _ = c.Close() }()
	k := &checker{s: s, c: c}
	var vars map[string]string
	if k.v, vars, err = c.inspect(ctx); err != nil {
		return []pipeline.Finding{errorFinding(err)}
	}
	k.settings(vars)
	k.replicated(ctx, vars)
	k.filters(ctx)
	k.rights(ctx)
	k.replicas(ctx)
	k.catalogue(ctx)
	return k.found
}

func errorFinding(err error) pipeline.Finding {
	f := pipeline.Finding{Level: "error", Code: "unreachable", What: err.Error()}
	var se *pipeline.SourceError
	if errors.As(err, &se) {
		f.Code, f.What, f.Cure = se.Code, se.What, se.Cure
		if se.Err != nil {
			f.What += ": " + se.Err.Error()
		}
	}
	if f.Cure == "" {
		f.Cure = "start the server, or correct host and port in the url"
	}
	return f
}

type checker struct {
	s     *Source
	c     *conn
	v     *server
	found []pipeline.Finding
}

func (k *checker) add(level, code, place, what, cure string) {
	k.found = append(k.found, pipeline.Finding{Level: level, Code: code, Place: place, What: what, Cure: cure})
}

// set is the statement that sets a global variable, beyond a restart where the server can.
func (k *checker) set(name, value string) string {
	if k.v.mariadb {
		return fmt.Sprintf("SET GLOBAL %s=%s (and %[1]s=%[2]s in the server's configuration file)", name, value)
	}
	return fmt.Sprintf("SET PERSIST %s=%s", name, value)
}

// settings looks at the server's variables.
func (k *checker) settings(m map[string]string) {
	if !k.v.logBin {
		k.add("error", "log_bin", "log_bin", "the server writes no binlog", "start the server with log_bin (--log-bin)")
	}
	if f := m["binlog_format"]; f != "" && !strings.EqualFold(f, "ROW") {
		k.add("error", "binlog_format", "binlog_format", "binlog_format is "+f+": changes logged as statements cannot be read, their tables are quarantined", k.set("binlog_format", "ROW")+", then reconnect the writers")
	}
	if !k.v.rowImageFull {
		level, why := "warning", "events lack the columns that a statement did not touch"
		if len(k.s.cfg.Keys) > 0 {
			level, why = "error", "the routing keys of keys: may be missing in before images, so that deletes and moves cannot be routed"
		}
		k.add(level, "binlog_row_image", "binlog_row_image", "binlog_row_image is "+m["binlog_row_image"]+": "+why, k.set("binlog_row_image", "FULL")+", then reconnect the writers")
	}
	if !k.v.metadataFull {
		k.add("error", "binlog_row_metadata", "binlog_row_metadata", "binlog_row_metadata is "+m["binlog_row_metadata"]+": the binlog does not name the columns; tables are read only where the catalogue proves to be of the same version", k.set("binlog_row_metadata", "FULL"))
	}
	if !k.v.gtids {
		k.add("warning", "gtid_mode", "gtid_mode", "gtid_mode is "+m["gtid_mode"]+": the position is file and offset, which does not survive a failover",
			"SET PERSIST enforce_gtid_consistency=ON; SET PERSIST gtid_mode=OFF_PERMISSIVE; SET PERSIST gtid_mode=ON_PERMISSIVE; SET PERSIST gtid_mode=ON")
	}
	if v := m["binlog_row_value_options"]; strings.Contains(v, "PARTIAL_JSON") && !k.v.rowImageFull {
		k.add("error", "binlog_row_value_options", "binlog_row_value_options", "updates carry only the changes of JSON values, and before images may lack the values: such updates quarantine their table", "SET PERSIST binlog_row_value_options=''")
	} else if strings.Contains(v, "PARTIAL_JSON") {
		k.add("info", "binlog_row_value_options", "binlog_row_value_options", "updates carry only the changes of JSON values; they are completed from the before image", "SET PERSIST binlog_row_value_options='' saves the work")
	}
	if m["server_id"] == "0" {
		k.add("error", "server_id", "server_id", "the server's server_id is 0: it refuses replicas", k.set("server_id", "1"))
	}
	if m["server_id"] == strconv.FormatUint(uint64(k.s.cfg.ServerID), 10) {
		k.add("error", "server_id_clash", "server_id", "our server_id is the server's own", "give the source another one (leat.yaml: sources.NAME.mysql.server_id)")
	}
	k.expiry(m)
	if on(m["encrypt_binlog"]) || on(m["binlog_encryption"]) {
		k.add("info", "binlog_encrypted", "binlog encryption", "the server decrypts its binlog before it sends it: Leat reads it as any other, and Leat's own log holds the rows in the clear",
			"put data: on an encrypted disk, and tls=verify-full into the url")
	}
	if !k.c.secure && !k.s.url.loopback() {
		k.add("warning", "tls_off", "url", "the connection is not encrypted", "put tls=required or tls=verify-full into the url")
	}
	if k.v.mariadb && on(m["gtid_ignore_duplicates"]) {
		k.add("info", "gtid_ignore_duplicates", "gtid_ignore_duplicates", "the server drops transactions that arrive twice from several primaries", "")
	}
}

// expiry looks at how long binlogs are kept.
func (k *checker) expiry(m map[string]string) {
	const day = 86400
	seconds, name := 0.0, "binlog_expire_logs_seconds"
	if v, err := strconv.ParseFloat(m[name], 64); err == nil {
		seconds = v
	}
	if v, err := strconv.ParseFloat(m["expire_logs_days"], 64); err == nil && v > 0 && seconds == 0 {
		seconds = v * day
	}
	if seconds > 0 && seconds < day {
		k.add("warning", "binlog_expiry", name, fmt.Sprintf("binlogs are kept for %.0f s: an outage of Leat longer than that loses changes", seconds), k.set(name, strconv.Itoa(3*day)))
	}
	if v, err := strconv.ParseUint(m["max_binlog_total_size"], 10, 64); err == nil && v > 0 {
		k.add("warning", "binlog_expiry", "max_binlog_total_size", fmt.Sprintf("binlogs beyond %d bytes are removed: an outage of Leat while much is written loses changes", v), k.set("max_binlog_total_size", "0"))
	}
}

// replicated looks for a replica that keeps what it replicates out of its own binlog.
func (k *checker) replicated(ctx context.Context, m map[string]string) {
	name, sql := "log_replica_updates", "SHOW REPLICA STATUS"
	if _, ok := m[name]; !ok {
		name = "log_slave_updates"
	}
	if k.v.mariadb {
		sql = "SHOW ALL SLAVES STATUS"
	} else if k.v.number < 80022 {
		sql = "SHOW SLAVE STATUS"
	}
	if v, ok := m[name]; !ok || on(v) {
		return
	}
	if rows, err := k.c.rows(ctx, sql); err == nil && len(rows) > 0 { // without the right, that is a finding of its own
		k.add("error", "replica_updates", name, "the server is a replica and "+name+" is OFF: what it replicates is not in its binlog, and would never be seen",
			"start the server with "+name+"=ON (it cannot be set while it runs), or read its primary")
	}
}

// filters looks for databases that the server keeps out of its binlog.
func (k *checker) filters(ctx context.Context) {
	sql := "SHOW BINARY LOG STATUS"
	if k.v.mariadb || k.v.number < 80200 {
		sql = "SHOW MASTER STATUS"
	}
	rows, err := k.c.rows(ctx, sql)
	if err != nil {
		k.add("error", "right_missing", "REPLICATION CLIENT", "the binlog's state cannot be asked: "+err.Error(), cureGrants)
		return
	}
	if len(rows) == 0 || len(rows[0]) < 4 {
		return
	}
	if rows[0][2] != "" {
		k.add("warning", "binlog_do_db", "binlog_do_db", "only these databases are in the binlog: "+rows[0][2], "remove binlog_do_db from the server's configuration and restart it")
	}
	if rows[0][3] != "" {
		k.add("warning", "binlog_ignore_db", "binlog_ignore_db", "these databases are not in the binlog: "+rows[0][3], "remove binlog_ignore_db from the server's configuration and restart it")
	}
}

// rights looks for what the user lacks.
func (k *checker) rights(ctx context.Context) {
	rows, err := k.c.rows(ctx, "SHOW GRANTS")
	if err != nil {
		return
	}
	var all strings.Builder
	for _, r := range rows {
		if g := strings.ToUpper(r[0]); strings.Contains(g, " ON *.* ") {
			all.WriteString(g + "\n")
		}
	}
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.Contains(all.String(), n) })
	}
	if has("ALL PRIVILEGES") {
		return
	}
	user := "the user of the url"
	if u, err := k.c.value(ctx, "SELECT CURRENT_USER()"); err == nil {
		if name, host, ok := strings.Cut(u, "@"); ok {
			user = "`" + name + "`@`" + host + "`"
		}
	}
	if !has("REPLICATION SLAVE", "REPLICATION REPLICA") {
		k.add("error", "right_missing", "REPLICATION SLAVE", "the user may not read the binlog", "GRANT REPLICATION SLAVE ON *.* TO "+user)
	}
	if !has("REPLICATION CLIENT", "BINLOG MONITOR") {
		k.add("error", "right_missing", "REPLICATION CLIENT", "the user may not ask for the binlog's state", "GRANT REPLICATION CLIENT ON *.* TO "+user)
	}
	if !has("SELECT") {
		k.add("warning", "right_missing", "SELECT", "the user may not see all tables: what is to be known of them may be missing here", "GRANT SELECT ON *.* TO "+user)
	}
}

// replicas looks for another reader with our server id.
func (k *checker) replicas(ctx context.Context) {
	sql := "SHOW REPLICAS"
	if k.v.mariadb || k.v.number < 80022 {
		sql = "SHOW SLAVE HOSTS"
	}
	rows, err := k.c.rows(ctx, sql)
	if err != nil {
		return
	}
	ours := strconv.FormatUint(uint64(k.s.cfg.ServerID), 10)
	for _, r := range rows {
		if len(r) > 1 && r[0] == ours {
			k.add("info", "server_id_used", "server_id", "a replica with our server_id "+ours+" is connected from "+r[1]+": this source itself while it runs, else a clash",
				"if it is another, give the source a server_id of its own (leat.yaml: sources.NAME.mysql.server_id)")
		}
	}
}

// catalogue looks at the tables.
func (k *checker) catalogue(ctx context.Context) {
	columns, err := k.c.catalogue(ctx)
	if err != nil {
		k.found = append(k.found, errorFinding(err))
		return
	}
	engines, err := k.c.rows(ctx, `SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.ENGINE, COALESCE(e.TRANSACTIONS, '') FROM information_schema.TABLES t
		LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE WHERE t.TABLE_TYPE = 'BASE TABLE' ORDER BY 1, 2`)
	if err != nil {
		k.found = append(k.found, errorFinding(err))
		return
	}
	matched := 0
	for _, r := range engines {
		name := r[0] + "." + r[1]
		if !k.s.tables.match(r[0], r[1], k.v.fold) {
			continue
		}
		if of, ghost := k.s.ghostOf(r[0], r[1], k.v.fold); ghost && columns[r[0]+"."+of] != nil {
			k.add("info", "ghost", name, "it is taken for the ghost of "+r[0]+"."+of+" (gh-ost, pt-online-schema-change): its rows are not delivered", "if it is a table of its own, name it in tables: without a wildcard")
			continue
		}
		matched++
		if r[3] != "YES" {
			k.add("warning", "engine", name, "the engine "+r[2]+" has no transactions: a statement that fails half-way leaves rows behind, and some of its changes are logged as statements", fmt.Sprintf("ALTER TABLE %s ENGINE=InnoDB", ident(r[0], r[1])))
		}
		k.columns(name, r[0], r[1], columns[name])
		k.cascades(ctx, r[0], r[1], matched)
	}
	if matched == 0 {
		k.add("warning", "no_tables", "tables", "no table of the server matches", "correct tables: or create them")
	}
	for _, set := range []struct {
		key   string
		names map[string][]string
	}{{"columns", k.s.cfg.Columns}, {"keys", k.s.cfg.Keys}} {
		for _, pattern := range slices.Sorted(maps.Keys(set.names)) {
			k.unknown(set.key, pattern, set.names[pattern], engines, columns)
		}
	}
}

// columns looks at one table.
func (k *checker) columns(name, schema, table string, columns []catalog.Column) {
	primary := false
	for _, c := range columns {
		primary = primary || c.Primary
		if c.Primary && k.s.drops(schema, table, c.Name, k.v.fold) {
			k.add("error", "columns", name, "columns: leaves out "+c.Name+", a column of the primary key", "keep the columns of the primary key")
		}
	}
	if !primary && len(columns) > 0 {
		k.add("warning", "no_primary_key", name, "the table has no primary key: its rows cannot be told apart, and the whole table is one key", fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (…), or name routing columns under keys:", ident(schema, table)))
	}
}

func ident(schema, table string) string {
	q := func(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }
	return q(schema) + "." + q(table)
}

// unknown finds columns of the configuration that no table has; a row of tables begins with schema and name.
func (k *checker) unknown(key, pattern string, list []string, tables [][]string, columns map[string][]catalog.Column) {
	place, any := key+": "+pattern, false
	for _, t := range tables {
		table := t[0] + "." + t[1]
		if !names(pattern, t[0], t[1], k.v.fold) || !k.s.tables.match(t[0], t[1], k.v.fold) {
			continue
		}
		any = true
		for _, n := range list {
			n = strings.TrimPrefix(n, "!")
			if !slices.ContainsFunc(columns[table], func(c catalog.Column) bool { return strings.EqualFold(c.Name, n) }) {
				k.add("error", key+"_unknown", place, fmt.Sprintf("%s has no column %s", table, n), "correct the name under "+key+":")
			}
		}
	}
	if !any {
		k.add("warning", key+"_unknown", place, "no table of the server matches", "correct the name under "+key+":")
	}
}

// cascading are the actions of foreign keys that the engine does below the binlog.
var cascading = regexp.MustCompile("CONSTRAINT `((?:[^`]|``)+)` FOREIGN KEY .* ON (?:DELETE|UPDATE) (?:CASCADE|SET NULL|SET DEFAULT)")

// maxShown bounds for how many tables the server is asked for the statement that creates them.
const maxShown = 2000

// cascades finds foreign keys whose actions the binlog does not show. information_schema hides them from a
// user who may only read; the table's own statement does not.
func (k *checker) cascades(ctx context.Context, schema, table string, nth int) {
	if !k.v.mariadb && k.v.number >= 90600 || nth > maxShown {
		return // since 9.6 the server does them itself, and logs them
	}
	row, err := k.c.row(ctx, "SHOW CREATE TABLE "+ident(schema, table))
	if err != nil || len(row) < 2 {
		return // dropped meanwhile, or not ours to see: rights are a finding of their own
	}
	for _, m := range cascading.FindAllStringSubmatch(row[1], -1) {
		k.add("warning", "cascade", schema+"."+table, fmt.Sprintf("the foreign key %s changes rows when the rows that it refers to change: the binlog of %s does not show these changes", m[1], k.v.name()),
			fmt.Sprintf("ALTER TABLE %s DROP FOREIGN KEY `%s` and change the rows in the application, or upgrade to MySQL 9.6", ident(schema, table), m[1]))
	}
}

// Tables returns the tables that Tables of the configuration matches now, by name, as the catalogue has
// them: columns with the database's own type names, and the primary key.
func (s *Source) Tables(ctx context.Context) ([]*schemas.Table, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	v, _, err := c.inspect(ctx)
	if err != nil {
		return nil, err
	}
	columns, err := c.catalogue(ctx)
	if err != nil {
		return nil, err
	}
	base, err := c.rows(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' ORDER BY 1, 2")
	if err != nil {
		return nil, err
	}
	var out []*schemas.Table
	for _, r := range base {
		if !s.tables.match(r[0], r[1], v.fold) {
			continue
		}
		t := &schemas.Table{Schema: r[0], Name: r[1], Wire: schemas.WireBinlog, FullBefore: v.rowImageFull}
		for i, col := range columns[r[0]+"."+r[1]] {
			t.Columns = append(t.Columns, schemas.Column{Name: col.Name, Type: schemas.Type{Name: col.Declared}, Nullable: col.Nullable, Hidden: col.Hidden,
				Dropped: s.drops(r[0], r[1], col.Name, v.fold)})
			if col.Primary {
				t.Identity = append(t.Identity, i)
			}
		}
		out = append(out, t.Seal())
	}
	return out, nil
}

// Server returns kind and version of the server, for people.
func (s *Source) Server(ctx context.Context) (string, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	v, _, err := c.inspect(ctx)
	if err != nil {
		return "", err
	}
	return v.name(), nil
}

// Remove takes what the source left on the server: nothing. Servers keep no state for a binlog reader
// that is not connected.
func (s *Source) Remove(context.Context) error { return nil }
