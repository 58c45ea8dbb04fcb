package kafka

import (
	"context"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas/cell/pgtext"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/encode/records"
)

// wideDelivery holds n inserts of seven columns, about 180 bytes each.
func wideDelivery(n int) *pipeline.Delivery {
	b := pipetest.WideBatch(n)
	return &pipeline.Delivery{Subscription: "s", Source: "files", Runs: []pipeline.Run{{Batch: b, To: uint32(n)}}, Events: n, Bytes: len(b.Arena)}
}

// packed is a sink whose topic is there without a Kafka.
func packed(t testing.TB) (*Sink, *producer) {
	t.Helper()
	enc, err := records.New(records.Options{Options: encode.Options{Source: "files", PublicURL: "http://127.0.0.1:7070", Form: pgtext.Form}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Brokers: []string{"127.0.0.1:1"}, Source: "files", Subscription: "s", Topic: template(t, "t"), Encoder: enc})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	p := &producer{s: s}
	top := &topic{name: "t"}
	for i := range 4 {
		top.lanes = append(top.lanes, &lane{p: p, topic: top, partition: i, id: i})
	}
	p.topics.Store(&map[string]*topic{"t": top})
	return s, p
}

// pack makes the records of a Delivery and the batches of it, as they are sent.
func pack(t testing.TB, s *Sink, p *producer, d *pipeline.Delivery) {
	l := s.load(p, d)
	if err := l.pack(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	for _, r := range l.runs {
		for r.lane != nil && r.sent < len(r.records) {
			r.lane.fill([]*run{r}, 0)
			if err := r.lane.b.seal(s.o.Compression); err != nil {
				t.Fatal(err)
			}
			r.lane.b.sign(1, 1, 0, false)
			r.lane.settle()
		}
	}
	l.free()
}

// BenchmarkPack is the cost of an event before it is sent.
func BenchmarkPack(b *testing.B) {
	for name, c := range Compressions {
		b.Run(name, func(b *testing.B) {
			s, p := packed(b)
			s.o.Compression = c
			d := wideDelivery(10_000)
			b.ReportAllocs()
			for b.Loop() {
				pack(b, s, p, d)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10_000, "ns/event")
		})
	}
}

// An event in steady state allocates nothing.
func TestPackAllocates(t *testing.T) {
	s, p := packed(t)
	d := wideDelivery(2000)
	pack(t, s, p, d)
	if n := testing.AllocsPerRun(5, func() { pack(t, s, p, d) }); n > 40 && !raceEnabled {
		t.Errorf("%.0f allocations for 2000 events", n)
	}
}
