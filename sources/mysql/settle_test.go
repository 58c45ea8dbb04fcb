package mysql

import (
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// A transaction that waits for a replica's answer stands in the binlog, and no read sees it: a snapshot that begins then,
// without the right to write, does not bring the row as it was before.
func TestSnapshotBesideACommitThatWaits(t *testing.T) {
	t.Parallel()
	db := servertest.ExclusiveMySQL(t, servers.MySQLOptions{})
	raw := base(db.URL)
	c := login(t, raw, "")
	c.do("create database waits", "use waits", "create table a (id int primary key, v varchar(10))", "create table bag (v varchar(10))",
		"insert into a values (1, 'old'), (2, 'other')", "insert into bag values ('one')",
		"install plugin rpl_semi_sync_source soname 'semisync_source.so'", "set global rpl_semi_sync_source_timeout = 600000")
	s := source(t, Config{URL: raw, Tables: []string{"waits.*"}, WatermarkTable: noSignal})
	db2 := s.Snapshots()
	src := snapshot.New(s, db2, snapshot.Config{})
	copied := newCopying(t)
	ctx := within(t)
	st, err := src.Open(ctx, now(t, raw))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	copied.stream = st
	c.do("set global rpl_semi_sync_source_enabled = on")
	committed := make(chan error, 1)
	writer := login(t, raw, "waits")
	go func() {
		_, err := writer.c.exec(ctx, "begin")
		for _, q := range []string{"update a set v = 'new' where id = 1", "insert into bag values ('two')", "commit"} {
			if err == nil {
				_, err = writer.c.exec(ctx, q)
			}
		}
		committed <- err
	}()
	for len(copied.tables["waits.a"]) == 0 { // it is in the stream, and not committed
		copied.next(ctx)
	}
	st.(pipeline.Snapshotter).Start(pipeline.SnapshotJob{ID: "j1", Tables: []string{"waits.*"}})
	release := login(t, raw, "")
	timer := time.AfterFunc(2*time.Second, func() { _, _ = release.c.exec(ctx, "set global rpl_semi_sync_source_enabled = off") })
	defer timer.Stop()
	for copied.mark == nil || !copied.mark.State.Ended() {
		copied.next(ctx)
	}
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	copied.same(db2, "waits.*")
}
