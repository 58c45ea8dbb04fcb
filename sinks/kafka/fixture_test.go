package kafka

import (
	"context"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

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

func jsonEncoder(t testing.TB) *records.Encoder {
	t.Helper()
	e, err := records.New(records.Options{Options: jsonOptions()})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func jsonOptions() encode.Options { return encode.Options{Source: "files", Form: pipetest.PGForm} }

func template(t testing.TB, s string) *Template {
	t.Helper()
	tmpl, err := ParseTemplate(s)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

// options of a sink that has a topic of its own on brokers.
func options(t testing.TB, brokers ...string) Options {
	topic := servertest.Name()
	return Options{Brokers: brokers, Source: "files", Subscription: "suite", ID: topic, Topic: template(t, topic), Encoder: jsonEncoder(t),
		Create: Create{Partitions: 1, Replicas: 1}}
}

func broker(t testing.TB) string {
	return servertest.Kafka(t, servers.KafkaOptions{}).Listeners[servers.ListenerPlain]
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

// reader reads a topic as any consumer does.
type reader struct {
	t      testing.TB
	topic  string
	client *kgo.Client
	mu     sync.Mutex
	all    []*kgo.Record
}

func read(t testing.TB, topic string, opts ...kgo.Opt) *reader {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond),
		kgo.MetadataMinAge(20*time.Millisecond), kgo.MetadataMaxAge(200*time.Millisecond), kgo.UnknownTopicRetries(-1))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &reader{t: t, topic: topic, client: client}
}

// until reads until there are n records, and returns all.
func (r *reader) until(n int) []*kgo.Record {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx := testContext(r.t)
	for len(r.all) < n {
		f := r.client.PollFetches(ctx)
		if ctx.Err() != nil {
			r.t.Fatalf("%d records of %d came: %v", len(r.all), n, f.Errors())
		}
		r.all = append(r.all, f.Records()...)
	}
	return slices.Clone(r.all)
}

func header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

func offsetsOf(t testing.TB, all []*kgo.Record) (got []pipeline.Offset) {
	t.Helper()
	for _, r := range all {
		if r.Value == nil {
			continue
		}
		o, err := strconv.ParseUint(header(r, headerOffset), 10, 64)
		if err != nil {
			t.Fatalf("record %d has the headers %v", r.Offset, r.Headers)
		}
		got = append(got, pipeline.Offset(o))
	}
	return got
}
