package servers_test

import (
	"errors"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// A Kafka that was killed has its topics again, on the same port.
func TestKafka(t *testing.T) {
	s := servertest.ExclusiveKafka(t, servers.KafkaOptions{Heap: "256m"})
	ask := func(f func(*kafka.Conn) error) {
		t.Helper()
		conn, err := kafka.DialContext(t.Context(), "tcp", s.Listeners[servers.ListenerPlain])
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f(conn), conn.Close()); err != nil {
			t.Fatal(err)
		}
	}
	ask(func(c *kafka.Conn) error {
		return c.CreateTopics(kafka.TopicConfig{Topic: "kept", NumPartitions: 3, ReplicationFactor: 1})
	})
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask(func(c *kafka.Conn) error {
		p, err := c.ReadPartitions("kept")
		if len(p) != 3 {
			t.Errorf("after a kill the topic has %d partitions", len(p))
		}
		return err
	})
	listeners, ca, err := servers.KafkaListeners(s.URL)
	if err != nil || len(listeners) != 3 || ca != s.Certs.CA || listeners[servers.ListenerPlain] != s.Listeners[servers.ListenerPlain] {
		t.Errorf("the URL says %v, %s, %v", listeners, ca, err)
	}
}
