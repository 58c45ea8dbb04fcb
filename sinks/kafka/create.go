package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leat-cdc/leat/pipeline"
)

// Settings of topics that are looked at or set.
// https://kafka.apache.org/documentation/#topicconfigs
const (
	maxMessageBytes = "max.message.bytes"
	cleanupPolicy   = "cleanup.policy"
	compactionLag   = "min.compaction.lag.ms"
	// defaultLag, a day: what is compacted away while Leat is down is not found in the tail, and would be sent again.
	defaultLag = "86400000"
)

func compacts(policy string) bool { return strings.Contains(policy, "compact") }

// ensure returns how many partitions the topic has; where it is missing it is created, when that was asked for.
func (s *Sink) ensure(ctx context.Context, name string) (partitions int, err error) {
	partitions, err = s.partitions(ctx, name)
	if !errors.Is(err, kafka.UnknownTopicOrPartition) {
		return partitions, err
	}
	c := s.o.Create
	if c.Off {
		return 0, fmt.Errorf("topic %s is not there (%w): create it, or let Leat do so by deliver.kafka.create", name, kafka.UnknownTopicOrPartition)
	}
	resp, err := s.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{c.config(name)}})
	if err == nil {
		err = resp.Errors[name]
	}
	if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		return 0, fmt.Errorf("create topic %s with %s partitions: %w", name, number(c.Partitions), err)
	}
	err = s.patiently(ctx, func() (err error) {
		partitions, err = s.partitions(ctx, name)
		return err
	})
	return partitions, err
}

func (c Create) config(name string) kafka.TopicConfig {
	config := kafka.TopicConfig{Topic: name, NumPartitions: c.Partitions, ReplicationFactor: c.Replicas}
	all := maps.Clone(c.Config)
	if compacts(all[cleanupPolicy]) && all[compactionLag] == "" {
		all[compactionLag] = defaultLag
	}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: k, ConfigValue: all[k]})
	}
	return config
}

func number(n int) string {
	if n < 0 {
		return "the brokers' number of"
	}
	return strconv.Itoa(n)
}

// look asks for the topic's settings; what is not told stays 0 and "".
func (s *Sink) look(ctx context.Context, name string) (most int64, policy string) {
	resp, err := s.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: name, ConfigNames: []string{maxMessageBytes, cleanupPolicy}},
	}})
	if err != nil {
		return 0, ""
	}
	for _, r := range resp.Resources {
		for _, e := range r.ConfigEntries {
			switch e.ConfigName {
			case maxMessageBytes:
				if n, err := strconv.ParseInt(e.ConfigValue, 10, 64); err == nil {
					most = n
				}
			case cleanupPolicy:
				policy = e.ConfigValue
			}
		}
	}
	return most, policy
}

// settings notes how large a batch may be, and whether the topic takes null keys.
func (t *topic) settings(ctx context.Context, s *Sink) {
	t.asked.Store(time.Now().UnixNano())
	most, policy := s.look(ctx, t.name)
	if policy == "" {
		policy = s.o.Create.Config[cleanupPolicy]
	}
	t.maxBatch.Store(most)
	t.compact.Store(compacts(policy))
}

// renew asks for the settings once more, unless that was just done: somebody may have raised the limit.
func (t *topic) renew(p *producer) bool {
	if time.Since(time.Unix(0, t.asked.Load())) < time.Second {
		return false
	}
	ctx, cancel := context.WithTimeout(p.ctx, requestTime)
	defer cancel()
	t.settings(ctx, p.s)
	return true
}

// substitute appends the key that an event without one has in a compacted topic, which takes no null keys: of truncates
// and changes of shape the last of a table stays, of all else each.
func (s *Sink) substitute(dst []byte, subject string, op pipeline.Op, offset uint64) []byte {
	dst = append(dst, `{"leat":`...)
	if op == pipeline.OpTruncate || op == pipeline.OpSchema {
		dst = strconv.AppendQuote(dst, op.String()+" "+subject)
	} else {
		dst = strconv.AppendQuote(dst, s.o.Source+"-"+strconv.FormatUint(offset, 10))
	}
	return append(dst, '}')
}
