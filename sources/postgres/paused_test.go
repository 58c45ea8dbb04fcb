package postgres

import (
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
)

// TestPausedStaysConnected: a reader that is paused for several times wal_sender_timeout, with more written
// than the sockets hold, keeps its connection and reads all of it afterwards.
func TestPausedStaysConnected(t *testing.T) {
	t.Parallel()
	d := &db{Database: servertest.Postgres(t, servers.PostgresOptions{Params: map[string]string{"wal_sender_timeout": "1s"}}), t: t}
	d.conn = d.connect()
	d.exec("create table files (id int primary key, body text)")
	s := d.source()
	r := d.open(s, pipeline.Position{})
	pid := d.text("select active_pid::text from pg_replication_slots where slot_name = $1", s.cfg.Slot)
	d.exec("insert into files select g, repeat('x', 1000) from generate_series(1, 20000) g")
	// The server's own timeout cannot be had in virtual time.
	d.exec("select pg_sleep(4)")
	if now := d.text("select active_pid::text from pg_replication_slots where slot_name = $1", s.cfg.Slot); now != pid {
		t.Fatalf("read by process %q before the pause, by %q after it", pid, now)
	}
	rows := 0
	for deadline := time.Now().Add(patience); rows < 20000; {
		b, err := r.stream.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows += len(b.Events)
		b.Release()
		if time.Now().After(deadline) {
			t.Fatalf("%d rows", rows)
		}
	}
}
