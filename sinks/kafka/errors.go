package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leat-cdc/leat/pipeline"
)

var errEOF = io.EOF

// refusal says that Kafka will never take a record.
type refusal struct {
	topic       string
	size, limit int // of a batch that is too large
	err         error
}

// Error names the topic, and the cure.
func (r *refusal) Error() string {
	if r.size > 0 {
		return fmt.Sprintf("record_too_large: the record makes a batch of %d bytes, topic %s takes %d at most: raise its max.message.bytes (or message.max.bytes of the brokers), compress, or leave out a column; then redrive",
			r.size, r.topic, r.limit)
	}
	return fmt.Sprintf("record_refused: topic %s does not take the record: %v", r.topic, r.err)
}

func tooLarge(t *topic, size int) *refusal {
	return &refusal{topic: t.name, size: size, limit: min(t.limit(), size-1)}
}

// transient says whether the same request may succeed when it is made again, by the same producer.
func transient(err error) bool {
	var code kafka.Error
	if errors.As(err, &code) {
		switch code {
		case kafka.UnknownTopicOrPartition, kafka.LeaderNotAvailable, kafka.NotLeaderForPartition, kafka.RequestTimedOut, kafka.BrokerNotAvailable,
			kafka.ReplicaNotAvailable, kafka.NetworkException, kafka.NotEnoughReplicas, kafka.NotEnoughReplicasAfterAppend, kafka.KafkaStorageError,
			kafka.FencedLeaderEpoch, kafka.UnknownLeaderEpoch, kafka.InvalidMessage, kafka.ThrottlingQuotaExceeded, kafka.GroupLoadInProgress,
			kafka.GroupCoordinatorNotAvailable, kafka.NotCoordinatorForGroup, kafka.ConcurrentTransactions, kafka.NotController:
			return true
		}
		return false
	}
	return true // the connection, or what the client knows of the cluster
}

// FencedError says that another process uses the same transactional id.
type FencedError struct{ ID string }

// Error has the cure.
func (e *FencedError) Error() string {
	return fmt.Sprintf("another process has taken over the transactional id %s: stop one of the two, or give one another transactional_id; then leat resume", e.ID)
}

// classify makes a DeliveryError of what keeps a Delivery from Kafka.
func (s *Sink) classify(ctx context.Context, err error) error {
	var whole *pipeline.DeliveryError
	var fenced *FencedError
	var code kafka.Error
	var dial *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &whole):
		return whole
	case errors.As(err, &fenced):
		return &pipeline.DeliveryError{Class: pipeline.Gone, Reason: fenced.Error()}
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("kafka: %w", ctx.Err())
	case errors.As(err, &code):
		return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: s.words(code, err)}
	case errors.As(err, &dial) && dial.Op == "dial", errors.As(err, &dns):
		return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "no broker can be reached: " + s.mask(err)}
	case errors.Is(err, context.DeadlineExceeded):
		reason := fmt.Sprintf("Kafka did not take it within %s", s.o.Timeout.Round(time.Millisecond))
		if last := s.lastTrouble(); last != "" {
			reason += ": " + last
		}
		return &pipeline.DeliveryError{Class: pipeline.Unavailable, TimedOut: true, Reason: reason}
	}
	return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: s.mask(err)}
}

// words says what a code of Kafka's means here, and the cure.
func (s *Sink) words(code kafka.Error, err error) string {
	switch code {
	case kafka.SASLAuthenticationFailed, kafka.UnsupportedSASLMechanism, kafka.IllegalSASLState:
		return "Kafka refuses the credentials (" + code.Title() + "): renew username and password in deliver.kafka.sasl, and see that the brokers offer that mechanism"
	case kafka.TopicAuthorizationFailed:
		return "not allowed: " + s.mask(err) + "; allow the user Write, Read and Describe on the topics, and Create if Leat is to create them"
	case kafka.TransactionalIDAuthorizationFailed:
		return fmt.Sprintf("not allowed to use the transactional id %s: allow the user Write and Describe on it", s.TransactionalID())
	case kafka.ClusterAuthorizationFailed:
		return "not allowed: " + s.mask(err) + "; allow the user IdempotentWrite on the cluster"
	case kafka.InvalidTransactionTimeout:
		return fmt.Sprintf("the brokers do not allow a transaction_timeout of %s: lower it, or raise their %s", s.o.Whole.Timeout, maxTimeout)
	case kafka.InvalidReplicationFactor:
		return s.mask(err) + ": set deliver.kafka.create.replicas to at most the number of brokers"
	}
	return s.mask(err)
}

var clientCall = regexp.MustCompile(`kafka\.\(\*Client\)\.\w+: `)

// mask is an error's text without what kafka-go puts before it, and short.
func (s *Sink) mask(err error) string {
	text := clientCall.ReplaceAllString(err.Error(), "")
	if p := s.o.SASL.Password; len(p) > 0 {
		text = strings.ReplaceAll(text, p, "***")
	}
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	return text
}
