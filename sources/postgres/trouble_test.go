package postgres

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
)

// refused opens and returns the error, which has to have the given code.
func (d *db) refused(s *Source, after pipeline.Position, code string, class pipeline.ErrorClass) *pipeline.SourceError {
	d.t.Helper()
	st, err := s.Open(d.t.Context(), after)
	if err == nil {
		_ = st.Close()
		d.t.Fatalf("it opened, want %s", code)
	}
	var se *pipeline.SourceError
	if !errors.As(err, &se) {
		d.t.Fatalf("%v, want %s", err, code)
	}
	if se.Code != code || se.Class != class || se.Cure == "" {
		d.t.Errorf("code %s, class %d, cure %q; want %s, %d: %v", se.Code, se.Class, se.Cure, code, class, err)
	}
	return se
}

// eventually polls until ok.
func (d *db) eventually(what string, ok func() bool) {
	d.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			d.t.Fatal(what)
		}
	}
}

func (d *db) free() {
	d.t.Helper()
	d.eventually("the slot stays active", func() bool {
		return d.text(`select active::text from pg_replication_slots where slot_name = $1`, d.Name) == "false"
	})
}

func TestSlotTroubles(t *testing.T) {
	t.Parallel()
	allVersions(t, func(t *testing.T, d *db) {
		d.exec(`create table f (id int primary key)`)
		s := d.source()
		r := d.open(s, pipeline.Position{})
		r.until(func() bool { return !r.last.Zero() })
		early := r.last
		d.exec(`insert into f values (1)`)
		r.want("insert public.f - {id=1}")
		late := r.last

		se := d.refused(s, late, CodeSlotActive, pipeline.Transient)
		pid := d.text(`select active_pid::text from pg_replication_slots where slot_name = $1`, d.Name)
		if !strings.Contains(se.Error(), pid) {
			t.Errorf("the error does not name pid %s: %v", pid, se)
		}
		r.stream.Confirm(late)
		if err := r.stream.Close(); err != nil {
			t.Fatal(err)
		}
		d.free()
		d.refused(s, early, CodeSlotAhead, pipeline.Stopped)
		bend := func(change func(*token)) pipeline.Position {
			tok, err := parseToken(late.Token)
			if err != nil {
				t.Fatal(err)
			}
			change(&tok)
			return pipeline.Position{Counter: late.Counter, Token: tok.String()}
		}
		d.refused(s, bend(func(k *token) { k.system = "1" }), CodeSystem, pipeline.Stopped)
		d.refused(s, bend(func(k *token) { k.timeline = 9 }), CodeTimeline, pipeline.Stopped)
		d.refused(s, bend(func(k *token) { k.lsn += 1 << 40 }), CodeServerBehind, pipeline.Stopped)
		d.refused(s, pipeline.Position{Counter: 1, Token: "nonsense"}, CodePosition, pipeline.Stopped)
		d.refused(d.source(func(c *Config) { c.Slot = d.Name + "_gone" }), late, CodeSlotMissing, pipeline.Stopped)
		d.refused(d.source(func(c *Config) { c.Slot, c.Create = d.Name+"_gone", false }), pipeline.Position{}, CodeSlotMissing, pipeline.Stopped)
		d.refused(d.source(func(c *Config) { c.Publication = "gone" }), late, CodePublicationMissing, pipeline.Stopped)
		d.refused(d.source(func(c *Config) { c.Start = "0/1" }), pipeline.Position{}, CodeStart, pipeline.Stopped)
		d.exec(`select pg_create_logical_replication_slot('` + d.Name + `_td', 'test_decoding')`)
		d.refused(d.source(func(c *Config) { c.Slot = d.Name + "_td" }), pipeline.Position{}, CodeSlotPlugin, pipeline.Stopped)
		other := newDB(t, d.version)
		d.refused(other.source(func(c *Config) { c.Slot = d.Name }), pipeline.Position{}, CodeSlotDatabase, pipeline.Stopped)

		r = d.open(s, late) // and all is well where nothing is wrong
		d.exec(`insert into f values (2)`)
		r.want("insert public.f - {id=2}")
		if err := r.stream.Close(); err != nil {
			t.Fatal(err)
		}
		d.free()
		if err := s.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := d.text(`select (select count(*) from pg_replication_slots where slot_name = $1)::text || (select count(*) from pg_publication where pubname = 'leat_files')::text`, d.Name); n != "00" {
			t.Errorf("slots and publications left: %s", n)
		}
		if err := s.Remove(t.Context()); err != nil {
			t.Errorf("removing what is gone: %v", err)
		}
	})
}

// A slot whose WAL is gone is told from one that others invalidated.
func TestSlotLost(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		t.Run(fmt.Sprintf("postgres%d", v), func(t *testing.T) {
			t.Parallel()
			srv := servertest.ExclusivePostgres(t, servers.PostgresOptions{Version: v, Params: map[string]string{"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}})
			d := &db{Database: &servertest.Database{Server: srv, Name: "leat_lost", URL: srv.URL}, t: t, version: v}
			d.conn = d.connect()
			d.exec(`create table f (id int primary key, v text)`)
			s := d.source()
			r := d.open(s, pipeline.Position{})
			r.until(func() bool { return !r.last.Zero() })
			if err := r.stream.Close(); err != nil {
				t.Fatal(err)
			}
			d.free()
			d.eventually("the slot survives", func() bool {
				d.exec(`select pg_switch_wal()`, `insert into f select n, repeat('x', 1000) from generate_series(1, 100) n`, `delete from f`, `checkpoint`)
				return d.text(`select wal_status from pg_replication_slots where slot_name = 'leat_lost'`) == "lost"
			})
			d.refused(s, r.last, CodeSlotLost, pipeline.Stopped)
			if !has(s.Check(t.Context()), CodeSlotLost) {
				t.Error("check does not name it")
			}
			lost := r.last // a person accepts that it is
			// without the right to make a slot it says what to do instead, and that is all that has to be done
			kept := d.refused(d.source(func(c *Config) { c.Create = false }), lost.Anew(), CodeSlotLost, pipeline.Stopped)
			drop, rest, _ := strings.Cut(strings.TrimPrefix(kept.Cure, "as a role with REPLICATION: "), "; ")
			create, _, _ := strings.Cut(rest, "; ")
			if v == versions[0] {
				d.exec(drop)
				d.refused(d.source(func(c *Config) { c.Create = false }), lost.Anew(), CodeSlotMissing, pipeline.Stopped)
				d.exec(create)
				s = d.source(func(c *Config) { c.Create, c.Start = false, "0/1" }) // where the log began once
			} else {
				s = d.source(func(c *Config) { c.Start = "0/1" })
			}
			r = d.open(s, lost.Anew())
			if lost.Anew().Counter <= lost.Counter || lost.Anew().Anew().Token != lost.Anew().Token {
				t.Errorf("%v becomes %v", lost, lost.Anew())
			}
			r.until(func() bool { return r.last.Counter > lost.Anew().Counter })
			d.exec(`insert into f values (1, 'again')`)
			r.want("insert public.f - {id=1 v=again}")
			at := r.last
			if err := r.stream.Close(); err != nil {
				t.Fatal(err)
			}
			d.free()
			r = d.open(s, at)
			d.exec(`insert into f values (2, 'on')`)
			r.want("insert public.f - {id=2 v=on}")
		})
	}
}

func has(list []pipeline.Finding, code string) bool {
	for _, f := range list {
		if f.Code == code {
			return true
		}
	}
	return false
}

func TestCheckNamesEverything(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		role := d.Name + "_role"
		d.exec(
			`create role `+role+` login`,
			`create table nokey (v int)`,
			`create table moved (id int primary key, tree int)`,
			`create unlogged table volatile_ (id int primary key)`,
			`create table users (id int primary key, password text, name text)`,
			`create table gen (id int primary key, g int generated always as (id * 2) stored)`,
			`create table idx (id int primary key, code int not null)`,
			`create unique index on idx (code)`,
			`alter table idx replica identity using index idx_code_idx`,
			`create publication pub for table moved where (id > 1), users (id, name) with (publish = 'insert')`,
			`create table late (id int primary key)`,
			`select pg_create_logical_replication_slot('`+d.Name+`', 'test_decoding')`,
		)
		t.Cleanup(func() { d.reassign(role) })
		u, err := url.Parse(d.URL)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.User(role)
		s := d.source(func(c *Config) {
			c.URL, c.Publication, c.Create = u.String(), "pub", false
			c.Keys = map[string][]string{"public.moved": {"tree"}, "public.users": {"nix"}}
			c.Columns = map[string][]string{"public.nokey": {"!v"}, "public.late": {"!id"}, "public.users": {"!passwrd"}}
		})
		list := s.Check(t.Context())
		for _, code := range []string{CodePermission, "replica_identity", "key_not_in_identity", "key_unknown", "column_unknown", "key_excluded", "unreadable_table",
			"generated_columns", "identity_not_key", "not_published", "row_filter", "column_list", "publication_operations", CodeSlotPlugin, "slot_keep_size"} {
			if !has(list, code) {
				t.Errorf("%s is not found", code)
			}
		}
		for _, f := range list {
			if f.Cure == "" || f.Place == "" || f.What == "" {
				t.Errorf("finding without place, what or cure: %+v", f)
			}
		}
		rights := d.source(func(c *Config) { c.URL = u.String() })
		if !has(rights.Check(t.Context()), CodePublicationRights) {
			t.Error("lack of rights is not found")
		}
		d.exec(`alter role ` + role + ` replication`)
		se := d.refused(d.source(func(c *Config) { c.URL, c.Slot = u.String(), d.Name+"_x" }), pipeline.Position{}, CodePublicationRights, pipeline.Stopped)
		if !strings.Contains(se.Error(), `create publication "leat_files" for table`) {
			t.Errorf("no SQL to run in %v", se)
		}
		d.exec(`alter role ` + role + ` noreplication`)
	})
}

func (d *db) reassign(role string) {
	if err := d.Server.Exec(d.t.Context(), "drop role if exists "+role); err != nil && d.t.Context().Err() == nil {
		d.t.Error(err)
	}
}

func TestCheckFindsNothingWrong(t *testing.T) {
	t.Parallel()
	allVersions(t, func(t *testing.T, d *db) {
		d.exec(`create table f (id int primary key)`)
		for _, f := range d.source().Check(t.Context()) {
			if f.Level != "info" {
				t.Errorf("%+v", f)
			}
		}
		infos, err := d.source().Tables(t.Context())
		if err != nil || len(infos) != 1 || infos[0].Name != "f" || fmt.Sprint(infos[0].Key) != "[id]" || infos[0].Problem != "" {
			t.Errorf("%+v, %v", infos, err)
		}
	})
}

func TestSettingsOfServer(t *testing.T) {
	t.Parallel()
	srv := servertest.Postgres(t, servers.PostgresOptions{Version: 17, Params: map[string]string{"wal_level": "replica", "synchronous_standby_names": "*", "wal_sender_timeout": "1s", "synchronous_commit": "local"}})
	d := &db{Database: srv, t: t, version: 17}
	list := d.source().Check(t.Context())
	for _, code := range []string{CodeWalLevel, "synchronous_standby", "sender_timeout"} {
		if !has(list, code) {
			t.Errorf("%s is not found in %+v", code, list)
		}
	}
	d.refused(d.source(), pipeline.Position{}, CodeWalLevel, pipeline.Stopped)
}

func TestTLSAndPasswords(t *testing.T) {
	t.Parallel()
	const secret = "s3cr&t/w"
	srv := servertest.ExclusivePostgres(t, servers.PostgresOptions{Version: 17, Password: secret, ClientCert: true})
	d := &db{Database: &servertest.Database{Server: srv, Name: "leat_tls", URL: srv.URL}, t: t, version: 17}
	d.conn = d.connect()
	d.exec(`create table f (id int primary key, v text)`)
	r := d.open(d.source(), pipeline.Position{})
	d.exec(`insert into f select n, repeat('x', 100) from generate_series(1, 20000) n`)
	r.until(func() bool { return len(r.lines) == 20000 })
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	with := func(f func(url.Values)) string {
		c, q := *u, u.Query()
		f(q)
		c.RawQuery = q.Encode()
		return c.String()
	}
	bad := map[string]string{
		with(func(q url.Values) { q.Set("sslmode", "disable") }):                    CodeAuth,
		with(func(q url.Values) { q.Del("sslcert"); q.Del("sslkey") }):              CodeAuth,
		with(func(q url.Values) { q.Set("sslrootcert", u.Query().Get("sslcert")) }): CodeUnreachable,
	}
	c := *u
	c.User = url.UserPassword("postgres", "wr0ng/pass")
	bad[c.String()] = CodeAuth
	for text, code := range bad {
		_, err := d.source(func(c *Config) { c.URL = text }).Open(t.Context(), pipeline.Position{})
		var se *pipeline.SourceError
		if !errors.As(err, &se) || se.Code != code {
			t.Errorf("%v, want %s", err, code)
		}
		for _, s := range []string{secret, url.QueryEscape(secret), "wr0ng", "s3cr"} {
			if strings.Contains(fmt.Sprint(err), s) {
				t.Errorf("the error tells the password: %v", err)
			}
		}
	}
}

func TestMaskedErrors(t *testing.T) {
	var m masker
	m.add("p w/d")
	inner := &pgconn.PgError{Message: "said p w/d and p+w%2Fd"}
	err := m.error(fmt.Errorf("connect: %w", inner))
	if strings.Contains(err.Error(), "w/d") || strings.Contains(err.Error(), "w%2Fd") {
		t.Errorf("%v", err)
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		t.Error("the cause is lost")
	}
	if _, err := New(Config{Name: "x", URL: "postgres://u:s3cret@h:port%/db"}); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v", err)
	}
}
