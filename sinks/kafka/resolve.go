package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Resolve implements pipeline.Resolver: a record in each partition of each topic of the subscription, behind all that
// lies below o. In JSON its value is a leat.resolved event, in other forms it has none: the headers say it all.
func (s *Sink) Resolve(ctx context.Context, o pipeline.Offset, t time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if s.o.Whole.On {
		giveBack, err := s.take(ctx)
		if err != nil {
			return s.classify(ctx, err)
		}
		defer giveBack()
		if s.opened.of != nil {
			return errors.New("tell what is resolved: a transaction is open")
		}
	}
	p, err := s.open(ctx)
	if err != nil {
		return s.classify(ctx, err)
	}
	if err := s.attachAll(ctx, p); err != nil {
		return s.classify(ctx, err)
	}
	l := s.load(p, &pipeline.Delivery{Events: 1})
	var value []byte
	if strings.HasPrefix(s.o.Encoder.ContentType(), "application/cloudevents") {
		value = encode.Resolved(s.o.Source, o, t)
	}
	for _, at := range *p.topics.Load() {
		for _, lane := range at.lanes {
			r := l.runOf(lane)
			r.body = appendBytes(r.body, []byte(`{"leat":"resolved"}`), at.compact.Load())
			r.body = appendBytes(r.body, value, value != nil)
			headers := len(r.body)
			r.body = s.appendResolvedHeaders(r.body, value != nil, o)
			r.records = append(r.records, record{end: uint32(len(r.body)), headers: uint32(headers), time: t.UnixMilli()})
		}
	}
	if s.o.Whole.On {
		if err := p.join(ctx, l); err != nil {
			return s.classify(ctx, err)
		}
	}
	out, err := s.send(ctx, p, l, nil)
	if err == nil && out != nil {
		err = errors.New("tell what is resolved: " + out[0].Reason)
	}
	if s.o.Whole.On && p.ctx.Err() == nil {
		if end := p.finish(ctx, err == nil); end != nil {
			return s.classify(ctx, end)
		}
	}
	return err
}

// attachAll attaches the topics of the tables that are known, where they are there.
func (s *Sink) attachAll(ctx context.Context, p *producer) error {
	if s.o.Tables == nil {
		return nil
	}
	for _, t := range s.o.Tables() {
		name, err := s.o.Topic.name(s.o.Source, s.o.Subscription, t)
		if err != nil || (*p.topics.Load())[name] != nil {
			continue // the events of a table whose topic cannot be named fail by themselves
		}
		if _, err := s.partitions(ctx, name); err == nil {
			_, err = p.topic(ctx, name)
		}
		if err != nil && !errors.Is(err, kafka.UnknownTopicOrPartition) && !errors.Is(err, kafka.TopicAuthorizationFailed) {
			return err
		}
	}
	return nil
}

func (s *Sink) appendResolvedHeaders(dst []byte, valued bool, o pipeline.Offset) []byte {
	all := [][2]string{{headerProducer, s.id}, {headerOp, "resolved"}, {headerID, encode.ResolvedID(s.o.Source, o)}, {headerResolved, strconv.FormatUint(uint64(o), 10)}}
	if valued {
		all = append(all, [2]string{"content-type", s.o.Encoder.ContentType()})
	}
	dst = binary.AppendVarint(dst, int64(len(all)))
	for _, h := range all {
		dst = appendHeader(dst, h[0], []byte(h[1]))
	}
	return dst
}
