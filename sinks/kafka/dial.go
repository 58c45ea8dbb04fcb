package kafka

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// SASL says who we are; the zero value: nobody.
type SASL struct {
	// Mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	Mechanism, User, Password string
}

// Mechanisms of SASL.
var Mechanisms = []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch s.Mechanism {
	case "":
		return nil, nil
	case "PLAIN":
		return plain.Mechanism{Username: s.User, Password: s.Password}, nil
	case "SCRAM-SHA-256":
		return scram.Mechanism(scram.SHA256, s.User, s.Password)
	case "SCRAM-SHA-512":
		return scram.Mechanism(scram.SHA512, s.User, s.Password)
	}
	return nil, fmt.Errorf("kafka: sasl mechanism %s is not known: %s", s.Mechanism, strings.Join(Mechanisms, ", "))
}

// dial makes the client; it connects when the first request is made.
func (s *Sink) dial() error {
	mechanism, err := s.o.SASL.mechanism()
	if err != nil {
		return err
	}
	dial := s.o.dialer
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	}
	t := &kafka.Transport{Dial: dial, DialTimeout: 15 * time.Second, MetadataTTL: 5 * time.Second, ClientID: "leat", TLS: s.o.TLS, SASL: mechanism, Context: s.ctx}
	s.client = &kafka.Client{Addr: kafka.TCP(s.o.Brokers...), Transport: t, Timeout: requestTime}
	s.close = t.CloseIdleConnections
	s.idHead = append(binary.AppendVarint(nil, int64(len(headerID))), headerID...)
	return nil
}

// partitions asks how many partitions a topic has.
func (s *Sink) partitions(ctx context.Context, name string) (int, error) {
	resp, err := s.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{name}})
	if err != nil {
		return 0, fmt.Errorf("ask for topic %s: %w", name, err)
	}
	for _, t := range resp.Topics {
		if t.Name == name {
			if t.Error != nil {
				return 0, fmt.Errorf("topic %s: %w", name, t.Error)
			}
			if len(t.Partitions) > 0 {
				return len(t.Partitions), nil
			}
		}
	}
	return 0, fmt.Errorf("topic %s: %w", name, kafka.UnknownTopicOrPartition)
}
