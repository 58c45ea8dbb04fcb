package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

// buffer is a Writer that can be read meanwhile.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// installation is a running Leat in this process, with its API's address.
type installation struct {
	t      *testing.T
	dir    string
	addr   string
	log    *buffer
	out    *buffer
	http   *http.Client
	admin  leatv1connect.AdminServiceClient
	cancel context.CancelFunc
	done   chan error
	// ended is set when the test has looked at how it ended.
	ended bool
}

// install writes the file and runs it; it is stopped when t ends.
func install(t *testing.T, dir, yaml string, more ...func(*Options)) *installation {
	t.Helper()
	in, err := tryInstall(t, dir, yaml, more...)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// unlimited: the limit of one installation is no measure for a process that runs many, and their tests' memory: the
// collector took a quarter of all CPU time.
func unlimited(int64) int64 { return 0 }

// roomy: how full this machine's disk is decides no test. At 80 % replays, verify and copies would wait for ever.
func roomy(string) (free, total uint64, err error) { return 1 << 40, 1 << 41, nil }

func tryInstall(t *testing.T, dir, yaml string, more ...func(*Options)) (*installation, error) {
	t.Helper()
	name := filepath.Join(dir, "leat.yaml")
	if err := os.WriteFile(name, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(name, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	in := &installation{t: t, dir: dir, log: &buffer{}, out: &buffer{}, http: &http.Client{Transport: transport}, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	in.cancel = cancel
	started := make(chan net.Addr, 1)
	go func() {
		o := Options{Config: cfg, Version: "test", Stdout: in.out, Stderr: in.log, Grace: 2 * time.Second, MemoryLimit: unlimited, Space: roomy, Started: func(_ *Server, a net.Addr) { started <- a }}
		for _, f := range more {
			f(&o)
		}
		in.done <- Run(ctx, o)
	}()
	select {
	case a := <-started:
		in.addr = a.String()
	case err := <-in.done:
		cancel()
		in.done <- err
		return nil, err
	}
	in.admin = leatv1connect.NewAdminServiceClient(in.http, "http://"+in.addr)
	t.Cleanup(func() {
		if err := in.stop(); err != nil && !in.ended {
			t.Error(err)
		}
		transport.CloseIdleConnections()
		if t.Failed() {
			t.Log(in.log.String())
		}
	})
	return in, nil
}

// stop ends it as SIGTERM does. Idempotent.
func (in *installation) stop() error {
	in.cancel()
	err := <-in.done
	in.done <- err
	return err
}

func (in *installation) status(t *testing.T) *leatv1.StatusResponse {
	t.Helper()
	r, err := in.admin.Status(t.Context(), connect.NewRequest(&leatv1.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg
}

func (in *installation) source(t *testing.T, name string) *leatv1.SourceStatus {
	t.Helper()
	for _, s := range in.status(t).Sources {
		if s.Name == name {
			return s
		}
	}
	return &leatv1.SourceStatus{}
}

func (in *installation) subscription(t *testing.T, name string) *leatv1.SubscriptionStatus {
	t.Helper()
	for _, s := range in.status(t).Subscriptions {
		if s.Name == name {
			return s
		}
	}
	return &leatv1.SubscriptionStatus{}
}

func (in *installation) streaming(t *testing.T, name string) {
	t.Helper()
	until(t, "source "+name+" to stream", func() bool { return in.source(t, name).State == "streaming" })
}

// patience is how long is waited for what comes, on a machine that does much else.
const patience = 2 * time.Minute

// until polls, with a deadline that only a failure reaches.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// event is what the tests look at of an event's JSON.
type event struct {
	ID       string
	Type     string
	Subject  string
	Time     time.Time
	Sequence string
	Data     struct {
		Op       string
		Key      map[string]any
		Before   map[string]any
		After    map[string]any
		Resolved string
		Replay   struct{ Job string }
	}
}

// hook is a webhook endpoint whose answer can be changed.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	events []event
	bodies map[string]string
	wrong  []string
	answer func(w http.ResponseWriter, body []byte) bool // true: taken
}

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func newHook(t *testing.T) *hook {
	h := &hook{bodies: map[string]string{}}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Server.Close)
	return h
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	h.mu.Lock()
	answer := h.answer
	h.mu.Unlock()
	if answer != nil && !answer(w, body) {
		return
	}
	var raw []json.RawMessage
	if !bytes.HasPrefix(body, []byte("[")) {
		raw = []json.RawMessage{body}
	} else if err := json.Unmarshal(body, &raw); err != nil {
		h.wrong = append(h.wrong, err.Error())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, text := range raw {
		var e event
		if err := json.Unmarshal(text, &e); err != nil {
			h.wrong = append(h.wrong, err.Error())
		}
		if before, again := h.bodies[e.ID+e.Data.Replay.Job]; again && before != string(text) && e.Type != "leat.resolved" {
			h.wrong = append(h.wrong, e.ID+" has two contents")
		}
		h.bodies[e.ID+e.Data.Replay.Job] = string(text)
		h.events = append(h.events, e)
	}
}

func (h *hook) answers(f func(w http.ResponseWriter, body []byte) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = f
}

func answering(code int) func(http.ResponseWriter, []byte) bool {
	return func(w http.ResponseWriter, _ []byte) bool {
		w.WriteHeader(code)
		return false
	}
}

// got returns the events so far, without resolved ones.
func (h *hook) got(t *testing.T) []event {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.wrong) > 0 {
		t.Fatal(h.wrong)
	}
	var all []event
	for _, e := range h.events {
		if e.Type != "leat.resolved" {
			all = append(all, e)
		}
	}
	return all
}

// heard counts what got would return; more than any, where that would fail.
func (h *hook) heard() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.wrong) > 0 {
		return math.MaxInt
	}
	for i := range h.events {
		if h.events[i].Type != "leat.resolved" {
			n++
		}
	}
	return n
}

func (h *hook) waits(t *testing.T, n int) []event {
	t.Helper()
	until(t, fmt.Sprintf("%d events at the webhook", n), func() bool { return h.heard() >= n })
	return h.got(t)
}

func ids(events []event) []string {
	var all []string
	for _, e := range events {
		all = append(all, e.ID)
	}
	return all
}

// pg is a database with a table public.files (id, name, size).
type pg struct {
	*servertest.Database
	conn *pgx.Conn
}

func newPG(t *testing.T) *pg {
	t.Helper()
	return newPGWith(t, servers.PostgresOptions{})
}

func newPGWith(t *testing.T, o servers.PostgresOptions) *pg {
	t.Helper()
	db := &pg{Database: servertest.Postgres(t, o)}
	var err error
	if db.conn, err = pgx.Connect(t.Context(), db.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.conn.Close(context.Background()) }) // the server drops it otherwise
	db.exec(t, "CREATE TABLE files (id bigint PRIMARY KEY, name text, size bigint)")
	return db
}

func (db *pg) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, q := range statements {
		if _, err := db.conn.Exec(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

func (db *pg) ask(t *testing.T, q string) (answer string) {
	t.Helper()
	if err := db.conn.QueryRow(t.Context(), q).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return answer
}

func (db *pg) slot() string { return "leat_" + strings.ToLower(db.Name) }

// source is the source `files` of a configuration.
func (db *pg) source() string { return db.sourceNamed("files", "public.*") }

func (db *pg) sourceNamed(name, tables string) string {
	return fmt.Sprintf("  %s:\n    postgres: {url: '%s', slot: %s_%s, publication: %s_%s}\n    tables: ['%s']\n", name, db.URL, db.slot(), name, db.slot(), name, tables)
}

const top = "data: ./data\nlisten: 127.0.0.1:0\nmemory: 64MiB\n"

// yaml makes a configuration of one source; each subscription is "name: …rest of its lines, flow style".
func (db *pg) yaml(subscriptions ...string) string {
	return top + "sources:\n" + db.source() + "subscriptions:\n  " + strings.Join(subscriptions, "\n  ") + "\n"
}

// toHook has a timeout that a busy machine keeps: nothing comes twice because it was slow.
func toHook(h *hook) string {
	return fmt.Sprintf("webhook: {url: '%s', secret: %s, timeout: 60s}", h.URL, secret)
}

// pull takes events until there are n; it acks what ack says.
func (in *installation) pull(t *testing.T, name string, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := leatv1connect.NewSubscriberServiceClient(in.http, "http://"+in.addr).Pull(ctx)
	defer s.CloseResponse()
	defer s.CloseRequest()
	for _, m := range []*leatv1.PullRequest{
		{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: name, Consumer: "test"}}},
		{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: 1 << 20}}},
	} {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	var all []string
	for len(all) < n {
		m, err := s.Receive()
		if err != nil {
			t.Fatalf("after %d events: %v", len(all), err)
		}
		e := m.GetEvents()
		for _, x := range e.GetEvents() {
			all = append(all, fmt.Sprintf("%s-%d", e.Source, x.Offset))
		}
		if e != nil {
			if err := s.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Ack{Ack: &leatv1.Ack{UpToLease: e.Lease, Epoch: e.Epoch}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(t, name+" to have what was acked", func() bool { return in.subscription(t, name).Open == 0 })
	return all
}
