package app

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// busy lets n sessions work, in a loop as pgbench does, until the returned func is called.
func (db *pg) busy(t *testing.T, n int) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, n)
	for range n {
		conn, err := pgx.Connect(t.Context(), db.URL)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for ctx.Err() == nil {
				_, _ = conn.Exec(ctx, "SELECT pg_sleep(1)")
			}
			_ = conn.Close(context.Background())
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

// TestLoadSheds: sessions beyond max_active stop what may be shed, and it goes on when they are gone; the log is read
// on while the database would remove what is not. How soon is shown in virtual time: pipeline/engine,
// TestGovernedByLoad.
func TestLoadSheds(t *testing.T) {
	t.Parallel()
	db := &pg{Database: servertest.Postgres(t, servers.PostgresOptions{Params: map[string]string{"max_slot_wal_keep_size": "64MB"}})}
	var err error
	if db.conn, err = pgx.Connect(t.Context(), db.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.conn.Close(context.Background()) })
	db.exec(t, "CREATE TABLE files (id bigint PRIMARY KEY, name text, size bigint)")
	h := newHook(t)
	yaml := strings.Replace(db.yaml("a: {source: files, deliver: {"+toHook(h)+"}}"), "    tables:", "    load: {max_active: 4}\n    tables:", 1)
	in := install(t, t.TempDir(), yaml)
	in.streaming(t, "files")
	pressure := func() *leatv1.SourcePressure { return in.source(t, "files").Pressure }
	until(t, "the load to be known", func() bool { return pressure().GetSnapshot() == 1 && pressure().ActiveSessions != nil })
	end := db.busy(t, 12)
	until(t, "snapshots and replays to stop", func() bool { return pressure().GetSnapshot() == 0 && pressure().GetReplay() == 0 })
	if p := pressure(); !strings.Contains(p.Why, "max_active is 4") || p.EndsWhen == "" {
		t.Errorf("%v", p)
	}
	// Retention in danger: so much is written per second that 64 MB last less than a minute. Each of it comes before the
	// next is written.
	n := 0
	until(t, "load to ask for a slower log while loss is near", func() bool {
		n++
		db.exec(t, fmt.Sprintf("INSERT INTO files VALUES (%d)", n), "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 2000000))")
		h.waits(t, n)
		p := pressure()
		if p.Reading < 1 && p.TimeToLoss != nil && p.TimeToLoss.AsDuration() < 2*p.TimeToDrain.AsDuration() {
			t.Fatalf("the log is not read: %v", p)
		}
		return strings.HasPrefix(p.Why, "reading goes on")
	})
	end()
	until(t, "all to go on", func() bool {
		return pressure().GetSnapshot() == 1 && pressure().GetReading() == 1 && pressure().Why == ""
	})
	t.Logf("stopped and resumed; %d events meanwhile", n)
}

// TestFlagsAndSignalTable: each throttles by itself and is named.
func TestFlagsAndSignalTable(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	db.exec(t, "CREATE SCHEMA ops", "CREATE TABLE ops.signals (owner text, reason text, ratio real, until timestamptz)")
	var paused atomic.Bool
	flag := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if paused.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		} else {
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	defer flag.Close()
	file := filepath.Join(dir, "slow")
	yaml := strings.Replace(db.yaml("a: {source: files, deliver: {"+toHook(h)+"}}"), "    tables:",
		fmt.Sprintf("    load: {max_active: 1000, signal_table: ops.signals, flag_file: slow, flag_url: '%s'}\n    tables:", flag.URL), 1)
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	id := 0
	for _, c := range []struct {
		owner   string
		on, off func()
	}{
		{"signal table: ann", func() { db.exec(t, "INSERT INTO ops.signals VALUES ('ann', 'peak', 0, NULL)") }, func() { db.exec(t, "DELETE FROM ops.signals") }},
		{"flag file " + file, func() { _ = os.WriteFile(file, []byte("0 a backup\n"), 0o600) }, func() { _ = os.Remove(file) }},
		{"flag URL " + flag.URL, func() { paused.Store(true) }, func() { paused.Store(false) }},
	} {
		c.on()
		until(t, c.owner, func() bool {
			s := in.source(t, "files")
			return len(s.Throttles) == 1 && s.Throttles[0].Owner == c.owner && s.Pressure.Reading == 0 && strings.Contains(s.Pressure.Why, c.owner)
		})
		id++
		db.exec(t, fmt.Sprintf("INSERT INTO files VALUES (%d)", id))
		c.off()
		until(t, "the end of "+c.owner, func() bool { s := in.source(t, "files"); return len(s.Throttles) == 0 && s.Pressure.Reading == 1 })
		h.waits(t, id)
	}
	// A signal table that cannot be read throttles nothing, and status says so.
	broken := func() string {
		for _, w := range in.source(t, "files").Waits {
			if w.Kind == "signals" {
				return w.Reason + " | " + w.EndsWhen
			}
		}
		return ""
	}
	db.exec(t, "DROP TABLE ops.signals")
	until(t, "the signal table to be missed", func() bool {
		got := broken()
		return strings.Contains(got, "ops.signals: the signal table cannot be read") && strings.Contains(got, "CREATE TABLE")
	})
	db.exec(t, "CREATE TABLE ops.signals (owner text, reason text, ratio real, until timestamptz)")
	until(t, "the signal table to be there again", func() bool { return broken() == "" })
}
