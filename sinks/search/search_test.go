package search

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sinks/encode"
)

func TestMain(m *testing.M) {
	// The tests' own requests keep connections.
	os.Exit(servertest.Main(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop")))
}

func newSink(t testing.TB, base string, change ...func(*Options)) *Sink {
	t.Helper()
	o := Options{URL: base, Index: "{table}", Tombstones: time.Hour, Encoding: encode.Options{Source: "files", Form: pipetest.PGForm}, Timeout: 30 * time.Second}
	for _, f := range change {
		f(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// recorder stands before a real server and notes which versions it has taken, in order.
type recorder struct {
	*httptest.Server
	mu   sync.Mutex
	got  []pipeline.Offset
	hang chan struct{}
	end  chan struct{}
	once sync.Once
}

func record(t testing.TB, base string) *recorder {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{hang: make(chan struct{}), end: make(chan struct{})}
	proxy := httputil.NewSingleHostReverseProxy(u)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		select {
		case <-r.hang:
			<-r.end
			return
		default:
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		req.Header.Del("Accept-Encoding")
		if !strings.HasSuffix(req.URL.Path, "_bulk") {
			proxy.ServeHTTP(w, req)
			return
		}
		answer := httptest.NewRecorder()
		r.mu.Lock() // one at a time, so that what was first is known
		proxy.ServeHTTP(answer, req)
		r.got = append(r.got, taken(t, body, answer.Body.Bytes())...)
		r.mu.Unlock()
		for k, v := range answer.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // the sink may be gone
	}))
	t.Cleanup(func() { close(r.end); r.Server.Close() })
	return r
}

func taken(t testing.TB, body, answer []byte) (got []pipeline.Offset) {
	var reply struct {
		Items []map[string]result `json:"items"`
	}
	if err := json.Unmarshal(answer, &reply); err != nil {
		t.Errorf("answer: %v", err)
	}
	var sent []pipeline.Offset
	lines := bufio.NewScanner(bytes.NewReader(body))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var action map[string]struct{ Version pipeline.Offset }
		if json.Unmarshal(lines.Bytes(), &action) == nil {
			for op, a := range action {
				if sent = append(sent, a.Version); op == "index" {
					lines.Scan()
				}
			}
		}
	}
	for i, item := range reply.Items {
		for _, r := range item {
			if r.Error == nil || r.Status == http.StatusConflict {
				got = append(got, sent[i])
			}
		}
	}
	return got
}

func TestSearchConforms(t *testing.T) {
	t.Parallel()
	base := servertest.OpenSearch(t).URL
	pipetest.TestSink(t, func(t *testing.T) pipetest.SinkRig {
		r := record(t, base)
		prefix := servertest.Name()
		return pipetest.SinkRig{Sink: newSink(t, r.URL, func(o *Options) { o.Index = prefix + "-{table}" }),
			Received: func() []pipeline.Offset {
				r.mu.Lock()
				defer r.mu.Unlock()
				return append([]pipeline.Offset(nil), r.got...)
			},
			Hang: func() { r.once.Do(func() { close(r.hang) }) }}
	})
}

// ask makes a request of the server by itself.
func ask(t testing.TB, base, method, path, body string, into any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return resp.StatusCode
}

// documents of an index or alias, as those who search it see them.
func documents(t testing.TB, base, index string) map[string]map[string]any {
	t.Helper()
	if status := ask(t, base, "POST", "/"+index+"/_refresh", "", nil); status > 299 {
		t.Fatalf("refresh %s: %d", index, status)
	}
	var found struct {
		Hits struct {
			Hits []struct {
				ID     string         `json:"_id"`
				Source map[string]any `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	ask(t, base, "POST", "/"+index+"/_search", `{"size":10000}`, &found)
	all := map[string]map[string]any{}
	for _, h := range found.Hits.Hits {
		all[h.ID] = h.Source
	}
	return all
}

// batch is a batch of single changes from an offset on.
func batch(o pipeline.Offset, changes ...pipetest.Change) *pipeline.Batch {
	b := pipetest.Build(pipeline.Position{Counter: uint64(o), Token: "t"}, time.Unix(1, 0), changes)
	b.Base = o
	return b
}

func deliver(t testing.TB, s *Sink, b *pipeline.Batch) (pipeline.Outcomes, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n := len(b.Events)
	return s.Deliver(ctx, &pipeline.Delivery{Subscription: "s", Source: "files", Attempt: 1, Deadline: time.Now().Add(time.Minute), Runs: []pipeline.Run{{Batch: b, To: uint32(n)}}, Events: n})
}

func done(t testing.TB, s *Sink, o pipeline.Offset, changes ...pipetest.Change) {
	t.Helper()
	b := batch(o, changes...)
	defer b.Release()
	out, err := deliver(t, s, b)
	if err != nil || len(out) > 0 {
		t.Fatalf("%v %v", out, err)
	}
}

func put(table *schemas.Table, id, namespace, path string) pipetest.Change {
	return pipetest.Change{Op: pipeline.OpUpdate, Table: table, After: pipetest.Row{id, namespace, path}}
}

func del(table *schemas.Table, id string) pipetest.Change {
	return pipetest.Change{Op: pipeline.OpDelete, Table: table, Before: pipetest.Row{id, pipetest.Absent, pipetest.Absent}}
}

// What is late never overwrites what is newer, nor brings back what was deleted; columns that were not sent stay; a
// truncate empties.
func TestDocuments(t *testing.T) {
	t.Parallel()
	base := servertest.OpenSearch(t).URL
	for _, soft := range []bool{false, true} {
		t.Run(fmt.Sprintf("soft %t", soft), func(t *testing.T) {
			t.Parallel()
			table := pipetest.FilesTable(servertest.Name())
			s := newSink(t, base, func(o *Options) { o.Soft = soft })
			want := func(what string) {
				t.Helper()
				var got []string
				all := documents(t, base, table.Name)
				for _, id := range []string{"1", "2", "3"} {
					if d := all[id]; d != nil {
						got = append(got, fmt.Sprint(id, " ", d["namespace_id"], " ", d["path"]))
					}
				}
				if text := strings.Join(got, ", "); text != what {
					t.Fatalf("%s, want %s", text, what)
				}
			}
			done(t, s, 100, put(table, "1", "1", "a"), put(table, "2", "1", "b"))
			done(t, s, 102, put(table, "1", "2", "a2"), del(table, "2"))
			want("1 2 a2")
			done(t, s, 100, put(table, "1", "1", "a"), put(table, "2", "1", "b")) // late, again
			want("1 2 a2")
			done(t, s, 104, put(table, "1", "3", pipetest.Absent), put(table, "1", "4", pipetest.Absent), put(table, "3", "1", "c"), put(table, "3", "2", pipetest.Absent))
			want("1 4 a2, 3 2 c")
			done(t, s, 110, put(table, "2", "5", pipetest.Absent)) // nothing is known of it
			want("1 4 a2, 2 5 <nil>, 3 2 c")
			done(t, s, 111, pipetest.Change{Op: pipeline.OpTruncate, Table: table}, put(table, "3", "7", "new"))
			want("3 7 new")
			if status := ask(t, base, "GET", "/"+table.Name+"-000001/_doc/1", "", nil); soft != (status == http.StatusOK) {
				t.Errorf("the document of a row that was emptied away: %d", status)
			}
			done(t, s, 104, put(table, "1", "9", "late"))
			want("3 7 new")
		})
	}
}

// A row that does not fit its column's mapping is a dead letter; the others of the Delivery are there.
func TestPoison(t *testing.T) {
	t.Parallel()
	base := servertest.OpenSearch(t).URL
	table := pipetest.FilesTable(servertest.Name())
	if status := ask(t, base, "PUT", "/"+table.Name+"-000001", `{"aliases":{"`+table.Name+`":{}},"mappings":{"properties":{"path":{"type":"integer"}}}}`, nil); status != 200 {
		t.Fatal(status)
	}
	s := newSink(t, base)
	b := batch(10, put(table, "1", "1", "5"), put(table, "2", "1", "words"), put(table, "3", "1", "6"))
	defer b.Release()
	out, err := deliver(t, s, b)
	if err != nil || len(out) != 3 || out[0].Class != pipeline.OK || out[1].Class != pipeline.Fatal || out[2].Class != pipeline.OK ||
		!strings.Contains(out[1].Reason, "path") || strings.Contains(out[1].Reason, "words") || !strings.Contains(out[1].Reason, "rebuild") {
		t.Fatalf("%v %v", out, err)
	}
	if all := documents(t, base, table.Name); len(all) != 2 || all["1"] == nil || all["3"] == nil {
		t.Fatal(all)
	}
	// An index that is made anew for what did not fit takes it at once.
	r, err := s.Begin(t.Context(), table)
	if err != nil {
		t.Fatal(err)
	}
	done(t, s, 15, put(table, "2", "1", "more words"))
	if err := s.Switch(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if all := documents(t, base, table.Name); len(all) != 1 || all["2"]["path"] != "more words" {
		t.Fatal(all)
	}
	done(t, s, 17, put(table, "2", "1", "words"))
	// An index that somebody removes is made again.
	if status := ask(t, base, "DELETE", "/"+table.Name+"-000002", "", nil); status != 200 {
		t.Fatal(status)
	}
	b = batch(20, put(table, "1", "1", "words"))
	defer b.Release()
	if out, err = deliver(t, s, b); err != nil || len(out) != 1 || out[0].Class != pipeline.Defer {
		t.Fatalf("%v %v", out, err)
	}
	done(t, s, 20, put(table, "1", "1", "words"))
	if all := documents(t, base, table.Name); len(all) != 1 {
		t.Fatal(all)
	}
}

// A new column is mapped when it comes; the mapping says what the columns are.
func TestMapping(t *testing.T) {
	t.Parallel()
	base := servertest.OpenSearch(t).URL
	table := pipetest.FilesTable(servertest.Name())
	s := newSink(t, base)
	done(t, s, 10, put(table, "1", "1", "a"))
	wider := *pipetest.FilesTable(table.Name)
	wider.Version = 2
	wider.Columns = append(wider.Columns, schemas.Column{Name: "size", Type: schemas.Type{Kind: schemas.KindInt, Bits: 64, Name: "bigint", OID: 20, Mod: -1}, Nullable: true})
	next := wider.Seal()
	done(t, s, 11, pipetest.Change{Op: pipeline.OpInsert, Table: next, After: pipetest.Row{"2", "1", "b", "77"}})
	var found map[string]struct {
		Mappings struct {
			Properties map[string]struct{ Type string }
		}
	}
	ask(t, base, "GET", "/"+table.Name+"/_mapping", "", &found)
	have := found[table.Name+"-000001"].Mappings.Properties
	if have["size"].Type != "long" || have["path"].Type != "text" || have["id"].Type != "long" {
		t.Fatalf("%v", found)
	}
	var hits struct {
		Hits struct{ Total struct{ Value int } }
	}
	ask(t, base, "POST", "/"+table.Name+"/_refresh", "", nil)
	ask(t, base, "POST", "/"+table.Name+"/_search", `{"query":{"range":{"size":{"gt":70}}}}`, &hits)
	if hits.Hits.Total.Value != 1 {
		t.Error(hits)
	}
	var settings map[string]struct {
		Settings struct{ Index map[string]any }
	}
	ask(t, base, "GET", "/"+table.Name+"/_settings", "", &settings)
	if g := settings[table.Name+"-000001"].Settings.Index["gc_deletes"]; g != "3600000ms" {
		t.Errorf("gc_deletes %v", g)
	}
}

// The server takes the mapping of each type, with the values that a database has and it has not.
func TestTypes(t *testing.T) {
	t.Parallel()
	base := servertest.OpenSearch(t).URL
	kinds := []struct {
		t      schemas.Type
		values []string
	}{
		{schemas.Type{Kind: schemas.KindUnknown, Name: "int4range"}, []string{`"[1,2)"`}}, {schemas.Type{Kind: schemas.KindBool}, []string{`true`}},
		{schemas.Type{Kind: schemas.KindInt, Bits: 8}, []string{`-128`}}, {schemas.Type{Kind: schemas.KindInt, Bits: 64}, []string{`-9223372036854775808`, `"9223372036854775807"`}},
		{schemas.Type{Kind: schemas.KindUint, Bits: 32}, []string{`4294967295`}}, {schemas.Type{Kind: schemas.KindUint, Bits: 64}, []string{`18446744073709551615`}},
		{schemas.Type{Kind: schemas.KindDecimal}, []string{`"123456789012345678901234567890.123"`, `"NaN"`}}, {schemas.Type{Kind: schemas.KindFloat, Bits: 32}, []string{`1.5`, `"-Infinity"`}},
		{schemas.Type{Kind: schemas.KindFloat, Bits: 64}, []string{`1e-300`, `"NaN"`}}, {schemas.Type{Kind: schemas.KindText, Name: "text"}, []string{`"` + strings.Repeat("long ", 20000) + `"`}},
		{schemas.Type{Kind: schemas.KindText, Name: "uuid"}, []string{`"6f9619ff-8b86-d011-b42d-00c04fc964ff"`}}, {schemas.Type{Kind: schemas.KindBytes}, []string{`"AP8="`}}, {schemas.Type{Kind: schemas.KindBits}, []string{`"0101"`}},
		{schemas.Type{Kind: schemas.KindJSON}, []string{`{"a":{"b":[1,"x"]}}`, `"text"`, `7`, `[{"a":1},2]`}}, {schemas.Type{Kind: schemas.KindDate}, []string{`"2026-02-28"`, `"infinity"`}},
		{schemas.Type{Kind: schemas.KindTime}, []string{`"-838:59:59.000001"`}}, {schemas.Type{Kind: schemas.KindDateTime}, []string{`"2026-01-02T03:04:05.678901"`}},
		{schemas.Type{Kind: schemas.KindTimestamp}, []string{`"2026-01-02T03:04:05.678901Z"`, `"0001-01-01T00:00:00Z"`}}, {schemas.Type{Kind: schemas.KindVector}, []string{`[1.5,-2,"NaN"]`}},
		{schemas.Type{Kind: schemas.KindArray, Elem: &schemas.Type{Kind: schemas.KindInt, Bits: 32}}, []string{`[[1,2],[3,null]]`, `[]`, `null`}},
	}
	properties := map[string]any{}
	for i, k := range kinds {
		properties[fmt.Sprint("c", i)] = property(&k.t)
	}
	mapping, err := json.Marshal(map[string]any{"mappings": map[string]any{"dynamic": "strict", "properties": properties}})
	if err != nil {
		t.Fatal(err)
	}
	index := servertest.Name()
	if status := ask(t, base, "PUT", "/"+index, string(mapping), nil); status != 200 {
		t.Fatalf("%d of %s", status, mapping)
	}
	for i, k := range kinds {
		for _, v := range k.values {
			var answer map[string]any
			if status := ask(t, base, "POST", "/"+index+"/_doc", fmt.Sprintf(`{"c%d":%s}`, i, v), &answer); status != 201 {
				t.Errorf("%s %.40s: %d %v", k.t.Kind, v, status, answer["error"])
			}
		}
	}
}

// A check says what does not answer, and where deletes are forgotten too soon.
func TestCheck(t *testing.T) {
	t.Parallel()
	base := servertest.OpenSearch(t).URL
	alias, own := servertest.Name(), servertest.Name()
	ask(t, base, "PUT", "/"+alias+"-000001", `{"aliases":{"`+alias+`":{}}}`, nil)
	ask(t, base, "PUT", "/"+own, `{"settings":{"index.gc_deletes":"2h"}}`, nil)
	codes := func(s *Sink, aliases ...string) (all []string) {
		for _, f := range s.Check(t.Context(), aliases) {
			all = append(all, f.Level+" "+f.Code)
		}
		return all
	}
	for _, c := range []struct {
		s    *Sink
		want string
	}{
		{newSink(t, base), "[warning gc_deletes info search_index]"}, {newSink(t, base, func(o *Options) { o.Soft = true }), "[info search_index]"},
		{newSink(t, "http://127.0.0.1:1"), "[warning unreachable]"},
	} {
		if have := fmt.Sprint(codes(c.s, alias, own, servertest.Name())); have != c.want {
			t.Errorf("%s, want %s", have, c.want)
		}
	}
}

// While nobody listens nothing is to blame; when the server is there again it goes on.
func TestServerGone(t *testing.T) {
	t.Parallel()
	base := servertest.OpenSearch(t).URL
	table := pipetest.FilesTable(servertest.Name())
	r := record(t, base)
	s := newSink(t, r.URL)
	done(t, s, 10, put(table, "1", "1", "a"))
	address := r.Listener.Addr().String()
	r.CloseClientConnections()
	if err := r.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	b := batch(11, put(table, "2", "1", "b"))
	defer b.Release()
	var de *pipeline.DeliveryError
	if _, err := deliver(t, s, b); !errors.As(err, &de) || de.Class != pipeline.Unavailable || strings.Contains(de.Reason, "http") {
		t.Fatalf("%v", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	again := &httptest.Server{Listener: l, Config: &http.Server{Handler: r.Config.Handler}}
	again.Start()
	defer again.Close()
	done(t, s, 11, put(table, "2", "1", "b"))
	if all := documents(t, base, table.Name); len(all) != 2 {
		t.Fatal(all)
	}
}

// What answers and is no search server, or refuses, says so.
func TestRefused(t *testing.T) {
	table := pipetest.FilesTable("files")
	for name, c := range map[string]struct {
		status int
		body   string
		class  pipeline.DeliveryClass
		reason string
	}{
		"no json": {200, "<html>", pipeline.Retriable, "cannot be read"}, "no user": {401, `{"error":{"type":"security_exception","reason":"missing credentials"}}`, pipeline.Unavailable, "security_exception: missing credentials"},
		"full": {429, `{"error":"Too many"}`, pipeline.Unavailable, "Too many"}, "long": {413, "", pipeline.TooLarge, "413"}, "elsewhere": {302, "", pipeline.Unavailable, "302"}, "ill": {503, "x", pipeline.Unavailable, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer srv.Close()
			b := batch(11, put(table, "2", "1", "b"))
			defer b.Release()
			_, err := deliver(t, newSink(t, strings.Replace(srv.URL, "http://", "http://leat:hush-hush@", 1)), b)
			var de *pipeline.DeliveryError
			if !errors.As(err, &de) || de.Class != c.class || !strings.Contains(de.Reason, c.reason) || strings.Contains(err.Error(), "hush") {
				t.Errorf("%v", err)
			}
		})
	}
}
