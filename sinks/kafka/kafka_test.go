package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

var epoch = time.Date(2026, 11, 21, 10, 0, 0, 123e6, time.UTC)

// deliveryOf makes a Delivery of changes whose offsets begin at o.
func deliveryOf(t testing.TB, o pipeline.Offset, changes ...pipetest.Change) *pipeline.Delivery {
	t.Helper()
	b := pipetest.Build(pipeline.Position{Counter: 1, Token: "p"}, epoch, changes)
	t.Cleanup(b.Release)
	b.Base = o
	for i := range b.Events {
		id := changes[i].After
		if id == nil {
			id = changes[i].Before
		}
		if id == nil || changes[i].Table.Identity == nil {
			continue
		}
		b.Events[i].Key, b.Events[i].Hash = b.PutString(id[0]), uint64(murmur2([]byte(id[0])))
	}
	return &pipeline.Delivery{Subscription: "suite", Source: "files", Number: 1, Attempt: 1, Deadline: time.Now().Add(time.Minute),
		Runs: []pipeline.Run{{Batch: b, To: uint32(len(b.Events))}}, Events: len(b.Events), Bytes: len(b.Arena)}
}

func row(id int, path string) pipetest.Row { return pipetest.Row{fmt.Sprint(id), "7", path} }

func inserts(from, to int) (all []pipetest.Change) {
	for i := from; i < to; i++ {
		all = append(all, pipetest.Change{Op: pipeline.OpInsert, Table: filesTable, After: row(i, fmt.Sprint("/", i))})
	}
	return all
}

var filesTable = pipetest.FilesTable("files")

func deliver(t testing.TB, s *Sink, d *pipeline.Delivery) pipeline.Outcomes {
	t.Helper()
	out, err := s.Deliver(testContext(t), d)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func whole(t testing.TB, s *Sink, d *pipeline.Delivery) *pipeline.DeliveryError {
	t.Helper()
	out, err := s.Deliver(testContext(t), d)
	var e *pipeline.DeliveryError
	if !errors.As(err, &e) {
		t.Fatalf("%v, %v", out, err)
	}
	return e
}

// Records are read by another client in every compression: keys, partitions, times, headers, tombstones.
func TestRecords(t *testing.T) {
	at := broker(t)
	for name, c := range Compressions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, at)
			o.Compression, o.Tombstones, o.Create = c, true, Create{Partitions: 3, Replicas: 1, Config: map[string]string{"cleanup.policy": "compact"}}
			s := newSink(t, o)
			changes := append(inserts(1, 300), pipetest.Change{Op: pipeline.OpDelete, Table: filesTable, Before: row(5, "/5")})
			deliver(t, s, deliveryOf(t, 1000, changes...))
			java := kgo.StickyKeyPartitioner(nil).ForTopic(o.ID)
			dead := 0
			for _, r := range read(t, o.ID, kgo.SeedBrokers(at)).until(301) {
				if int(r.Partition) != java.Partition(&kgo.Record{Key: r.Key}, 3) || !r.Timestamp.Equal(epoch) {
					t.Fatalf("%s in %d at %v", r.Key, r.Partition, r.Timestamp)
				}
				if r.Value == nil {
					if string(r.Key) != `{"id":5}` || dead > 0 || len(r.Headers) > 0 {
						t.Errorf("a tombstone of %s", r.Key)
					}
					dead++
					continue
				}
				var e struct {
					ID   string
					Data struct{ Op string }
				}
				if err := json.Unmarshal(r.Value, &e); err != nil || header(r, headerID) != e.ID || "files-"+header(r, headerOffset) != e.ID || header(r, headerOp) != e.Data.Op ||
					header(r, "content-type") != "application/cloudevents+json" || header(r, headerProducer) != o.ID {
					t.Fatalf("%v %s has the headers %v", err, r.Value, r.Headers)
				}
			}
			if dead != 1 {
				t.Errorf("%d tombstones", dead)
			}
		})
	}
}

// What a sink that was never told delivered is found by the next one: nothing comes twice, nothing is left out.
func TestResumesFromTheTail(t *testing.T) {
	at := broker(t)
	o := options(t, at)
	o.Create.Partitions = 3
	first := newSink(t, o)
	for i := range 4 {
		deliver(t, first, deliveryOf(t, pipeline.Offset(1000+100*i), inserts(1000+100*i, 1100+100*i)...))
	}
	next := newSink(t, o)
	next.Resume(pipeline.Cursor{Log: "x", Low: 1050, High: 1050})
	deliver(t, next, deliveryOf(t, 1050, inserts(1050, 1500)...))
	got := offsetsOf(t, read(t, o.ID, kgo.SeedBrokers(at)).until(500))
	slices.Sort(got)
	for i, g := range got {
		if g != pipeline.Offset(1000+i) {
			t.Fatalf("the %d-th offset is %d", i, g)
		}
	}
	// The one before is shut out.
	if e := whole(t, first, deliveryOf(t, 2000, inserts(2000, 2001)...)); e.Class != pipeline.Gone || !strings.Contains(e.Reason, "another process") {
		t.Error(e)
	}
	if n := written(t, next, o.ID); n != 100 {
		t.Errorf("the second wrote %d records", n)
	}
	// Who says that it goes on, by resuming it, shuts out the other.
	deliver(t, first, deliveryOf(t, 2000, inserts(2000, 2001)...))
	if e := whole(t, next, deliveryOf(t, 3000, inserts(3000, 3001)...)); e.Class != pipeline.Gone {
		t.Error(e)
	}
}

// A record that is too large is named and fails alone; what follows of its key waits, all else goes on.
func TestTooLarge(t *testing.T) {
	at := broker(t)
	for _, known := range []bool{true, false} {
		for _, c := range []Compression{None, Zstd} {
			t.Run(fmt.Sprint(known, c), func(t *testing.T) {
				t.Parallel()
				o := options(t, at)
				o.Compression, o.Tombstones, o.Create.Config = c, true, map[string]string{"max.message.bytes": "3000"}
				s := newSink(t, o)
				changes := inserts(0, 30)
				changes[10].After[2] = noise(8000)
				changes[12] = pipetest.Change{Op: pipeline.OpDelete, Table: filesTable, Before: row(10, "/again")}
				d := deliveryOf(t, 1000, changes...)
				if !known { // as when it may not be asked for
					p, err := s.open(testContext(t))
					if err != nil {
						t.Fatal(err)
					}
					topic, err := p.topic(testContext(t), o.ID)
					if err != nil {
						t.Fatal(err)
					}
					topic.maxBatch.Store(0)
				}
				out := deliver(t, s, d)
				for i, o := range out {
					want := map[int]pipeline.Class{10: pipeline.Fatal, 12: pipeline.Retry}[i]
					if o.Class != want || i == 10 && !strings.Contains(o.Reason, "record_too_large") {
						t.Errorf("event %d: %v %s", i, o.Class, o.Reason)
					}
				}
				if got := offsetsOf(t, read(t, o.ID, kgo.SeedBrokers(at)).until(28)); len(got) != 28 || slices.Contains(got, 1010) || slices.Contains(got, 1012) {
					t.Errorf("%v", got)
				}
			})
		}
	}
}

// noise does not become smaller by compression.
func noise(n int) string {
	var b strings.Builder
	for x := uint32(1); b.Len() < n; {
		x = murmur2([]byte{byte(x), byte(x >> 8), byte(x >> 16), byte(x >> 24)})
		fmt.Fprintf(&b, "%08x", x*2654435761)
	}
	return b.String()[:n]
}

// Credentials and rights: each refusal says what to do, and costs no event.
func TestWhoWeAre(t *testing.T) {
	k := servertest.Kafka(t, servers.KafkaOptions{})
	if k.Listeners[servers.ListenerSASL] == "" || k.Certs == nil {
		t.Log("the Kafka that was given has no such listeners") // then make test says nothing of it
		return
	}
	with := func(o Options, change func(*Options)) Options { change(&o); return o }
	user := func(mechanism, name, password string) func(*Options) {
		return func(o *Options) {
			o.Brokers, o.SASL = []string{k.Listeners[servers.ListenerSASL]}, SASL{mechanism, name, password}
		}
	}
	for name, change := range map[string]func(*Options){
		"plain": user("PLAIN", servers.KafkaUser, servers.KafkaUser), "scram-256": user("SCRAM-SHA-256", servers.KafkaUser, servers.KafkaUser),
		"scram-512": user("SCRAM-SHA-512", servers.KafkaUser, servers.KafkaUser),
		"tls": func(o *Options) {
			o.Brokers, o.TLS = []string{k.Listeners[servers.ListenerTLS]}, trusting(t, k.Certs.CA)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := with(options(t), change)
			if e, _ := errors.AsType[*pipeline.DeliveryError](second(newSink(t, o).Deliver(testContext(t), deliveryOf(t, 1000, inserts(1, 3)...)))); e != nil {
				t.Fatal(e)
			}
		})
	}
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"wrong password": {user("SCRAM-SHA-256", servers.KafkaUser, "geheim"), "credentials"},
		"no rights":      {user("PLAIN", servers.KafkaGuest, servers.KafkaGuest), "transactional id"},
		"no authority":   {func(o *Options) { o.Brokers, o.TLS = []string{k.Listeners[servers.ListenerTLS]}, &tls.Config{} }, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := whole(t, newSink(t, with(options(t), c.change)), deliveryOf(t, 1000, inserts(1, 3)...))
			if e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, c.want) || strings.Contains(e.Reason, "geheim") {
				t.Error(e)
			}
		})
	}
}

func second[A, B any](_ A, b B) B { return b }

// Nobody there, and a topic that is not: both wait, with the cure.
func TestUnavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	if e := whole(t, newSink(t, options(t, closed)), deliveryOf(t, 1000, inserts(1, 3)...)); e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, "reached") {
		t.Error(e)
	}
	at := broker(t)
	o := options(t, at)
	o.Create.Off = true
	s := newSink(t, o)
	if e := whole(t, s, deliveryOf(t, 1000, inserts(1, 3)...)); e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, "create it") {
		t.Error(e)
	}
	c := &kafka.Client{Addr: kafka.TCP(at), Transport: s.client.Transport}
	if _, err := c.CreateTopics(testContext(t), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: o.ID, NumPartitions: 1, ReplicationFactor: 1}}}); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, deliveryOf(t, 1000, inserts(1, 3)...))
}

// trusting is a configuration of TLS that trusts the authority of a file.
func trusting(t *testing.T, ca string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		t.Fatalf("%s has no certificate", ca)
	}
	return c
}
