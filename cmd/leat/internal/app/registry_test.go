package app

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// gate is what stands before a registry elsewhere: TLS, and who may pass.
type gate struct {
	*httptest.Server
	want atomic.Value // Authorization
	down atomic.Bool
}

// newGate lets those pass who show that Authorization.
func newGate(t *testing.T, to, want string) *gate {
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Header.Del("Authorization") }}
	g := &gate{}
	g.want.Store(want)
	g.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.down.Load() {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		if r.Header.Get("Authorization") != g.want.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error_code":401,"message":"Unauthorized"}`)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { g.Close(); transport.CloseIdleConnections() })
	return g
}

// config is what names it, with user:password@ or with a token.
func (g *gate) config(t *testing.T, dir, user, token string) string {
	t.Helper()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	if token != "" {
		token = ", token: " + token
	}
	return fmt.Sprintf("registry: {url: '%s', tls: {ca: ca.pem}%s}\n", strings.Replace(g.URL, "https://", "https://"+user, 1), token)
}

// A registry that is down or refuses us stops what has no schema there yet, and that alone; what it finds incompatible
// waits before the first event of that shape. Each ends by itself.
func TestRegistryElsewhere(t *testing.T) {
	t.Parallel()
	registry, at := servertest.Registry(t).URL, servertest.Kafka(t, servers.KafkaOptions{}).Listeners[servers.ListenerPlain]
	db, h, topic, dir := newPG(t), newHook(t), servertest.Name(), t.TempDir()
	basic := func(password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte("leat:"+password))
	}
	g := newGate(t, registry, basic("geheim"))
	yaml := db.yaml("typed: {source: files, tables: [public.files], deliver: {kafka: {brokers: ['"+at+"'], topic: "+topic+", encoding: avro}}}", "other: {source: files, deliver: {"+toHook(h)+"}}")
	in := install(t, dir, g.config(t, dir, "leat:geheim@", "")+yaml)
	in.streaming(t, "files")
	rows := 0
	write := func(ddl ...string) { // one row after it, which the other subscription gets at once
		t.Helper()
		rows++
		db.exec(t, append(ddl, fmt.Sprintf("INSERT INTO files (id) VALUES (%d)", rows))...)
		until(t, "the other subscription to go on", func() bool {
			return slices.ContainsFunc(h.got(t), func(e event) bool { return e.Data.Key["id"] == float64(rows) })
		})
	}
	waits := func(why string) {
		t.Helper()
		until(t, why, func() bool { return strings.Contains(in.subscription(t, "typed").String(), why) })
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(at), kgo.ConsumeTopics(topic), kgo.UnknownTopicRetries(-1))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var ids []uint32 // of schemas, in order
	records := func(n int) {
		t.Helper()
		for len(ids) < n {
			f := client.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("%d records of %d; %v", len(ids), n, in.subscription(t, "typed"))
			}
			f.EachRecord(func(r *kgo.Record) { ids = append(ids, binary.BigEndian.Uint32(r.Value[1:])) })
		}
	}
	write()
	records(1)
	compatibility(t, registry, topic+"-value", "BACKWARD")
	g.down.Store(true)
	write()
	records(2) // whose schema is known
	write("ALTER TABLE files ADD COLUMN more text")
	waits("cannot be reached")
	g.want.Store(basic("another"))
	g.down.Store(false)
	waits("refuses us (401)")
	g.want.Store(basic("geheim"))
	records(4) // the schema's event, then the row
	write("ALTER TABLE files ALTER COLUMN size TYPE text")
	waits("incompatible with the subject's")
	compatibility(t, registry, topic+"-value", "NONE")
	records(6)
	if s := in.subscription(t, "typed").String(); strings.Contains(s, "geheim") || strings.Contains(in.log.String(), "geheim") {
		t.Errorf("the password is told: %s", s)
	}
	seen := map[uint32]bool{}
	for i, id := range ids {
		if i > 0 && id != ids[i-1] && seen[id] {
			t.Errorf("a schema is used again: %v", ids)
		}
		seen[id] = true
	}
	if len(seen) != 3 {
		t.Errorf("schemas %v, not three", ids)
	}
}

// compatibility is set as an operator does.
func compatibility(t *testing.T, registry, subject, level string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, registry+"/config/"+subject, strings.NewReader(`{"compatibility":"`+level+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s %v", resp.Status, text, err)
	}
}
