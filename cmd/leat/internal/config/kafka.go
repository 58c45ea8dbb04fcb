package config

import (
	"errors"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
	"github.com/leat-cdc/leat/sinks/kafka"
)

// Kafka is a Kafka cluster: a record for each event, each once, in order per key.
type Kafka struct {
	// Brokers to begin with, HOST:PORT; they name the others.
	Brokers []string `json:"brokers" need:"true" form:"broker"`
	// Topic of a table's events: a name, with {source}, {schema}, {table},
	// {subscription}. Of events of no table {schema}.{table} is leat.messages.
	Topic string `json:"topic" default:"{source}.{schema}.{table}" form:"topic"`
	// How topics that are missing are made.
	Topics KafkaTopics `json:"topics"`
	// Form of keys and values: json (CloudEvents structured); avro or protobuf, with
	// the id of a schema in the registry before them; json_schema (json, with the
	// id of a JSON Schema before it); debezium (its change event as JSON without
	// schemas).
	Encoding string `json:"encoding" default:"json" enum:"json|avro|protobuf|json_schema|debezium"`
	// Under which subject schemas are registered: topic (TOPIC-value), record (the
	// name of the record, like public.files.Envelope) or topic_record.
	Subject string `json:"subject" default:"topic" enum:"topic|record|topic_record"`
	// Compression of batches.
	Compression string `json:"compression" default:"lz4" enum:"none|gzip|snappy|lz4|zstd"`
	// Behind each delete a record without a value, for compacted topics.
	Tombstones bool `json:"tombstones" default:"true"`
	// Each transaction of the source wholly in one transaction of Kafka, in commit order
	// (order: source).
	ExactlyOnce bool `json:"exactly_once" default:"false"`
	// With exactly_once: after how long Kafka ends a transaction that is open, 10s to 1d,
	// at most the brokers' transaction.max.timeout.ms.
	TransactionTimeout Duration `json:"transaction_timeout" default:"5m" min:"10s" max:"24h"`
	// The name by which a newer producer shuts out an older one. Default:
	// leat-SUBSCRIPTION- and the first digits of the log's id.
	TransactionalID string `json:"transactional_id" form:"transactional"`
	// Who we are. Default: nobody in particular.
	SASL *KafkaSASL `json:"sasl"`
	// TLS to the brokers; {} for the system's authorities. Default: none.
	TLS *ClientTLS `json:"tls"`
	// How long a delivery may take, 1s to 10m.
	Timeout Duration `json:"timeout" default:"30s" min:"1s" max:"10m"`
}

// KafkaTopics says how missing topics are made.
type KafkaTopics struct {
	// Whether they are.
	Create bool `json:"create" default:"true"`
	// Partitions of each; 0: as many as the brokers' default.
	Partitions int `json:"partitions" default:"0" min:"0" max:"100000"`
	// Replicas of each partition; 0: as many as the brokers' default.
	Replicas int `json:"replicas" default:"0" min:"0" max:"1000"`
	// Settings of the topic by Kafka's names, like cleanup.policy: compact.
	Config map[string]string `json:"config" keys:"kafka_setting"`
}

// KafkaSASL is a user of the cluster.
type KafkaSASL struct {
	// How the password is proven.
	Mechanism string `json:"mechanism" default:"SCRAM-SHA-512" enum:"PLAIN|SCRAM-SHA-256|SCRAM-SHA-512"`
	// Name of the user.
	Username string `json:"username" need:"true"`
	// Password of the user.
	Password Secret `json:"password" need:"true"`
}

func checkBroker(s string) *yamltree.Problem {
	if strings.Contains(s, "://") {
		return yamltree.Wrong("is a URL, not HOST:PORT").Fix("like kafka-1:9092; TLS is asked for by tls: {}")
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return yamltree.Wrong("is not HOST:PORT").Fix("like kafka-1:9092")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return yamltree.Wrong("has no port from 1 to 65535").Fix("like kafka-1:9092")
	}
	return nil
}

func checkTopic(s string) *yamltree.Problem {
	_, err := kafka.ParseTemplate(s)
	var field *kafka.FieldError
	switch {
	case errors.As(err, &field):
		return yamltree.Wrong("names a field in braces that there is not").Fix("%s (like {source}.{schema}.{table})", yamltree.DidYouMean(field.Field, kafka.TopicFields))
	case err != nil:
		return yamltree.Wrong("is not a topic's name").Fix("letters, digits, ., _ and -, and fields in braces: like leat.{schema}.{table}")
	}
	return nil
}

var kafkaSetting = regexp.MustCompile(`^[a-z][a-z0-9.]*$`)

func checkKafkaSetting(s string) *yamltree.Problem {
	if !kafkaSetting.MatchString(s) {
		return yamltree.Wrong("is not a topic's setting").Fix("like cleanup.policy or retention.ms")
	}
	return nil
}

func checkTransactional(s string) *yamltree.Problem {
	if s == "" || len(s) > 249 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return yamltree.Wrong("is not a transactional id").Fix("1 to 249 characters on one line, another for each subscription")
	}
	return nil
}

// kafka holds the rules over several fields.
func (c *checker) kafka(path string, s *Subscription, k *Kafka) {
	if sub := strings.TrimSuffix(path, ".deliver.kafka"); k.ExactlyOnce && s.Order == "none" && c.ok(path+".exactly_once") && c.ok(sub+".order") {
		c.fail(sub+".order", "leave it out: whole transactions come in commit order", "%s.order: none does not go with exactly_once", sub)
	}
	if len(k.Brokers) == 0 && c.ok(path+".brokers") {
		c.fail(path+".brokers", "name at least one, as [HOST:PORT]", "%s.brokers is an empty list", path)
	}
	if t := k.TLS; t != nil && c.ok(path+".tls") && (t.Cert == "") != (t.Key == "") {
		c.fail(path+".tls", "give both cert and key, or neither", "%s.tls has one of cert and key", path)
	}
	c.subjects(path, s, k)
}

// subjects refuses a topic of several tables whose subject is the topic's: the second table's schema would not go with
// the first one's, and the subscription would wait for ever.
func (c *checker) subjects(path string, s *Subscription, k *Kafka) {
	src := c.cfg.Sources[s.Source]
	sub := strings.TrimSuffix(path, ".deliver.kafka")
	if src == nil || k.Subject != "topic" || k.Encoding == "json" || k.Encoding == "debezium" || !c.ok(path+".topic") || !c.ok(path+".subject") || !c.ok(sub+".tables") || !c.ok("sources."+s.Source+".tables") {
		return
	}
	if which := oneTopic(k.Topic, tablesOf(src.Tables, s.Tables)); which != "" {
		c.fail(path+".topic", "put {schema}.{table} into topic, or set subject: record or subject: topic_record, or name one table in tables",
			"%s.topic takes %s, and with subject: topic only the schema of one table goes under its subject", path, which)
	}
}

// tablesOf are the globs that choose a subscription's tables; names where the source has nothing but names.
func tablesOf(source, sub []string) []string {
	if len(sub) == 0 {
		return source
	}
	var names []string
	for _, t := range source {
		if strings.HasPrefix(t, "!") {
			continue
		}
		if strings.ContainsAny(t, "*?") {
			return sub
		}
		if MatchTable(sub, t) {
			names = append(names, t)
		}
	}
	if names == nil {
		return sub
	}
	return names
}

// oneTopic says which tables of the globs meet in one topic of the template; empty: it cannot be said of any.
func oneTopic(topic string, globs []string) string {
	bySchema, byTable := strings.Contains(topic, "{schema}"), strings.Contains(topic, "{table}")
	seen, positive := map[[2]string]string{}, false
	for _, g := range globs {
		if strings.HasPrefix(g, "!") {
			continue
		}
		positive = true
		var at [2]string
		schema, table, _ := strings.Cut(g, ".")
		if bySchema {
			at[0] = schema
		}
		if byTable {
			at[1] = table
		}
		if !bySchema && strings.ContainsAny(schema, "*?") || !byTable && strings.ContainsAny(table, "*?") {
			return "all tables of " + strconv.Quote(g)
		}
		if other := seen[at]; other != "" && other != g {
			return strconv.Quote(other) + " and " + strconv.Quote(g)
		}
		seen[at] = g
	}
	if !positive && !(bySchema && byTable) {
		return "all tables of the source"
	}
	return ""
}

// Defaults of batch for Kafka and its like, where a large Delivery makes large batches.
const (
	kafkaEvents = 10_000
	kafkaBytes  = 4 << 20
	// kafkaInFlight of these keep encoding, sending and the brokers busy; more only costs memory.
	kafkaInFlight = 4
)

// large reports whether they are the sink's.
func (d Deliver) large() bool {
	return d.Kafka != nil || d.Redis != nil || d.NATS != nil || d.Parquet != nil || d.Table != nil
}
