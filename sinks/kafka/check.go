package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// Check looks whether the topics of the tables can be written; it writes nothing, creates nothing and fences nobody.
// Only schema and name of the tables are looked at.
func (s *Sink) Check(ctx context.Context, tables []*schemas.Table) (found []pipeline.Finding) {
	find := func(level, code, what, cure string) {
		found = append(found, pipeline.Finding{Level: level, Code: code, What: what, Cure: cure})
	}
	if _, err := s.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{}}); err != nil {
		find("error", "unreachable", "Kafka cannot be asked: "+s.reason(ctx, err), "correct brokers, sasl and tls; until then the subscription waits and loses nothing")
		return found
	}
	resp, err := s.client.FindCoordinator(ctx, &kafka.FindCoordinatorRequest{Key: s.TransactionalID(), KeyType: kafka.CoordinatorKeyTypeTransaction})
	if err == nil && resp.Error != nil {
		err = resp.Error
	}
	if errors.Is(err, kafka.TransactionalIDAuthorizationFailed) {
		find("error", "transactional_id", fmt.Sprintf("the transactional id %s… may not be used", s.TransactionalID()), "allow the user Write and Describe on transactional ids that begin with "+s.TransactionalID())
	}
	if s.o.Whole.On {
		s.checkWhole(ctx, find)
	}
	var topics []string
	for _, t := range tables {
		name, err := s.o.Topic.name(s.o.Source, s.o.Subscription, t)
		if err != nil {
			find("error", "topic", err.Error(), "")
		} else if !slices.Contains(topics, name) {
			topics = append(topics, name)
		}
	}
	least, of := int64(0), ""
	for _, name := range topics {
		s.checkTopic(ctx, name, find)
		n, policy := s.look(ctx, name)
		if n > 0 && (least == 0 || n < least) {
			least, of = n, name
		}
		if compacts(policy) {
			find("info", "compacted", fmt.Sprintf("topic %s is compacted, so takes no null keys: truncates, changes of shape and rows of tables without a key get the JSON key {\"leat\": …} there", name),
				"let readers of keys expect it; or give the topic cleanup.policy=delete")
		}
	}
	if least > 0 && least < defaultMaxBatch {
		find("warning", "max_message_bytes", fmt.Sprintf("topic %s takes batches of %d bytes at most: the key of an event that is larger is parked", of, least), "raise its max.message.bytes, or leave out large columns")
	}
	return found
}

// checkTopic looks at one topic.
func (s *Sink) checkTopic(ctx context.Context, name string, find func(level, code, what, cure string)) {
	n, err := s.partitions(ctx, name)
	switch {
	case errors.Is(err, kafka.UnknownTopicOrPartition) && s.o.Create.Off:
		find("error", "topic_missing", fmt.Sprintf("topic %s is not there, or may not be seen", name), "create it and allow the user Describe, Read and Write on it, or let Leat create it: topics: {create: true}")
	case errors.Is(err, kafka.UnknownTopicOrPartition):
		resp, err := s.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{s.o.Create.config(name)}, ValidateOnly: true})
		if err == nil {
			err = resp.Errors[name]
		}
		switch {
		case errors.Is(err, kafka.TopicAlreadyExists):
			find("error", "topic_rights", fmt.Sprintf("topic %s may not be seen", name), "allow the user Describe, Read and Write on it")
		case err != nil:
			find("error", "topic_create", fmt.Sprintf("topic %s is not there and cannot be created: %s", name, s.reason(ctx, err)), "create it, or allow the user Create, and see deliver.kafka.topics")
		}
	case err != nil:
		find("error", "topic", s.reason(ctx, err), "")
	case n > 0:
		if err := s.probe(ctx, name); err != nil {
			find("error", "topic_rights", fmt.Sprintf("topic %s: %s", name, s.reason(ctx, err)), "allow the user Write, Read and Describe on it")
		}
	}
}

// probe asks whether the topic may be written, by a batch with a wrong checksum: who may gets to hear that, and nothing
// is written.
func (s *Sink) probe(ctx context.Context, name string) error {
	var b batch
	b.reset(0)
	body := []byte{1, 1, 0} // neither key nor value nor headers
	b.add(&record{end: uint32(len(body)), headers: 2}, body)
	if err := b.seal(None); err != nil {
		return err
	}
	b.sign(-1, -1, -1, false)
	b.out[17] ^= 0xff
	resp, err := s.client.RawProduce(ctx, &kafka.RawProduceRequest{Topic: name, RequiredAcks: kafka.RequireAll, RawRecords: protocol.RawRecordSet{Reader: framedReader(b.out)}})
	if err == nil {
		err = resp.Error
	}
	if errors.Is(err, kafka.TopicAuthorizationFailed) || errors.Is(err, kafka.ClusterAuthorizationFailed) {
		return err
	}
	return nil // whatever else it says, it would have taken ours, or says so in time
}

// reason is what a Delivery would be told.
func (s *Sink) reason(ctx context.Context, err error) string {
	return pipeline.AsDeliveryError(s.classify(ctx, err)).Reason
}
