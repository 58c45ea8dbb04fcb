package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// sinkWanted is how many events a second are to go from a filled log into Kafka, by encoding.
var sinkWanted = map[string]string{"json": "   wanted: 400,000", "avro": "   wanted: 600,000"}

// sink fills a log, then produces it in each encoding; and what the broker takes at most of the same records, when
// making them costs nothing.
func (b *bench) sink(ctx context.Context) error {
	total := b.o.rows * b.o.runs
	s, err := b.launch(ctx, "log", "", "", "")
	if err != nil {
		return err
	}
	err = s.WaitFor(ctx, "the log to fill", func(st *leatv1.StatusResponse) bool {
		return len(st.Sources) == 1 && st.Sources[0].Next-st.Sources[0].Oldest >= uint64(total)
	})
	if _, stopErr := s.Stop(); err != nil || stopErr != nil {
		return errors.Join(err, stopErr)
	}
	if err := b.s.Shutdown(ctx); err != nil { // the cores are the broker's and Leat's
		return err
	}
	for i := range b.o.sinkRuns {
		for _, encoding := range b.o.encodings {
			topic := fmt.Sprintf("log-%s-%s-%d", b.name, encoding, i)
			profile := b.o.profile
			if profile != "" {
				profile += "." + encoding
			}
			m, err := b.fromLog(ctx, topic, encoding, profile, total)
			if err != nil {
				return fmt.Errorf("%s: %w", encoding, err)
			}
			b.line("log → "+encoding, m, sinkWanted[encoding])
			if m, err = b.limit(ctx, topic, total); err != nil {
				return fmt.Errorf("%s: the broker's limit: %w", encoding, err)
			}
			b.line("  ready-made", m, "")
		}
	}
	return nil
}

func (b *bench) fromLog(ctx context.Context, topic, encoding, profile string, total int) (measured, error) {
	var s *process.Server
	return b.timed(ctx, topic, total, func() (stop func() error, cpu func() time.Duration, err error) {
		if s, err = b.launch(ctx, "log", topic, encoding, profile); err != nil {
			return nil, nil, err
		}
		return func() error { return second(s.Stop()) }, s.CPU, nil
	})
}

// limit produces a batch of the topic's own records again and again, one batch in flight per partition.
func (b *bench) limit(ctx context.Context, from string, total int) (measured, error) {
	set, n, err := readyMade(ctx, b.client, from, b.o.compression)
	if err != nil {
		return measured{}, err
	}
	topic := from + "-limit"
	if _, err := b.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: b.o.partitions, ReplicationFactor: 1}}}); err != nil {
		return measured{}, err
	}
	var sent atomic.Int64
	return b.timed(ctx, topic, total, func() (func() error, func() time.Duration, error) {
		var wg sync.WaitGroup
		var failed error
		var once sync.Once
		for p := range b.o.partitions {
			wg.Go(func() {
				for sent.Add(int64(n)) < int64(total+n) {
					resp, err := b.client.RawProduce(ctx, &kafka.RawProduceRequest{Topic: topic, Partition: p, RequiredAcks: kafka.RequireAll,
						RawRecords: protocol.RawRecordSet{Reader: bytes.NewReader(set)}})
					if err == nil {
						err = resp.Error
					}
					if err != nil {
						once.Do(func() { failed = err })
						return
					}
				}
			})
		}
		return func() error { wg.Wait(); return failed }, nil, nil
	})
}

// readyMade is a record set with one batch of about a MiB from the start of a topic, and how many records it has.
func readyMade(ctx context.Context, client *kafka.Client, topic, compression string) (set []byte, n int, err error) {
	resp, err := client.Fetch(ctx, &kafka.FetchRequest{Topic: topic, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
	if err == nil {
		err = resp.Error
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", topic, err)
	}
	var records []protocol.Record
	for size := 0; size < 1_000_000; {
		r, err := resp.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", topic, err)
		}
		key, err1 := protocol.ReadAll(r.Key)
		value, err2 := protocol.ReadAll(r.Value)
		if err := errors.Join(err1, err2); err != nil {
			return nil, 0, err
		}
		size += len(key) + len(value) + 20
		for _, h := range r.Headers {
			size += len(h.Key) + len(h.Value) + 2
		}
		records = append(records, protocol.Record{Time: r.Time, Key: protocol.NewBytes(key), Value: protocol.NewBytes(value), Headers: r.Headers})
	}
	out := protocol.RecordSet{Version: 2, Attributes: codecs[compression], Records: protocol.NewRecordReader(records...)}
	var buf bytes.Buffer
	if _, err := out.WriteTo(&buf); err != nil {
		return nil, 0, fmt.Errorf("make a batch: %w", err)
	}
	return buf.Bytes(), len(records), nil
}

var codecs = map[string]protocol.Attributes{"none": 0, "gzip": protocol.Gzip, "snappy": protocol.Snappy, "lz4": protocol.Lz4, "zstd": protocol.Zstd}

// stored is how many bytes a topic's segments have.
func (b *bench) stored(topic string) (n int64) {
	files, _ := filepath.Glob(filepath.Join(b.broker.DataDir, topic+"-[0-9]*", "*.log")) // the pattern is right
	for _, f := range files {
		n += size(f)
	}
	return n
}
