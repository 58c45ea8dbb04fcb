package mysql

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
)

// failure opens at a position and reads until the stream fails.
func failure(t *testing.T, s *Source, at pipeline.Position) *pipeline.SourceError {
	t.Helper()
	ctx := within(t)
	st, err := s.Open(ctx, at)
	for err == nil {
		defer func() { _ = st.Close() }()
		var b *pipeline.Batch
		if b, err = st.Next(ctx); err == nil {
			b.Release()
		}
	}
	var se *pipeline.SourceError
	if !errors.As(err, &se) {
		t.Fatalf("not a SourceError: %v", err)
	}
	return se
}

func wantStop(t *testing.T, err *pipeline.SourceError, code, in string) {
	t.Helper()
	if err.Class != pipeline.Stopped || err.Code != code || err.Cure == "" || !strings.Contains(err.Error(), in) {
		t.Fatalf("class %d, code %s: %v; want stopped, %s, with %q", err.Class, err.Code, err, code, in)
	}
}

// One server of each kind is used up by what cannot be done on a shared one.
func TestLostHistory(t *testing.T) {
	t.Parallel()
	o := servers.MySQLOptions{Params: map[string]string{"log-slave-updates": "ON"}}
	t.Run("mysql", func(t *testing.T) {
		t.Parallel()
		own := servertest.ExclusiveMySQL(t, servers.MySQLOptions{})
		failover(t, own, servertest.ExclusiveMySQL(t, servers.MySQLOptions{}))
		lost(t, own, servertest.MySQL(t, servers.MySQLOptions{}))
	})
	t.Run("mariadb", func(t *testing.T) {
		t.Parallel()
		own := servertest.ExclusiveMariaDB(t, servers.MySQLOptions{})
		failover(t, own, servertest.ExclusiveMariaDB(t, o))
		lost(t, own, servertest.MariaDB(t, servers.MySQLOptions{}))
	})
}

func lost(t *testing.T, own *servers.Server, other *servertest.Database) {
	raw := base(own.URL)
	c := login(t, raw, "")
	c.do("create database lost", "use lost", "create table a (id int primary key)")
	from := now(t, raw)
	c.do("insert into a values (1)", "flush binary logs", "insert into a values (2)")
	s := source(t, Config{URL: raw, Tables: []string{"lost.*"}})
	r := newReading(t)
	r.end = from
	r.follow(s, "id=2")
	// A server of its own history lacks what we have.
	wantStop(t, failure(t, source(t, Config{URL: base(other.URL)}), r.end), "gtids_missing", "lacks")
	// Earliest, and a file's offset, give the same transactions as the position by GTID.
	for _, start := range []string{"earliest", fileStart(c)} {
		again := newReading(t)
		again.follow(source(t, Config{URL: raw, Tables: []string{"lost.*"}, Start: start}), "id=2")
		if again.end.Token != r.end.Token {
			t.Fatalf("from %s: %s, want %s", start, again.end.Token, r.end.Token)
		}
	}
	// Another reader with our id ends the stream, which says so.
	ctx := within(t)
	st, err := s.Open(ctx, r.end)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	second, err := s.Open(ctx, r.end)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = st.Next(ctx)
	}
	_ = second.Close()
	var se *pipeline.SourceError
	if !errors.As(err, &se) || se.Code != "server_id_clash" && se.Code != "disconnected" {
		t.Fatalf("%v", err)
	}
	// Purged binlogs are told.
	c.do("flush binary logs")
	for deadline := within(t); len(c.rows("show binary logs")) > 1; { // files that a dump still reads stay
		if deadline.Err() != nil {
			t.Fatal("the server does not purge its binlogs")
		}
		for _, row := range c.rows("select id from information_schema.processlist where command like 'Binlog Dump%'") {
			_, _ = c.c.exec(deadline, "kill "+row[0]) // may have ended meanwhile
		}
		files := c.rows("show binary logs")
		c.do("purge binary logs to '" + files[len(files)-1][0] + "'")
	}
	wantStop(t, failure(t, s, from), "binlog_purged", "")
	anew, err := s.Open(within(t), from.Anew())
	if err != nil {
		t.Fatalf("a position that was accepted: %v", err)
	}
	b, err := anew.Next(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if b.End.Counter <= from.Anew().Counter {
		t.Errorf("the position went from %v to %v", from, b.End)
	}
	at := b.End
	b.Release()
	_ = anew.Close()
	if anew, err = s.Open(within(t), at); err != nil {
		t.Fatalf("where it began: %v", err)
	}
	_ = anew.Close()
	// A restart of the server ends the stream and no more.
	if err := own.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	c = login(t, base(own.URL), "lost")
	c.do("insert into a values (3)")
	r.follow(source(t, Config{URL: base(own.URL), Tables: []string{"lost.*"}}), "id=3")
	rollover(t, own, r)
}

// rollover lets the files' numbers get a seventh digit.
func rollover(t *testing.T, own *servers.Server, r *reading) {
	if err := own.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(own.DataDir, "binlog.index")
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(text))
	file := lines[len(lines)-1]
	to := file[:strings.LastIndexByte(file, '.')] + ".999998"
	lines[len(lines)-1] = to
	if !filepath.IsAbs(file) {
		file, to = filepath.Join(own.DataDir, file), filepath.Join(own.DataDir, to)
	}
	if err := errors.Join(os.Rename(file, to), os.WriteFile(index, []byte(strings.Join(lines, "\n")+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := own.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	c := login(t, base(own.URL), "lost")
	c.do("insert into a values (4)", "flush binary logs", "insert into a values (5)", "flush binary logs", "insert into a values (6)")
	files := c.rows("show binary logs")
	if n := len(files); n < 3 || !strings.HasSuffix(files[n-3][0], ".999999") || !strings.HasSuffix(files[n-1][0], ".1000001") {
		t.Fatalf("the binlog's files: %v", files)
	}
	before := len(r.records)
	r.follow(source(t, Config{URL: base(own.URL), Tables: []string{"lost.*"}}), "id=6")
	if got := strings.Join(r.texts()[before:], ","); got != "insert lost.a - -> id=4,insert lost.a - -> id=5,insert lost.a - -> id=6" {
		t.Fatal(got)
	}
}

// fileStart is the place before the last table's creation, as FILE:OFFSET.
func fileStart(c *sqlClient) string {
	first := c.rows("show binary logs")[0][0]
	for _, ev := range c.rows("show binlog events in '" + first + "'") {
		if ev[2] == "Gtid" {
			return ev[0] + ":" + ev[1]
		}
	}
	c.t.Fatal("no transaction in " + first)
	return ""
}

// Without GTIDs the position is file and offset, exact as well, and of one server only.
func TestFileAndOffset(t *testing.T) {
	t.Parallel()
	o := servers.MySQLOptions{Params: map[string]string{"gtid-mode": "OFF", "enforce-gtid-consistency": "OFF"}}
	db := servertest.MySQL(t, o)
	exact(t, db)
	at := now(t, base(db.URL))
	if !strings.HasPrefix(at.Token, "mysql file ") {
		t.Fatal(at.Token)
	}
	foreign := at
	foreign.Token = strings.Replace(at.Token, strings.Fields(at.Token)[2], "00000000-0000-0000-0000-000000000000", 1)
	wantStop(t, failure(t, source(t, Config{URL: base(db.URL)}), foreign), "server_changed", "mean nothing here")
	fields := strings.Fields(at.Token)
	gone := at
	gone.Token = strings.Join([]string{"mysql file", fields[2], "4", "binlog.999999"}, " ")
	wantStop(t, failure(t, source(t, Config{URL: base(db.URL)}), gone), "binlog_purged", "")
	beyond := at
	beyond.Token = strings.Join([]string{"mysql file", fields[2], "99999999", fields[4]}, " ")
	wantStop(t, failure(t, source(t, Config{URL: base(db.URL)}), beyond), "position_missing", "")
}

// Everything that is wrong is found at once, with its cure.
func TestCheckFindsAll(t *testing.T) {
	t.Parallel()
	common := []string{"binlog_format", "binlog_row_image", "binlog_row_metadata", "binlog_expiry", "no_primary_key", "engine", "right_missing",
		"columns_unknown", "keys_unknown", "binlog_ignore_db", "server_id_clash"}
	params := map[string]string{"binlog-format": "MIXED", "binlog-row-image": "MINIMAL", "binlog-row-metadata": "MINIMAL",
		"binlog-expire-logs-seconds": "3600", "binlog-ignore-db": "gone"}
	test := func(t *testing.T, db *servertest.Database, codes ...string) {
		raw := base(db.URL)
		c := login(t, raw, db.Name)
		user := strings.ReplaceAll(db.Name, "leat_", "u")
		c.do("create table nokey (a int)", "create table old (id int primary key) engine=MyISAM", "create table p (id int primary key)",
			"create table kid (id int primary key, p int, foreign key (p) references p (id) on delete cascade)",
			"create user "+user+"@'%' identified by 'secret-pw'", "grant select, replication slave on *.* to "+user+"@'%'")
		id := c.rows("select @@server_id")[0][0]
		var number uint32
		for _, d := range id {
			number = number*10 + uint32(d-'0')
		}
		s := source(t, Config{URL: "mysql://" + user + ":secret-pw@" + addr(t, raw) + "/", ServerID: number, Tables: []string{db.Name + ".*"},
			Columns: map[string][]string{db.Name + ".p": {"!nothing"}}, Keys: map[string][]string{db.Name + ".p": {"nowhere"}}})
		found := map[string]bool{}
		for _, f := range s.Check(within(t)) {
			found[f.Code] = true
			if f.What == "" || f.Cure == "" || strings.Contains(f.What+f.Cure, "secret-pw") {
				t.Errorf("%+v", f)
			}
		}
		for _, code := range append(codes, common...) {
			if code == "binlog_ignore_db" { // needs the right that is missing
				continue
			}
			if !found[code] {
				t.Errorf("%s was not found: %v", code, found)
			}
		}
		full := map[string]bool{}
		for _, f := range source(t, Config{URL: raw, Tables: []string{db.Name + ".*"}}).Check(within(t)) {
			full[f.Code] = true
		}
		if !full["binlog_ignore_db"] || full["right_missing"] {
			t.Errorf("as root: %v", full)
		}
		tables, err := s.Tables(within(t))
		if err != nil || len(tables) != 4 || tables[0].Name != "kid" || len(tables[0].Identity) != 1 {
			t.Errorf("%v, %v", tables, err)
		}
	}
	t.Run("mysql", func(t *testing.T) {
		t.Parallel()
		p := map[string]string{"gtid-mode": "OFF", "enforce-gtid-consistency": "OFF", "binlog-row-value-options": "PARTIAL_JSON"}
		for k, v := range params {
			p[k] = v
		}
		test(t, servertest.MySQL(t, servers.MySQLOptions{Params: p}), "gtid_mode", "binlog_row_value_options")
	})
	t.Run("mariadb", func(t *testing.T) {
		t.Parallel()
		test(t, servertest.MariaDB(t, servers.MySQLOptions{Params: params}), "cascade")
	})
}

// TestOtherServerBehindThePort: what answers is no MySQL server.
func TestOtherServerBehindThePort(t *testing.T) {
	t.Parallel()
	pg := servertest.Postgres(t, servers.PostgresOptions{})
	for _, raw := range []string{"mysql://u:pass-word@" + addr(t, pg.URL) + "/?timeout=1s", "mysql://u:pass-word@127.0.0.1:1/"} {
		_, err := source(t, Config{URL: raw}).connect(within(t))
		var se *pipeline.SourceError
		if !errors.As(err, &se) || se.Cure == "" || strings.ContainsAny(se.Error(), "\r\n") || strings.Contains(se.Error(), "pass-word") {
			t.Errorf("%q", err)
		}
	}
}

func TestCheckWithoutServer(t *testing.T) {
	t.Parallel()
	for raw, code := range map[string]string{"mysql://u:pass-word@127.0.0.1:1/": "unreachable"} {
		f := source(t, Config{URL: raw}).Check(within(t))
		if len(f) != 1 || f[0].Code != code || f[0].Cure == "" || strings.Contains(f[0].What, "pass-word") {
			t.Errorf("%+v", f)
		}
	}
	db := servertest.MySQL(t, servers.MySQLOptions{})
	f := source(t, Config{URL: "mysql://nobody:pass-word@" + addr(t, db.URL) + "/"}).Check(within(t))
	if len(f) != 1 || f[0].Code != "access_denied" || strings.Contains(f[0].What, "pass-word") {
		t.Errorf("%+v", f)
	}
}

// caching_sha2_password with and without TLS, and proof of the server's identity.
func TestConnections(t *testing.T) {
	t.Parallel()
	db := servertest.MySQL(t, servers.MySQLOptions{})
	host := addr(t, db.URL)
	ok := []string{"tls=disable", "tls=preferred", "tls=required"}
	if db.Server.Certs != nil {
		ok = append(ok, "tls=verify-ca&ca="+db.Server.Certs.CA)
	}
	for _, q := range ok {
		c, err := source(t, Config{URL: "mysql://repl:repl@" + host + "/?" + q}).connect(within(t))
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		if want := q != "tls=disable"; c.secure != want {
			t.Errorf("%s: secure %v", q, c.secure)
		}
		_ = c.Close()
	}
	_, err := source(t, Config{URL: "mysql://repl:repl@" + host + "/?tls=verify-full"}).connect(within(t))
	if code(err) != "tls" {
		t.Errorf("verify-full with an unknown authority: %v", err)
	}
}
