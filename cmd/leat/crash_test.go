package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/lib/pq"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/state"
)

// crashes is how often each process is killed.
const crashes = 50

func TestMain(m *testing.M) {
	code := servertest.Main(m)
	if builtIn != "" {
		os.RemoveAll(builtIn)
	}
	os.Exit(code)
}

// builtIn is the folder of the binary, once a test has asked for it.
var builtIn string

var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "leat-crash-*")
	if err != nil {
		return "", err
	}
	builtIn = dir
	bin := filepath.Join(dir, "leat")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return bin, nil
})

func leatBinary(t *testing.T) string {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func TestKilledUnderLoadPostgres(t *testing.T) {
	t.Parallel()
	db := servertest.Postgres(t, servers.PostgresOptions{})
	killUnderLoad(t, &workload{driver: "postgres", dsn: db.URL, table: "public.files",
		create: "CREATE TABLE files (id bigint PRIMARY KEY, n bigint, path text)",
		upsert: "INSERT INTO files VALUES ($1, 1, 'new') ON CONFLICT (id) DO UPDATE SET n = files.n + 1, path = 'changed'",
		remove: "DELETE FROM files WHERE id = $1"}, "postgres: {url: '"+db.URL+"', slot: "+db.Name+"}\n    tables: ['public.files']")
}

func TestKilledUnderLoadMariaDB(t *testing.T) {
	t.Parallel()
	db := servertest.MariaDB(t, servers.MySQLOptions{})
	killUnderLoad(t, &workload{driver: "mysql", dsn: mysqlDSN(t, db), table: db.Name + ".files",
		create: "CREATE TABLE files (id bigint PRIMARY KEY, n bigint, path varchar(100))",
		upsert: "INSERT INTO files VALUES (?, 1, 'new') ON DUPLICATE KEY UPDATE n = n + 1, path = 'changed'",
		remove: "DELETE FROM files WHERE id = ?"}, "mysql: {url: '"+db.URL+"', server_id: "+randomID()+"}\n    tables: ['"+db.Name+".files']")
}

// randomID is a server_id: several tests read one server at a time, some in other processes.
func randomID() string { return strconv.Itoa(1<<20 + rand.IntN(1<<30)) }

func mysqlDSN(t *testing.T, db *servertest.Database) string {
	t.Helper()
	rest, ok := strings.CutPrefix(db.URL, "mysql://")
	if !ok {
		t.Fatalf("not a mysql URL: %s", db.URL)
	}
	user, host, _ := strings.Cut(rest, "@")
	host, _, _ = strings.Cut(host, "/")
	return user + "@tcp(" + host + ")/" + db.Name
}

// workload changes rows: each key counts its updates in n, from 1 at its insert.
type workload struct {
	driver, dsn, table     string
	create, upsert, remove string
	db                     *sql.DB
}

// run commits random transactions until ctx ends; the last thing that it does is to give every key one
// more update.
func (w *workload) run(ctx context.Context, rng *rand.Rand, keys int) error {
	pace := time.NewTicker(time.Millisecond) // the test is of kills: the machine is for them, too
	defer pace.Stop()
	for ; ctx.Err() == nil; <-pace.C {
		tx, err := w.db.Begin()
		if err != nil {
			return err
		}
		rows := 1 + rng.IntN(5)
		if rng.IntN(100) == 0 {
			rows = 200
		}
		for range rows {
			stmt := w.upsert
			if rng.IntN(20) == 0 {
				stmt = w.remove
			}
			if _, err := tx.Exec(stmt, rng.IntN(keys)); err != nil {
				return err
			}
		}
		end := tx.Commit
		if rng.IntN(20) == 0 {
			end = tx.Rollback
		}
		if err := end(); err != nil {
			return err
		}
	}
	for k := range keys {
		if _, err := w.db.Exec(w.upsert, k); err != nil {
			return err
		}
	}
	return nil
}

// covers reports whether the cursor says that the event at o is done.
func covers(c pipeline.Cursor, o pipeline.Offset) bool {
	if o < c.Low {
		return true
	}
	for _, p := range c.Pending {
		if o >= p.From && o < p.To {
			return false
		}
	}
	return o < c.High
}

// receiver keeps a copy of the table and checks each delivery.
type receiver struct {
	mu     sync.Mutex
	ids    map[string]uint64 // id → hash of the content
	last   map[int64]string  // key → highest sequence
	rows   map[int64]int64   // key → n
	wrong  []string
	cursor pipeline.Cursor // on disk when the process was killed last
	again  int
}

type webhookEvent struct {
	ID       string `json:"id"`
	Sequence string `json:"sequence"`
	Data     struct {
		Op  string `json:"op"`
		Key struct {
			ID int64 `json:"id"`
		} `json:"key"`
		After *struct {
			N int64 `json:"n"`
		} `json:"after"`
	} `json:"data"`
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var raw []json.RawMessage
	if !bytes.HasPrefix(body, []byte("[")) {
		raw = []json.RawMessage{body}
	} else if err := json.Unmarshal(body, &raw); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	for _, text := range raw {
		r.take(text)
	}
	r.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) take(text []byte) {
	var e webhookEvent
	if err := json.Unmarshal(text, &e); err != nil {
		r.wrong = append(r.wrong, err.Error())
		return
	}
	h := fnv.New64a()
	h.Write(text)
	k := e.Data.Key.ID
	if before, again := r.ids[e.ID]; again {
		r.again++
		if before != h.Sum64() {
			r.wrong = append(r.wrong, e.ID+" came again with other content")
		}
		if _, o, err := pipeline.ParseEventID(e.ID); err != nil || covers(r.cursor, o) {
			r.wrong = append(r.wrong, fmt.Sprintf("%s came again though the cursor on disk had it as done (%v)", e.ID, err))
		}
		return
	}
	r.ids[e.ID] = h.Sum64()
	if e.Sequence <= r.last[k] {
		r.wrong = append(r.wrong, fmt.Sprintf("key %d: %s after %s", k, e.Sequence, r.last[k]))
	}
	r.last[k] = e.Sequence
	switch e.Data.Op {
	case "delete":
		delete(r.rows, k)
	default:
		if e.Data.After.N != r.rows[k]+1 {
			r.wrong = append(r.wrong, fmt.Sprintf("key %d: n went from %d to %d: a change was lost or doubled", k, r.rows[k], e.Data.After.N))
		}
		r.rows[k] = e.Data.After.N
	}
}

func killUnderLoad(t *testing.T, w *workload, source string) {
	const keys = 300
	bin := leatBinary(t)
	var err error
	if w.db, err = sql.Open(w.driver, w.dsn); err != nil {
		t.Fatal(err)
	}
	defer w.db.Close()
	if _, err := w.db.Exec(w.create); err != nil {
		t.Fatal(err)
	}
	r := &receiver{ids: map[string]uint64{}, last: map[int64]string{}, rows: map[int64]int64{}}
	hook := httptest.NewServer(r)
	defer hook.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("data: ./data\nlisten: %s\nsources:\n  files:\n    %s\nsubscriptions:\n  search:\n    source: files\n"+
		"    deliver: {webhook: {url: '%s', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}}\n", freeAddr(t), source, hook.URL)
	if err := os.WriteFile(filepath.Join(dir, "leat.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	p := startLeat(t, bin, dir) // once quietly, so that the slot is there before the first change
	p.ready()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.run(ctx, rand.New(rand.NewPCG(seed, 2)), keys) }()
	for range crashes {
		r.progress(t, p)
		pause := time.NewTimer(time.Duration(rng.IntN(400)) * time.Millisecond)
		<-pause.C
		p.kill()
		c := cursorOf(t, filepath.Join(dir, "data", "state.db"))
		r.mu.Lock()
		r.cursor = c
		r.mu.Unlock()
		p = startLeat(t, bin, dir)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatalf("workload: %v", err)
	}
	want := w.rows(t)
	r.equals(t, p, want)
	p.kill()
	out, err := exec.Command(bin, "log", "verify", "-c", filepath.Join(dir, "leat.yaml")).CombinedOutput()
	if err != nil {
		t.Fatalf("log verify: %v: %s", err, out)
	}
	t.Logf("%d events, %d came again over %d kills", len(r.ids), r.again, crashes)
}

// cursorOf reads what a killed process left on disk.
func cursorOf(t *testing.T, path string) pipeline.Cursor {
	t.Helper()
	s, err := state.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, _, err := s.Load(t.Context(), "search")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *workload) rows(t *testing.T) map[int64]int64 {
	t.Helper()
	rows, err := w.db.Query("SELECT id, n FROM files")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := map[int64]int64{}
	for rows.Next() {
		var id, n int64
		if err := rows.Scan(&id, &n); err != nil {
			t.Fatal(err)
		}
		all[id] = n
	}
	return all
}

// until polls, with a deadline that only a failure reaches.
func until(t *testing.T, p *process, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(60 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen\n%s", what, p.log())
		}
	}
}

// progress waits for a new event.
func (r *receiver) progress(t *testing.T, p *process) {
	t.Helper()
	r.mu.Lock()
	before := len(r.ids)
	r.mu.Unlock()
	until(t, p, "a new event", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.ids) > before+50
	})
	r.fine(t)
}

func (r *receiver) fine(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.wrong) > 0 {
		t.Fatalf("%d things are wrong, the first: %s", len(r.wrong), r.wrong[0])
	}
}

func (r *receiver) equals(t *testing.T, p *process, want map[int64]int64) {
	t.Helper()
	until(t, p, "the copy to be equal", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.rows) != len(want) {
			return false
		}
		for k, n := range want {
			if r.rows[k] != n {
				return false
			}
		}
		return true
	})
	r.fine(t)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// process is a running `leat run`.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	out *os.File
	dir string
}

func startLeat(t *testing.T, bin, dir string, env ...string) *process {
	t.Helper()
	out, err := os.Create(filepath.Join(dir, "leat.log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(bin, "run", "-c", filepath.Join(dir, "leat.yaml")), out: out, dir: dir}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), env...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait() // "signal: killed"
		p.out.Close()
	}
}

func (p *process) log() string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "leat.log"))
	return string(b)
}

// ready waits until the source streams.
func (p *process) ready() {
	p.t.Helper()
	until(p.t, p, "streaming", func() bool { return strings.Contains(p.log(), `"state":"streaming"`) })
}
