package app

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

func (in *installation) verify(t *testing.T, r *leatv1.VerifyRequest) *leatv1.VerifiedTable {
	t.Helper()
	stream, err := in.admin.Verify(t.Context(), connect.NewRequest(r))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for stream.Receive() {
		if report := stream.Msg().GetReport(); report != nil {
			if len(report.Tables) != 1 {
				t.Fatalf("%d tables", len(report.Tables))
			}
			return report.Tables[0]
		}
	}
	t.Fatalf("no report: %v", stream.Err())
	return nil
}

// brought has the rows that differ brought again, and waits until they are.
func (in *installation) brought(t *testing.T, r *leatv1.VerifiedTable, rows uint64) {
	t.Helper()
	var done uint64
	for _, where := range r.Repair {
		job, err := in.admin.Backfill(t.Context(), connect.NewRequest(&leatv1.BackfillRequest{Subscription: "a", Tables: []string{r.Table}, Where: where}))
		if err != nil {
			t.Fatal(err)
		}
		until(t, "the backfill's end", func() bool {
			jobs, err := in.admin.Jobs(t.Context(), connect.NewRequest(&leatv1.JobsRequest{Id: job.Msg.Job.Id}))
			if err != nil || len(jobs.Msg.Jobs) != 1 || jobs.Msg.Jobs[0].State != "done" {
				return false
			}
			done += jobs.Msg.Jobs[0].Done
			return true
		})
	}
	if done != rows || r.Repaired != rows {
		t.Fatalf("%d rows were brought, %d were said, want %d", done, r.Repaired, rows)
	}
}

func kinds(v *leatv1.VerifiedTable) map[string]string {
	all := map[string]string{}
	for _, d := range v.Differences {
		all[d.Key] = d.Kind + fmt.Sprint(d.Columns)
	}
	return all
}

// What was delivered is compared with the table while both change; a change that the log never saw is found, and
// brought by a backfill of just those rows.
func TestVerify(t *testing.T) {
	t.Parallel()
	db, h := newPG(t), newHook(t)
	db.exec(t, "INSERT INTO files SELECT i, 'old', 1 FROM generate_series(1, 50) i")
	in := install(t, t.TempDir(), db.yaml("a: {source: files, filter: 'after.size < 1000', deliver: {"+toHook(h)+"}}"))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files SELECT i, 'it''s \\ ' || i, i FROM generate_series(51, 2000) i", "UPDATE files SET size = 5 WHERE id % 7 = 0 AND id > 50", "DELETE FROM files WHERE id % 100 = 60")
	stop := db.writes(t)
	r := in.verify(t, &leatv1.VerifyRequest{Subscription: "a"})
	stop()
	if r.Error != "" || r.Different != 0 || r.BeyondRetention != 50 || r.Compared == 0 || r.Filtered == 0 {
		t.Fatalf("%v", r)
	}
	for _, g := range r.Ranges {
		if g.SourceRows != g.OtherRows || g.SourceSum != g.OtherSum {
			t.Errorf("%v", g)
		}
	}

	db.exec(t, "ALTER PUBLICATION "+db.slot()+"_files SET (publish = 'insert')", "UPDATE files SET name = 'lost' WHERE id IN (70, 71)", "DELETE FROM files WHERE id = 72",
		"ALTER PUBLICATION "+db.slot()+"_files SET (publish = 'insert, update, delete, truncate')", "INSERT INTO files VALUES (3000, 'behind it', 1)")
	want := map[string]string{`{"id":70}`: "different[name]", `{"id":71}`: "different[name]", `{"id":72}`: "extra[]"}
	r = in.verify(t, &leatv1.VerifyRequest{Subscription: "a"})
	if have := kinds(r); !maps.Equal(have, want) || len(r.Repair) != 1 {
		t.Fatalf("found %v, want %v; %v", have, want, r.Repair)
	}
	in.brought(t, r, 2)
	delete(want, `{"id":70}`)
	delete(want, `{"id":71}`)
	if have := kinds(in.verify(t, &leatv1.VerifyRequest{Subscription: "a"})); !maps.Equal(have, want) {
		t.Fatalf("found %v, want %v", have, want)
	}

	// More rows than are listed are brought too.
	db.exec(t, "ALTER PUBLICATION "+db.slot()+"_files SET (publish = 'insert')", "UPDATE files SET name = 'gone' WHERE id BETWEEN 200 AND 1999", "ALTER PUBLICATION "+db.slot()+"_files SET (publish = 'insert, update, delete, truncate')")
	lost := uint64(0)
	if err := db.conn.QueryRow(t.Context(), "SELECT count(*) FROM files WHERE name = 'gone' AND size < 1000").Scan(&lost); err != nil || lost < 500 {
		t.Fatalf("%d: %v", lost, err)
	}
	if r = in.verify(t, &leatv1.VerifyRequest{Subscription: "a"}); r.Different != lost+1 || len(r.Repair) < 1 {
		t.Fatalf("%d differ, want %d", r.Different, lost+1)
	}
	in.brought(t, r, lost)
	if r = in.verify(t, &leatv1.VerifyRequest{Subscription: "a"}); r.Different != 1 {
		t.Fatalf("%d differ: %v", r.Different, kinds(r))
	}
}

// A comparison that waits says what for, and goes on when that is over.
func TestVerifyWaits(t *testing.T) {
	t.Parallel()
	db, h := newPG(t), newHook(t)
	var free atomic.Uint64
	free.Store(50)
	in := install(t, t.TempDir(), db.yaml("a: {source: files, deliver: {"+toHook(h)+"}}"), func(o *Options) {
		o.Space = func(string) (uint64, uint64, error) { return free.Load() << 30, 100 << 30, nil }
	})
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files SELECT i, 'a', 1 FROM generate_series(1, 30000) i") // more than one read of the table
	free.Store(19)
	until(t, "the disk to be full", func() bool { return in.source(t, "files").Disk == "replays" })
	stream, err := in.admin.Verify(t.Context(), connect.NewRequest(&leatv1.VerifyRequest{Subscription: "a"}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	waited := ""
	for stream.Receive() {
		if why := stream.Msg().GetProgress().GetWaits(); why != "" {
			waited = why
			free.Store(50)
		}
		if r := stream.Msg().GetReport(); r != nil {
			if !strings.Contains(waited, "disk") || r.Tables[0].Different != 0 {
				t.Errorf("waited for %q: %v", waited, r)
			}
			return
		}
	}
	t.Fatalf("no report: %v", stream.Err())
}

// Keys of all types that order has are found again, and brought.
func TestVerifyMySQLKeys(t *testing.T) {
	t.Parallel()
	db, h := servertest.MySQL(t, servers.MySQLOptions{}), newHook(t)
	table := db.Name + ".files"
	exec := func(q ...string) {
		t.Helper()
		if err := db.Server.Exec(t.Context(), q...); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE " + table + " (b bit(10), e enum('x','y'), s set('p','q'), n varchar(20) CHARACTER SET latin1, t timestamp(3), y year, v varbinary(9), d decimal(9,3), k time(2), u bigint unsigned, i int, PRIMARY KEY (b, e, s, n, t, y, v, d, k, u))")
	in := install(t, t.TempDir(), fmt.Sprintf("%ssources:\n  files:\n    mysql: {url: '%s', server_id: %d}\n    tables: ['%s.*']\nsubscriptions:\n  a: {source: files, deliver: {%s}}\n", top, db.URL, 1<<20+rand.IntN(1<<30), db.Name, toHook(h)))
	in.streaming(t, "files")
	row := func(b int) string {
		return fmt.Sprintf("(%d, 'y', 'p,q', 'it''s \\\\ ü', '2026-01-02 03:04:05.678', 2001, x'00ff27', -1.500, '-01:02:03.45', 18446744073709551615, 1)", b)
	}
	exec("INSERT INTO " + table + " VALUES " + row(1) + "," + row(3) + "," + row(513))
	h.waits(t, 3)
	exec("SET sql_log_bin = 0", "UPDATE "+table+" SET i = 2 WHERE b > 1") // one connection for all
	r := in.verify(t, &leatv1.VerifyRequest{Subscription: "a"})
	if r.Error != "" || r.Different != 2 || r.Compared != 1 {
		t.Fatalf("%v", r)
	}
	in.brought(t, r, 2)
	if r = in.verify(t, &leatv1.VerifyRequest{Subscription: "a"}); r.Different != 0 || r.Compared != 3 {
		t.Fatalf("%v", r)
	}
}

// writes has another connection change rows above 1000 until the returned func is called.
func (db *pg) writes(t *testing.T) (stop func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var join sync.WaitGroup
	join.Go(func() {
		defer conn.Close(context.Background())
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			id := 1000 + n*37%1000
			for _, q := range []string{"UPDATE files SET size = size + 1 WHERE id = $1", "DELETE FROM files WHERE id = $1 + 1", "INSERT INTO files VALUES ($1 + 2, 'new', 1) ON CONFLICT DO NOTHING"} {
				if _, err := conn.Exec(context.Background(), q, id); err != nil {
					t.Errorf("%s: %v", q, err)
					return
				}
			}
		}
	})
	return func() { close(done); join.Wait() }
}

// A target is compared row by row with the source, though it was never published.
func TestVerifyTarget(t *testing.T) {
	t.Parallel()
	db, h := newPG(t), newHook(t)
	dir := t.TempDir()
	left := filepath.Join(dir, "data", "verify-77") // of a process that was killed
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	in := install(t, dir, db.yaml("a: {source: files, deliver: {"+toHook(h)+"}}"))
	if _, err := os.Stat(left); err == nil {
		t.Error("temporary files are left at the start")
	}
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files SELECT i, 'name ' || i, i FROM generate_series(1, 500) i")
	h.waits(t, 500)
	copied := newPG(t)
	copied.exec(t, "ALTER TABLE files ADD COLUMN loaded timestamptz DEFAULT now()", "INSERT INTO files SELECT i, 'name ' || i, i FROM generate_series(1, 500) i")
	request := &leatv1.VerifyRequest{Subscription: "a", Tables: []string{"public.files"}, Target: copied.URL}
	if r := in.verify(t, request); r.Error != "" || r.Different != 0 || r.Compared != 500 {
		t.Fatalf("%v", r)
	}
	copied.exec(t, "UPDATE files SET size = 0 WHERE id = 10", "DELETE FROM files WHERE id = 20", "INSERT INTO files VALUES (900)")
	want := map[string]string{`{"id":10}`: "different[size]", `{"id":20}`: "missing[]", `{"id":900}`: "extra[]"}
	r := in.verify(t, request)
	if have := kinds(r); !maps.Equal(have, want) {
		t.Fatalf("found %v, want %v", have, want)
	}
	if slices.Contains(r.Repair, "900") || len(r.Repair) != 1 {
		t.Errorf("repair: %v", r.Repair)
	}
	for _, bad := range []string{"http://x", "mysql://u@127.0.0.1/", "::"} {
		if err := in.refused(t, bad); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := in.admin.Pause(t.Context(), connect.NewRequest(&leatv1.PauseRequest{Subscription: "a"})); err != nil {
		t.Fatal(err)
	}
	until(t, "the pause", func() bool { return in.status(t).Subscriptions[0].State == "paused" })
	if err := in.refused(t, copied.URL); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "leat resume a") {
		t.Errorf("of a subscription that is paused: %v", err)
	}
}

// refused returns the error of a comparison with a target.
func (in *installation) refused(t *testing.T, target string) error {
	t.Helper()
	stream, err := in.admin.Verify(t.Context(), connect.NewRequest(&leatv1.VerifyRequest{Subscription: "a", Target: target}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		t.Logf("%v", stream.Msg())
	}
	return stream.Err()
}
