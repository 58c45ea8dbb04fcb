package kafka

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// Settings of brokers that transactions go by.
// https://kafka.apache.org/documentation/#brokerconfigs
const (
	maxTimeout  = "transaction.max.timeout.ms"
	logReplicas = "transaction.state.log.replication.factor"
	logLeast    = "transaction.state.log.min.isr"
)

// checkWhole looks at what the brokers say of transactions; nothing where they do not tell.
func (s *Sink) checkWhole(ctx context.Context, find func(level, code, what, cure string)) {
	m, err := s.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{}})
	if err != nil || len(m.Brokers) == 0 {
		return
	}
	resp, err := s.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeBroker, ResourceName: strconv.Itoa(m.Brokers[0].ID), ConfigNames: []string{maxTimeout, logReplicas, logLeast}},
	}})
	if err != nil {
		return
	}
	set := map[string]int64{}
	for _, r := range resp.Resources {
		for _, e := range r.ConfigEntries {
			if n, err := strconv.ParseInt(e.ConfigValue, 10, 64); err == nil {
				set[e.ConfigName] = n
			}
		}
	}
	ours := s.o.Whole.Timeout
	if most := time.Duration(set[maxTimeout]) * time.Millisecond; most > 0 && ours > most {
		find("error", "transaction_timeout", fmt.Sprintf("transaction_timeout is %s, the brokers' %s allows %s", ours, maxTimeout, most), "lower the one or raise the other")
	}
	switch brokers, replicas, least := int64(len(m.Brokers)), set[logReplicas], set[logLeast]; {
	case replicas > brokers:
		find("warning", "transaction_log", fmt.Sprintf("the brokers' %s is %d and there are %d: where Kafka has no transaction log yet, none can begin", logReplicas, replicas, brokers), "set it to at most the number of brokers, on all of them")
	case replicas == 1 && brokers > 1:
		find("warning", "transaction_log", fmt.Sprintf("the brokers' %s is 1: when the one with the log of our transactions is away, nothing is delivered", logReplicas), "set it to 3, and "+logLeast+" to 2; a log that is there needs more replicas by kafka-reassign-partitions")
	case least > 1 && least >= brokers:
		find("warning", "transaction_log", fmt.Sprintf("the brokers' %s is %d of %d brokers: when one is away, nothing is delivered", logLeast, least, brokers), "set it lower than the number of brokers")
	}
}
