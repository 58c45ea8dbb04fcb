package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
)

// TestFailover: the primary dies and its standby, to which the slot came along, is promoted. A log that holds
// no more than the standby goes on exactly; one that holds a change that never got there stops and says so;
// where the slot did not come along, that is told.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary := servertest.ExclusivePostgres(t, servers.PostgresOptions{})
	standby := servertest.Standby(t, primary, map[string]string{"primary_slot_name": "standby"})
	open := func(srv *servers.Server) *db {
		d := &db{Database: &servertest.Database{Server: srv, Name: "leat_fail", URL: srv.URL}, t: t, version: servers.DefaultPostgres}
		d.conn = d.connect()
		return d
	}
	old, now := open(primary), open(standby)
	old.exec(`select pg_create_physical_replication_slot('standby')`, `create table f (id int primary key)`)
	r := old.open(old.source(), pipeline.Position{})
	old.exec(`insert into f values (1)`)
	r.want("insert public.f - {id=1}")
	now.eventually("the slot comes along", func() bool {
		// It does once it has moved beyond what the standby began with.
		old.exec(`select pg_log_standby_snapshot()`)
		if err := r.next(); err != nil {
			t.Fatal(err)
		}
		r.stream.Confirm(r.last)
		if _, err := now.conn.Exec(t.Context(), `select pg_sync_replication_slots()`); err != nil && !strings.Contains(err.Error(), "ahead of the standby") {
			t.Fatal(err)
		}
		return now.text(`select count(*)::text from pg_replication_slots where slot_name = 'leat_fail' and synced and not temporary`) == "1"
	})
	now.refused(now.source(), r.last, CodeStandby, pipeline.Transient)

	old.exec(`insert into f values (2)`)
	r.want("insert public.f - {id=2}")
	early := r.last
	old.exec(`insert into f values (3)`)
	end := old.text(`select pg_current_wal_lsn()::text`)
	now.eventually("the standby follows", func() bool {
		return now.text(`select (pg_last_wal_replay_lsn() >= $1::text::pg_lsn)::text`, end) == "true"
	})
	if err := standby.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	old.exec(`insert into f values (4)`) // never gets there
	r.want("insert public.f - {id=3}", "insert public.f - {id=4}")
	late := r.last
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.next(); err == nil {
		t.Fatal("a stream outlives its server")
	}

	if err := standby.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	now = open(standby)
	now.exec(`select pg_promote()`)
	se := now.refused(now.source(), late, CodeTimeline, pipeline.Stopped)
	if tok, _ := parseToken(late.Token); !strings.Contains(se.Error(), "left at 0/") || !strings.Contains(se.Error(), tok.lsn.String()) {
		t.Errorf("it does not say which is where: %v", se)
	}
	now.refused(now.source(func(c *Config) { c.Slot = "leat_fail_gone" }), early, CodeSlotMissing, pipeline.Stopped)
	r = now.open(now.source(), early)
	now.exec(`insert into f values (5)`)
	r.want("insert public.f - {id=3}", "insert public.f - {id=5}")
	tok, err := parseToken(r.last.Token)
	if err != nil || tok.timeline != 2 || tok.lsn <= lsnOf(early.Token) || tok.lsn == pglogrepl.LSN(0) {
		t.Errorf("the position is %q, %v: want the new timeline", r.last.Token, err)
	}
	if r.last.Counter <= early.Counter {
		t.Errorf("the counter went from %d to %d", early.Counter, r.last.Counter)
	}
	r.stream.Confirm(r.last)
	if err := r.stream.Close(); err != nil {
		t.Fatal(err)
	}
	now.free()
	r = now.open(now.source(), r.last)
	now.exec(`insert into f values (6)`)
	r.want("insert public.f - {id=6}")
	for _, f := range now.source().Check(t.Context()) {
		if f.Code == "slot_failover" {
			t.Error("the slot that we made does not follow a failover")
		}
	}
}
