package postgres

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
)

// load asks until ok, for what another session does shows with a delay.
func (d *db) load(s *Source, ok func(pipeline.SourceLoad) bool) pipeline.SourceLoad {
	d.t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); ; <-look.C {
		l, err := s.Load(d.t.Context())
		if err != nil {
			d.t.Fatal(err)
		}
		if ok(l) {
			return l
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("still %+v", l)
		}
	}
}

// busy lets n sessions sleep, which is work to pg_stat_activity, until the returned func is called.
func (d *db) busy(n int) (end func()) {
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan struct{}, n)
	for range n {
		conn := d.connect()
		go func() {
			_, _ = conn.Exec(ctx, "select pg_sleep(3600)")
			done <- struct{}{}
		}()
	}
	return func() {
		cancel()
		for range n {
			<-done
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		d.exec("create table files (id int primary key)", "create table signals (owner text, reason text, ratio real, until timestamptz)")
		s := d.source(func(c *Config) { c.SignalTable = "public.signals" })
		defer s.Rest()
		r := d.open(s, pipeline.Position{})
		before := d.load(s, func(l pipeline.SourceLoad) bool { return l.Behind >= 0 })
		if before.Active < 0 || before.Waiting < 0 || len(before.Findings) > 0 || before.Lost || len(before.Signals) > 0 {
			t.Fatalf("%+v", before)
		}
		end := d.busy(3)
		d.load(s, func(l pipeline.SourceLoad) bool { return l.Active >= 3 })
		end()
		// Nobody reads: what is written lies behind, and is a rate.
		d.exec("insert into files select generate_series(1, 20000)")
		l := d.load(s, func(l pipeline.SourceLoad) bool { return l.Behind > 1<<20 && l.Rate > 0 })
		if l.Kept != "reserved" || l.Xmin < 0 || l.Age != pipeline.Unknown {
			t.Fatalf("%+v", l)
		}
		if l.ToLoss != pipeline.Unknown || l.Headroom != pipeline.Unknown {
			t.Fatalf("nothing limits the slot: %+v", l)
		}
		d.exec("insert into signals values ('ann', 'migration', 0.25, now() + interval '1 hour'), ('bob', 'over', 0, now() - interval '1 s')")
		l = d.load(s, func(l pipeline.SourceLoad) bool { return len(l.Signals) > 0 })
		if g := l.Signals; len(g) != 1 || g[0].Owner != "ann" || g[0].Reason != "migration" || g[0].Ratio != 0.25 || g[0].Until.Before(time.Now()) {
			t.Fatalf("%+v", g)
		}
		d.exec("drop table signals")
		d.load(s, func(l pipeline.SourceLoad) bool {
			return len(l.Findings) == 1 && l.Findings[0].Code == "signal_table" && strings.HasPrefix(l.Findings[0].Cure, "CREATE TABLE")
		})
		_ = r.stream.Close()
		// The next Load connects again.
		s.Rest()
		d.load(s, func(l pipeline.SourceLoad) bool { return l.Behind > 1<<20 })
	})
}

// TestLoadWithLeastRights: the role of a source sees its slot; for the rest the finding names the GRANT, and it
// cures.
func TestLoadWithLeastRights(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, d *db) {
		role := "reader_" + d.Name
		d.exec(fmt.Sprintf("create role %s login replication password 'secret'", quote(role)), "create table signals (owner text, reason text, ratio real, until timestamptz)")
		t.Cleanup(func() {
			_, _ = d.conn.Exec(context.Background(), fmt.Sprintf("drop owned by %s; drop role %[1]s", quote(role)))
		})
		u, err := url.Parse(d.URL)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(role, "secret")
		s := d.source(func(c *Config) { c.URL, c.SignalTable = u.String(), "signals" })
		defer s.Rest()
		end := d.busy(1)
		defer end()
		d.exec(fmt.Sprintf("select pg_create_logical_replication_slot('%s', 'pgoutput')", s.cfg.Slot))
		l := d.load(s, func(pipeline.SourceLoad) bool { return true })
		if l.Active != pipeline.Unknown || l.Behind < 0 || len(l.Findings) != 2 {
			t.Fatalf("%+v", l)
		}
		for _, f := range l.Findings {
			if f.Level != "warning" {
				t.Fatalf("%+v", f)
			}
			d.exec(f.Cure)
		}
		d.load(s, func(l pipeline.SourceLoad) bool { return l.Active >= 1 && len(l.Findings) == 0 })
		d.exec(fmt.Sprintf("select pg_drop_replication_slot('%s')", s.cfg.Slot))
	})
}

// TestLoadOfALimitedSlot: the room that the server leaves shrinks until the slot is lost.
func TestLoadOfALimitedSlot(t *testing.T) {
	d := newLimitedDB(t)
	d.exec("create table files (id int primary key, body text)")
	s := d.source()
	defer s.Rest()
	if err := d.open(s, pipeline.Position{}).stream.Close(); err != nil {
		t.Fatal(err)
	}
	first := d.load(s, func(l pipeline.SourceLoad) bool { return l.Headroom > 0 })
	d.exec("insert into files select g, repeat('x', 1000) from generate_series(1, 4000) g")
	l := d.load(s, func(l pipeline.SourceLoad) bool { return l.Headroom < first.Headroom && l.Rate > 0 })
	if l.ToLoss <= 0 || l.ToLoss > time.Hour || l.Lost {
		t.Fatalf("%+v", l)
	}
	for range 40 {
		d.exec("select pg_switch_wal()", "insert into files select max(id) + 1 from files", "checkpoint")
		if l, err := s.Load(t.Context()); err != nil {
			t.Fatal(err)
		} else if l.Lost {
			if l.ToLoss != 0 || l.Headroom != 0 || l.Kept != "lost" {
				t.Fatalf("%+v", l)
			}
			return
		} else if (l.Kept == "unreserved") != (l.ToLoss == 0) {
			t.Fatalf("%+v", l)
		}
	}
	t.Fatal("the slot was never lost")
}

// newLimitedDB is on a server that keeps little WAL for slots.
func newLimitedDB(t *testing.T) *db {
	t.Helper()
	d := &db{Database: servertest.Postgres(t, servers.PostgresOptions{Params: map[string]string{
		"max_slot_wal_keep_size": "64MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}}), t: t}
	d.conn = d.connect()
	return d
}
