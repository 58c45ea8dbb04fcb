package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// replica is a webhook that keeps a table as its events say: rows of snapshots and changes alike.
type replica struct {
	mu      sync.Mutex
	seen    map[string]bool
	last    map[int64]string
	rows    map[int64]int64
	copied  map[int64]int // rows of snapshots, by key
	copies  int
	wrong   []string
	handler *httptest.Server
}

func newReplica(t *testing.T) *replica {
	r := &replica{seen: map[string]bool{}, last: map[int64]string{}, rows: map[int64]int64{}, copied: map[int64]int{}}
	r.handler = httptest.NewServer(r)
	t.Cleanup(r.handler.Close)
	return r
}

func (r *replica) deliver() string {
	return fmt.Sprintf("deliver: {webhook: {url: '%s', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}}", r.handler.URL)
}

func (r *replica) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil { // who sent it was killed
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var events []webhookEvent
	if strings.HasPrefix(string(body), "[") {
		err = json.Unmarshal(body, &events)
	} else {
		events = make([]webhookEvent, 1)
		err = json.Unmarshal(body, &events[0])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.wrong = append(r.wrong, err.Error())
	}
	for _, e := range events {
		r.take(e)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *replica) take(e webhookEvent) {
	k := e.Data.Key.ID
	if r.seen[e.ID] || e.Data.After == nil && e.Data.Op != "delete" { // or a change of shape
		return
	}
	if r.seen[e.ID] = true; e.Sequence <= r.last[k] {
		r.wrong = append(r.wrong, fmt.Sprintf("key %d: %s after %s", k, e.Sequence, r.last[k]))
	}
	r.last[k] = e.Sequence
	if e.Data.Op == "snapshot" {
		r.copied[k]++
		r.copies++
	}
	if e.Data.Op == "delete" {
		delete(r.rows, k)
		return
	}
	if n := e.Data.After.N; n < r.rows[k] {
		r.wrong = append(r.wrong, fmt.Sprintf("key %d: %s takes it back from %d to %d", k, e.Data.Op, r.rows[k], n))
	}
	r.rows[k] = e.Data.After.N
}

func (r *replica) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.copies
}

func (r *replica) equals(t *testing.T, p *process, want map[int64]int64) {
	t.Helper()
	until(t, p, "the copy to be equal", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		same := len(r.rows) == len(want)
		for k, n := range want {
			same = same && r.rows[k] == n
		}
		return same
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.wrong) > 0 {
		t.Fatalf("%d things are wrong, the first: %s", len(r.wrong), r.wrong[0])
	}
}

// jobDoc is what of leat jobs --json is looked at.
type jobDoc struct {
	ID, State, Reason, Cause string
	Done                     int
	Tables                   []struct{ Table, Fault, Cure string }
}

func jobsOf(t *testing.T, dir string) []jobDoc {
	t.Helper()
	out, code := leat(t, dir, "jobs", "--all", "--json")
	var doc struct{ Jobs []jobDoc }
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != 0 {
		t.Fatalf("jobs: %d %v: %s", code, err, out)
	}
	return doc.Jobs
}

// ask is until for what a command tells: not too often, since each starts a process.
func ask(t *testing.T, p *process, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	until(t, p, what, func() bool { <-tick.C; return ok() })
}

func TestSnapshotsPostgres(t *testing.T) {
	t.Parallel()
	db := servertest.Postgres(t, servers.PostgresOptions{})
	snapshots(t, &workload{driver: "postgres", dsn: db.URL, table: "public.files",
		create: "CREATE TABLE files (id bigint PRIMARY KEY, n bigint, path text)",
		upsert: "INSERT INTO files VALUES ($1, 1, 'new') ON CONFLICT (id) DO UPDATE SET n = files.n + 1, path = 'changed'",
		remove: "DELETE FROM files WHERE id = $1"}, "postgres: {url: '"+db.URL+"', slot: "+db.Name+"}\n    tables: ['public.*']",
		"INSERT INTO files SELECT i, 1, 'old' FROM generate_series(300, 6299) i", "CREATE TABLE gone (id bigint PRIMARY KEY, n bigint); INSERT INTO gone VALUES (1, 1)")
}

// snapshots: the rows that were there before Leat come to all, through kills and beside writes; they come to one that
// is new, and no other sees them; a backfill brings those that it names, and says what cannot be read.
func snapshots(t *testing.T, w *workload, source string, fill, other string) {
	const rows, kills = 6000, 3
	bin := leatBinary(t)
	w.db = openSQL(t, w.driver, w.dsn, w.create, fill, other)
	all, late := newReplica(t), newReplica(t)
	dir := t.TempDir()
	config := fmt.Sprintf("data: ./data\nlisten: %s\nsources:\n  files:\n    %s\n    snapshot: {mode: initial, chunk: 25ms}\nsubscriptions:\n  all: {source: files, tables: ['%s'], %s}\n",
		freeAddr(t), source, w.table, all.deliver())
	writeConfig(t, dir, config)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.run(ctx, rand.New(rand.NewPCG(1, 2)), 600) }()
	p := startLeat(t, bin, dir)
	for range kills {
		before := all.count() // which on a quick machine can be all: writes overtake at most 600
		until(t, p, "more rows", func() bool { return all.count() > before || before >= rows-600 })
		p.kill()
		p = startLeat(t, bin, dir)
	}
	until(t, p, "an answer", func() bool { return strings.Contains(p.log(), `"message":"listening"`) })
	ask(t, p, "the initial snapshot", func() bool { j := jobsOf(t, dir); return len(j) == 1 && j[0].State == "done" })
	stop()
	if err := <-done; err != nil {
		t.Fatalf("workload: %v", err)
	}
	want := w.rows(t)
	all.equals(t, p, want)
	twice := 0
	for _, n := range all.copied {
		twice += n - 1
	}
	if j := jobsOf(t, dir)[0]; twice > 0 || j.Cause != "initial" || all.copies < rows-600 {
		t.Fatalf("%d rows came, %d of them again: %+v", all.copies, twice, j)
	}

	writeConfig(t, dir, config+"  late: {source: files, from: snapshot, tables: ['"+w.table+"'], "+late.deliver()+"}\n")
	p.signal(syscall.SIGHUP)
	late.equals(t, p, want)
	ask(t, p, "its end", func() bool { j := jobsOf(t, dir); return len(j) == 2 && j[0].State == "done" })
	had := late.count()
	if had != len(want) || all.count() != all.copies {
		t.Fatalf("%d rows came of %d", had, len(want))
	}
	before := all.count()
	if out, code := leat(t, dir, "backfill", "late", "--table", w.table, "--where", "id >= 1000 and id < 1100", "--yes"); code != 0 || !strings.Contains(out, "100 rows read") {
		t.Fatalf("backfill: %d %s", code, out)
	}
	until(t, p, "the rows of the backfill", func() bool { return late.count() == had+100 })
	if all.count() != before {
		t.Fatal("another one sees what is not for it")
	}
	if out, code := leat(t, dir, "backfill", "late", "--where", "no such thing", "--yes"); code != 1 || !strings.Contains(out, w.table+": the condition") {
		t.Errorf("a condition that does not parse: %d %s", code, out)
	}
	droppedMidway(t, p, w, dir)
	if code := p.terminate(); code != 0 {
		t.Errorf("SIGTERM ends with %d\n%s", code, p.log())
	}
}

// droppedMidway: a table that is dropped while a job waits for its turn ends with a fault, and one that is cancelled
// ends; the source goes on.
func droppedMidway(t *testing.T, p *process, w *workload, dir string) {
	t.Helper()
	if out, code := leat(t, dir, "throttle", "files", "--ratio", "0.01", "--reason", "test"); code != 0 {
		t.Fatal(out)
	}
	gone := w.table[:strings.IndexByte(w.table, '.')] + ".gone"
	for range 2 {
		if out, code := leat(t, dir, "backfill", "late", "--table", gone, "--yes", "--detach"); code != 0 {
			t.Fatal(out)
		}
	}
	second := jobsOf(t, dir)[0].ID
	if out, code := leat(t, dir, "jobs", "cancel", second); code != 0 {
		t.Fatal(out)
	}
	execAll(t, w.db, "DROP TABLE gone")
	if out, code := leat(t, dir, "throttle", "files", "--off"); code != 0 {
		t.Fatal(out)
	}
	ask(t, p, "the jobs' ends", func() bool {
		j := jobsOf(t, dir)
		return j[0].State == "cancelled" && (j[1].State == "done" || j[1].State == "failed")
	})
}

func openSQL(t *testing.T, driver, dsn string, statements ...string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	for _, q := range statements {
		for _, one := range strings.Split(q, "; ") {
			execAll(t, db, one)
		}
	}
	return db
}

// A subscription whose policy is a snapshot and that stands still until retention passed it has the table again when
// it goes on, and goes on live.
func TestALaggardIsFedAgain(t *testing.T) {
	t.Parallel()
	db := servertest.Postgres(t, servers.PostgresOptions{})
	conn := openDB(t, db.URL, "CREATE TABLE files (id bigint PRIMARY KEY, n bigint, path text)", "INSERT INTO files SELECT i, 1, 'old' FROM generate_series(1, 500) i")
	slow, well := newReplica(t), newReplica(t)
	dir := t.TempDir()
	writeConfig(t, dir, fmt.Sprintf("data: ./data\nlisten: %s\nlog: {retention: {age: 1h, size: 16MiB}}\nsources:\n  files:\n    postgres: {url: '%s', slot: %s}\n    tables: ['public.*']\nsubscriptions:\n"+
		"  slow: {source: files, from: snapshot, laggard: snapshot, %s}\n  well: {source: files, from: latest, %s}\n", freeAddr(t), db.URL, db.Name, slow.deliver(), well.deliver()))
	p := startLeat(t, leatBinary(t), dir)
	p.ready()
	until(t, p, "the first snapshot", func() bool { return slow.count() == 500 })
	if out, code := leat(t, dir, "pause", "slow"); code != 0 {
		t.Fatal(out)
	}
	want := int64(1)
	expired := func() bool {
		out, _ := leat(t, dir, "status", "slow", "--json")
		return strings.Contains(out, `"stage": "expired"`)
	}
	for deadline := time.Now().Add(2 * time.Minute); !expired(); {
		if want++; time.Now().After(deadline) {
			t.Fatalf("retention took nothing\n%s", p.log())
		}
		execAll(t, conn, fmt.Sprintf("UPDATE files SET n = %d, path = repeat(md5(random()::text), 100)", want))
	}
	execAll(t, conn, "UPDATE files SET path = 'small'")
	if out, code := leat(t, dir, "resume", "slow"); code != 0 {
		t.Fatal(out)
	}
	rows := map[int64]int64{}
	for i := int64(1); i <= 500; i++ {
		rows[i] = want
	}
	slow.equals(t, p, rows)
	ask(t, p, "the second snapshot", func() bool {
		j := jobsOf(t, dir)
		return len(j) == 2 && j[0].State == "done" && j[0].Cause == "laggard"
	})
	execAll(t, conn, "UPDATE files SET n = n + 1 WHERE id = 7")
	rows[7]++
	slow.equals(t, p, rows)
	if well.count() != 0 {
		t.Errorf("%d rows came to one that they are not for", well.count())
	}
}

func TestSnapshotsMariaDB(t *testing.T) {
	t.Parallel()
	db := servertest.MariaDB(t, servers.MySQLOptions{})
	snapshots(t, &workload{driver: "mysql", dsn: mysqlDSN(t, db), table: db.Name + ".files",
		create: "CREATE TABLE files (id bigint PRIMARY KEY, n bigint, path varchar(100))",
		upsert: "INSERT INTO files VALUES (?, 1, 'new') ON DUPLICATE KEY UPDATE n = n + 1, path = 'changed'",
		remove: "DELETE FROM files WHERE id = ?"}, "mysql: {url: '"+db.URL+"', server_id: "+randomID()+"}\n    tables: ['"+db.Name+".*']",
		"INSERT INTO files SELECT seq, 1, 'old' FROM seq_300_to_6299", "CREATE TABLE gone (id bigint PRIMARY KEY, n bigint); INSERT INTO gone VALUES (1, 1)")
}
