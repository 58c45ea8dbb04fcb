package table

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// as is the URL of another user.
func (at *there) as(t testing.TB, user, password string) string {
	t.Helper()
	u, err := url.Parse(at.url)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

// unavailable is the reason of a Delivery that has to wait.
func unavailable(t testing.TB, s *Sink, o pipeline.Offset, c pipetest.Change) string {
	t.Helper()
	b := batch(o, c)
	defer b.Release()
	out, err := deliver(t, s, b)
	de := pipeline.AsDeliveryError(err)
	if err == nil || de.Class != pipeline.Unavailable || strings.Contains(err.Error(), "hush") {
		t.Fatalf("%v %v", out, err)
	}
	return de.Reason
}

// A user without rights waits and is told which; leat check tells it before, and writes nothing.
func TestRights(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		table, user := pipetest.FilesTable(servertest.Name()), servertest.Name()
		at.exec(t, "CREATE TABLE "+table.Name+" (id bigint PRIMARY KEY, namespace_id bigint, path varchar(99), leat_offset bigint NOT NULL DEFAULT 0)")
		who := user
		if at.kind == "postgres" {
			at.exec(t, "CREATE ROLE "+user+" LOGIN PASSWORD 'hush'", "GRANT SELECT, INSERT, UPDATE ON "+table.Name+" TO "+user)
			t.Cleanup(func() {
				if _, err := at.db.ExecContext(context.Background(), "DROP OWNED BY "+user); err != nil {
					t.Error(err)
				}
				if _, err := at.db.ExecContext(context.Background(), "DROP ROLE "+user); err != nil {
					t.Error(err)
				}
			})
		} else {
			who = "'" + user + "'@'%'"
			at.exec(t, "CREATE USER "+who+" IDENTIFIED BY 'hush'", "GRANT SELECT, INSERT, UPDATE ON "+at.schema+"."+table.Name+" TO "+who)
			t.Cleanup(func() {
				if _, err := at.db.ExecContext(context.Background(), "DROP USER "+who); err != nil {
					t.Error(err)
				}
			})
		}
		s := at.sink(t, func(o *Options) { o.URL = at.as(t, user, "hush") })
		asked := []Asked{{Schema: "public", Name: table.Name, Columns: []string{"id", "namespace_id", "path"}}}
		found := s.Check(t.Context(), asked)
		if len(found) != 1 || found[0].Level != "error" || !strings.Contains(found[0].Cure, "DELETE") || !strings.Contains(found[0].Place, table.Name) {
			t.Errorf("%+v", found)
		}
		done(t, s, 10, put(table, "1", "1", "a"))
		if why := unavailable(t, s, 11, del(table, "1")); !strings.Contains(strings.ToLower(why), "denied") || !strings.Contains(why, table.Name) {
			t.Error(why)
		}
		at.exec(t, "GRANT DELETE ON "+map[bool]string{true: "", false: at.schema + "."}[at.kind == "postgres"]+table.Name+" TO "+who)
		done(t, s, 11, del(table, "1"))
		if found := s.Check(t.Context(), asked); len(found) != 0 {
			t.Errorf("%+v", found)
		}
		if have := at.files(t, table.Name); have != "" {
			t.Error(have)
		}
		// The same table twice, columns that are missing, a table that is.
		strict := at.sink(t, func(o *Options) { o.Create, o.Evolve, o.Name = false, false, at.schema+".{table}" })
		found = strict.Check(t.Context(), []Asked{{"public", table.Name, []string{"id", "size"}}, {"other", table.Name, nil}, {"public", "nowhere", nil}})
		text := fmt.Sprintf("%+v", found)
		for _, w := range []string{"no column size", "would stand in one table", "no such table"} {
			if !strings.Contains(text, w) {
				t.Errorf("%s does not say %q", text, w)
			}
		}
		// A wrong password.
		wrong := at.sink(t, func(o *Options) { o.URL = at.as(t, user+"x", "hush") })
		unavailable(t, wrong, 1, put(table, "1", "1", "a"))
		if found := wrong.Check(t.Context(), asked); len(found) != 1 || found[0].Code != "target_user" {
			t.Errorf("%+v", found)
		}
		if u := at.as(t, user, "hush"); at.kind != "postgres" { // nobody listens there
			p, _ := url.Parse(u)
			p.Host = "127.0.0.1:1"
			at.url = p.String()
		} else {
			at.url = "postgres://leat:hush@127.0.0.1:1/x"
		}
		nobody := at.sink(t)
		unavailable(t, nobody, 1, put(table, "1", "1", "a"))
		if found := nobody.Check(t.Context(), asked); len(found) != 1 || found[0].Code != "unreachable" || strings.Contains(fmt.Sprint(found), "hush") {
			t.Errorf("%+v", found)
		}
	})
}

// Connections that the server ended meanwhile cost nothing; what is locked runs out of time and goes when it is free.
func TestInterrupted(t *testing.T) {
	each(t, func(t *testing.T, at *there) {
		table := pipetest.FilesTable(servertest.Name())
		s := at.sink(t, func(o *Options) { o.Timeout = 3 * time.Second })
		done(t, s, 10, put(table, "1", "1", "a"))
		if at.kind == "postgres" {
			at.exec(t, "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'leat'")
		} else {
			for id := range strings.Lines(at.rows(t, "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()")) {
				at.exec(t, "KILL "+strings.TrimSpace(id))
			}
		}
		done(t, s, 11, put(table, "1", "2", "b"))
		tx, err := at.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), "UPDATE "+table.Name+" SET path = 'held' WHERE id = 1"); err != nil {
			t.Fatal(err)
		}
		b := batch(12, put(table, "1", "3", "c"))
		defer b.Release()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if out, err := s.Deliver(ctx, &pipeline.Delivery{Runs: []pipeline.Run{{Batch: b, To: 1}}, Events: 1}); err == nil {
			t.Fatalf("%v", out)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		done(t, s, 13, put(table, "1", "4", "d"))
		done(t, s, 12, put(table, "1", "3", "c")) // the attempt that was given up, late
		if have := at.files(t, table.Name); have != "1 4 d" {
			t.Error(have)
		}
	})
}
