package webhook

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/sinks/encode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testSecret is the key of the specification's own example.
const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func loopback(a netip.Addr) bool { return a.IsLoopback() }

func secret(t testing.TB, s string) Secret {
	t.Helper()
	out, err := ParseSecret(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newSink(t testing.TB, url string, change func(*Options)) *Sink {
	t.Helper()
	o := Options{URL: url, Secrets: []Secret{secret(t, testSecret)}, Timeout: 5 * time.Second, Source: "files", Permit: loopback,
		Encoder: encode.JSON(encode.Options{Source: "files", PublicURL: "http://leat", Separator: ',', Form: pipetest.PGForm})}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// events builds a Delivery of n inserts; event i has the key i % keys.
func events(n, keys int) *pipeline.Delivery {
	t := pipetest.FilesTable("files")
	var tx []pipetest.Change
	for i := range n {
		tx = append(tx, pipetest.Change{Op: pipeline.OpInsert, Table: t, After: pipetest.Row{fmt.Sprint(i % keys), "1", fmt.Sprintf("/%d", i)}})
	}
	b := pipetest.Build(pipeline.Position{Counter: 1}, time.Unix(1_700_000_000, 0), tx)
	b.Base = 1000
	for i := range b.Events {
		b.Events[i].Hash = uint64(i % keys)
	}
	return &pipeline.Delivery{Subscription: "search", Source: "files", Number: 1, Attempt: 1, Runs: []pipeline.Run{{Batch: b, To: uint32(n)}}, Events: n}
}

// seen is one request that a server got.
type seen struct {
	header http.Header
	body   []byte
}

type recorder struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seen
}

// record serves answer and keeps the requests.
func record(t testing.TB, answer func(w http.ResponseWriter, n int)) *recorder {
	r := &recorder{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.seen = append(r.seen, seen{req.Header, body})
		n := len(r.seen)
		r.mu.Unlock()
		answer(w, n)
	}))
	t.Cleanup(r.Close)
	return r
}

func status(code int, body string) func(http.ResponseWriter, int) {
	return func(w http.ResponseWriter, _ int) {
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

func TestRequest(t *testing.T) {
	seed := make([]byte, ed25519.SeedSize)
	ed := secret(t, "whsk_"+base64.StdEncoding.EncodeToString(seed))
	r := record(t, status(204, ""))
	s := newSink(t, r.URL, func(o *Options) { o.Secrets = append(o.Secrets, ed); o.Headers = map[string]string{"X-Token": "t0ken"} })
	d := events(3, 3)
	d.Attempt, d.Reason = 2, pipeline.ReasonRetry
	d.Deadline = time.Now().Add(time.Second)
	for range 2 {
		if out, err := s.Deliver(t.Context(), d); out != nil || err != nil {
			t.Fatal(out, err)
		}
	}
	if _, err := s.Deliver(t.Context(), events(1, 1)); err != nil {
		t.Fatal(err)
	}
	h, body := r.seen[0].header, r.seen[0].body
	// CRC-32/IEEE over 1000, 1001, 1002 as big-endian uint64, computed with another implementation.
	for k, want := range map[string]string{"Webhook-Id": "files_1000_1002_706e102c", "Content-Type": "application/cloudevents-batch+json",
		"Delivery-Attempt": "2", "Delivery-Reason": "retry", "Delivery-Deadline": d.Deadline.UTC().Format("2006-01-02T15:04:05.000Z"), "X-Token": "t0ken"} {
		if h.Get(k) != want {
			t.Errorf("%s %q, want %q", k, h.Get(k), want)
		}
	}
	if r.seen[1].header.Get("Webhook-Id") != h.Get("Webhook-Id") {
		t.Error("the same events came under two ids")
	}
	var list []map[string]any
	if err := json.Unmarshal(body, &list); err != nil || len(list) != 3 || list[2]["id"] != "files-1002" {
		t.Errorf("body %s: %v", body, err)
	}
	verify(t, r.seen[0], ed)
	one := r.seen[2]
	if one.header.Get("Webhook-Id") != "files-1000" || one.header.Get("Content-Type") != "application/cloudevents+json" || one.header.Get("Delivery-Reason") != "first" {
		t.Errorf("a single event has headers %v", one.header)
	}
	var ce map[string]any
	if err := json.Unmarshal(one.body, &ce); err != nil || ce["id"] != "files-1000" {
		t.Errorf("body %s: %v", one.body, err)
	}
}

// TestCopiesOfAReplayAreTagged: in their id and in each event, and what is live beside them is not.
func TestCopiesOfAReplayAreTagged(t *testing.T) {
	r := record(t, status(204, ""))
	s := newSink(t, r.URL, nil)
	for _, job := range []string{"", "k7", "", "k8"} {
		for _, n := range []int{1, 3} {
			d := events(n, n)
			if d.Replay = job; job != "" {
				d.Reason = pipeline.ReasonReplay
			}
			if out, err := s.Deliver(t.Context(), d); out != nil || err != nil {
				t.Fatal(out, err)
			}
			seen := r.seen[len(r.seen)-1]
			suffix, reason := "", "first"
			if job != "" {
				suffix, reason = "_r"+job, "replay"
			}
			if id, want := seen.header.Get("Webhook-Id"), map[int]string{1: "files-1000", 3: "files_1000_1002_706e102c"}[n]+suffix; id != want || seen.header.Get("Delivery-Reason") != reason {
				t.Errorf("id %q, want %q; reason %q", id, want, seen.header.Get("Delivery-Reason"))
			}
			if got := strings.Count(string(seen.body), `"replay":{"job":"`+job+`"}`); got != map[bool]int{true: n}[job != ""] {
				t.Errorf("job %q: %d of %d events are tagged: %s", job, got, n, seen.body)
			}
		}
	}
}

// verify checks both signatures as a subscriber would.
func verify(t *testing.T, r seen, ed Secret) {
	t.Helper()
	signed := r.header.Get("Webhook-Id") + "." + r.header.Get("Webhook-Timestamp") + "." + string(r.body)
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(testSecret, "whsec_"))
	m := hmac.New(sha256.New, key)
	m.Write([]byte(signed))
	sigs := strings.Split(r.header.Get("Webhook-Signature"), " ")
	if len(sigs) != 2 || sigs[0] != "v1,"+base64.StdEncoding.EncodeToString(m.Sum(nil)) {
		t.Fatalf("signatures %v", sigs)
	}
	pub, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(ed.Public(), "whpk_"))
	sig, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sigs[1], "v1a,"))
	if err != nil || !ed25519.Verify(pub, []byte(signed), sig) {
		t.Fatalf("signature %s does not verify", sigs[1])
	}
}

// The example of the Standard Webhooks specification and its libraries.
func TestSpecificationVector(t *testing.T) {
	got := signatures([]*signer{newSigner(secret(t, testSecret))}, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", [][]byte{[]byte(`{"test": `), []byte(`2432232314}`)})
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Fatalf("signature %s, want %s", got, want)
	}
}

func TestReplies(t *testing.T) {
	ok, retry, fatal, deferred := pipeline.OK, pipeline.Retry, pipeline.Fatal, pipeline.Defer
	type want struct {
		err      bool
		class    pipeline.DeliveryClass
		outcomes []pipeline.Class // nil: all ok
		reason   string
	}
	failed := func(c pipeline.DeliveryClass, reason string) want { return want{err: true, class: c, reason: reason} }
	list := func(items ...string) string { return `{"results":[` + strings.Join(items, ",") + `]}` }
	for _, c := range []struct {
		name   string
		events int
		status int
		body   string
		want   want
	}{
		{"204", 3, 204, "", want{}},
		{"200 empty", 3, 200, " \n", want{}},
		{"200 single with a page", 1, 200, "<html>", want{}},
		{"200 single, other JSON", 1, 200, `{"ok":true}`, want{}},
		{"201 batch with a page", 3, 201, "<html>", failed(pipeline.Retriable, "no list of results")},
		{"200 batch, other JSON", 3, 200, `{"ok":true}`, failed(pipeline.Retriable, "no results in it")},
		{"200 batch, half JSON", 3, 200, `{"results":[{"id":"files-1000"`, failed(pipeline.Retriable, "unexpected end of JSON")},
		{"200 single, results no list", 1, 200, `{"results":"none"}`, failed(pipeline.Retriable, "no list of results")},
		{"202", 3, 202, "accepted", want{}},
		{"all ok", 2, 200, list(`{"id":"files-1000","status":"ok"}`, `{"id":"files-1001","status":"ok"}`), want{}},
		{"each", 5, 200, list(`{"id":"files-1003","status":"defer","delay":"5s"}`, `{"id":"files-1000","status":"ok"}`, `{"id":"files-1001","status":"retry"}`, `{"id":"files-1002","status":"fatal","reason":"no such file"}`),
			want{outcomes: []pipeline.Class{ok, retry, fatal, deferred, retry}, reason: "do not name this event"}},
		{"unreadable", 4, 200, list(`{"id":"files-1000","status":7}`, `{"id":"files-1001","status":"fine"}`, `{"id":"files-1002","status":"retry","delay":"soon"}`, `{"id":"files-1003","status":"ok"}`, `7`),
			want{outcomes: []pipeline.Class{retry, retry, retry, ok}, reason: "cannot be read"}},
		{"single retry", 1, 200, list(`{"id":"files-1000","status":"retry","delay":"5s"}`), want{outcomes: []pipeline.Class{retry}, reason: "said retry"}},
		{"said twice, the worse counts", 1, 200, list(`{"id":"files-1000","status":"fatal"}`, `{"id":"files-1000","status":"ok"}`), want{outcomes: []pipeline.Class{fatal}, reason: "said fatal"}},
		{"422 single", 1, 422, "no such namespace", failed(pipeline.Poison, "422 Unprocessable Entity: no such namespace")},
		{"422 batch", 2, 422, "", failed(pipeline.Retriable, "422")},
		{"413", 2, 413, "", failed(pipeline.TooLarge, "413")},
		{"410", 2, 410, "", failed(pipeline.Gone, "410")},
		{"429", 2, 429, "", failed(pipeline.Unavailable, "429")},
		{"503", 2, 503, "", failed(pipeline.Unavailable, "503")},
		{"302", 2, 302, "", failed(pipeline.Unavailable, "never followed")},
		{"304", 2, 304, "", failed(pipeline.Unavailable, "never followed")},
		{"401", 2, 401, "", failed(pipeline.Unavailable, "401")},
		{"403", 2, 403, "", failed(pipeline.Unavailable, "403")},
		{"404", 2, 404, "", failed(pipeline.Unavailable, "404")},
		{"400", 2, 400, "bad\x01request\ntoken t0ken-secret", failed(pipeline.Retriable, "400 Bad Request: bad request token ***")},
		{"409", 2, 409, "", failed(pipeline.Retriable, "409")},
		{"500", 2, 500, "", failed(pipeline.Retriable, "500")},
		{"results name nobody", 2, 200, list(), want{outcomes: []pipeline.Class{retry, retry}, reason: "do not name this event"}},
		{"results for others", 1, 200, list(`{"id":"files-7","status":"ok"}`), want{outcomes: []pipeline.Class{retry}, reason: "do not name this event"}},
		{"201 with results", 2, 201, list(`{"id":"files-1001","status":"fatal"}`, `{"id":"files-1000","status":"ok"}`), want{outcomes: []pipeline.Class{ok, fatal}, reason: "said fatal"}},
		{"202 with results", 2, 202, list(`{"id":"files-1000","status":"ok"}`), want{outcomes: []pipeline.Class{ok, retry}, reason: "do not name this event"}},
		{"202 with half results", 2, 202, `{"results":7}`, failed(pipeline.Retriable, "no list of results")},
		{"206 single", 1, 206, "part", want{}},
		{"204 ignores what cannot be there", 3, 204, "", want{}},
		{"300", 1, 300, "", failed(pipeline.Unavailable, "never followed")},
		{"307", 1, 307, "", failed(pipeline.Unavailable, "never followed")},
		{"308", 1, 308, "", failed(pipeline.Unavailable, "never followed")},
		{"413 single", 1, 413, "", failed(pipeline.TooLarge, "413")},
		{"410 single", 1, 410, "", failed(pipeline.Gone, "410")},
		{"402", 1, 402, "", failed(pipeline.Retriable, "402")},
		{"405", 1, 405, "", failed(pipeline.Retriable, "405")},
		{"408", 1, 408, "", failed(pipeline.Retriable, "408")},
		{"425", 1, 425, "", failed(pipeline.Retriable, "425")},
		{"451", 1, 451, "", failed(pipeline.Retriable, "451")},
		{"501", 1, 501, "", failed(pipeline.Retriable, "501")},
		{"502", 1, 502, "", failed(pipeline.Retriable, "502")},
		{"504", 1, 504, "", failed(pipeline.Retriable, "504")},
		{"599", 1, 599, "", failed(pipeline.Retriable, "599")},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := record(t, func(w http.ResponseWriter, _ int) {
				w.Header().Set("Retry-After", "3600")
				if c.status == 302 {
					w.Header().Set("Location", "http://127.0.0.1:1/?secret=1")
				}
				status(c.status, c.body)(w, 0)
			})
			s := newSink(t, r.URL, func(o *Options) { o.Headers = map[string]string{"Authorization": "t0ken-secret"} })
			out, err := s.Deliver(t.Context(), events(c.events, c.events))
			if len(r.seen) != 1 {
				t.Errorf("%d requests", len(r.seen))
			}
			if c.want.err {
				d := (*pipeline.DeliveryError)(nil)
				if !errors.As(err, &d) || d.Class != c.want.class || !strings.Contains(d.Reason, c.want.reason) {
					t.Fatalf("error %v, want %s: %s", err, c.want.class, c.want.reason)
				}
				if held := c.status == 429 || c.status == 503; held != (d.RetryAfter == 15*time.Minute) {
					t.Fatalf("retry after %s", d.RetryAfter)
				}
				return
			}
			if err != nil || (out == nil) != (c.want.outcomes == nil) {
				t.Fatalf("outcomes %v, error %v", out, err)
			}
			said := ""
			for i, class := range c.want.outcomes {
				if out[i].Class != class {
					t.Errorf("event %d: %v, want %s", i, out[i], class)
				}
				said += out[i].Reason
			}
			if !strings.Contains(said, c.want.reason) {
				t.Errorf("reasons %q, want %q", said, c.want.reason)
			}
		})
	}
}

// Results behind a key's first failure do not count.
func TestSuffixIsRetried(t *testing.T) {
	r := record(t, status(200, `{"results":[{"id":"files-1000","status":"retry"},{"id":"files-1001","status":"ok"},{"id":"files-1002","status":"ok"},{"id":"files-1003","status":"ok"}]}`))
	out, err := newSink(t, r.URL, nil).Deliver(t.Context(), events(4, 2))
	if err != nil || out[0].Class != pipeline.Retry || out[1].Class != pipeline.OK || out[2].Class != pipeline.Retry || out[3].Class != pipeline.OK {
		t.Fatal(out, err)
	}
}

// An event that cannot be encoded is fatal; its neighbours travel, under an id of their own.
func TestUndecodableEvent(t *testing.T) {
	r := record(t, status(200, `{"results":[{"id":"files-1000","status":"defer","delay":"1m"},{"id":"files-1002","status":"ok"}]}`))
	d := events(3, 3)
	b := d.Runs[0].Batch
	copy(b.Bytes(b.Events[1].After)[len(b.Bytes(b.Events[1].After))-1:], "\xff")
	out, err := newSink(t, r.URL, nil).Deliver(t.Context(), d)
	if err != nil || out[0].Class != pipeline.Defer || out[0].Delay != time.Minute || out[1].Class != pipeline.Fatal || out[2].Class != pipeline.OK {
		t.Fatal(out, err)
	}
	if !strings.Contains(out[1].Reason, `"path"`) || !strings.HasPrefix(r.seen[0].header.Get("Webhook-Id"), "files_1000_1002_") {
		t.Fatal(out[1].Reason, r.seen[0].header)
	}
	if r.seen[0].header.Get("Webhook-Id") == "files_1000_1002_706e102c" {
		t.Fatal("two events came under the id of three")
	}
}

// raw is a server that answers each connection with f.
func raw(t *testing.T, f func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

// readHead takes the request's first bytes.
func readHead(c net.Conn) { c.Read(make([]byte, 1024)) }

func TestMisbehavingServers(t *testing.T) {
	for name, c := range map[string]struct {
		serve  func(net.Conn)
		class  pipeline.DeliveryClass
		reason string
	}{
		"reset":  {func(c net.Conn) { readHead(c); c.(*net.TCPConn).SetLinger(0) }, pipeline.Retriable, ""},
		"closes": {func(c net.Conn) { readHead(c) }, pipeline.Retriable, ""},
		"half a reply": {func(c net.Conn) {
			readHead(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"results\":[")
		}, pipeline.Retriable, ""},
		"half a head": {func(c net.Conn) { readHead(c); io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-") }, pipeline.Retriable, ""},
		// without a reason: net/http tells these by whichever end of the connection it saw break first
		"no http": {func(c net.Conn) { readHead(c); io.WriteString(c, "+PONG\r\n\r\n") }, pipeline.Retriable, ""},
		"endless body": {func(c net.Conn) {
			readHead(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for page := make([]byte, 1<<16); ; {
				if _, err := c.Write(page); err != nil {
					return
				}
			}
		}, pipeline.Retriable, "longer than"},
		"endless head": {func(c net.Conn) {
			readHead(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for line := []byte("X: " + strings.Repeat("y", 1000) + "\r\n"); ; {
				if _, err := c.Write(line); err != nil {
					return
				}
			}
		}, pipeline.Retriable, ""},
		"silent":     {func(c net.Conn) { io.Copy(io.Discard, c) }, pipeline.Retriable, "no reply within"},
		"never read": {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n") }, pipeline.TooLarge, "413"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, raw(t, c.serve), func(o *Options) { o.Timeout = 500 * time.Millisecond })
			out, err := s.Deliver(t.Context(), events(2000, 7))
			d := (*pipeline.DeliveryError)(nil)
			if name == "never read" && errors.As(err, &d) && d.Class == pipeline.Retriable {
				return // the reset that follows the early reply may win
			}
			if out != nil || !errors.As(err, &d) || d.Class != c.class || !strings.Contains(d.Reason, c.reason) {
				t.Fatalf("outcomes %v, error %v; want %s: %s", out, err, c.class, c.reason)
			}
		})
	}
}

func TestEndpointFailures(t *testing.T) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	l.Close()
	tlsServer := httptest.NewTLSServer(http.NotFoundHandler())
	tlsServer.Config.ErrorLog = nil
	defer tlsServer.Close()
	called := false
	open := record(t, func(w http.ResponseWriter, _ int) { called = true })
	for name, c := range map[string]struct {
		url    string
		permit func(netip.Addr) bool
		reason string
	}{
		"refused":      {"http://" + l.Addr().String() + "/?token=geheim", loopback, "refused"},
		"no such host": {"https://nowhere.invalid/", loopback, "nowhere.invalid"},
		"forbidden":    {open.URL, func(a netip.Addr) bool { return !a.IsLoopback() }, "resolves to 127.0.0.1, which egress forbids"},
		"by name":      {strings.Replace(open.URL, "127.0.0.1", "localhost", 1), func(a netip.Addr) bool { return !a.IsLoopback() }, "which egress forbids"},
		"link-local":   {"http://169.254.169.254/latest/meta-data", func(netip.Addr) bool { return true }, "169.254.169.254, which egress forbids"},
		"mapped":       {"http://[::ffff:169.254.169.254]/", func(netip.Addr) bool { return true }, "which egress forbids"},
		"any address":  {strings.Replace(open.URL, "127.0.0.1", "0.0.0.0", 1), func(netip.Addr) bool { return true }, "which egress forbids"},
		"plain public": {"http://192.0.2.1/", func(netip.Addr) bool { return true }, "use https"},
		"bad cert":     {tlsServer.URL, loopback, "certificate"},
		"not tls":      {strings.Replace(open.URL, "http:", "https:", 1), loopback, "tls:"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSink(t, c.url, func(o *Options) { o.Permit = c.permit })
			_, err := s.Deliver(t.Context(), events(1, 1))
			d := (*pipeline.DeliveryError)(nil)
			if !errors.As(err, &d) || d.Class != pipeline.Unavailable || !strings.Contains(d.Reason, c.reason) {
				t.Fatalf("error %v, want unavailable: %s", err, c.reason)
			}
			if strings.Contains(err.Error(), "geheim") {
				t.Fatal("the error shows the query")
			}
		})
	}
	if called {
		t.Fatal("a forbidden endpoint was called")
	}
}

func TestStopAndDeadline(t *testing.T) {
	url := raw(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	s := newSink(t, url, nil)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := s.Deliver(ctx, events(1, 1)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	d := events(1, 1)
	d.Deadline = time.Now().Add(20 * time.Millisecond)
	_, err := s.Deliver(t.Context(), d)
	if e := pipeline.AsDeliveryError(err); e.Class != pipeline.Retriable || !strings.Contains(e.Reason, "no reply within") {
		t.Fatal(err)
	}
}

func TestSecrets(t *testing.T) {
	for _, bad := range []string{"", "geheim", "whsec_", "whsec_Z2VoZWlt", "whsec_!geheim!", "whsk_Z2VoZWlt", "whpk_" + strings.Repeat("A", 44)} {
		_, err := ParseSecret(bad)
		if err == nil || strings.Contains(err.Error(), "eheim") || strings.Contains(err.Error(), "Z2Vo") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", secret(t, testSecret), secret(t, testSecret), secret(t, testSecret)); s != "*** *** ***" {
		t.Error(s)
	}
	for _, url := range []string{"http://user:geheim@%zz/", "ftp://geheim/", "://geheim"} {
		if _, err := New(Options{URL: url, Secrets: []Secret{secret(t, testSecret)}}); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Error(err)
		}
	}
	s := newSink(t, "http://user:geheim@127.0.0.1:1/hook?key=geheim", nil)
	if s.Endpoint() != "http://127.0.0.1:1/hook" {
		t.Error(s.Endpoint())
	}
}

func TestResolved(t *testing.T) {
	r := record(t, status(204, ""))
	if err := newSink(t, r.URL, nil).Resolve(t.Context(), 77, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	if got := string(r.seen[0].body); !strings.HasSuffix(got, `"data":{"resolved":"77","time":"2023-11-14T22:13:20Z"}}`) || r.seen[0].header.Get("Webhook-Id") != "files-resolved-77" {
		t.Fatal(got, r.seen[0].header)
	}
}

// early replies before it has read the body, and closes that when told.
type early struct {
	body chan io.ReadCloser
}

func (e *early) CloseIdleConnections() {}

func (e *early) RoundTrip(r *http.Request) (*http.Response, error) {
	e.body <- r.Body
	return &http.Response{StatusCode: 204, Body: http.NoBody}, nil
}

// The body's memory is shared and used again: Deliver must not return while it may still be read.
func TestBodyIsReadUntilClosed(t *testing.T) {
	e := &early{make(chan io.ReadCloser, 1)}
	s := newSink(t, "http://127.0.0.1:1", func(o *Options) { o.transport = e })
	done := make(chan error, 1)
	go func() {
		_, err := s.Deliver(t.Context(), events(3, 3))
		done <- err
	}()
	body := <-e.body
	all, _ := io.ReadAll(body)
	select {
	case <-done:
		t.Fatal("Deliver returned while the body was open")
	case <-time.After(20 * time.Millisecond):
	}
	if !json.Valid(all) {
		t.Fatalf("%q", all)
	}
	body.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
