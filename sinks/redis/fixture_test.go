package redis

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// options of a sink that has a stream of its own.
func options(t testing.TB, s *servers.Server) (o Options, stream string) {
	t.Helper()
	enc, err := records.New(records.Options{Options: encode.Options{Source: "files", Form: pipetest.PGForm}})
	if err != nil {
		t.Fatal(err)
	}
	stream = servertest.Name()
	names, err := records.ParseNameTemplate(stream)
	if err != nil {
		t.Fatal(err)
	}
	return Options{URL: s.URL, Source: "files", Subscription: "suite", Stream: names, Encoder: enc}, stream
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

// cli runs a command by the server's own client, which shares no code with ours.
func cli(t testing.TB, s *servers.Server, args ...string) string {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Command(testContext(t), "valkey-cli", append([]string{"-h", u.Hostname(), "-p", u.Port(), "--json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// read is an entry as the other client reads it.
type read struct {
	id     string
	fields map[string]string
	offset pipeline.Offset
}

func readAll(t testing.TB, s *servers.Server, stream string) (all []read) {
	t.Helper()
	text := cli(t, s, "XRANGE", stream, "-", "+")
	var raw [][2]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatalf("%v: %.300s", err, text)
	}
	for _, e := range raw {
		r := read{fields: map[string]string{}}
		var pairs []string
		if err := errors.Join(json.Unmarshal(e[0], &r.id), json.Unmarshal(e[1], &pairs)); err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			r.fields[pairs[i]] = pairs[i+1]
		}
		o, err := strconv.ParseUint(strings.TrimPrefix(r.fields["id"], "files-"), 10, 64)
		if err != nil {
			continue // another's
		}
		r.offset = pipeline.Offset(o)
		all = append(all, r)
	}
	return all
}

func offsetsOf(all []read) (got []pipeline.Offset) {
	for _, r := range all {
		got = append(got, r.offset)
	}
	return got
}

func idsOf(all []read) (got []string) {
	for _, r := range all {
		got = append(got, r.id)
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
