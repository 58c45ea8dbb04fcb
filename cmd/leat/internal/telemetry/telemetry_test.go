package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, w io.Writer, o Options) *Telemetry {
	t.Helper()
	tel, err := New(w, o)
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

// feed tells the observer one of everything.
func feed(o pipeline.Observer) {
	o.SourceState("files", "retrying", errors.New("connection refused"))
	o.Ingested("files", 3, 540, pipeline.Position{})
	o.Synced("files", 1, 540, 2*time.Millisecond)
	o.LogFull("files", true)
	o.Noticed("files", pipeline.Notice{Kind: pipeline.NoticeQuarantined, Table: "public.files", Code: "route"})
	o.Warned("files", "slot is far behind", "free it")
	o.SubscriptionState("search", "retrying", "503")
	o.Delivered("search", "ok", 3, 540, time.Millisecond, 5*time.Millisecond)
	o.Delivered("search", "unavailable", 3, 540, time.Second, time.Second)
	o.SnapshotState("files", "j1", "running", "initial")
	o.SnapshotState("files", "j1", "done", "")
	o.DeadLettered("search", pipeline.DeadLetter{ID: "files-7", Table: "public.files", Reason: "422"})
}

func status() *leatv1.StatusResponse {
	s := &leatv1.StatusResponse{MemoryBudget: 512 << 20, Started: timestamppb.New(time.Unix(1e9, 0))}
	s.Turns = append(s.Turns, &leatv1.PriorityTurns{Priority: "high", Taken: 9, Waited: 3, Wait: durationpb.New(1500 * time.Millisecond)})
	src := &leatv1.SourceStatus{Name: "files", State: "streaming", Next: 42, Oldest: 7, Lag: durationpb.New(time.Second), LogFull: true,
		Pressure: &leatv1.SourcePressure{Reading: 1, HeadroomBytes: new(uint64(4096)), WalStatus: "unreserved", CatalogXminAge: new(uint64(77)),
			BinlogAge: durationpb.New(time.Minute), BinlogExpiry: durationpb.New(4 * time.Minute)}}
	for i := range maxTables + 5 {
		src.Notices = append(src.Notices, &leatv1.Notice{Kind: "quarantined", Table: fmt.Sprint("public.t", i)})
	}
	src.Notices = append(src.Notices, &leatv1.Notice{Kind: "quarantined", Table: "public.t0"}, &leatv1.Notice{Kind: "gap", Table: "public.g\xff"})
	src.Snapshots = append(src.Snapshots, &leatv1.Job{Id: "j2", State: "running", Done: 40, Total: 100, Bytes: 4000, EventsPerSecond: 7.5},
		&leatv1.Job{Id: "j3", State: "waiting", Done: 2, Tables: []*leatv1.TableProgress{{Table: "public.a", Fault: "dropped"}, {Table: "public.b"}}})
	s.Sources = append(s.Sources, src)
	s.Subscriptions = append(s.Subscriptions, &leatv1.SubscriptionStatus{Name: "search", State: "new in this test", LagEvents: 9, Dead: 2, SaveError: "disk", Laggard: &leatv1.Laggard{Stage: "at risk"}})
	return s
}

func scrape(t *testing.T, tel *Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetricNames(t *testing.T) {
	tel := open(t, io.Discard, Options{Version: "v0"})
	feed(tel.Observer())
	tel.Collect(status)
	problems, err := testutil.GatherAndLint(tel.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	var got strings.Builder
	for line := range strings.Lines(scrape(t, tel)) {
		if rest, ok := strings.CutPrefix(line, "# TYPE leat_"); ok {
			got.WriteString("leat_" + rest)
		}
	}
	const golden = "testdata/names.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("names that users' dashboards depend on changed; -update if meant:\n%s", got.String())
	}
}

func TestGauges(t *testing.T) {
	tel := open(t, io.Discard, Options{})
	if strings.Contains(scrape(t, tel), "leat_log_full") {
		t.Error("gauges without a status")
	}
	tel.Collect(status)
	feed(tel.Observer())
	got := scrape(t, tel)
	for _, want := range []string{
		`leat_source_state{source="files",state="streaming"} 1`,
		`leat_source_state{source="files",state="stopped"} 0`,
		`leat_snapshot_jobs{source="files",state="running"} 1`,
		`leat_snapshot_jobs{source="files",state="paused"} 0`,
		`leat_snapshot_jobs_ended_total{source="files",state="done"} 1`,
		`leat_snapshot_rows{source="files"} 42`,
		`leat_snapshot_rows_expected{source="files"} 100`,
		`leat_snapshot_bytes{source="files"} 4000`,
		`leat_snapshot_rows_per_second{source="files"} 7.5`,
		`leat_snapshot_faulty_tables{source="files"} 1`,
		`leat_subscription_state{state="other",subscription="search"} 1`,
		fmt.Sprintf(`leat_source_quarantined_tables{source="files"} %d`, maxTables+5),
		`leat_log_full{source="files"} 1`,
		`leat_delivery_turns_wait_seconds_total{priority="high"} 1.5`,
		`leat_log_next_offset{source="files"} 42`,
		`leat_source_headroom_bytes{source="files"} 4096`,
		`leat_source_slot_lost{source="files"} 1`,
		`leat_source_catalog_xmin_age{source="files"} 77`,
		`leat_source_binlog_age_ratio{source="files"} 0.25`,
		`leat_source_lag_seconds{source="files"} 1`,
		`leat_subscription_lag_events{subscription="search"} 9`,
		`leat_subscription_cursor_unsaved{subscription="search"} 1`,
		`leat_source_reconnects_total{source="files"} 1`,
		`leat_subscription_deliveries_total{class="unavailable",subscription="search"} 1`,
		`leat_subscription_events_total{class="ok",subscription="search"} 3`,
		`leat_subscription_delivery_lag_seconds_count{subscription="search"} 1`,
		`leat_subscription_dead_lettered_total{subscription="search"} 1`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("missing %s", want)
		}
	}
	if n := strings.Count(got, "leat_source_table_quarantined{"); n != maxTables {
		t.Errorf("%d quarantined tables named, want %d", n, maxTables)
	}
	if n, ok := AnonymousMemory(); ok && (n < 1<<20 || n > 1<<40) {
		t.Errorf("anonymous memory %d", n)
	}
	tel.ForgetSource("files")
	tel.ForgetSubscription("search")
	tel.Collect(func() *leatv1.StatusResponse { return nil })
	if got = scrape(t, tel); strings.Contains(got, `="files"`) || strings.Contains(got, `="search"`) {
		t.Error("series of what was removed are still there")
	}
}

func TestCardinality(t *testing.T) {
	tel := open(t, io.Discard, Options{})
	o := tel.Observer()
	for i := range maxNames + 50 {
		o.Ingested(fmt.Sprint("s", i), 1, 1, pipeline.Position{})
	}
	for i := range 100 {
		o.Delivered("search", fmt.Sprint("class\xff", i), 1, 1, 0, 0)
	}
	if n := testutil.CollectAndCount(tel.m.sourceEvents); n > maxNames+1 {
		t.Errorf("%d series", n)
	}
	if n := testutil.CollectAndCount(tel.m.deliveries); n > maxClasses+1 {
		t.Errorf("%d classes", n)
	}
	if got := testutil.ToFloat64(tel.m.sourceEvents.WithLabelValues(other)); got != 50 {
		t.Errorf("%v events under other, want 50", got)
	}
}

func TestHotPathAllocates(t *testing.T) {
	o := open(t, io.Discard, Options{}).Observer()
	call := func() {
		o.Ingested("files", 500, 90000, pipeline.Position{})
		o.Synced("files", 1, 90000, time.Millisecond)
		o.Delivered("search", "ok", 500, 90000, time.Millisecond, time.Millisecond)
	}
	call()
	if n := testing.AllocsPerRun(200, call); n != 0 {
		t.Errorf("%v allocations per batch, want none", n)
	}
}

func BenchmarkObserver(b *testing.B) {
	o := open(b, io.Discard, Options{}).Observer()
	for b.Loop() {
		o.Delivered("search", "ok", 500, 90000, time.Millisecond, time.Millisecond)
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Rate
		near := func(when string, want float64) {
			t.Helper()
			if got, bytes := r.PerSecond(); got < want*0.99 || got > want*1.01 || bytes != got*180 {
				t.Errorf("%s: %v events/s, %v bytes/s, want %v", when, got, bytes, want)
			}
		}
		near("before anything", 0)
		// 1000 a second in steps of 10 ms, across the turn of many seconds.
		add := func(n int) {
			for range n {
				time.Sleep(10 * time.Millisecond)
				r.Add(10, 1800)
			}
		}
		time.Sleep(300 * time.Millisecond)
		r.Add(10, 1800)
		add(199)
		near("after 2 s", 1005)
		add(2305)
		near("after 25 s", 1000)
		time.Sleep(5 * time.Second)
		near("half the window idle", 500)
		time.Sleep(6 * time.Second)
		near("idle", 0)
		time.Sleep(time.Hour)
		add(100)
		near("again, over the whole window", 100)
	})
}

// lines decodes a JSON log.
func lines(t *testing.T, b *bytes.Buffer) (all []map[string]any) {
	t.Helper()
	for line := range bytes.Lines(b.Bytes()) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("line %s: %v", line, err)
		}
		all = append(all, m)
	}
	b.Reset()
	return all
}

func TestLinesAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		o := open(t, &b, Options{}).Observer()
		for range 1000 { // no line per batch
			o.Ingested("files", 1, 1, pipeline.Position{})
			o.Delivered("search", "ok", 1, 1, 0, 0)
		}
		if got := lines(t, &b); len(got) != 0 {
			t.Errorf("lines per batch: %v", got)
		}
		// A server that is away for two minutes: two lines, the second says how many were not shown.
		for range 120 {
			o.SourceState("files", "connecting", nil)
			o.SourceState("files", "retrying", errors.New("connection refused"))
			time.Sleep(time.Second)
		}
		got := lines(t, &b)
		if len(got) != 2 || got[0]["level"] != "warn" || got[0]["reason"] != "connection refused" || got[1]["hidden"] != 59.0 {
			t.Errorf("repeats: %v", got)
		}
		// Every change is shown.
		o.SourceState("files", "streaming", nil)
		o.SubscriptionState("search", "running", "")
		o.SubscriptionState("search", "paused", "by anna")
		o.SubscriptionState("search", "running", "")
		if got := lines(t, &b); len(got) != 4 || got[2]["reason"] != "by anna" {
			t.Errorf("changes: %v", got)
		}
		time.Sleep(time.Hour)
		for i := range 100 {
			o.DeadLettered("search", pipeline.DeadLetter{ID: fmt.Sprint("files-", i), KeyJSON: `{"ssn":"123"}`, Event: []byte("personal")})
		}
		got = lines(t, &b)
		if len(got) != burst || strings.Contains(fmt.Sprint(got), "123") || strings.Contains(fmt.Sprint(got), "personal") {
			t.Errorf("dead letters: %v", got)
		}
	})
}

func TestLimiterIsBounded(t *testing.T) {
	l := newLimiter()
	for i := range 3 * maxKeys {
		l.allow(fmt.Sprint(i), "x")
	}
	if len(l.keys) > maxKeys {
		t.Errorf("%d keys", len(l.keys))
	}
}

func TestSlog(t *testing.T) {
	var b bytes.Buffer
	tel := open(t, &b, Options{Level: "debug"})
	l := tel.Slog("binlog", slog.LevelInfo)
	l.Debug("chatter")
	l.With("server", "db:3306").Warn("lost", slog.Group("at", "pos", 7))
	for range 5 {
		l.Error("again")
	}
	got := lines(t, &b)
	if len(got) != 2 || got[0]["part"] != "binlog" || got[0]["server"] != "db:3306" || got[0]["at.pos"] != 7.0 || got[0]["level"] != "warn" || got[1]["message"] != "again" {
		t.Errorf("%v", got)
	}
	tel.ServerLog().Print("http: TLS handshake error")
	if got := lines(t, &b); len(got) != 1 || got[0]["level"] != "debug" {
		t.Errorf("%v", got)
	}
}

func TestSecretsStayInside(t *testing.T) {
	var b bytes.Buffer
	tel := open(t, &b, Options{})
	for i, s := range []string{
		"dial postgres://leat:hunter2@db:5432/app: refused",
		"dial mysql://leat:hun:ter2@db/: refused",
		"password=hunter2 host=db",
		`Password: "hunter2"`, `{"password":"hunter2"}`, "password='hunter2'", `{'secret': 'hunter2'}`,
		"whsec_hunter2+/=", "Authorization: Bearer hunter2",
	} {
		tel.Observer().Warned(fmt.Sprint(i), s, "")
		tel.Logger().Info().Str("password", "hunter2").Msg(s)
		tel.Slog(fmt.Sprint(i), slog.LevelInfo).Info(s, "err", errors.New(s))
	}
	if s := b.String(); strings.Contains(s, "hunter2") || strings.Contains(s, "ter2") {
		t.Errorf("a secret got out:\n%s", s)
	}
	if n := len(lines(t, &b)); n != 27 {
		t.Errorf("%d lines", n)
	}
}

func FuzzScrubbedStaysJSON(f *testing.F) {
	for _, s := range []string{`password="a"`, `{"secret":'x'}`, "://a:b@c", `pwd=\"`, `secret: {"a":1}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b bytes.Buffer
		tel := open(t, &b, Options{})
		tel.Logger().Info().Str("secret", s).Str("x", s).Msg(s)
		lines(t, &b)
	})
}

func TestFormats(t *testing.T) {
	var b bytes.Buffer
	open(t, &b, Options{Format: "console"}).Logger().Info().Str("source", "files").Msg("started")
	if s := b.String(); !strings.Contains(s, "started source=files") || strings.Contains(s, "\x1b") {
		t.Errorf("console: %q", s)
	}
	for _, o := range []Options{{Format: "xml"}, {Level: "loud"}, {Level: "panic"}} {
		if _, err := New(io.Discard, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
