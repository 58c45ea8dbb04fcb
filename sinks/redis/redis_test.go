package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
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

func TestRedisConforms(t *testing.T) {
	pipetest.TestSink(t, func(t *testing.T) pipetest.SinkRig {
		v := servertest.ExclusiveValkey(t, servers.ValkeyOptions{})
		o, stream := options(t, v)
		return pipetest.SinkRig{Sink: newSink(t, o),
			Received: func() []pipeline.Offset { return offsetsOf(readAll(t, v, stream)) },
			Hang: func() {
				if err := syscall.Kill(v.Pid(), syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}}
	})
}

func TestEntries(t *testing.T) {
	t.Parallel()
	v := servertest.Valkey(t, servers.ValkeyOptions{})
	o, stream := options(t, v)
	s := newSink(t, o)
	deliver(t, s, event{40, 5})
	copies := deliveryOf(t, event{40, 5})
	copies.Replay, copies.Reason = "j1", pipeline.ReasonReplay
	if out, err := s.Deliver(testContext(t), copies); err != nil || out != nil {
		t.Fatal(out, err)
	}
	all := readAll(t, v, stream)
	if got := idsOf(all); !slices.Equal(got, []string{"40-0", "40-1"}) {
		t.Fatal(got)
	}
	f := all[0].fields
	if f["op"] != "update" || f["key"] != `{"id":5}` || f["id"] != "files-40" || !strings.Contains(f["event"], `"path":"/40"`) || len(f) != 4 {
		t.Error(f)
	}
	if all[1].fields["replay"] != "j1" {
		t.Error(all[1].fields)
	}
}

// What was delivered before a crash stands there once, also what the cursor does not know of yet.
func TestAfterACrash(t *testing.T) {
	t.Parallel()
	v := servertest.Valkey(t, servers.ValkeyOptions{})
	o, stream := options(t, v)
	first := newSink(t, o)
	first.Resume(pipeline.Cursor{Low: 10, High: 10})
	deliver(t, first, event{10, 1}, event{11, 2}, event{13, 1})
	deliver(t, first, event{12, 3}) // late
	s := newSink(t, o)
	s.Resume(pipeline.Cursor{Low: 10, High: 12})
	deliver(t, s, event{10, 1}, event{11, 2}, event{12, 3}, event{13, 1}, event{14, 1})
	deliver(t, s, event{9, 4}) // was parked
	all := readAll(t, v, stream)
	if got := offsetsOf(all); !slices.Equal(got, []pipeline.Offset{10, 11, 13, 12, 14, 9}) {
		t.Error(got)
	}
	if got := idsOf(all); !slices.Equal(got, []string{"10-0", "11-0", "13-0", "13-1", "14-0", "14-1"}) {
		t.Error(got)
	}
}

// Where an entry is gone that was delivered before a crash, what follows of its key comes again with it: else a reader would
// end with the older one.
func TestOrderWhereEntriesAreGone(t *testing.T) {
	t.Parallel()
	v := servertest.Valkey(t, servers.ValkeyOptions{})
	o, stream := options(t, v)
	events := append(at(1, 10, 12, 14), at(2, 11, 13)...)
	deliver(t, newSink(t, o), events...)
	cli(t, v, "XDEL", stream, "12-0")
	s := newSink(t, o)
	s.Resume(pipeline.Cursor{Low: 10, High: 10})
	deliver(t, s, events...)
	if got := offsetsOf(readAll(t, v, stream)); !slices.Equal(got, []pipeline.Offset{10, 11, 13, 14, 12, 14}) {
		t.Error(got)
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
			d.Deadline = time.Now().Add(time.Minute)
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
		if last[r.fields["key"]] >= r.offset {
			t.Errorf("key %s: %d behind %d", r.fields["key"], r.offset, last[r.fields["key"]])
		}
		last[r.fields["key"]] = r.offset
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
// the stream once, in order per key.
func TestRoughConnections(t *testing.T) {
	t.Parallel()
	v := servertest.Valkey(t, servers.ValkeyOptions{})
	o, stream := options(t, v)
	p := rough.New(t, v.Listeners[servers.ListenerPlain], func(n int) rough.Trouble {
		switch n % 8 {
		case 7:
			return rough.Trouble{}
		case 3:
			return rough.Trouble{Stall: 1 + rand.Int64N(2000)}
		}
		return rough.Trouble{Reset: 1 + rand.Int64N(2000)}
	})
	o.URL, o.Timeout = "redis://"+p.Addr, time.Second
	s := newSink(t, o)
	var all sync.WaitGroup
	const workers, rounds = 4, 30
	for w := range workers {
		all.Go(func() { pour(t, func() *Sink { return s }, 1000, w, workers, rounds, func([]event) {}) })
	}
	all.Wait()
	onceInOrder(t, readAll(t, v, stream), workers*rounds*12)
	if _, resets, _ := p.Counts(); resets == 0 {
		t.Error("no connection broke")
	}
}

// Both ends die now and then: the server by SIGKILL, the sink as in a crash, with a cursor that is behind.
func TestKills(t *testing.T) {
	t.Parallel()
	v := servertest.ExclusiveValkey(t, servers.ValkeyOptions{})
	o, stream := options(t, v)
	var mu sync.Mutex
	open := map[pipeline.Offset]bool{}
	const workers, rounds = 3, 25
	for o := pipeline.Offset(1000); o < 1000+workers*rounds*12; o++ {
		open[o] = true
	}
	s := newSink(t, o)
	resume := func(s *Sink) { // called with mu held
		low := pipeline.Offset(1000 + workers*rounds*12)
		for o := range open {
			low = min(low, o)
		}
		s.Resume(pipeline.Cursor{Low: low, High: low, Worked: epoch})
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
	onceInOrder(t, readAll(t, v, stream), workers*rounds*12)
}

// Another one writes to the stream: ours stand there once, since ids by the clock are far below offsets. Where they are not,
// what the other comes between is sent again with what follows of its key: the last of a key is its newest.
func TestBesideAnother(t *testing.T) {
	t.Parallel()
	v := servertest.Valkey(t, servers.ValkeyOptions{})
	for name, base := range map[string]pipeline.Offset{"of offsets": 1770000000 << 20, "of small offsets": 1000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, stream := options(t, v)
			other, err := dial(o)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			s := newSink(t, o)
			ctx, stop := context.WithCancel(testContext(t))
			var all sync.WaitGroup
			all.Go(func() {
				for ctx.Err() == nil {
					_ = other.Do(ctx, "XADD", stream, "*", "who", "another").Err()
				}
			})
			const rounds = 20
			pour(t, func() *Sink { return s }, base, 0, 1, rounds, func([]event) {})
			stop()
			all.Wait()
			got := readAll(t, v, stream)
			if base > 1000 {
				onceInOrder(t, got, rounds*12)
				return
			}
			seen, last := map[pipeline.Offset]bool{}, map[string]read{}
			for _, r := range got {
				seen[r.offset], last[r.fields["key"]] = true, r
			}
			for key, r := range last {
				if r.offset < base+rounds*12-12 {
					t.Errorf("the last of key %s is %d", key, r.offset)
				}
			}
			if len(seen) != rounds*12 {
				t.Errorf("%d events", len(seen))
			}
		})
	}
}

func TestMaxLen(t *testing.T) {
	t.Parallel()
	v := servertest.Valkey(t, servers.ValkeyOptions{})
	o, stream := options(t, v)
	o.MaxLen = 50
	s := newSink(t, o)
	for i := range 10 {
		var events []event
		for n := range 100 {
			events = append(events, event{pipeline.Offset(1000 + i*100 + n), n})
		}
		deliver(t, s, events...)
	}
	if n := len(readAll(t, v, stream)); n < 50 || n > 250 {
		t.Errorf("%d entries", n)
	}
}

// What the server refuses is told with its cure, costs no attempt, and comes once when it is over.
func TestTrouble(t *testing.T) {
	t.Parallel()
	v := servertest.ExclusiveValkey(t, servers.ValkeyOptions{})
	o, stream := options(t, v)
	s := newSink(t, o)
	deliver(t, s, event{10, 1})
	refusedFor := func(words ...string) {
		t.Helper()
		e := refused(t, s, event{10, 1}, event{11, 2})
		for _, w := range words {
			if e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, w) {
				t.Errorf("no %q in %s", w, e)
			}
		}
	}
	cli(t, v, "CONFIG", "SET", "maxmemory", "1")
	refusedFor("OOM", "raise maxmemory")
	cli(t, v, "CONFIG", "SET", "maxmemory", "0")
	cli(t, v, "REPLICAOF", "127.0.0.1", "1")
	refusedFor("READONLY", "name the primary")
	cli(t, v, "REPLICAOF", "NO", "ONE")
	cli(t, v, "RENAME", stream, "kept")
	cli(t, v, "SET", stream, "a text")
	refusedFor("WRONGTYPE", "something else than a stream", stream)
	cli(t, v, "DEL", stream)
	cli(t, v, "RENAME", "kept", stream)
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	refusedFor("cannot be reached")
	if err := v.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, event{11, 2}, event{12, 2})
	if got := offsetsOf(readAll(t, v, stream)); !slices.Equal(got, []pipeline.Offset{10, 11, 12}) {
		t.Error(got)
	}
}

// Over TLS, as a user who may do what docs/subscribers.md says, and no more.
func TestUserOverTLS(t *testing.T) {
	t.Parallel()
	v := servertest.Valkey(t, servers.ValkeyOptions{})
	o, stream := options(t, v)
	cli(t, v, "ACL", "SETUSER", "u"+stream, "on", ">sec:ret", "~"+stream, "+xadd", "+xinfo|stream", "+xrevrange", "+xsetid")
	cli(t, v, "ACL", "SETUSER", "n"+stream, "on", ">sec:ret", "~"+stream)
	pem, err := os.ReadFile(v.Certs.CA)
	if err != nil {
		t.Fatal(err)
	}
	o.TLS = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	o.TLS.RootCAs.AppendCertsFromPEM(pem)
	u := url.URL{Scheme: "rediss", Host: v.Listeners[servers.ListenerTLS]}
	for user, want := range map[string]string{"u" + stream: "", "n" + stream: "NOPERM", "nobody": "WRONGPASS"} {
		u.User = url.UserPassword(user, "sec:ret")
		o.URL = u.String()
		s := newSink(t, o)
		s.Resume(pipeline.Cursor{Low: 5})
		if want == "" {
			deliver(t, s, event{10, 1})
			continue
		}
		if e := refused(t, s, event{10, 1}); e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, want) || strings.Contains(e.Reason, "sec:ret") {
			t.Error(e)
		}
	}
	if got := len(readAll(t, v, stream)); got != 1 {
		t.Error(got)
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	v := servertest.ExclusiveValkey(t, servers.ValkeyOptions{Params: map[string]string{"cluster-enabled": "yes"}})
	cli(t, v, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	until(t, "the cluster is whole", func() bool { return strings.Contains(cli(t, v, "CLUSTER", "INFO"), "cluster_state:ok") })
	o, stream := options(t, v)
	o.Cluster = true
	s := newSink(t, o)
	s.Resume(pipeline.Cursor{Low: 5})
	deliver(t, s, event{10, 1}, event{11, 2})
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	if e := refused(t, s, event{12, 1}); e.Class != pipeline.Unavailable {
		t.Error(e)
	}
	if err := v.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	until(t, "a Delivery", func() bool {
		out, err := s.Deliver(testContext(t), deliveryOf(t, event{12, 1}, event{13, 2}))
		return err == nil && out == nil
	})
	if got := offsetsOf(readAll(t, v, stream)); !slices.Equal(got, []pipeline.Offset{10, 11, 12, 13}) {
		t.Error(got)
	}
}

func TestURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"redis://h": "", "rediss://u:p@h:1/2": "", "redis://[::1]:6380": "", "http://h": "does not begin", "redis://": "no host", "redis://h/x": "no number", "redis://h/0?a=b": "behind",
	} {
		err := CheckURL(raw, false)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", raw, err)
		}
	}
	if err := CheckURL("redis://h/1", true); err == nil {
		t.Error("a cluster with a database")
	}
}

func FuzzID(f *testing.F) {
	for _, s := range []string{"0-0", "18446744073709551615-1", "1", "-", "a-b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if i, err := parseID(s); err == nil {
			if again, err := parseID(i.String()); err != nil || again != i {
				t.Fatal(fmt.Sprint(i), again, err)
			}
		}
	})
}

// What leat check finds, as a user would see it.
func TestCheck(t *testing.T) {
	t.Parallel()
	v := servertest.ExclusiveValkey(t, servers.ValkeyOptions{})
	o, stream := options(t, v)
	codes := func(o Options) string {
		t.Helper()
		var all []string
		for _, f := range newSink(t, o).Check(testContext(t), []*schemas.Table{filesTable}) {
			if f.What == "" || strings.Contains(f.What, "sec:ret") {
				t.Error(f)
			}
			all = append(all, f.Level+" "+f.Code)
		}
		return strings.Join(all, ", ")
	}
	is := func(o Options, want string) {
		t.Helper()
		if got := codes(o); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	o.MaxLen = 100
	is(o, "")
	if got := cli(t, v, "EXISTS", stream); got != "0" {
		t.Error("the check made a stream")
	}
	o.MaxLen = 0
	cli(t, v, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	cli(t, v, "CONFIG", "SET", "appendonly", "no")
	is(o, "warning redis_evicts, info redis_grows, warning redis_forgets")
	cli(t, v, "CONFIG", "SET", "appendonly", "yes", "maxmemory-policy", "noeviction")
	o.MaxLen = 100
	cli(t, v, "SET", stream, "a text")
	is(o, "error redis_stream")
	cli(t, v, "DEL", stream)
	cluster := o
	cluster.Cluster = true
	is(cluster, "error redis") // no node of one
	cli(t, v, "ACL", "SETUSER", "reader", "on", ">sec:ret", "~*", "+xrevrange", "+xinfo")
	as := o
	as.URL = strings.Replace(o.URL, "//", "//reader:sec%3Aret@", 1)
	is(as, "error redis_stream")
	as.URL = strings.Replace(o.URL, "//", "//nobody:sec%3Aret@", 1)
	is(as, "error redis")
	cli(t, v, "REPLICAOF", "127.0.0.1", "1")
	is(o, "error redis_replica")
	if err := v.Kill(); err != nil {
		t.Fatal(err)
	}
	is(o, "warning unreachable")
}
