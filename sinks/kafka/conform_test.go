package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// written is how many records of the sink's one topic there are, by what Kafka says.
func written(t *testing.T, s *Sink, topic string) int {
	t.Helper()
	p, err := s.open(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	at, err := p.topic(testContext(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range at.lanes {
		n += int(l.sequence)
	}
	return n
}

func TestKafkaConforms(t *testing.T) {
	at := broker(t)
	pipetest.TestSink(t, func(t *testing.T) pipetest.SinkRig {
		o := options(t, at)
		s := newSink(t, o)
		r := read(t, o.ID, kgo.SeedBrokers(at))
		return pipetest.SinkRig{Sink: s, Received: func() []pipeline.Offset {
			return offsetsOf(t, r.until(written(t, s, o.ID)))
		}}
	})
}
