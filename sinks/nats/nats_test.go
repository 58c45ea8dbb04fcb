package nats

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/rough"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
)

// briefly is a duplicate window that is over at once: what comes once then does so by what the stream's end tells.
const briefly = `, "duplicate_window": 100000000`

func TestNATSConforms(t *testing.T) {
	shared := servertest.NATS(t, servers.NATSOptions{})
	pipetest.TestSink(t, func(t *testing.T) pipetest.SinkRig {
		v := shared
		if strings.Contains(t.Name(), "context") {
			v = servertest.ExclusiveNATS(t, servers.NATSOptions{})
		}
		o := options(t, v, "")
		return pipetest.SinkRig{Sink: newSink(t, o), Once: true,
			Received: func() []pipeline.Offset { return offsetsOf(readAll(t, v, o)) },
			Hang: func() {
				if err := syscall.Kill(v.Pid(), syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}}
	})
}

func TestMessages(t *testing.T) {
	t.Parallel()
	v := servertest.NATS(t, servers.NATSOptions{})
	o := options(t, v, "")
	s := newSink(t, o)
	deliver(t, s, event{40, 5})
	for range 2 { // an attempt that comes again is dropped by the server
		copies := deliveryOf(t, event{40, 5})
		copies.Replay, copies.Reason = "j1", pipeline.ReasonReplay
		if out, err := s.Deliver(testContext(t), copies); err != nil || out != nil {
			t.Fatal(out, err)
		}
	}
	// Another subscription's messages of the same events are others.
	other := o
	other.Subscription = "another"
	deliver(t, newSink(t, other), event{40, 5})
	all := readAll(t, v, o)
	if len(all) != 3 {
		t.Fatal(all)
	}
	h := all[0].headers
	if h["op"] != "update" || h["key"] != `{"id":5}` || h["id"] != "files-40" || h["Nats-Msg-Id"] != "suite/files-40" || all[0].subject != o.Stream+".public.files" || !strings.Contains(all[0].event, `"path":"/40"`) {
		t.Error(all[0])
	}
	if all[1].headers["replay"] != "j1" || all[2].headers["replay"] != "" {
		t.Error(all)
	}
}

// Events of one key go one by one, those of many side by side.
func TestWaves(t *testing.T) {
	t.Parallel()
	v := servertest.NATS(t, servers.NATSOptions{})
	o := options(t, v, "")
	events := append(at(1, 10, 13, 14), at(2, 11, 12)...)
	deliver(t, newSink(t, o), events...)
	if got := offsetsOf(readAll(t, v, o)); !slices.Equal(got, []pipeline.Offset{10, 11, 12, 13, 14}) {
		t.Error(got)
	}
}

// What was delivered before a crash stands there once, also what the cursor does not know of yet, also when the server has
// forgotten it.
func TestAfterACrash(t *testing.T) {
	t.Parallel()
	v := servertest.NATS(t, servers.NATSOptions{})
	for name, worked := range map[string]time.Time{"never worked": {}, "worked": time.Now()} {
		t.Run(name, func(t *testing.T) {
			o := options(t, v, briefly)
			first := newSink(t, o)
			first.Resume(pipeline.Cursor{Low: 10, High: 10})
			deliver(t, first, event{10, 1}, event{11, 2}, event{13, 1})
			deliver(t, first, event{12, 3}) // late
			forgotten(t, v, o)
			s := newSink(t, o)
			s.Resume(pipeline.Cursor{Low: 10, High: 12, Worked: worked})
			deliver(t, s, event{10, 1}, event{11, 2}, event{12, 3}, event{13, 1}, event{14, 1})
			deliver(t, s, event{9, 4}) // was parked
			if got := offsetsOf(readAll(t, v, o)); !slices.Equal(got, []pipeline.Offset{10, 11, 13, 12, 14, 9}) {
				t.Error(got)
			}
		})
	}
}

// forgotten waits until the duplicate window is over for what was sent so far: an id that came after it is taken again.
func forgotten(t *testing.T, v *servers.Server, o Options) {
	t.Helper()
	o.Subscription = "probe"
	s := newSink(t, o)
	deliver(t, s, event{1, 1})
	before := string(api(t, v, "STREAM.INFO."+o.Stream, ""))
	until(t, "the window is over", func() bool {
		deliver(t, s, event{1, 1})
		return lastOf(string(api(t, v, "STREAM.INFO."+o.Stream, ""))) != lastOf(before)
	})
}

func lastOf(info string) string {
	_, behind, _ := strings.Cut(info, `"last_seq":`)
	number, _, _ := strings.Cut(behind, ",")
	return number
}

// Where a message is gone that was delivered before a crash, what follows of its key comes again with it: else a reader
// would end with the older one.
func TestOrderWhereMessagesAreGone(t *testing.T) {
	t.Parallel()
	v := servertest.NATS(t, servers.NATSOptions{})
	o := options(t, v, briefly)
	events := append(at(1, 10, 12, 14), at(2, 11, 13)...) // stand as 10, 11, 12, 13, 14
	deliver(t, newSink(t, o), events...)
	api(t, v, "STREAM.MSG.DELETE."+o.Stream, `{"seq":3}`)
	forgotten(t, v, o)
	s := newSink(t, o)
	s.Resume(pipeline.Cursor{Low: 10, High: 10})
	deliver(t, s, events...)
	if got := offsetsOf(readAll(t, v, o)); !slices.Equal(got, []pipeline.Offset{10, 11, 13, 14, 12, 14}) {
		t.Error(got)
	}
}

// What a Delivery sent that ended without its answers is looked up, when the server has forgotten it.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	v := servertest.NATS(t, servers.NATSOptions{})
	o := options(t, v, briefly)
	s := newSink(t, o)
	deliver(t, s, event{9, 1})
	floor, d := s.floor(), deliveryOf(t, at(1, 10, 11)...)
	l := newLoad(d)
	if err := s.pack(testContext(t), l, d); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, at(1, 10)...)
	deliver(t, s, event{20, 2})
	s.doubt(l, floor) // as if the answers of 10 and 11 were lost, of which one came there
	forgotten(t, v, o)
	deliver(t, s, at(1, 10, 11)...)
	deliver(t, s, event{12, 1})
	if got := offsetsOf(readAll(t, v, o)); !slices.Equal(got, []pipeline.Offset{9, 10, 20, 11, 12}) {
		t.Error(got)
	}
	if len(s.tail.known)+len(s.tail.unsure) != 0 {
		t.Errorf("%+v", s.tail)
	}
}

// pour delivers events of keys of its own, Delivery by Delivery, each until it is taken.
func pour(t *testing.T, s func() *Sink, base pipeline.Offset, worker, workers, rounds int, done func([]event)) {
	for r := range rounds {
		var events []event
		for n := range 12 {
			events = append(events, event{base + pipeline.Offset((r*12+n)*workers+worker), worker*10 + n%5})
		}
		d := deliveryOf(t, events...)
		all := testContext(t)
		for {
			d.Deadline = time.Now().Add(2 * time.Second)
			ctx, cancel := context.WithCancel(all)
			if rand.IntN(8) == 0 { // somebody gives up
				time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, cancel)
			}
			out, err := s().Deliver(ctx, d)
			cancel()
			if err == nil && out == nil {
				break
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-all.Done():
				t.Errorf("never taken: %v %v", out, err)
				return
			}
		}
		done(events)
	}
}

func onceInOrder(t *testing.T, all []read, want int) {
	t.Helper()
	seen, last := map[pipeline.Offset]int{}, map[string]pipeline.Offset{}
	for _, r := range all {
		seen[r.offset]++
		if last[r.headers["key"]] >= r.offset {
			t.Errorf("key %s: %d behind %d", r.headers["key"], r.offset, last[r.headers["key"]])
		}
		last[r.headers["key"]] = r.offset
	}
	for o, n := range seen {
		if n != 1 {
			t.Errorf("offset %d stands there %d times", o, n)
		}
	}
	if len(seen) != want {
		t.Errorf("%d events, want %d", len(seen), want)
	}
}

// Connections that break in the middle of an answer, stand still, and Deliveries that are given up on: every event stands in
// the stream once, in order per key, also where the server drops nothing.
func TestRoughConnections(t *testing.T) {
	t.Parallel()
	v := servertest.NATS(t, servers.NATSOptions{})
	o := options(t, v, "")
	p := rough.New(t, strings.TrimPrefix(v.URL, "nats://"), func(n int) rough.Trouble {
		switch n % 8 {
		case 7:
			return rough.Trouble{}
		case 3:
			return rough.Trouble{Stall: 1 + rand.Int64N(20000)}
		}
		return rough.Trouble{Reset: 1 + rand.Int64N(20000)}
	})
	direct := o
	o.URL, o.Timeout = "nats://"+p.Addr, time.Second
	s := newSink(t, o)
	var all sync.WaitGroup
	const workers, rounds = 4, 10
	for w := range workers {
		all.Go(func() { pour(t, func() *Sink { return s }, 1000, w, workers, rounds, func([]event) {}) })
	}
	all.Wait()
	onceInOrder(t, readAll(t, v, direct), workers*rounds*12)
	if _, resets, _ := p.Counts(); resets == 0 {
		t.Error("no connection broke")
	}
}

// Both ends die now and then: the server by SIGKILL, the sink as in a crash, with a cursor that is behind.
func TestKills(t *testing.T) {
	t.Parallel()
	v := servertest.ExclusiveNATS(t, servers.NATSOptions{})
	o := options(t, v, "")
	var mu sync.Mutex
	open := map[pipeline.Offset]bool{}
	const workers, rounds = 3, 15
	for o := pipeline.Offset(1000); o < 1000+workers*rounds*12; o++ {
		open[o] = true
	}
	s := newSink(t, o)
	resume := func(s *Sink) { // called with mu held
		low := pipeline.Offset(1000 + workers*rounds*12)
		for o := range open {
			low = min(low, o)
		}
		s.Resume(pipeline.Cursor{Low: low, High: low, Worked: time.Now()})
	}
	resume(s)
	current := func() *Sink { mu.Lock(); defer mu.Unlock(); return s }
	due := make(chan struct{}, workers*rounds)
	var kills, all sync.WaitGroup
	kills.Go(func() {
		server := false
		for range due {
			if server = !server; server {
				if err := errors.Join(v.Kill(), v.Restart(testContext(t))); err != nil {
					t.Error(err)
				}
				continue
			}
			_ = current().Close()
			fresh, err := New(o)
			if err != nil {
				t.Error(err)
				continue
			}
			mu.Lock()
			s = fresh
			resume(s)
			mu.Unlock()
		}
	})
	taken := 0
	for w := range workers {
		all.Go(func() {
			pour(t, current, 1000, w, workers, rounds, func(events []event) {
				mu.Lock()
				defer mu.Unlock()
				for _, e := range events {
					delete(open, e.offset)
				}
				if taken++; taken%9 == 0 {
					due <- struct{}{}
				}
			})
		})
	}
	all.Wait()
	close(due)
	kills.Wait()
	defer s.Close()
	onceInOrder(t, readAll(t, v, o), workers*rounds*12)
}

// What the server refuses is told with its cure, costs no attempt, and comes once when it is over.
func TestTrouble(t *testing.T) {
	t.Parallel()
	v := servertest.ExclusiveNATS(t, servers.NATSOptions{})
	o := options(t, v, "")
	s := newSink(t, o)
	deliver(t, s, event{10, 1})
	refusedFor := func(s *Sink, words ...string) {
		t.Helper()
		e := refused(t, s, event{10, 1}, event{11, 2})
		for _, w := range words {
			if e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, w) {
				t.Errorf("no %q in %s", w, e)
			}
		}
	}
	update := func(settings string) {
		t.Helper()
		api(t, v, "STREAM.UPDATE."+o.Stream, fmt.Sprintf(`{"name": %q, "storage": "file", "retention": "limits", %s}`, o.Stream, settings))
	}
	own := fmt.Sprintf(`"subjects": ["%s.>"]`, o.Stream)
	update(own + `, "max_msgs": 1, "discard": "new"`)
	refusedFor(s, "maximum messages", "raise the stream's limits")
	update(`"subjects": ["elsewhere"]`)
	refusedFor(s, "no stream takes the subject", o.Stream)
	update(own)
	missing := o
	missing.Stream = "missing"
	refusedFor(newSink(t, missing), "stream missing", "make it")
	beside := options(t, v, "")
	beside.Subject = o.Subject
	refusedFor(newSink(t, beside), "expected stream", "name it in deliver.nats.stream")
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	refusedFor(s, "cannot be reached")
	if err := v.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, event{10, 1}, event{11, 2}, event{12, 2})
	if got := offsetsOf(readAll(t, v, o)); !slices.Equal(got, []pipeline.Offset{10, 11, 12}) {
		t.Error(got)
	}
}

// What is too large is settled by itself, and the rest of its key waits.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	small := servertest.NATS(t, servers.NATSOptions{Config: "max_payload: 400"})
	for name, o := range map[string]Options{
		"of the server": options(t, small, ""),
		"of the stream": options(t, servertest.NATS(t, servers.NATSOptions{}), `, "max_msg_size": 400`),
	} {
		s := newSink(t, o)
		out, err := s.Deliver(testContext(t), deliveryOf(t, event{10, 1}, event{11, 1}))
		if err != nil || len(out) != 2 || out[0].Class != pipeline.Fatal || !strings.Contains(out[0].Reason, "raise") || out[1].Class != pipeline.Retry {
			t.Error(name, out, err)
		}
	}
}

// As users who may do what docs/subscribers.md says, and less.
func TestUsers(t *testing.T) {
	t.Parallel()
	v := servertest.NATS(t, servers.NATSOptions{Config: `authorization: {users: [
		{user: admin, password: "sec:ret"},
		{user: leat, password: "sec:ret", permissions: {publish: ["*.public.*", "$JS.API.STREAM.INFO.*", "$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.DELETE.>", "$JS.API.CONSUMER.MSG.NEXT.>"], subscribe: "_INBOX.>"}},
		{user: reader, password: "sec:ret", permissions: {publish: "$JS.API.>", subscribe: "_INBOX.>"}}]}`})
	as := func(o Options, user string) Options {
		o.URL = strings.Replace(v.URL, "//", "//"+user+":sec%3Aret@", 1)
		return o
	}
	admin := &servers.Server{URL: as(Options{}, "admin").URL}
	for user, want := range map[string]string{"leat": "", "reader": "Permissions Violation", "nobody": "Authorization Violation"} {
		o := options(t, admin, briefly)
		s := newSink(t, as(o, user))
		if want != "" {
			if e := refused(t, s, event{10, 1}); e.Class != pipeline.Unavailable || e.TimedOut || !strings.Contains(e.Reason, want) || strings.Contains(e.Reason, "sec:ret") {
				t.Error(e)
			}
			continue
		}
		deliver(t, s, event{10, 1})
		again := newSink(t, as(o, user))
		again.Resume(pipeline.Cursor{Low: 10, Worked: time.Now()})
		deliver(t, again, event{10, 1}, event{11, 1})
		if got := offsetsOf(readAll(t, admin, o)); !slices.Equal(got, []pipeline.Offset{10, 11}) {
			t.Error(got)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	v := servertest.NATS(t, servers.NATSOptions{TLS: true, Config: "authorization: {token: to-ken}"})
	pem, err := os.ReadFile(v.Certs.CA)
	if err != nil {
		t.Fatal(err)
	}
	trust := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	trust.RootCAs.AppendCertsFromPEM(pem)
	subject, err := ParseSubject("leat{subscription}.{table}")
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, servertest.NATS(t, servers.NATSOptions{}), "") // only for its encoder
	o.Subject, o.Create, o.Stream, o.Subscription = subject, &Create{MaxBytes: 1 << 20}, servertest.Name(), servertest.Name()
	o.URL = strings.Replace(v.URL, "nats://", "tls://to-ken@", 1)
	if e := refused(t, newSink(t, o), event{10, 1}); e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, "certificate") || strings.Contains(e.Reason, "to-ken") {
		t.Error(e)
	}
	o.TLS = trust
	s := newSink(t, o)
	deliver(t, s, event{10, 1})
	c, err := s.dial(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	stream, err := c.js.Stream(testContext(t), o.Stream)
	if err != nil {
		t.Fatal(err)
	}
	if i := stream.CachedInfo(); i.State.Msgs != 1 || i.Config.MaxBytes != 1<<20 || !slices.Equal(i.Config.Subjects, []string{"leat" + o.Subscription + ".*"}) {
		t.Errorf("%+v", i)
	}
}

func TestURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"nats://h": "", "tls://u:p@h:1": "", "nats://[::1]:4222": "", "http://h": "does not begin", "nats://": "no host", "nats://h/x": "behind the port",
	} {
		if err := CheckURL(raw); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// Whatever tables are called, each has a subject of its own that servers take, and that the pattern of the stream covers.
func FuzzSubjects(f *testing.F) {
	for _, s := range [][2]string{{"public", "files"}, {"a.b", "c"}, {"a", "b.c"}, {"", "*"}, {"$JS", ">"}, {"%", "%25"}, {"ü \t", "\x7f"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, schema, table string) {
		names, err := ParseSubject("{schema}.x-{table}.{source}")
		if err != nil {
			t.Fatal(err)
		}
		s := &Sink{o: Options{Subject: names, Source: "a.b"}}
		got := s.subject(&schemas.Table{Schema: schema, Name: table})
		tokens := strings.Split(got, ".")
		if len(tokens) != 3 || slices.Contains(tokens, "") || strings.ContainsAny(got, " \t\r\n*>") || strings.HasPrefix(got, "$") {
			t.Fatalf("%q", got)
		}
		if schema != "" && unescape(t, tokens[0]) != schema || table != "" && unescape(t, strings.TrimPrefix(tokens[1], "x-")) != table {
			t.Fatalf("%q of %q, %q", got, schema, table)
		}
		if p := Wildcard(names, "a.b", "s"); p != "*.*.a%2Eb" || !covers(p, got) {
			t.Fatal(p)
		}
	})
}

func unescape(t *testing.T, s string) string {
	t.Helper()
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		var ch byte
		if _, err := fmt.Sscanf(s[i:], "%%%02X", &ch); err != nil {
			t.Fatal(s, err)
		}
		b = append(b, ch)
		i += 2
	}
	return string(b)
}

func TestTemplates(t *testing.T) {
	for _, bad := range []string{"", "a b", "a.*", ">", "a..b", ".a", "a.", "$JS.a", "_INBOX.a", "{tabel}", "{table"} {
		if _, err := ParseSubject(bad); err == nil {
			t.Errorf("%q", bad)
		}
	}
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{{"a.>", "a.b.c", true}, {"a.>", "a", false}, {"a.*", "a.b", true}, {"a.*", "a.b.c", false}, {"a", "a", true}, {"a.b", "a", false}, {">", "a", true}} {
		if covers(c.pattern, c.subject) != c.want {
			t.Error(c)
		}
	}
}

// What leat check finds, as a user would see it.
func TestCheck(t *testing.T) {
	t.Parallel()
	v := servertest.ExclusiveNATS(t, servers.NATSOptions{})
	o := options(t, v, "")
	is := func(o Options, want string) {
		t.Helper()
		var all []string
		for _, f := range newSink(t, o).Check(testContext(t), []*schemas.Table{filesTable}) {
			if f.What == "" {
				t.Error(f)
			}
			all = append(all, f.Level+" "+f.Code)
		}
		if got := strings.Join(all, ", "); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	is(o, "")
	missing := o
	missing.Stream = "missing"
	is(missing, "error nats_stream")
	missing.Create = &Create{}
	is(missing, "info nats_create")
	if !strings.Contains(string(open(t, v).unknown("STREAM.INFO.missing")), "10059") {
		t.Error("the check made a stream")
	}
	queue := options(t, v, `, "no_ack": true`)
	queue.Subject = o.Subject
	is(queue, "error nats_no_ack, error nats_subject")
	taken := o
	taken.Stream = servertest.Name()
	api(t, v, "STREAM.CREATE."+taken.Stream, fmt.Sprintf(`{"name": %q, "subjects": ["%s.>"], "storage": "file", "retention": "workqueue"}`, taken.Stream, taken.Stream))
	var err error
	if taken.Subject, err = ParseSubject(taken.Stream + ".{table}"); err != nil {
		t.Fatal(err)
	}
	is(taken, "warning nats_takes_away")
	deliver(t, newSink(t, taken), event{10, 1})
	secret := o
	secret.NKey = "missing.nk"
	is(secret, "error nats")
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	is(o, "warning unreachable")
}
