package parts

import (
	"fmt"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/encode/records"
	"github.com/leat-cdc/leat/sinks/kafka"
)

// Kafka returns the sink of a subscription to Kafka. It connects to nothing.
//
// tables, when set, are those of which the subscription may have events.
func Kafka(name string, sub *config.Subscription, enc encode.Options, ids records.Schemas, tables func() []*schemas.Table) (*kafka.Sink, error) {
	k := sub.Deliver.Kafka
	topic, err := kafka.ParseTemplate(k.Topic)
	if err != nil {
		return nil, fmt.Errorf("topic %q: %w", k.Topic, err)
	}
	o := kafka.Options{Brokers: k.Brokers, Source: sub.Source, Subscription: name, Topic: topic, ID: k.TransactionalID,
		Compression: kafka.Compressions[k.Compression], Tombstones: k.Tombstones, Timeout: k.Timeout.D(), Tables: tables,
		Create: kafka.Create{Off: !k.Topics.Create, Partitions: defaulted(k.Topics.Partitions), Replicas: defaulted(k.Topics.Replicas), Config: k.Topics.Config}}
	if k.ExactlyOnce {
		o.Whole = kafka.Whole{On: true, Skip: sub.Exhausted == "skip", Timeout: k.TransactionTimeout.D()}
	}
	if s := k.SASL; s != nil {
		o.SASL = kafka.SASL{Mechanism: s.Mechanism, User: s.Username, Password: s.Password.Reveal()}
	}
	if o.TLS, err = clientTLS(k.TLS); err != nil {
		return nil, err
	}
	if o.Encoder, err = records.New(records.Options{Options: enc, Format: formats[k.Encoding], Schemas: ids, Subject: subjects[k.Subject]}); err != nil {
		return nil, err
	}
	return kafka.New(o)
}

// defaulted is a number of partitions or replicas as Kafka has it: -1 is its own default.
func defaulted(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

var (
	formats  = map[string]records.Format{"json": records.JSON, "avro": records.Avro, "protobuf": records.Protobuf, "json_schema": records.JSONSchema, "debezium": records.Debezium}
	subjects = map[string]records.Subject{"topic": records.SubjectTopic, "record": records.SubjectRecord, "topic_record": records.SubjectTopicRecord}
)
