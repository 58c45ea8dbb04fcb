package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// env is the environment of the tests.
func env(name string) (string, bool) {
	v, ok := map[string]string{
		"PGPASSWORD": "p@ss/w:rd?#", "MYPASSWORD": "my-pa55word",
		"WEBHOOK_SECRET": goodSecret, "BAD_SECRET": "hunter2-in-the-wrong-form", "NUMBER": "17", "SIZE": "1GiB",
		"WORD": "sesame-open", "EMPTY": "", "INJECT": "x\nmemory: 1GiB", "SRC": "sesame-source",
	}[name]
	return v, ok
}

const goodSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTwjUPD8="

var testOptions = Options{Env: env, Dir: "/etc/leat", ReadFile: func(p string) ([]byte, error) {
	if p == "/etc/leat/mysql-url" {
		return []byte("mysql://leat:pw@db/"), nil
	}
	if p == "/run/secrets/hook" || p == "/etc/leat/secrets/hook" {
		return []byte(goodSecret + "\n"), nil
	}
	return nil, &os.PathError{Op: "open", Path: p, Err: os.ErrNotExist}
}}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("leat.yaml", []byte(text), testOptions)
	if err != nil {
		t.Fatalf("Parse:\n%v", err)
	}
	return c
}

func readTest(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestBad compares the whole error text of each bad file.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			text, want, _ := strings.Cut(strings.TrimPrefix(string(b), "-- leat.yaml --\n"), "-- want --\n")
			_, perr := Parse("leat.yaml", []byte(text), testOptions)
			if perr == nil {
				t.Fatal("no error")
			}
			got := perr.Error() + "\n"
			if *update {
				want = got
				if err := os.WriteFile(name, []byte("-- leat.yaml --\n"+text+"-- want --\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			var errs Errors
			if !errors.As(perr, &errs) {
				t.Fatalf("%T is not Errors", perr)
			}
			for i, e := range errs {
				if i > 0 && (errs[i-1].Line > e.Line) {
					t.Error("not sorted by line")
				}
			}
		})
	}
}

// TestExampleOfInterface reads the file that the design shows, less what this
// version does not have, and looks at every field.
func TestExampleOfInterface(t *testing.T) {
	c := parse(t, readTest(t, "interface.yaml"))
	files, orders := c.Sources["files"], c.Sources["orders"]
	search := c.Subscriptions["search"]
	for _, x := range []struct {
		name      string
		got, want any
	}{
		{"data", c.Data, "/etc/leat/leat-data"}, {"listen", c.Listen, "127.0.0.1:7070"},
		{"public_url", c.PublicURL, "http://127.0.0.1:7070"}, {"memory", c.Memory, Size(512 << 20)},
		{"egress", c.Egress.Allow, []string{"public", "loopback"}},
		{"age", c.Log.Retention.Age.D(), 72 * time.Hour}, {"size", c.Log.Retention.Size, Size(50 << 30)},
		{"slot", files.Postgres.Slot, "leat_files"}, {"publication", files.Postgres.Publication, "leat_files"},
		{"create", files.Postgres.Create, true},
		{"url", files.Postgres.URL.String(), "postgres://leat:${PGPASSWORD}@db:5432/app"},
		{"tables", files.Tables, []string{"public.*", "!public.tmp_*"}},
		{"keys", files.Keys, map[string][]string{"public.files": {"namespace_id"}}},
		{"start", files.Start, Start{Kind: StartNow}},
		{"server_id", orders.MySQL.ServerID, uint32(7001)},
		{"filter", search.Filter, `op == "delete" || after.deleted == false`},
		{"from", search.From, From{Kind: FromEarliest}},
		{"secret", search.Deliver.Webhook.Secret[0].Reveal(), goodSecret},
		{"timeout", search.Deliver.Webhook.Timeout.D(), 15 * time.Second},
		{"fatal", search.Deliver.Webhook.Fatal, []int{422}},
		{"batch", search.Batch, Batch{Events: 100, Bytes: 1 << 20}},
		{"flow", search.Flow, Flow{MaxInFlight: 64}},
		{"retry", search.Retry, Retry{Duration(time.Second), Duration(10 * time.Minute), 12, Duration(24 * time.Hour)}},
		{"exhausted", search.Exhausted, "park"}, {"resolved", search.Resolved.D(), time.Second},
		{"lease", c.Subscriptions["features"].Deliver.Pull.Lease.D(), 30 * time.Second},
		{"file", c.Subscriptions["audit"].Deliver.File.Path, "/etc/leat/audit.jsonl"},
		{"stdout", c.Subscriptions["trace"].Deliver.Kind(), "stdout"},
		{"default resolved", c.Subscriptions["trace"].Resolved, Duration(0)},
	} {
		if !reflect.DeepEqual(x.got, x.want) {
			t.Errorf("%s: got %v, want %v", x.name, x.got, x.want)
		}
	}
	if pw, _ := files.Postgres.URL.Parsed().User.Password(); pw != "p@ss/w:rd?#" {
		t.Errorf("password through the URL: %q", pw)
	}
	if line, col := c.Pos("subscriptions.search.filter"); line != 33 || col != 13 {
		t.Errorf("Pos: %d:%d", line, col)
	}
	err := c.Errorf("subscriptions.search.filter", "no such column %q", "x")
	if want := `leat.yaml:33:13: no such column "x"` + "\n  33 |     filter: 'op"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Errorf: %v", err)
	}
	if line, _ := c.Pos("subscriptions.search.json.int64.nothing"); line == 1 {
		t.Error("Pos of an absent field does not fall back to its ancestor")
	}
}

func TestSecretNeverPrints(t *testing.T) {
	type deep struct {
		s Secret
		P *Secret
		U URL
		M map[string]Secret
	}
	s := NewSecret("hunter2")
	d := deep{s: s, P: &s, U: URL{s}, M: map[string]Secret{"a": s}}
	j, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "s", s, "d", d)
	out := string(j) + b.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		out += fmt.Sprintf(verb+verb+verb+verb, s, &s, d, &d)
	}
	if strings.Contains(out, "hunter2") || strings.Contains(out, fmt.Sprintf("%x", "hunter2")) {
		t.Error(out)
	}
	if s.Reveal() != "hunter2" {
		t.Error("Reveal")
	}
}

func TestNoExpand(t *testing.T) {
	text := "memory: ${SIZE}\nlisten: ${L:-127.0.0.1:1}\nsources: {a: {postgres: {url: 'postgres://u:${PGPASSWORD}@h/d'}}}\n" +
		"subscriptions: {s: {source: '${SRC:-a}', deliver: {webhook: {url: 'https://h.example', secret: 'file:secrets/hook', timeout: '${T:-7s}'}}}}\n"
	opts := testOptions
	opts.NoExpand = true
	opts.Env = func(string) (string, bool) { t.Error("looked into the environment"); return "", false }
	opts.ReadFile = func(string) ([]byte, error) { t.Error("read a file"); return nil, nil }
	c, err := Parse("leat.yaml", []byte(text), opts)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Open("memory") || c.Open("data") || string(c.Source()) != text {
		t.Error("Open or Source")
	}
	show, err := Show(c)
	if err != nil || !strings.Contains(string(show), "memory: ${SIZE}") || !strings.Contains(string(show), "file:secrets/hook") {
		t.Errorf("%s %v", show, err)
	}
	full, err := c.Expand(Options{Env: func(n string) (string, bool) {
		if n == "SRC" {
			return "", true
		}
		return env(n)
	}, ReadFile: testOptions.ReadFile})
	if err != nil {
		t.Fatal(err)
	}
	w := full.Subscriptions["s"].Deliver.Webhook
	if full.Memory != 1<<30 || w.Secret[0].Reveal() != goodSecret || w.Timeout.D() != 7*time.Second || full.Listen != "127.0.0.1:1" {
		t.Errorf("expanded: %v %v", full.Memory, w)
	}
}

func TestExpandNeverChangesStructure(t *testing.T) {
	_, err := Parse("leat.yaml", []byte("data: ${INJECT}\n"), testOptions)
	if err == nil || strings.Contains(err.Error(), "1GiB") {
		t.Errorf("a line end in a path: %v", err)
	}
	c := parse(t, "sources: {a: {postgres: {url: 'postgres://u@h/d'}}}\nsubscriptions: {s: {source: a, filter: '\"\"\"${INJECT} $${X} ${NO:-d}\"\"\" != op', deliver: {pull: }}}\n")
	if got := c.Subscriptions["s"].Filter; got != "\"\"\"x\nmemory: 1GiB ${X} d\"\"\" != op" || c.Memory != 512<<20 {
		t.Errorf("%q %v", got, c.Memory)
	}
}

func TestDerivedNames(t *testing.T) {
	a, b := strings.Repeat("a", 63), strings.Repeat("a", 62)+"b"
	if x, y := derivedName(a), derivedName(b); x == y || len(x) > 63 || derivedName("a-b") != "leat_a_b" {
		t.Errorf("%s %s", x, y)
	}
	if id := derivedID("files"); id < 1<<30 || id != derivedID("files") {
		t.Errorf("%d", id)
	}
}

// What a Kafka subscription does not say is made for large batches; what it says counts.
func TestDefaultsOfKafka(t *testing.T) {
	const head = "sources: {a: {postgres: {url: 'postgres://h/d'}}}\nsubscriptions:\n  s: {source: a, deliver: {kafka: {brokers: ['k:9092']}}"
	s := parse(t, head+"}\n").Subscriptions["s"]
	if s.Batch.Events != 10_000 || s.Batch.Bytes != 4<<20 || s.Flow.MaxInFlight != 4 {
		t.Errorf("%+v %+v", s.Batch, s.Flow)
	}
	s = parse(t, head+", batch: {events: 5}, flow: {max_in_flight: 64}}\n").Subscriptions["s"]
	if s.Batch.Events != 5 || s.Batch.Bytes != 4<<20 || s.Flow.MaxInFlight != 64 {
		t.Errorf("%+v %+v", s.Batch, s.Flow)
	}
}
