package kafka

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/endtxn"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// between looks at requests before they go, and may refuse them.
type between struct {
	kafka.RoundTripper
	mu   sync.Mutex
	look func(kafka.Request) error // nil: all go
}

func (b *between) RoundTrip(ctx context.Context, at net.Addr, r kafka.Request) (kafka.Response, error) {
	b.mu.Lock()
	look := b.look
	b.mu.Unlock()
	if look != nil {
		if err := look(r); err != nil {
			return nil, err
		}
	}
	return b.RoundTripper.RoundTrip(ctx, at, r)
}

func (b *between) set(look func(kafka.Request) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.look = look
}

func interposed(s *Sink) *between {
	b := &between{RoundTripper: s.client.Transport}
	s.client.Transport = b
	return b
}

// A compacted topic takes no null keys: what has none gets one, each of its own where nothing may be lost.
func TestCompactedTopicTakesAll(t *testing.T) {
	at := broker(t)
	o := options(t, at)
	o.Create.Config = map[string]string{"cleanup.policy": "compact"}
	s := newSink(t, o)
	keyless := pipetest.FilesTable("log")
	keyless.Identity, keyless.Routing = nil, nil
	changes := append(inserts(1, 2), pipetest.Change{Op: pipeline.OpTruncate, Table: filesTable},
		pipetest.Change{Op: pipeline.OpInsert, Table: keyless, After: row(7, "/a")}, pipetest.Change{Op: pipeline.OpInsert, Table: keyless, After: row(7, "/a")})
	for i, out := range deliver(t, s, deliveryOf(t, 1000, changes...)) {
		if out.Class != pipeline.OK {
			t.Errorf("event %d: %s", i, out.Reason)
		}
	}
	want := []string{`{"id":1}`, `{"leat":"truncate public.files"}`, `{"leat":"files-1002"}`, `{"leat":"files-1003"}`}
	for i, r := range read(t, o.ID, kgo.SeedBrokers(at)).until(len(want)) {
		if string(r.Key) != want[i] {
			t.Errorf("record %d has the key %s, want %s", i, r.Key, want[i])
		}
	}
	if got := o.Create.config("t").ConfigEntries; len(got) != 2 || got[1].ConfigName != compactionLag || got[1].ConfigValue != defaultLag {
		t.Errorf("made with %v", got)
	}
}

// Who raises the limit and redrives gets the record through.
func TestLimitIsRaised(t *testing.T) {
	at := broker(t)
	o := options(t, at)
	o.Create.Config = map[string]string{"max.message.bytes": "3000"}
	s := newSink(t, o)
	changes := inserts(0, 1)
	changes[0].After[2] = noise(8000)
	if out := deliver(t, s, deliveryOf(t, 1000, changes...)); out[0].Class != pipeline.Fatal {
		t.Fatal(out)
	}
	if _, err := s.client.IncrementalAlterConfigs(testContext(t), &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: o.ID,
		Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "max.message.bytes", Value: "20000", ConfigOperation: kafka.ConfigOperationSet}}}}}); err != nil {
		t.Fatal(err)
	}
	for ctx := testContext(t); ; pause(ctx, 100*time.Millisecond) {
		out := deliver(t, s, deliveryOf(t, 1000, changes...))
		if out == nil || out[0].Class == pipeline.OK {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(out)
		}
	}
}

// A time that the topic does not take becomes the time that it is.
func TestTimesAhead(t *testing.T) {
	at := broker(t)
	o := options(t, at)
	o.Create.Config = map[string]string{"message.timestamp.after.max.ms": "60000"}
	s := newSink(t, o)
	d := deliveryOf(t, 1000, inserts(0, 20)...)
	b := d.Runs[0].Batch
	for i := range b.Txs {
		b.Txs[i].Time = time.Now().Add(48 * time.Hour).UnixMicro()
	}
	for i, out := range deliver(t, s, d) {
		if out.Class != pipeline.OK {
			t.Errorf("event %d: %s", i, out.Reason)
		}
	}
	once(t, o, at, 1000, 1020)
}

// A fence that stays half done is none of another process: the next try begins anew.
func TestFenceBrokenOff(t *testing.T) {
	s := newSink(t, options(t, broker(t)))
	b := interposed(s)
	b.set(func(r kafka.Request) error {
		if _, is := r.(*endtxn.Request); is {
			return errors.New("broken off")
		}
		return nil
	})
	d := deliveryOf(t, 1000, inserts(0, 2)...)
	if e := whole(t, s, d); e.Class != pipeline.Unavailable {
		t.Fatal(e)
	}
	before := s.producer
	b.set(nil)
	deliver(t, s, d)
	if s.producer == before || s.producer.id == before.id && s.producer.epoch <= before.epoch {
		t.Errorf("goes on as %d/%d after %d/%d", s.producer.id, s.producer.epoch, before.id, before.epoch)
	}
}

// A look through a long topic that is broken off goes on where it was.
func TestWalkGoesOn(t *testing.T) {
	at := broker(t)
	o := options(t, at)
	client, err := kgo.NewClient(kgo.SeedBrokers(at), kgo.DefaultProduceTopic(o.ID), kgo.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s := newSink(t, o)
	if _, err := s.ensure(testContext(t), o.ID); err != nil {
		t.Fatal(err)
	}
	var others []*kgo.Record
	for range 12_000 {
		others = append(others, &kgo.Record{Value: []byte("x")})
	}
	if err := client.ProduceSync(testContext(t), others...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.Resume(pipeline.Cursor{Log: "x", Low: 5, High: 5, Worked: epoch})
	b := interposed(s)
	b.set(func(r kafka.Request) error {
		if f, is := r.(*fetch.Request); is && f.Topics[0].Partitions[0].FetchOffset < 2000 {
			return errors.New("broken off")
		}
		return nil
	})
	d := deliveryOf(t, 1000, inserts(0, 2)...)
	if e := whole(t, s, d); e.Class != pipeline.Unavailable || !strings.Contains(s.lastTrouble(), "records of") {
		t.Fatal(e, s.lastTrouble())
	}
	b.set(func(r kafka.Request) error {
		if f, is := r.(*fetch.Request); is {
			if at := f.Topics[0].Partitions[0].FetchOffset; at >= 4000 && at < 12_000 {
				t.Errorf("%d is read again", at)
			}
		}
		return nil
	})
	deliver(t, s, d)
	if len(s.walks) > 0 {
		t.Error("walks are kept")
	}
}

// What is known of a topic that was made anew leads nowhere: it is looked at from its end.
func TestTopicMadeAnew(t *testing.T) {
	at := broker(t)
	o := options(t, at)
	deliver(t, newSink(t, o), deliveryOf(t, 1000, inserts(0, 10)...))
	s := newSink(t, o)
	s.kept[o.ID] = &kept{next: []int64{1 << 30}, high: []uint64{0}}
	deliver(t, s, deliveryOf(t, 1000, inserts(0, 20)...))
	once(t, o, at, 1000, 1020)
	if n := written(t, s, o.ID); n != 10 {
		t.Errorf("%d records were written", n)
	}
}

// Close does not wait for a producer that cannot be had.
func TestCloseWhileOpening(t *testing.T) {
	o := options(t, broker(t))
	h := &hanging{}
	o.dialer = h.dial
	s := newSink(t, o)
	some, done := h.hang(0), make(chan error, 1)
	go func() { done <- second(s.open(testContext(t))) }()
	<-some
	s.cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("opened")
		}
	case <-time.After(openTime * 3 / 4):
		t.Error("it still waits")
	}
	h.letGo()
}

// Deliveries beyond those that may be on their way wait without memory, hand over meanwhile, and end nobody's producer.
func TestDeliveriesWaitForRoom(t *testing.T) {
	s, _ := packed(t)
	for range mostLoads {
		if err := s.enter(t.Context(), func() { t.Error("waits without need") }); err != nil {
			t.Fatal(err)
		}
	}
	handed := false
	d := wideDelivery(1)
	d.Deadline, d.Handed = time.Now().Add(10*time.Millisecond), func() { handed = true }
	var failed *pipeline.DeliveryError
	if _, err := s.Deliver(t.Context(), d); !errors.As(err, &failed) || failed.Class != pipeline.Unavailable || !failed.TimedOut || !handed {
		t.Errorf("%v, handed over: %t", err, handed)
	}
	d.Deadline = time.Time{}
	s.leave()
	if _, err := s.Deliver(t.Context(), d); !errors.As(err, &failed) || !strings.Contains(failed.Reason, "no broker can be reached") {
		t.Error(err)
	}
	for len(s.room) > 0 {
		s.leave()
	}
}
