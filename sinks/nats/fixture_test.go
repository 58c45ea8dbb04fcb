package nats

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/encode/records"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// options of a sink that has a stream of its own, which is made; settings besides name and subjects.
func options(t testing.TB, s *servers.Server, settings string) Options {
	t.Helper()
	enc, err := records.New(records.Options{Options: encode.Options{Source: "files", Form: pipetest.PGForm}})
	if err != nil {
		t.Fatal(err)
	}
	name := servertest.Name()
	subject, err := ParseSubject(name + ".{schema}.{table}")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{URL: s.URL, Source: "files", Subscription: "suite", Stream: name, Subject: subject, Encoder: enc}
	api(t, s, "STREAM.CREATE."+name, fmt.Sprintf(`{"name": %q, "subjects": ["%s.>"], "storage": "file", "retention": "limits"%s}`, name, name, settings))
	return o
}

func newSink(t testing.TB, o Options) *Sink {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// client speaks the protocol by itself, so that it shares no code with ours.
type client struct {
	t     testing.TB
	conn  net.Conn
	in    *bufio.Reader
	inbox string
}

func open(t testing.TB, s *servers.Server) *client {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Read(make([]byte, 64<<10)); err != nil { // INFO
		t.Fatal(err)
	}
	c := &client{t, conn, bufio.NewReader(conn), "_INBOX." + servertest.Name()}
	user := ""
	if u.User != nil {
		password, _ := u.User.Password()
		user = fmt.Sprintf(`,"user":%q,"pass":%q`, u.User.Username(), password)
	}
	c.write(`CONNECT {"verbose":false,"pedantic":false,"headers":false` + user + "}\r\nSUB " + c.inbox + " 1\r\n")
	return c
}

func (c *client) write(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) ask(subject, body string) {
	c.t.Helper()
	c.write(fmt.Sprintf("PUB $JS.API.%s %s %d\r\n%s\r\n", subject, c.inbox, len(body), body))
}

// unknown is the answer to what is not there.
func (c *client) unknown(subject string) []byte {
	defer c.conn.Close()
	c.ask(subject, "")
	return c.answer()
}

func (c *client) answer() []byte {
	c.t.Helper()
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.t.Fatal(err)
		}
		f := strings.Fields(line)
		switch {
		case f[0] == "PING":
			c.write("PONG\r\n")
		case f[0] == "-ERR":
			c.t.Fatal(line)
		case f[0] == "MSG":
			size, err := strconv.Atoi(f[len(f)-1])
			body := make([]byte, size+2)
			if _, failed := io.ReadFull(c.in, body); err != nil || failed != nil {
				c.t.Fatal(line, failed)
			}
			return body[:size]
		}
	}
}

// api asks JetStream something.
func api(t testing.TB, s *servers.Server, subject, body string) []byte {
	t.Helper()
	c := open(t, s)
	defer c.conn.Close()
	c.ask(subject, body)
	answer := c.answer()
	if strings.Contains(string(answer), `"error"`) {
		t.Fatalf("%s: %s", subject, answer)
	}
	return answer
}

// read is a message as the other client reads it.
type read struct {
	subject, event string
	headers        map[string]string
	offset         pipeline.Offset
}

func (c *client) readAll(stream string) (all []read) {
	c.t.Helper()
	c.ask("STREAM.INFO."+stream, "")
	var info struct {
		State struct {
			First int `json:"first_seq"`
			Last  int `json:"last_seq"`
		} `json:"state"`
	}
	if err := json.Unmarshal(c.answer(), &info); err != nil {
		c.t.Fatal(err)
	}
	for n := max(info.State.First, 1); n <= info.State.Last; n++ {
		c.ask("STREAM.MSG.GET."+stream, fmt.Sprintf(`{"seq":%d}`, n))
		var m struct {
			Message *struct {
				Subject string `json:"subject"`
				Headers []byte `json:"hdrs"`
				Data    []byte `json:"data"`
			} `json:"message"`
		}
		if err := json.Unmarshal(c.answer(), &m); err != nil {
			c.t.Fatal(err)
		}
		if m.Message == nil {
			continue // deleted
		}
		r := read{subject: m.Message.Subject, event: string(m.Message.Data), headers: map[string]string{}}
		for line := range strings.Lines(string(m.Message.Headers)) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
				r.headers[name] = value
			}
		}
		if strings.HasPrefix(r.headers["Nats-Msg-Id"], "probe/") {
			continue
		}
		o, err := strconv.ParseUint(strings.TrimPrefix(r.headers["id"], "files-"), 10, 64)
		if err != nil {
			continue // another's
		}
		r.offset = pipeline.Offset(o)
		all = append(all, r)
	}
	return all
}

func readAll(t testing.TB, s *servers.Server, o Options) []read {
	t.Helper()
	c := open(t, s)
	defer c.conn.Close()
	return c.readAll(o.Stream)
}

func offsetsOf(all []read) (got []pipeline.Offset) {
	for _, r := range all {
		got = append(got, r.offset)
	}
	return got
}

var (
	epoch      = time.Date(2026, 11, 21, 10, 0, 0, 123e6, time.UTC)
	filesTable = pipetest.FilesTable("files")
)

// event is one at an offset, of a key.
type event struct {
	offset pipeline.Offset
	key    int
}

// deliveryOf makes a Delivery of updates.
func deliveryOf(t testing.TB, events ...event) *pipeline.Delivery {
	t.Helper()
	d := &pipeline.Delivery{Subscription: "suite", Source: "files", Number: 1, Attempt: 1, Deadline: time.Now().Add(time.Minute), Events: len(events)}
	events = slices.SortedFunc(slices.Values(events), func(a, b event) int { return cmp.Compare(a.offset, b.offset) })
	for _, e := range events {
		row := pipetest.Row{fmt.Sprint(e.key), "7", fmt.Sprint("/", e.offset)}
		b := pipetest.Build(pipeline.Position{Counter: 1, Token: "p"}, epoch, []pipetest.Change{{Op: pipeline.OpUpdate, Table: filesTable, After: row}})
		t.Cleanup(b.Release)
		b.Base = e.offset
		b.Events[0].Key, b.Events[0].Hash = b.PutString(row[0]), uint64(e.key)
		d.Runs = append(d.Runs, pipeline.Run{Batch: b, To: 1})
		d.Bytes += len(b.Arena)
	}
	return d
}

func at(key int, offsets ...pipeline.Offset) (all []event) {
	for _, o := range offsets {
		all = append(all, event{o, key})
	}
	return all
}

func deliver(t testing.TB, s *Sink, events ...event) {
	t.Helper()
	out, err := s.Deliver(testContext(t), deliveryOf(t, events...))
	if err != nil || out != nil {
		t.Fatal(out, err)
	}
}

func refused(t testing.TB, s *Sink, events ...event) *pipeline.DeliveryError {
	t.Helper()
	out, err := s.Deliver(testContext(t), deliveryOf(t, events...))
	var e *pipeline.DeliveryError
	if !errors.As(err, &e) {
		t.Fatalf("%v, %v", out, err)
	}
	return e
}

// until waits for what comes.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(60 * time.Second); !is(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("this did not come: " + what)
		}
	}
}
